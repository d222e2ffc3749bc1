"""What a person asked for -> a Request in which everything is decided, or a UserError naming the field.

The page, the command line and the API all come through here, so a forged value is caught whatever
door it used.
"""

import reprlib
import shutil
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wan_ui import loras
from wan_ui.catalog import Model, find_model, parse_size
from wan_ui.changes import read_changes
from wan_ui.crop import FIELDS as CROPS
from wan_ui.crop import MIDDLE, Crop, read_crop
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.media import sound
from wan_ui.media.images import fit, open_image, whole_within
from wan_ui.media.pose_video import look_at_pose
from wan_ui.performance import watch
from wan_ui.queue import afterwork_intake, successor, words
from wan_ui.queue.draft import Draft, as_text, listed, one_line, seed_of, truth, whole
from wan_ui.queue.jobs import Job
from wan_ui.queue.sampling_intake import how_sampled, read_offload, read_overlap
from wan_ui.queue.segments_intake import Before, look_before, read_prompts
from wan_ui.queue.speech_intake import check_number, frames_of, look_at_clip, take_audio, take_clip
from wan_ui.queue.successor import Elsewhere
from wan_ui.recipes import PERFORMING
from wan_ui.request import LoraSpec, Request, Sampling, Segment
from wan_ui.settings import ENGINES, Settings
from wan_ui.speaking import NAMES, PART, USUAL, Speaking, read_speaking
from wan_ui.tasks import (
    BEFORE,
    END,
    FILES,
    FORM,
    PICTURE,
    POSE,
    PROMPT,
    SEGMENTS,
    SOUND,
    TASKS,
    VOICE,
    Task,
    find_task,
    fitting,
)


def resolve(
    draft: Draft,
    settings: Settings,
    folder: Path,
    source: Job | None = None,
    clip: Path | None = None,
    elsewhere: Elsewhere = lambda model, scheme, engine: False,
) -> Request:
    """Check `draft`, write its files into `folder`. Raises UserError.

    source, clip  the history entry that `draft.job` means, and its video
    elsewhere  whether another machine's worker has a model
    """
    draft = replace(
        draft,
        task=as_text("task", draft.task),
        model=as_text("model", draft.model),
        scheme=as_text("scheme", draft.scheme),
        engine=as_text("engine", draft.engine),
        size=as_text("size", draft.size),
        motion=as_text("motion", draft.motion),
        solver=as_text("solver", draft.solver),
        cache=as_text("cache", draft.cache),
        offload=as_text("offload", draft.offload),
        inputs={name: _input(name, value) for name, value in draft.inputs.items() if value},
    )
    task = find_task(draft.task)
    if draft.task and task is None:
        known = ", ".join(f"{known.name} ({known.short})" if known.short else known.name for known in TASKS.values())
        raise UserError(f"task: {draft.task!r} is not known; choose one of {known}", field="task")
    if task is not None and not task.samples:
        return _change(task, draft, settings, folder, source, clip)
    if draft.job:
        if clip is None:
            raise UserError(f"{BEFORE.name}: that clip is not there any more; choose another", field=BEFORE.name)
        draft = replace(draft, inputs={**draft.inputs, BEFORE.name: str(clip)})
    return _sample(task, draft, settings, folder, elsewhere)


