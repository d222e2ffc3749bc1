"""Generate, "Add speech", an example, Run again, Cancel."""

import contextlib
from dataclasses import replace
from typing import Any

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.crop import FIELDS as CROPS
from wan_ui.crop import MIDDLE
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.queue import memory_fit
from wan_ui.queue.again import draft_of
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.speaking import PART
from wan_ui.tasks import FORM, PICTURE, offered
from wan_ui.ui import examples, form, lora_picker, recipe_part, several
from wan_ui.ui import picture as pictures
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import fill, fill_fields
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.handlers.restore import of_job
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import asker, identify
from wan_ui.ui.values import as_text, of_event, text_of_event
from wan_ui.ui.view import View
from wan_ui.ui.voice import for_clip, for_picture, of_form, speaking_of


@guard
def submit(browser: dict, view: View, model, scheme, *sent) -> Answer:
    """The Generate button."""
    browser, owner = identify(browser, PIPELINE.settings)
    *fields, turn = sent
    held = dict(zip(form.FIELDS, fields, strict=True))
    try:
        draft = _draft(view, model, scheme, held)
        if view.editing:
            editing, view.editing = view.editing, ""  # where it has begun meanwhile, the next press makes a new one
            changed = PIPELINE.change(editing, draft, owner)
            view.follow = [changed if job == editing else job for job in view.follow]
            view.selected = changed if view.selected == editing else view.selected
            view.complaint = None
            view.bring("queue")
            return observe(browser, view)
        taken = _takes_pictures(view.tray, draft)
        clips = 1 if held["clips"] in (None, "") else held["clips"]
        drafts = several.drafts(draft, taken)
        if taken:  # each begins on its own face
            model_used = form.model_of(view, found.models(PIPELINE.settings))
            drafts = [replace(each, **_crops(View(), each.inputs, each.size, model_used)) for each in drafts]
        _follow(view, *PIPELINE.submit_all(drafts, owner, clips, asker(PIPELINE.settings)))
        view.batch = _batch_of(view, owner)
    except UserError as error:
        form.complain(view, "message", error, turn, form.read(held))
        return {**_beside(error), **observe(browser, view)}
    return observe(browser, view)


@guard
def prepare(browser: dict, view: View, model, scheme, *sent) -> Answer:
    """The prompt rests, or there is another picture: what is there is encoded before Generate is pressed."""
    held = dict(zip(form.FIELDS, sent, strict=True))
    with contextlib.suppress(UserError):  # said when it is sent
        PIPELINE.prepare(_draft(view, model, scheme, held), identify(browser, PIPELINE.settings)[1])
    return {}


def _draft(view: View, model, scheme, held: dict[str, Any]) -> Draft:
    """What the form holds. Raises UserError."""
    numbers = {name: held[name] for name in ("frames", "steps", "fps", "seed") if held[name] not in (None, "")}
    model, scheme = as_text(model, "model"), as_text(scheme, "scheme")
    entry = found.models(PIPELINE.settings).get(model)
    given, size = _inputs(held, entry), as_text(held["size"], "size", "auto")
    told = of_form(held) if held["voice"] else {}
    if told and entry:
        picture = given.get(PICTURE.name, "")
        crop = pictures.of_form(view.crops, {"picture": picture}, size, entry)["picture"].crop if picture else MIDDLE
        told = for_picture(told, picture, size, entry, crop)
    return Draft(
        given,
        model=model,
        scheme=scheme,
        size=size,
        **(_crops(view, given, size, entry) if entry else {}),
        draft=held["draft"],
        without_picture=held["keep_picture"] is False,
        speaking=told,
        overlap=held["overlap"] if entry and entry.overlaps else None,
        offload=as_text(held["offload"], "offload"),
        **numbers,
        **(_recipe(held, entry, scheme) if entry else {}),
        loras=lora_picker.specs(view.loras),
    )


def _inputs(held: dict[str, Any], model: Model | None) -> dict[str, str]:
    """What the form holds of the inputs that it shows, by their names."""
    entries = offered(model.does) if model else FORM
    return {
        entry.name: uploaded(held[entry.part], entry.name) if entry.file else as_text(held[entry.part], entry.name)
        for entry in entries
    }


def _crops(view: View, given: dict[str, str], size: str, model: Model) -> dict[str, Any]:
    """As the page shows them, or will."""
    paths = {form.NAMES[name]: given[name] for name in CROPS if given.get(name)}
    crops = pictures.of_form(view.crops, paths, size, model)
    return {field: crops[form.NAMES[name]].crop.numbers() for name, field in CROPS.items() if given.get(name)}


def _recipe(held: dict[str, Any], model: Model, scheme: str) -> dict[str, Any]:
    """What the form holds of motion, guidance and so on, as far as it shows them for these weights."""
    weights = model.scheme(scheme)
    motions, motion = model.motions(weights), as_text(held["motion"], "motion")
    motion = motion if motion in motions else motions[0]
    return recipe_part.to_send(held, motion, model.recipe(weights, motion))


def _beside(error: UserError) -> Answer:
    """What is wrong with a file is said beside it as well."""
    parts = [entry.part for entry in FORM if entry.file and entry.name == error.field]
    return {f"{part}_note": complaint(error) for part in parts}


@guard
def add_speech(browser: dict, view: View, event: gr.EventData, voice, *sent) -> Answer:
    """ "Add speech" beside a finished clip, with the voice of the form; where that has none the page asks for one, see
    `speak` in page.js."""
    *told, turn = sent
    if not voice:
        return observe(browser, view)
    try:
        _speak(browser, view, text_of_event(event, "job"), uploaded(voice, "audio"), speaking_of(told))
    except UserError as error:
        form.complain(view, "result_message", error, turn, {"voice": voice})
        return {**_beside(error), **observe(browser, view)}
    return observe(browser, view)


