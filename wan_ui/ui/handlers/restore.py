"""Old settings come back into the form: those of a clip, or those that an MP4 carries."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from wan_ui import loras
from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.loras import checksums
from wan_ui.media import carried, muxer
from wan_ui.media.images import open_image
from wan_ui.media.picture_files import PNG
from wan_ui.queue import successor
from wan_ui.queue.draft import listed
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import UNKNOWN
from wan_ui.speaking import PART
from wan_ui.tasks import BEFORE, BY_STORED, DEFAULT, FORM, TASKS, Input
from wan_ui.ui import form, lora_picker, models_panel, voice
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import fill, fill_fields, is_whole, offered
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.markup import Markup
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import identify
from wan_ui.ui.values import as_text, text_of_event
from wan_ui.ui.view import View


@guard
def reuse_seed(browser: dict, view: View, event: gr.EventData) -> Answer:
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is None:
        return observe(browser, view)
    view.bring("seed")
    return {**fill_fields(view, seed=(job.request.made_with or UNKNOWN).seed), **observe(browser, view)}


@guard
def extend(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """Continue beside a clip: the form goes on from it, with its size and rate and without what began another."""
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    clip = PIPELINE.silent_clip(job) if job else None
    if clip is None:
        return observe(browser, view)
    catalog, filled = found.models(PIPELINE.settings), {}
    model = form.model_of(view, catalog)
    if not successor.continues(model):
        usable = models_panel.usable(PIPELINE.settings)
        weights = model.successor and successor.like(
            catalog[model.successor], view.scheme, view.form.get("motion") or "", usable.get(model.successor, [])
        )
        if not weights:
            form.complain(view, "result_message", _cannot_go_on(model, catalog, list(usable)), turn)
            return observe(browser, view)
        filled = fill(view, model.successor, weights.name)
    files = {BEFORE.part: str(clip), **{entry.part: None for entry in FORM if entry.kind == "picture"}}
    form.fill(view, size="auto")
    filled |= {"size": "auto", **fill_fields(view, seed=None, segments="", **files)}
    longer = gr.update(visible=True, open=True)
    view.bring("longer")
    return {**filled, "longer": longer, **observe(browser, view)}


def _cannot_go_on(model: Model, catalog: dict[str, Model], here: list[str]) -> UserError:
    able = [catalog[name].short_title for name in here if successor.continues(catalog[name])]
    words = f"model: {model.short_title} takes no picture, so it cannot go on from a last frame"
    if model.successor:
        words += f"; {catalog[model.successor].short_title} does in its place, but its files are not here"
    return UserError(f"{words}; choose {listed(able)}" if able else words, field="model")


@guard
def restore(browser: dict, view: View, turn, event: gr.EventData) -> Answer:
    """Load settings of a job."""
    browser, owner = identify(browser, PIPELINE.settings)
    job = PIPELINE.job(text_of_event(event, "job"), owner)
    if job is None:
        return observe(browser, view)
    try:
        filled = of_job(view, job)
    except UserError as error:
        form.complain(view, "result_message", error, turn)
        return observe(browser, view)
    view.bring("form")
    return {**filled, **observe(browser, view)}


def of_job(view: View, job: Job, **changes: Any) -> Answer:
    """Its settings and files into the form. changes: of its stored request what is to be another. Raises UserError
    when its model cannot run here."""
    there = PIPELINE.input_files(job)
    files = {
        entry.part: str(there[entry.name]) if entry.name in there else None
        for entry in FORM
        if entry.file and (entry.name in there or not _requires(job, entry.name))
    }
    return _settings(view, {**job.request.to_dict(), **_of_base(job), **changes}, **files)


def _requires(job: Job, name: str) -> bool:
    """Whether the job had that input for certain: one whose file is gone takes nothing out of the form."""
    entry = TASKS[job.request.task].input(name)
    return entry is not None and entry.required


def _of_base(job: Job) -> dict:
    """What made the clip that was changed, as far as the change has values of its own there."""
    task = TASKS[job.request.task]
    if task.samples:
        return {}
    try:
        values = muxer.read_metadata(Path(job.request.inputs[task.shape]))
    except UserError:
        return {}
    return {name: values[name] for name in ("frames", "steps", "width", "height", "fps") if name in values}


@guard
def restore_from_video(browser: dict, view: View, video) -> Answer:
    """Load settings out of an uploaded MP4, which says itself beside the button how that went."""
    try:
        path = Path(uploaded(video, "video"))
        if not path.is_file():
            raise UserError("video: choose an MP4 file first", field="video")
        with path.open("rb") as file:
            if file.read(12)[4:8] != b"ftyp":
                raise UserError("video: this is not an MP4 file", field="video")
        values = muxer.read_metadata(path)
        task = BY_STORED.get(str(values.get("kind")), DEFAULT)
        pictures = [entry for entry in FORM if entry.kind == "picture"]
        files: dict[str, str | None] = {
            entry.part: None for entry in pictures if task.samples and task.input(entry.name) is None
        }
        there = carried.read(path)
        name = as_text(video.get("orig_name"), "video", "the video")
        with tempfile.TemporaryDirectory(prefix="wan-ui-") as folder:
            brought, words = _brought(there, pictures, Path(folder), len(files) < len(pictures))
            filled = _settings(view, values, **{**files, **brought})
        view.loras, lost = _by_checksum(view.loras, there.get(carried.LORAS, b""))
        missing = " ".join(filter(None, (words, lost, _left_out(values, view.form.get("size")))))
        said = f"Settings{' and picture' if brought else ''} loaded from {name}. {missing}"
        filled["from_video"] = Markup('<p class="w-quiet" role="status">{}</p>').format(said)
        view.bring("from_video" if missing else "form")
    except UserError as error:
        filled = {"from_video": complaint(error)}
        view.bring("from_video")
    return {**filled, **observe(browser, view)}


def _brought(
    there: Mapping[str, bytes], pictures: Sequence[Input], folder: Path, needed: bool
) -> tuple[dict[str, str], str]:
    """The pictures that a video carries, as files in `folder`, and what is to be said of them. needed: it had one."""
    brought, wrong = {}, []
    for entry in (entry for entry in pictures if entry.name in there):
        path = folder / f"{entry.part} of the clip{'.png' if there[entry.name][:4] == PNG[:4] else '.jpg'}"
        path.write_bytes(there[entry.name])
        try:
            open_image(path, entry.name)
            brought[entry.part] = str(path)
        except UserError as error:
            wrong.append(f"The picture that it carries cannot be used: {error.words}.")
    if needed and not brought and not wrong:
        wrong.append("It does not carry its picture.")
    return brought, " ".join(wrong)


def _by_checksum(chosen: list[dict], content: bytes) -> tuple[list[dict], str]:
    """The LoRAs of a clip, those that are here under another name by that one, and which of them are not here."""
    known = checksums.read(content)
    entries = loras.available(PIPELINE.settings) if chosen else []
    names, new, words = {entry.name for entry in entries}, [], []
    for spec in chosen:
        file, files = spec["file"], known.get(spec["file"], set())
        entry = checksums.find(file, files, entries) if files else None
        sums = ", ".join(f"SHA-256 {digest[:12]}…" for _, digest in sorted(files))
        if entry is not None and entry.name != file:
            words.append(f"The LoRA {file} is here as {entry.name}.")
        elif entry is None and file in names and files:
            words.append(f"The LoRA {file} that is here is another file than the clip was made with ({sums}).")
        elif entry is None and file not in names:
            words.append(f"The LoRA {file} is not here{f' ({sums})' if files else ''}.")
        new.append({**spec, "file": entry.name if entry else file})
    return new, " ".join(words)


def _settings(view: View, values: dict, **files: str | None) -> Answer:
    """Into the form, with these files; the LoRAs go into `view`. Raises UserError when the model cannot run here."""
    usable, name = models_panel.usable(PIPELINE.settings), str(values.get("model") or "")
    if not name:
        raise UserError("model: no model made this clip, so it has no settings to load", field="model")
    if name not in usable:
        raise UserError(f"model: made with {name}, which cannot run here", field="model")
    values = {**values, "size": f"{values.get('width')}x{values.get('height')}"}
    view.loras = lora_picker.from_values(values.get("loras"))
    if values.get("without_picture") is True:  # never the other way round: who has chosen to leave it out goes on so
        form.fill(view, keep_picture=False)
    seed = values["seed"] if is_whole(values.get("seed")) else -1
    prompt = str(values.get("prompt", ""))
    filled = fill(view, name, str(values.get("scheme")), prompt=prompt, **offered(values))
    filled |= {"keep_picture": view.form.get("keep_picture") is not False}
    filled |= fill_fields(view, seed=seed, segments=_segments(values.get("segments")), **files)
    told = voice.to_form(values.get("speaking"))
    told = {name: value for name, value in told.items() if name not in PART}  # of the sound in the form
    form.fill(view, **told)
    return {**filled, **told, "filled": view.fills}


def _segments(values: object) -> str:
    """Prompts of a stored request's segments, a line each."""
    entries = values if isinstance(values, list | tuple) else ()
    prompts = [entry.get("prompt") for entry in entries if isinstance(entry, dict)]
    return "\n".join(prompt for prompt in prompts if isinstance(prompt, str))


