"""What a person asked for -> a Request in which everything is decided, or a UserError naming the field.

The page, the command line and the API all come through here, so a forged value is caught whatever
door it used.
"""

import reprlib
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from wan_ui import loras
from wan_ui.catalog import Model, find_model, load_catalog, parse_size
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.media import sound
from wan_ui.media.images import fit, open_image
from wan_ui.queue import words
from wan_ui.queue.jobs import Job
from wan_ui.queue.speech_intake import look_at_clip, take_audio, take_clip
from wan_ui.request import LoraSpec, Request, Sampling
from wan_ui.settings import ENGINES, Settings
from wan_ui.tasks import FILES, FORM, TASKS, Task, fitting
from wan_ui.valid_text import valid_text

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Draft:
    """A request as typed. None and empty strings mean "choose for me"; seed -1 means a random one.

    inputs  name of an input -> text, or path of a file; which there are says the task
    task    its name; empty: the first of the model's tasks that fits what is given
    job     for a task that changes a clip: the entry of the history whose clip is meant
    draft   a quick clip that is less exact, where the engine can
    lora_paths  the command line may name any LoRA file; the page only those in the folder
    """

    inputs: dict[str, str] = field(default_factory=dict)
    task: str = ""
    model: str = ""
    scheme: str = ""
    engine: str = ""
    size: str = "auto"
    frames: int | None = None
    steps: int | None = None
    fps: int | None = None
    seed: int = -1
    draft: bool = False
    loras: tuple[LoraSpec, ...] = ()
    job: str = ""
    lora_paths: bool = False


def resolve(
    draft: Draft, settings: Settings, folder: Path, source: Job | None = None, clip: Path | None = None
) -> Request:
    """Check `draft`, write its files into `folder`. Raises UserError.

    source, clip  the history entry that `draft.job` means, and its video
    """
    draft = replace(
        draft,
        task=_text("task", draft.task),
        model=_text("model", draft.model),
        scheme=_text("scheme", draft.scheme),
        engine=_text("engine", draft.engine),
        size=_text("size", draft.size),
        inputs={name: _input(name, value) for name, value in draft.inputs.items() if value},
    )
    if draft.task and draft.task not in TASKS:
        raise UserError(f"task: {draft.task!r} is not known; choose one of {', '.join(TASKS)}", field="task")
    if draft.task and not TASKS[draft.task].samples:
        return _change(TASKS[draft.task], draft, settings, folder, source, clip)
    return _sample(draft, settings, folder)


def _sample(draft: Draft, settings: Settings, folder: Path) -> Request:
    """A clip that a model makes."""
    model = find_model(load_catalog(settings.catalog), draft.model or settings.model)
    if draft.task and draft.task not in model.tasks:
        raise UserError(f"task: {model.name} does {_list(model.tasks)}, not {draft.task}", field="task")
    task = TASKS[draft.task] if draft.task else fitting(model.tasks, draft.inputs)
    scheme = model.scheme(draft.scheme)
    engine = draft.engine or settings.engine
    if engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is not known; choose one of {', '.join(ENGINES)}", field="engine")
    missing = places.availability(model, scheme, settings, engine)
    if missing:
        raise UserError(f"model: {model.name} with {scheme.name} cannot run here: {missing}", field="model")
    prompt = _words(task, draft, settings.max_prompt).get("prompt", "")
    frames = _whole("frames", model.default_frames if draft.frames is None else draft.frames)
    if frames not in model.frames:
        raise UserError(f"frames: {model.name} makes {_list(model.frames)} frames, not {frames}", field="frames")
    steps = _whole("steps", model.default_steps if draft.steps is None else draft.steps)
    fewest, most = model.steps
    if not fewest <= steps <= most:
        raise UserError(f"steps: {model.name} takes {fewest} to {most} steps, not {steps}", field="steps")
    fps = _whole("fps", model.fps if draft.fps is None else draft.fps)
    if fps not in model.rates:
        raise UserError(f"fps: {model.name} plays at {_list(model.rates)} frames a second, not {fps}", field="fps")
    seed = _seed(draft.seed)
    quick = _truth("draft", draft.draft)
    chosen = loras.check(draft.loras, model, settings, paths=draft.lora_paths)
    reading = words.read_for(model, prompt, chosen, settings)
    paths = _files(task, draft)
    pictures = {
        entry.name: open_image(paths[entry.name], entry.name)
        for entry in task.inputs
        if entry.kind == "picture" and entry.name in paths
    }
    shape = pictures.get(task.shape)
    width, height = _size(draft.size, model, shape.size if shape else None)
    inputs, seconds = _take(task, paths, pictures, (width, height), settings, folder)
    made = Sampling(
        prompt=prompt,
        model=model.name,
        scheme=scheme.name,
        engine=engine,
        steps=steps,
        seed=seed,
        fps=fps,
        loras=chosen,
        given=reading.text if reading else "",
        understood=reading.words if reading else "",
        draft=quick,
    )
    return Request(task.name, inputs, width, height, frames, made, seconds)