def _sample(asked: Task | None, draft: Draft, settings: Settings, folder: Path, elsewhere: Elsewhere) -> Request:
    """A clip that a model makes. asked: its task, if it was named."""
    catalog = found.models(settings)
    model = find_model(catalog, draft.model or settings.model)
    if draft.inputs.get(BEFORE.name) and draft.inputs.get(PICTURE.name):
        words = "it goes on from its own last frame and takes no picture; take the one or the other away"
        raise UserError(f"{BEFORE.name}: {words}", field=BEFORE.name)
    if draft.inputs.get(BEFORE.name) and (asked is None or asked.input(BEFORE.name)):
        model, draft = successor.take_over(model, draft, catalog, settings, elsewhere)
    task = asked or fitting(model.tasks, draft.inputs)
    _check_task(task, asked is not None, draft, model, catalog)
    try:
        scheme = model.scheme(draft.scheme)
    except UserError as error:
        raise found.unavailable(error, draft.scheme, settings) from None
    engine = draft.engine or settings.engine
    if engine not in ENGINES:
        raise UserError(f"engine: {engine!r} is not known; choose one of {', '.join(ENGINES)}", field="engine")
    missing = places.availability(model, scheme, settings, engine)
    if missing and not elsewhere(model.name, scheme.name, engine):
        raise UserError(f"model: {model.name} with {scheme.name} cannot run here: {missing}", field="model")
    offload = read_offload(draft.offload, model, scheme, engine, settings, away=bool(missing))
    said = _words(task, draft, settings.max_prompt).get(PROMPT.name, "")
    prompts = read_prompts(draft.inputs.get(SEGMENTS.name, ""), said, settings)
    if not prompts and (task.driven or task.performed):
        prompts = [""]
    if not prompts:
        raise UserError(f"{PROMPT.name}: {PROMPT.missing}", field=PROMPT.name)
    frames = whole("frames", model.default_frames if draft.frames is None else draft.frames)
    if task.driven and frames not in model.frames:
        raise UserError("frames: the clip lasts as long as the voice; leave them out", field="frames")
    if task.performed and draft.frames not in (None, *model.frames):
        raise UserError("frames: the clip lasts as long as the performance; leave them out", field="frames")
    if frames not in model.frames:
        raise UserError(f"frames: {model.name} makes {listed(model.frames)} frames, not {frames}", field="frames")
    how = how_sampled(draft, model, scheme, settings.max_prompt)
    paths = _files(task, draft)
    speaking = _speaking(task, draft, paths)
    if task.either and not any(name in paths for name in task.either):
        usual_one = next(entry for entry in task.inputs if entry.name == task.either[0])
        raise UserError(f"{usual_one.name}: {usual_one.missing}", field=usual_one.name)
    if POSE.name in paths:
        look_at_pose(paths[POSE.name])
    before = look_before(paths[BEFORE.name], settings) if BEFORE.name in paths else None
    usual = before.rate(model) if before else model.fps
    fps = whole("fps", usual if draft.fps is None else draft.fps)
    if fps not in model.rates:
        raise UserError(f"fps: {model.name} plays at {listed(model.rates)} frames a second, not {fps}", field="fps")
    if draft.seconds is not None:
        frames = _frames_of(draft, model, fps, driven=task.driven or task.performed)
    performed = watch.look_at(paths, fps, settings) if task.performed else {}
    seed = seed_of(draft.seed)
    quick, overlap = truth("draft", draft.draft), read_overlap(draft.overlap, model)
    without_picture = truth("without_picture", draft.without_picture)
    chosen = loras.check(draft.loras, model, settings, paths=draft.lora_paths)
    first, *segments = (_segment(model, prompt, chosen, settings) for prompt in prompts)
    if task.performed and not first.prompt:
        first = replace(first, given=PERFORMING)
    pictures = {
        entry.name: open_image(paths[entry.name], entry.name)
        for entry in task.inputs
        if entry.kind == "picture" and entry.name in paths
    }
    shape = pictures.get(task.shape)
    natural = before.size(model) if before else model.closest_size(*shape.size) if shape else model.sizes[0]
    if "mask_video" in performed:  # the character takes a place in the performance
        natural = model.closest_size(performed["performance"].width, performed["performance"].height)
    width, height = _size(draft.size, model, natural)
    crops = {} if "mask_video" in performed else _crops(draft, pictures)  # with a mask all of the picture is used
    inputs, seconds = _take(task, paths, pictures, (width, height), settings, folder, crops, speaking)
    check_number(inputs, speaking.face)
    if task.driven:
        frames = frames_of(Path(inputs["audio"]), seconds, model)
    if task.performed:  # about: the worker counts them
        lasts = max(found.seconds for found in performed.values())
        frames = max(watch.SHORTEST, round(lasts * fps)) if lasts else model.default_frames
    _check_pixels(width, height, frames * (1 if task.driven or task.performed else len(prompts)), before, fps, settings)
    made = Sampling(
        prompt=first.prompt,
        model=model.name,
        scheme=scheme.name,
        engine=engine,
        seed=seed,
        fps=fps,
        loras=chosen,
        given=first.given,
        understood=first.understood,
        segments=tuple(segments),
        draft=quick,
        overlap=overlap,
        offload=offload,
        **how,
    )
    moved = {name: tuple(crop.numbers()) for name, crop in crops.items() if crop != MIDDLE}
    request = Request(task.name, inputs, width, height, frames, made, seconds)
    return replace(request, crops=moved, without_picture=without_picture, speaking=speaking)


