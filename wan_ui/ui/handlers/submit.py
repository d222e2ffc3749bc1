"""Generate, "Add speech", an example, Cancel."""

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.intake import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import examples, form, lora_picker
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import fill, fill_fields
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import identify
from wan_ui.ui.values import as_text, of_event, text_of_event
from wan_ui.ui.view import View


@guard
def submit(
    browser: dict, view: View, model, scheme, picture, prompt, size, frames, steps, fps, seed, voice, turn
) -> Answer:
    """The Generate button."""
    browser, owner = identify(browser, PIPELINE.settings)
    held = form.read(picture, prompt, size, frames, steps, fps, seed, voice)
    try:
        draft = Draft(
            {"image": uploaded(picture), "prompt": as_text(prompt, "prompt"), "audio": uploaded(voice, "audio")},
            model=as_text(model, "model"),
            scheme=as_text(scheme, "scheme"),
            size=as_text(size, "size", "auto"),
            frames=None if frames in (None, "") else frames,
            steps=None if steps in (None, "") else steps,
            fps=None if fps in (None, "") else fps,
            seed=-1 if seed in (None, "") else seed,
            loras=lora_picker.specs(view.loras),
        )
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        form.complain(view, "message", error, turn, held)
        notes = {"image": "picture_note", "audio": "voice_note"}  # beside which it is said as well
        beside = {notes[error.field]: complaint(error)} if error.field in notes else {}
        return {**beside, **observe(browser, view)}
    return observe(browser, view)


@guard
def add_speech(browser: dict, view: View, voice, turn, event: gr.EventData) -> Answer:
    """ "Add speech" beside a finished clip."""
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        draft = Draft({"audio": uploaded(voice, "audio")}, task="lip-sync", job=text_of_event(event, "job"))
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        form.complain(view, "result_message", error, turn, {"voice": voice})
        beside = {"voice_note": complaint(error)} if error.field == "audio" else {}
        return {**beside, **observe(browser, view)}
    return observe(browser, view)


@guard
def run_example(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """With the form's model, weights and LoRAs, as the line above the examples says; everything else is the
    example's or the model's own, and the form shows it."""
    offered, number = examples.load_examples(), of_event(event, "example")
    if type(number) is not int or not 0 <= number < len(offered):
        raise UserError(f"example: there are {len(offered)} examples, counted from 0", field="example")
    example = offered[number]
    browser, owner = identify(browser, PIPELINE.settings)
    voice = str(example.audio) if example.audio else None
    try:
        draft = Draft(
            {"image": str(example.image), "prompt": example.prompt, "audio": voice or ""},
            model=view.model,
            scheme=view.scheme,
            loras=lora_picker.specs(view.loras),
        )
        _follow(view, PIPELINE.submit(draft, owner))
    except UserError as error:
        form.complain(view, "examples_message", error, turn)
        return observe(browser, view)
    filled = fill(view, view.model, view.scheme, prompt=example.prompt)
    filled |= fill_fields(view, seed=-1, picture=str(example.image), voice=voice)
    return {**filled, **observe(browser, view)}


@guard
def cancel(browser: dict, view: View) -> Answer:
    """The Cancel button: the job in the card."""
    browser, owner = identify(browser, PIPELINE.settings)
    if view.active:
        PIPELINE.cancel(view.active[0], owner)
        view.bring("card")
    return observe(browser, view)


@guard
def stop(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Cancel the job that is shown."""
    browser, owner = identify(browser, PIPELINE.settings)
    PIPELINE.cancel(text_of_event(event, "job"), owner)
    return observe(browser, view)


def _follow(view: View, job_id: str) -> None:
    view.active.append(job_id)
    view.follow.append(job_id)
    view.last, view.complaint = "", None
    view.bring("result")