def _left_out(values: dict, filled_size: object) -> str:
    """Which settings of a video of another version, or a damaged one, the form does not take over."""
    name = str(values.get("model"))
    model, schemes = found.models(PIPELINE.settings)[name], models_panel.usable(PIPELINE.settings)[name]
    size = f"{values.get('width')}x{values.get('height')}"
    scheme = next((scheme for scheme in schemes if scheme.name == values.get("scheme")), schemes[0])
    motion = values.get("motion") or model.motions(scheme)[0]
    offered = motion in model.motions(scheme)
    fewest, most = model.recipe(scheme, motion if offered else "").steps
    chosen, driven = values.get("loras", []), any(TASKS[name].driven for name in model.tasks)
    taken = {
        "scheme": values.get("scheme") in [scheme.name for scheme in schemes],
        "size": filled_size == size,
        "frames": is_whole(values.get("frames")) and (values["frames"] in model.frames or driven),
        "steps": is_whole(values.get("steps")) and fewest <= values["steps"] <= most,
        "fps": not values.get("fps") or values["fps"] in model.rates,
        "motion": offered,
        "seed": is_whole(values.get("seed")),
        "prompt": isinstance(values.get("prompt"), str),
        "loras": len(lora_picker.from_values(chosen)) == (len(chosen) if isinstance(chosen, list) else 0),
    }
    left = ", ".join(part for part, good in taken.items() if not good)
    return f"Not taken over, since this version or model does not offer it: {left}." if left else ""