def _frames_of(draft: Draft, model: Model, fps: int, driven: bool) -> int:
    """How many of the model's make a clip of so many seconds. Raises UserError (field "seconds")."""
    seconds = draft.seconds
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
        raise UserError(f"seconds: {reprlib.repr(seconds)} is not a number of seconds above 0", field="seconds")
    if draft.frames is not None:
        raise UserError("seconds: say the seconds or the frames, not both", field="seconds")
    if driven:
        raise UserError("seconds: the clip lasts as long as what drives it; leave them out", field="seconds")
    return model.frames_of(seconds, fps)


def _crops(draft: Draft, pictures: dict[str, Image.Image]) -> dict[str, Crop]:
    """Of each picture. Raises UserError."""
    crops = {name: read_crop(getattr(draft, field), field) for name, field in CROPS.items()}
    if draft.end_crop in (None, "") and END.name in pictures:  # as the first one, so that the same picture is a loop
        crops[END.name] = crops[PICTURE.name]
    for name, crop in crops.items():
        if crop != MIDDLE and name not in pictures:
            raise UserError(f"{CROPS[name]}: there is no picture ({name}) that it could be of", field=CROPS[name])
    return {name: crop for name, crop in crops.items() if name in pictures}


def _check_pixels(width: int, height: int, frames: int, before: Before | None, fps: float, settings: Settings) -> None:
    """Raises UserError for more than one job may make: all of its frames wait in memory before they are written."""
    frames += round(before.seconds * fps) if before else 0
    megapixels = frames * width * height / 1e6
    if megapixels > settings.max_job_megapixels:
        words = f"{frames:,} frames of {width}x{height} are {megapixels:,.0f} megapixels"
        raise UserError(
            f"size: {words}; one job takes at most {settings.max_job_megapixels:,.0f}: make it smaller or shorter",
            field="size",
        )


def _segment(model: Model, prompt: str, chosen: tuple[LoraSpec, ...], settings: Settings) -> Segment:
    reading = words.read_for(model, prompt, chosen, settings)
    return Segment(prompt, reading.text, reading.words) if reading else Segment(prompt)


def _check_task(task: Task, named: bool, draft: Draft, model: Model, catalog: dict[str, Model]) -> None:
    """Raise UserError where the model does not do the task, or neither takes what is given: with what would."""
    does = listed(f"{TASKS[name].title} ({TASKS[name].short})" for name in model.tasks)
    if task.name not in model.tasks:
        others = [other.name for other in catalog.values() if task.name in other.tasks]
        hint = f"; {listed(others)} can do it" if others else ""
        raise UserError(f"task: {model.name} does {does}, not {task.title} ({task.short}){hint}", field="task")
    task = next(own for own in model.does if own.name == task.name)
    for name in (name for name in draft.inputs if task.input(name) is None):
        own = [other for other in model.does if other.input(name)]
        if named and own:
            wanted = listed(other.short for other in own)
            words = f"{task.title} ({task.short}) takes none; leave it out, or choose the task {wanted}"
        elif own:
            others = [given for given in draft.inputs if not any(other.input(given) for other in own)]
            words = f"it does not go with {listed(others)}; take the one or the other away"
        else:
            others = [other.name for other in catalog.values() if any(able.input(name) for able in other.does)]
            hint = f", or choose a model that takes it: {listed(others)}" if others else ""
            words = f"{model.name} takes none, it does {does}; leave it out{hint}"
            if name == SEGMENTS.name and not any(able.input(PICTURE.name) for able in model.does):
                hint = hint.replace("takes it", "goes on")
                words = f"{model.name} takes no picture, so it cannot go on from a last frame; leave them out{hint}"
        raise UserError(f"{name}: {words}", field=name)


def _change(
    task: Task, draft: Draft, settings: Settings, folder: Path, source: Job | None, clip: Path | None
) -> Request:
    """A clip that is there is changed; it says how large the new one is, the speech how long."""
    # What was left out of a clip's file is not in that of its change either.
    without_picture = truth("without_picture", draft.without_picture) or bool(source and source.request.without_picture)
    named = source.id if source else Path(draft.inputs.get(task.shape, "")).name
    if draft.job:
        draft = replace(draft, inputs={name: path for name, path in draft.inputs.items() if name != task.shape})
        if clip is not None:
            draft.inputs[task.shape] = str(clip)
    paths = _files(task, draft, gone="that clip is not there any more; choose another" if draft.job else "")
    if task.done_by == "afterwork":
        made_with = source.request.made_with if source else None
        changes, speaking = read_changes(draft.changes, named), _speaking(task, draft, paths, SOUND.name)
        request = afterwork_intake.take(task, paths, changes, made_with, settings, folder, speaking)
        _keep_pictures(task, clip, folder)
        return replace(request, without_picture=without_picture)
    width, height, fps = look_at_clip(paths[task.shape], task.shape)
    speaking = _speaking(task, draft, paths)
    inputs, seconds = _take(task, paths, {}, (width, height), settings, folder, {}, speaking)
    check_number(inputs, speaking.face)
    _keep_pictures(task, clip, folder)
    frames = sound.frame_count(round(seconds * sound.SAMPLE_RATE), fps)
    _check_pixels(width, height, frames, None, fps, settings)
    made_with = source.request.made_with if source else None
    request = Request(task.name, inputs, width, height, frames, made_with, seconds, speaking=speaking)
    return replace(request, without_picture=without_picture)


