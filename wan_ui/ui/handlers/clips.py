"""The clips that were made: one is put on the stage, watched, deleted."""

import gradio as gr

from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import history
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
        view.selected = job_id
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


def _follow_only(view: View, job_id: str) -> None:
    view.follow[:] = [job for job in view.follow if job == job_id]


@guard
def remove(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    job_id = text_of_event(event, "job")
    PIPELINE.delete(job_id, owner)
    newest = (job.id for job in PIPELINE.history(owner, history.LIMIT) if PIPELINE.clip(job) is not None)
    view.selected = next(newest, "")
    view.last = "" if view.last == job_id else view.last
    view.bring("result")
    return observe(browser, view)
