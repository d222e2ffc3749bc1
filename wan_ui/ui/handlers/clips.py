"""The clips that were made: one is put on the stage, watched, deleted."""

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, history
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import guard
from wan_ui.ui.session import identify
from wan_ui.ui.values import text_of_event
from wan_ui.ui.view import View


@guard
def select(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A tile, or "Show it" in the card."""
    _, owner = identify(browser, PIPELINE.settings)
    job_id = text_of_event(event, "job")
    if PIPELINE.job(job_id, owner):
        view.selected, view.batch = job_id, ""
        _follow_only(view, job_id)
        if view.complaint and view.complaint.place == "result_message":  # it was about the clip before
            view.complaint = None
        view.bring("result")
    return observe(browser, view)


@guard
def hold(browser: dict, view: View, event: gr.EventData) -> Answer:
    """The clip on the stage is being watched: no other takes its place."""
    if text_of_event(event, "job") == view.selected:
        _follow_only(view, view.selected)
    return observe(browser, view)


@guard
def side_by_side(browser: dict, view: View, event: gr.EventData) -> Answer:
    """All that one press has asked for, instead of the one that is shown."""
    _, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is not None:
        view.batch = job.request.batch
        view.bring("result")
    return observe(browser, view)


@guard
def star(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """Keep, and no longer."""
    _, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is not None:
        try:
            PIPELINE.star(job.id, owner, not job.star)
        except UserError as error:
            form.complain(view, "result_message", error, turn)
    return observe(browser, view)


@guard
def stop_batch(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    for job in reversed(PIPELINE.batch(text_of_event(event, "job"), owner)):  # the last first: none begins meanwhile
        PIPELINE.cancel(job.id, owner)
    return observe(browser, view)


@guard
def remove_rest(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Those of one press that have ended and are not kept."""
    _, owner = identify(browser, PIPELINE.settings)
    for job in PIPELINE.batch(text_of_event(event, "job"), owner):
        if not job.star:
            PIPELINE.delete(job.id, owner)
    _show_another(view, owner)
    return observe(browser, view)


def _show_another(view: View, owner: str) -> None:
    """Where the clip on the stage is gone: the newest."""
    if PIPELINE.job(view.selected, owner) is None:
        newest = (job.id for job in PIPELINE.history(owner, history.LIMIT) if PIPELINE.clip(job) is not None)
        view.selected = next(newest, "")
    if PIPELINE.job(view.last, owner) is None:
        view.last = ""


def _follow_only(view: View, job_id: str) -> None:
    view.follow[:] = [job for job in view.follow if job == job_id]


@guard
def remove(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    job_id = text_of_event(event, "job")
    PIPELINE.delete(job_id, owner)
    _show_another(view, owner)
    view.bring("result")
    return observe(browser, view)