@guard
def add_speech_with(browser: dict, view: View, file, job, *sent) -> Answer:
    """A sound was chosen for a clip, since the form had none. One that is refused goes into the form, where a part of
    it can be chosen."""
    *told, turn = sent
    path = ""
    try:
        path = uploaded(file, "audio")
        whole = {**speaking_of(told), **dict.fromkeys(PART)}  # the form's part is of another sound
        _speak(browser, view, as_text(job, "job"), path, whole)
    except UserError as error:
        model = form.model_of(view, found.models(PIPELINE.settings))
        takes = path and any(entry.part == "voice" for entry in offered(model.does))
        filled = fill_fields(view, voice=path) if takes else {}
        form.complain(view, "result_message", error, turn, {"voice": view.form.get("voice")})
        return {**filled, **_beside(error), **observe(browser, view)}
    return observe(browser, view)


def _speak(browser: dict, view: View, job: str, voice: str, told: dict[str, Any]) -> None:
    """Raises UserError."""
    _, owner = identify(browser, PIPELINE.settings)
    shown = PIPELINE.job(job, owner)
    spoken = for_clip(told, PIPELINE.silent_clip(shown) if shown else None) if voice else {}
    draft = Draft({"audio": voice}, task="lip-sync", job=job, speaking=spoken)
    _follow(view, PIPELINE.submit(draft, owner, asker(PIPELINE.settings)), stage=False)


@guard
def run_fitting(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """Beside a clip that did not fit into memory: it is made again with the size and length that fit, and the form has
    them too."""
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is None or not job.result.fits:
        return observe(browser, view)
    fit = memory_fit.Fit(**job.result.fits)
    size = {"size": f"{fit.width}x{fit.height}"} | ({"frames": fit.frames} if fit.frames != job.request.frames else {})
    weights = {"offload": fit.offload} if fit.offload else {}
    try:
        draft = draft_of(job, PIPELINE.input_files(job), **size, **weights)
        filled = of_job(view, job, width=fit.width, height=fit.height, frames=fit.frames, **weights)
        _follow(view, PIPELINE.submit(draft, owner, asker(PIPELINE.settings)))
    except UserError as error:
        form.complain(view, "message", error, turn)
        return observe(browser, view)
    return {**filled, **observe(browser, view)}


@guard
def run_example(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """With the form's model, weights and LoRAs, as the line above the examples says; everything else is the
    example's or the model's own, and the form shows it. Where the model needs more than an example has, the form is
    filled in and says what."""
    shown, number = examples.load_examples(), of_event(event, "example")
    if type(number) is not int or not 0 <= number < len(shown):
        raise UserError(f"example: there are {len(shown)} examples, counted from 0", field="example")
    example = shown[number]
    browser, owner = identify(browser, PIPELINE.settings)
    model = form.model_of(view, found.models(PIPELINE.settings))
    if needed := examples.lacking(model, example.inputs):
        entries = [entry for entry in FORM if entry.file and entry.name in example.inputs]
        own = {entry.part: str(example.inputs[entry.name]) for entry in entries}
        form.fill(view, prompt=example.words)
        filled = {"prompt": example.words, **fill_fields(view, seed=None, segments=None, **own)}
        view.bring("form")
        if not view.form.get(needed.part):
            error = UserError(f"{needed.name}: {needed.missing}", field=needed.name)
            form.complain(view, "message", error, turn, view.form)
        return {**filled, **observe(browser, view)}
    taken = {entry.name for entry in offered(model.does)}  # of words alone the picture is not
    try:
        draft = Draft(
            {name: str(value) for name, value in example.inputs.items() if name in taken},
            model=view.model,
            scheme=view.scheme,
            loras=lora_picker.specs(view.loras),
        )
        draft = replace(draft, **_crops(View(), draft.inputs, draft.size, model))
        _follow(view, PIPELINE.submit(draft, owner, asker(PIPELINE.settings)))
    except UserError as error:
        form.complain(view, "examples_message", error, turn)
        return observe(browser, view)
    filled = fill(view, view.model, view.scheme, prompt=example.words)
    files = {entry.part: example.inputs.get(entry.name) for entry in FORM if entry.file}
    filled |= fill_fields(
        view, seed=-1, segments="", **{part: str(file) if file else None for part, file in files.items()}
    )
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
def again(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """The card's "Run again" beside a clip that failed, was cancelled or interrupted."""
    browser, owner = identify(browser, PIPELINE.settings)
    try:
        _follow(view, PIPELINE.again(text_of_event(event, "job"), owner, asker(PIPELINE.settings)))
    except UserError as error:
        form.complain(view, "message", error, turn)
    return observe(browser, view)


@guard
def stop(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Cancel the job that is shown."""
    browser, owner = identify(browser, PIPELINE.settings)
    PIPELINE.cancel(text_of_event(event, "job"), owner)
    return observe(browser, view)


def _takes_pictures(tray: list[dict[str, str]], draft: Draft) -> list[dict[str, str]]:
    """The tray, where the model asks for a picture: else it waits for another model."""
    return tray if PICTURE.name in draft.inputs else []


def _batch_of(view: View, owner: str) -> str:
    """Of the jobs just asked for: several are shown side by side."""
    job = PIPELINE.job(view.active[-1], owner)
    return job.request.batch if job else ""


def _follow(view: View, *job_ids: str, stage: bool = True) -> None:
    """stage: where no other clip is being made, the first of them is seen on the stage from now on."""
    if stage and not view.active:
        view.selected = job_ids[0]
    view.active += job_ids
    view.follow += job_ids
    view.last, view.batch, view.complaint = "", "", None
    view.bring("result")
