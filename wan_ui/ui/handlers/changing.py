"""A person changes the form: it is kept for a reload, and the page says what becomes of each part."""

import gradio as gr

from wan_ui.crop import MIDDLE, read_crop
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.words import read_for
from wan_ui.speaking import read_speaking
from wan_ui.tasks import FACE, MASK, PERFORMANCE, Input
from wan_ui.ui import form, history, inputs, longer, lora_picker, own_length, own_size, performance, pose
from wan_ui.ui import picture as pictures
from wan_ui.ui import voice as voice_part
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.markup import Markup
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import identify
from wan_ui.ui.values import as_text, number_of_event, of_event, text_of_event
from wan_ui.ui.view import View

MOST_SIDE = 16_384  # pixels that may be typed
MOST_SECONDS = 3600


@guard
def remember(browser: dict, view: View, *sent) -> Answer:
    """Something in the form has changed: by a person, or since it was filled in."""
    *held, seen, turn = sent
    form.changed(view, form.read(dict(zip(form.FIELDS, held, strict=True))), seen, turn)
    return observe(browser, view)


@guard
def read_prompt(view: View, prompt: str, name: str) -> Answer:
    """What the model will make of the prompt as it stands."""
    model = found.models(PIPELINE.settings).get(name) if isinstance(name, str) else None
    if model is None or not isinstance(prompt, str) or not prompt.strip():
        return {"reading": ""}
    prompt = prompt[: PIPELINE.settings.max_prompt]
    reading = read_for(model, prompt, lora_picker.specs(view.loras), PIPELINE.settings)
    return {"reading": inputs.reading_html(reading)}


def show_lengths(name: str, fps: int) -> Answer:
    """The lengths in seconds follow the frames per second."""
    model = found.models(PIPELINE.settings).get(name) if isinstance(name, str) else None
    return {"frames": gr.update(choices=inputs.lengths(model, fps))} if model and fps in model.rates else {}


@guard
def show_crop(view: View, picture, size: str, name: str) -> Answer:
    with view.drawing:
        view.shapes["picture"] = size, name
        return _crop(view, "picture", picture, picture, size, name)


@guard
def show_end_crop(view: View, first, size: str, name: str, picture) -> Answer:
    """Of the picture that the clip ends at, which has the shape of the first one."""
    with view.drawing:
        view.shapes["end"] = size, name
        return _crop(view, "end", picture, first or picture, size, name)


def _crop(view: View, part: str, picture, first, size: str, name: str) -> Answer:
    """A picture that is refused is taken away, which is a change as well, and the browser may tell of it more than
    once: the reason stays until there is another picture."""
    if not picture:
        gone = {f"{part}_crop": ""}
        return gone if part in view.refused else {**gone, f"{part}_note": ""}
    catalog = found.models(PIPELINE.settings)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    if not inputs.takes(model, part):  # it is not shown, and waits for another model
        return {f"{part}_crop": "", f"{part}_note": ""}
    field, before = form.PARTS[part].name, view.crops.get(part)
    try:
        size, paths = as_text(size, "size", "auto"), {"picture": uploaded(first), part: uploaded(picture, field)}
        crops = pictures.of_form(view.crops, paths, size, model)
        crop, note = pictures.crop_html(paths[part], size, model, paths["picture"], field, crops[part].crop)
    except UserError as error:
        if error.field != field:  # said beside the first picture
            return {f"{part}_crop": ""}
        view.refused.add(part)
        return {part: None, f"{part}_crop": "", f"{part}_note": complaint(error)}
    view.refused.discard(part)
    if view.crops.get(part) is before:  # else it was moved by hand while this was drawn
        view.crops[part] = crops[part]
    return {f"{part}_crop": crop, f"{part}_note": note}


@guard
def move_crop(browser: dict, view: View, picture, end, size: str, name: str, event: gr.EventData) -> Answer:
    """A person has moved the crop of a picture. That of the last one follows the first until it is moved itself.

    The answer may come after that to a later change of size or model, so it says what is true of the latter.
    """
    part = text_of_event(event, "part")
    given = {"picture": picture, "end": end}
    if part not in given or not given[part]:
        return observe(browser, view)
    field = form.PARTS[part].name
    crop = read_crop(of_event(event, "crop"), field)
    with view.drawing:
        size, name = view.shapes.get(part, (size, name))
        view.crops[part] = pictures.Cropped(uploaded(given[part], field), crop, own=True)
        answer = _crop(view, part, given[part], picture or end, size, name)
        answer.pop(f"{part}_crop", None)  # it is drawn so already, and has the focus
        if part == "picture" and end:
            answer |= _crop(view, "end", end, picture, size, name)
    return {**answer, **observe(browser, view)}


