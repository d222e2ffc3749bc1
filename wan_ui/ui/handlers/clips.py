"""The clips that were made: one is put on the stage, watched, deleted."""

import time

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.library import UNDO
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import archive, form, history
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.session import identify
from wan_ui.ui.values import number_of_event, of_event, text_of_event, texts_of_event
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
    batch = PIPELINE.batch(text_of_event(event, "job"), owner)
    _remove(view, [job.id for job in batch if not job.star], owner)
    _show_another(view, owner)
    return observe(browser, view)


@guard
def remove_many(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Those that are chosen in the history."""
    _, owner = identify(browser, PIPELINE.settings)
    _remove(view, texts_of_event(event, "jobs"), owner)
    _show_another(view, owner)
    return observe(browser, view)


@guard
def undo(browser: dict, view: View, event: gr.EventData) -> Answer:
    """The last deletion, while that can be taken back."""
    _, owner = identify(browser, PIPELINE.settings)
    PIPELINE.take_back(view.removed, owner)
    view.removed = []
    return observe(browser, view)


@guard
def star_many(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    for job_id in texts_of_event(event, "jobs"):
        PIPELINE.star(job_id, owner)
    return observe(browser, view)


@guard
def search(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Words of the prompt, the model or a LoRA; all clips, or those with a star."""
    view.words, view.starred = text_of_event(event, "words")[:200], of_event(event, "starred") is True
    view.page = 0
    return observe(browser, view)


@guard
def turn_page(browser: dict, view: View, event: gr.EventData) -> Answer:
    view.page = int(max(0.0, min(number_of_event(event, "page"), 1e6)))
    view.bring("history")
    return observe(browser, view)


@guard
def pack(browser: dict, view: View, event: gr.EventData) -> Answer:
    """The chosen clips in one file."""
    _, owner = identify(browser, PIPELINE.settings)
    jobs = [job for job in (PIPELINE.job(name, owner) for name in texts_of_event(event, "jobs")) if job]
    try:
        link = archive.link_html(jobs)
    except UserError as error:
        return {"archive": complaint(error), **observe(browser, view)}
    return {"archive": link, **observe(browser, view)}


def _remove(view: View, ids: list[str], owner: str) -> None:
    gone = PIPELINE.remove(ids, owner)
    if gone:
        view.removed, view.undo_until = gone, time.monotonic() + UNDO


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
    _remove(view, [job_id], owner)
    _show_another(view, owner)
    view.bring("result")
    return observe(browser, view)
