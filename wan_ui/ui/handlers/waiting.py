"""A person's own waiting clips: moved, paused, doubled, cancelled, and brought back into the form to be changed."""

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, history
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.handlers.restore import of_job
from wan_ui.ui.refusals import guard
from wan_ui.ui.session import asker, identify
from wan_ui.ui.values import number_of_event, of_event, text_of_event
from wan_ui.ui.view import View


@guard
def move(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    PIPELINE.move(text_of_event(event, "job"), owner, int(max(0.0, min(number_of_event(event, "to"), 1e6))))
    return observe(browser, view)


@guard
def pause(browser: dict, view: View, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    PIPELINE.pause(owner, of_event(event, "on") is True)
    return observe(browser, view)


@guard
def stop_all(browser: dict, view: View, event: gr.EventData) -> Answer:
    """All of this person's: those that wait, the last one first so that none begins meanwhile, then those that run."""
    _, owner = identify(browser, PIPELINE.settings)
    running = [job for job in PIPELINE.history(owner, history.LIMIT) if job.state == "running"]
    for job in [*reversed(PIPELINE.waiting(owner)), *running]:
        PIPELINE.cancel(job.id, owner)
    return observe(browser, view)


@guard
def double(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    try:
        PIPELINE.duplicate(text_of_event(event, "job"), owner, asker(PIPELINE.settings))
    except UserError as error:
        form.complain(view, "message", error, turn)
    return observe(browser, view)


@guard
def edit(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """Into the form; Generate then changes it where it stands."""
    _, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is None or job.state != "queued":
        return observe(browser, view)
    try:
        filled = of_job(view, job)
    except UserError as error:
        form.complain(view, "message", error, turn)
        return observe(browser, view)
    view.editing = job.id
    view.bring("form")
    return {**filled, **observe(browser, view)}


@guard
def leave(browser: dict, view: View, event: gr.EventData) -> Answer:
    view.editing = ""
    return observe(browser, view)