def _change(
    task: Task, draft: Draft, settings: Settings, folder: Path, source: Job | None, clip: Path | None
) -> Request:
    """A clip that is there is changed; it says how large the new one is, the speech how long."""
    if draft.job:
        draft = replace(draft, inputs={name: path for name, path in draft.inputs.items() if name != task.shape})
        if clip is not None:
            draft.inputs[task.shape] = str(clip)
    paths = _files(task, draft, gone="that clip is not there any more; choose another" if draft.job else "")
    width, height, fps = look_at_clip(paths[task.shape], task.shape)
    inputs, seconds = _take(task, paths, {}, (width, height), settings, folder)
    if clip is not None:
        for name in (entry.file for entry in FORM if entry.file and task.input(entry.name) is None):
            if (clip.parent / name).is_file():  # for "Load settings"
                shutil.copyfile(clip.parent / name, folder / name)
    frames = sound.frame_count(round(seconds * sound.SAMPLE_RATE), fps)
    return Request(task.name, inputs, width, height, frames, source.request.made_with if source else None, seconds)


def _words(task: Task, draft: Draft, limit: int) -> dict[str, str]:
    """The task's texts, in one line each and no longer than `limit`."""
    found = {}
    for entry in (entry for entry in task.inputs if entry.kind == "text"):
        text = " ".join(draft.inputs.get(entry.name, "").replace("\0", " ").split())
        if entry.required and not text:
            raise UserError(f"{entry.name}: {entry.missing}", field=entry.name)
        if len(text) > limit:
            raise UserError(f"{entry.name}: {len(text):,} characters; the limit is {limit:,}", field=entry.name)
        found[entry.name] = text
    return found


def _files(task: Task, draft: Draft, gone: str = "") -> dict[str, str]:
    """Paths of the task's files, as given. gone: what is said where the clip of `draft.job` is missing."""
    for name in draft.inputs:
        if task.input(name) is None:
            raise UserError(f"{name}: {task.title} takes none; leave it out", field=name)
    for entry in task.inputs:
        if entry.required and not draft.inputs.get(entry.name):
            said = gone if gone and entry.name == task.shape else entry.missing
            raise UserError(f"{entry.name}: {said}", field=entry.name)
    return {entry.name: draft.inputs[entry.name] for entry in task.inputs if entry.file and entry.name in draft.inputs}


def _take(
    task: Task,
    paths: dict[str, str],
    pictures: dict[str, Image.Image],
    size: tuple[int, int],
    settings: Settings,
    folder: Path,
) -> tuple[dict[str, str], float]:
    """Copies of the task's files in `folder`: their paths, and the seconds of what is spoken."""
    folder.mkdir(parents=True, exist_ok=True)
    taken, seconds = {}, 0.0
    for entry in (entry for entry in task.inputs if entry.name in paths):
        target = folder / entry.file
        match entry.kind:
            case "picture":
                fit(pictures[entry.name], *size).save(target)
            case "audio":
                seconds = take_audio(paths[entry.name], settings, target)
            case "video":
                target = take_clip(paths[entry.name], target)
        taken[entry.name] = str(target)
    return taken, seconds


def _input(name: str, value: object) -> str:
    """What was given for an input; a path keeps bytes that are no text: a file has that name."""
    if name not in FILES:
        return _text(name, value)
    if not isinstance(value, str):
        raise UserError(f"{name}: {reprlib.repr(value)} is not text", field=name)
    if "\0" in value:
        raise UserError(f"{name}: {value!r} is not the name of a file", field=name)
    return value


def _text(field: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{field}: {reprlib.repr(value)} is not text", field=field)
    return valid_text(value)


def _size(text: str, model: Model, picture: tuple[int, int] | None) -> tuple[int, int]:
    if not text or text == "auto":
        return model.closest_size(*picture) if picture else model.sizes[0]
    size = parse_size(text)
    if size not in model.sizes:
        offered = _list(f"{width}x{height}" for width, height in model.sizes)
        raise UserError(f"size: {model.name} makes {offered}, not {size[0]}x{size[1]}", field="size")
    return size


def _seed(seed: object) -> int:
    number = _whole("seed", seed)
    if number == -1:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= number <= MAX_SEED:
        raise UserError(f"seed: {number} is not between 0 and {MAX_SEED} (-1 draws one)", field="seed")
    return number


def _whole(field: str, value: object) -> int:
    """An int, or a float without a fraction: that is what JSON makes of a number. True is not 1, nor is "1"."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise UserError(f"{field}: {reprlib.repr(value)} is not a whole number", field=field)
    if abs(value) >= 2**63:  # Python refuses to print one of 4,300 digits
        raise UserError(f"{field}: a number of {value.bit_length()} bits is too large", field=field)
    return value


def _truth(field: str, value: object) -> bool:
    """None, which programs send for what is left out, is no."""
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{field}: {reprlib.repr(value)} is neither true nor false", field=field)
    return bool(value)


def _list(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