@guard
def use_own_size(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A size that was typed: the nearest that the model takes."""
    jobs = PIPELINE.history(identify(browser, PIPELINE.settings)[1], history.LIMIT)
    model = form.model_of(view, found.models(PIPELINE.settings))
    try:
        width, height = (_side(event, name) for name in ("width", "height"))
    except UserError as error:
        return {"own_size_note": complaint(error), **observe(browser, view)}
    size = model.nearest_size(width, height)
    said = own_size.words((width, height), size, model, form.scheme_of(view, model), view.form, jobs)
    chosen = f"{size[0]}x{size[1]}"
    form.fill(view, size=chosen)
    choices = gr.update(choices=inputs.sizes(model, chosen), value=chosen)
    note = Markup('<p class="w-quiet" role="status">{}</p>').format(said)
    return {"size": choices, "own_size_note": note, "filled": view.fills, **observe(browser, view)}


@guard
def use_own_length(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A length that was typed: the nearest that the model makes."""
    model = form.model_of(view, found.models(PIPELINE.settings))
    try:
        wanted = _seconds(event)
    except UserError as error:
        return {"own_length_note": complaint(error), **observe(browser, view)}
    fps = view.form.get("fps")
    fps = fps if fps in model.rates else model.fps
    frames = model.frames_of(wanted, fps)
    form.fill(view, frames=frames)
    said = own_length.words(wanted, frames, fps, model)
    note = Markup('<p class="w-quiet" role="status">{}</p>').format(said)
    return {"frames": frames, "own_length_note": note, "filled": view.fills, **observe(browser, view)}


def _seconds(event: gr.EventData) -> float:
    """Raises UserError."""
    try:
        number = number_of_event(event, "seconds")
    except UserError:
        number = 0.0
    if not 0 < number <= MOST_SECONDS:
        words = f"length: type a number of seconds above 0 and up to {MOST_SECONDS:,}, for example 2.5"
        raise UserError(words, field="length")
    return number


def _side(event: gr.EventData, name: str) -> int:
    """Raises UserError naming width or height."""
    try:
        number = number_of_event(event, name)
    except UserError:
        raise UserError(f"{name}: type a number of pixels, for example 448", field=name) from None
    if not 1 <= number <= MOST_SIDE:
        raise UserError(f"{name}: {number:g} is not between 1 and {MOST_SIDE:,} pixels", field=name)
    return round(number)


@guard
def look_before(clip, size: str, name: str) -> Answer:
    """The clip that goes on: what becomes of it, and the form's frames per second follow it."""
    if not clip:
        return {"before_note": ""}
    catalog = found.models(PIPELINE.settings)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    try:
        path, size = uploaded(clip, "clip"), as_text(size, "size", "auto")
        note, fps = longer.note_html(path, size, None, model, PIPELINE.settings)
    except UserError as error:
        return {"before_note": complaint(error)}
    return {"before_note": note, "fps": fps}


@guard
def look_at_pose(clip, size: str, name: str) -> Answer:
    """The pose video: what becomes of it."""
    catalog = found.models(PIPELINE.settings)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    if not clip or not inputs.takes(model, "pose"):
        return {"pose_note": ""}
    try:
        return {"pose_note": pose.note_html(uploaded(clip, "pose_video"), as_text(size, "size", "auto"), model)}
    except UserError as error:
        return {"pose_note": complaint(error)}


@guard
def look_at_performance(clip, name: str) -> Answer:
    """The performance: what becomes of it. The pose that was shown is another's."""
    catalog = found.models(PIPELINE.settings)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    if not clip or not inputs.takes(model, "performance"):
        return {"performance_note": "", "shown_pose": ""}
    try:
        note = performance.note_html(uploaded(clip, "performance"), model, PIPELINE.settings)
        return {"performance_note": note, "shown_pose": ""}
    except UserError as error:
        return {"performance_note": complaint(error), "shown_pose": ""}


@guard
def look_at_mask(clip) -> Answer:
    return _look_at_ready(MASK, clip)


@guard
def look_at_face(clip) -> Answer:
    return _look_at_ready(FACE, clip)


def _look_at_ready(entry: Input, clip) -> Answer:
    """A video that takes the place of what is read from the performance: what it is, or has to show."""
    note = f"{entry.part}_note"
    if not clip:
        return {note: performance.hint_html(entry)}
    try:
        return {note: performance.ready_html(entry, uploaded(clip, entry.name), PIPELINE.settings)}
    except UserError as error:
        return {note: complaint(error)}


@guard
def show_pose(clip) -> Answer:
    """Before minutes are spent: some frames of the performance with the pose that is read from them."""
    try:
        if not clip:
            raise UserError(f"performance: {PERFORMANCE.missing}", field="performance")
        return {"shown_pose": performance.pose_html(uploaded(clip, "performance"), PIPELINE.settings)}
    except UserError as error:
        return {"performance_note": complaint(error), "shown_pose": ""}


@guard
def check_face(browser: dict, view: View, voice, picture, size: str, name: str, *told) -> Answer:
    """The voice's note: before minutes are spent, whether there is a face that can speak, and anything to be spoken.
    And the handles of its part."""
    if not voice:
        return {"voice_note": "", "voice_trim": "", "voice_faces": ""}
    _, owner = identify(browser, PIPELINE.settings)
    catalog = found.models(PIPELINE.settings)
    model = catalog.get(as_text(name, "model")) or next(iter(catalog.values()))
    job = PIPELINE.job(view.selected, owner)
    clip = PIPELINE.silent_clip(job) if job else None
    try:
        audio, size = uploaded(voice, "audio"), as_text(size, "size", "auto")
        picture = uploaded(picture) if inputs.takes(model, "picture") else ""
        crop = pictures.of_form(view.crops, {"picture": picture}, size, model)["picture"].crop if picture else MIDDLE
        faces = {"voice_faces": voice_part.who_html(picture, clip, size, model, crop)}
        trim = {"voice_trim": voice_part.trim_html(audio), **faces}
    except UserError as error:
        return {"voice_note": complaint(error), "voice_trim": "", "voice_faces": ""}
    try:
        speaking = read_speaking(voice_part.speaking_of(told))
        return {
            "voice_note": voice_part.voice_note(audio, picture, clip, size, model, PIPELINE.settings, speaking, crop),
            **trim,
        }
    except UserError as error:
        return {"voice_note": complaint(error), **trim}