def _keep_pictures(task: Task, clip: Path | None, folder: Path) -> None:
    """What the clip that is changed was made of, for "Load settings"."""
    for name in (entry.file for entry in FORM if entry.file and task.input(entry.name) is None):
        if clip is not None and (clip.parent / name).is_file():
            shutil.copyfile(clip.parent / name, folder / name)


def _words(task: Task, draft: Draft, limit: int) -> dict[str, str]:
    """The task's texts but those of segments, in one line each and no longer than `limit`."""
    found = {}
    for entry in (entry for entry in task.inputs if entry.kind == "text" and entry is not SEGMENTS):
        text = one_line(entry.name, draft.inputs.get(entry.name, ""), limit)
        if entry.required and not text and not draft.inputs.get(SEGMENTS.name):
            raise UserError(f"{entry.name}: {entry.missing}", field=entry.name)
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


def _speaking(task: Task, draft: Draft, paths: dict[str, str], of: str = VOICE.name) -> Speaking:
    """How the sound of that name is spoken. Raises UserError where it is not there, or no lips follow it."""
    found = read_speaking(draft.speaking)
    said = [name for name in NAMES if getattr(found, name) != getattr(USUAL, name)]
    if said and of not in paths:
        words = "there is no sound that it could be of; leave it out, or choose one"
        raise UserError(f"{said[0]}: {words}", field=said[0])
    lips = [name for name in said if name not in PART]
    if lips and not any(stage.name == "lipsync" for stage in task.stages):
        raise UserError(f"{lips[0]}: {task.title} has no lips that are moved afterwards; leave it out", field=lips[0])
    return found


def _take(
    task: Task,
    paths: dict[str, str],
    pictures: dict[str, Image.Image],
    size: tuple[int, int],
    settings: Settings,
    folder: Path,
    crops: dict[str, Crop],
    speaking: Speaking,
) -> tuple[dict[str, str], float]:
    """Copies of the task's files in `folder`: their paths, and the seconds of what is spoken."""
    folder.mkdir(parents=True, exist_ok=True)
    taken, seconds = {}, 0.0
    for entry in (entry for entry in task.inputs if entry.name in paths):
        target = folder / entry.file
        match entry.kind:
            case "picture":
                whole = task.performed and "mask_video" in paths  # it takes a place in another picture
                picture, crop = pictures[entry.name], crops.get(entry.name, MIDDLE)
                picture = whole_within(picture, *size) if whole else fit(picture, *size, crop)
                picture.save(target)
            case "audio":
                seconds = take_audio(paths[entry.name], settings, target, speaking)
            case "video":
                target = take_clip(paths[entry.name], target)
        taken[entry.name] = str(target)
    return taken, seconds


def _input(name: str, value: object) -> str:
    """What was given for an input; a path keeps bytes that are no text: a file has that name."""
    if name not in FILES:
        return as_text(name, value)
    if not isinstance(value, str):
        raise UserError(f"{name}: {reprlib.repr(value)} is not text", field=name)
    if "\0" in value:
        raise UserError(f"{name}: {value!r} is not the name of a file", field=name)
    return value


def _size(text: str, model: Model, natural: tuple[int, int]) -> tuple[int, int]:
    if not text or text == "auto":
        return natural
    size = parse_size(text)
    if not model.takes_size(size):
        offered = listed(f"{width}x{height}" for width, height in model.sizes)
        own = f"sides of your own are multiples of {model.family.grid}, at least {model.least_side}, and at most "
        own += f"{model.most_pixels:,} pixels in all"
        nearest = "x".join(map(str, model.nearest_size(*size))) if min(size) else ""
        own += f": the nearest is {nearest}" if nearest else ""
        raise UserError(f"size: {model.name} makes {offered}, not {size[0]}x{size[1]}; {own}", field="size")
    return size
