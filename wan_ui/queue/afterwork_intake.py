"""What is to be changed of a finished clip -> files in the job's folder and a request, checked against the clip."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from wan_ui.afterwork import weights
from wan_ui.changes import Changes
from wan_ui.errors import UserError
from wan_ui.media import decoder, video
from wan_ui.queue.speech_intake import take_audio, take_clip
from wan_ui.request import Request, Sampling
from wan_ui.settings import Settings
from wan_ui.speaking import USUAL, Speaking
from wan_ui.tasks import CHANGED, NEXT, SOUND, Task

MAX_SIDE = 4096  # pixels of the result
SPARE = 200e6  # bytes that are left on the disk beside what a loop needs


def take(
    task: Task,
    paths: dict[str, str],
    changes: Changes,
    made_with: Sampling | None,
    settings: Settings,
    folder: Path,
    speaking: Speaking = USUAL,
) -> Request:
    """paths: of the task's inputs, by name. speaking: which part of the sound is laid under it. Raises UserError
    naming the field."""
    entries = [entry for entry in (CHANGED, *NEXT) if entry.name in paths]
    sources = [_look(paths[entry.name], entry.name) for entry in entries]
    lasts = [decoder.duration(source.path) for source in sources]  # 0 where a file does not say
    first = sources[0]
    if lasts[0]:
        _check_part(changes, lasts[0])
        lasts[0] = min(changes.end or lasts[0], lasts[0]) - changes.start
    if all(lasts):  # each clip is seen by itself as well
        changes = replace(changes, fade=round(min(changes.fade, min(lasts) / 2), 3))
    total = sum(lasts) - changes.fade * (len(lasts) - 1)
    if total > settings.max_clip_seconds:
        words = f"{total:.0f} s of clip; at most {settings.max_clip_seconds:g} s can be changed: choose a shorter part"
        raise UserError(f"end: {words}", field="end")
    width, height = first.width * changes.upscale, first.height * changes.upscale
    if changes.upscale > 1 and max(width, height) > MAX_SIDE:
        words = f"{first.width}x{first.height} would become {width}x{height}; at most {MAX_SIDE} pixels a side"
        raise UserError(f"upscale: {words}", field="upscale")
    frames = max(1, round(total * first.fps * changes.times))
    megapixels = frames * width * height / 1e6
    if megapixels > settings.max_job_megapixels:
        words = f"{frames:,} frames of {width}x{height} are {megapixels:,.0f} megapixels"
        words += f"; one job takes at most {settings.max_job_megapixels:,.0f}: choose a shorter part or a smaller size"
        raise UserError(f"end: {words}", field="end")
    if changes.loop == "ping-pong":
        _check_disk(frames * width * height * 3, folder)
        frames = max(1, 2 * frames - 2)
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {entry.name: str(take_clip(paths[entry.name], folder / entry.file)) for entry in entries}
    if SOUND.name in paths:
        target = folder / SOUND.file
        try:
            take_audio(paths[SOUND.name], settings, target, speaking)
        except UserError as error:
            if error.field != "audio":  # the part of it
                raise
            raise UserError(f"{SOUND.name}: {str(error).removeprefix('audio: ')}", field=SOUND.name) from None
        inputs[SOUND.name] = str(target)
    return Request(task.name, inputs, width, height, frames, made_with, changes=changes, speaking=speaking)


def _look(path: str, field: str) -> video.Video:
    source = Path(path)
    if not os.path.isfile(source):
        what = "is not a file; choose a clip" if os.path.exists(source) else "does not exist"
        raise UserError(f"{field}: {source.name} {what}", field=field)
    try:
        return video.look(source)
    except UserError as error:
        raise video.about(error, field) from None


def _check_part(changes: Changes, seconds: float) -> None:
    for name in ("start", "end"):
        value = getattr(changes, name)
        if value > seconds + 0.05 or (name == "start" and value >= seconds):
            words = f"the clip lasts {seconds:.2f} s, and {value:g} s is behind its end"
            raise UserError(f"{name}: {words}", field=name)


def _check_disk(needed: float, folder: Path) -> None:
    """Frames that are shown again from behind lie uncompressed on the disk meanwhile."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free - SPARE
    if needed > free:
        words = f"there and back needs {needed / 1e9:.1f} GB of disk, {max(free, 0) / 1e9:.1f} are free"
        raise UserError(f"loop: {words}; choose a shorter part", field="loop")


def words(settings: Settings) -> dict[str, str]:
    """What frames and size are made by here, for people."""
    return {"times": weights.between_words(settings), "upscale": weights.upscale_words(settings)}
