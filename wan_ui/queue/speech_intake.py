"""A voice, and perhaps a clip to add it to -> files in the job's folder, checked; or a UserError naming the field.

Files are copied, so that a job survives the upload's folder, a deleted history entry and a restart.
"""

import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np

from wan_ui.catalog import Model, parse_size
from wan_ui.crop import MIDDLE, Crop
from wan_ui.errors import UserError
from wan_ui.lipsync.faces import Face
from wan_ui.lipsync.numbered import first_seen, numbered, pick
from wan_ui.lipsync.usable import SMALLEST, usable_clip, usable_face
from wan_ui.media import decoder, muxer, sound, voice_activity
from wan_ui.media.images import fit, open_image
from wan_ui.settings import Settings
from wan_ui.speaking import USUAL, Speaking
from wan_ui.tasks import CLIP, PICTURE

LISTENED = 30.0  # seconds of a sound, for words about it; the pass hears all of it
LOOKED_AT = 48  # frames of a clip, for words about it; the pass itself judges all of them


# Of the copies in a job's folder, which are served: any other name is not kept.
SUFFIXES = (
    ".wav", ".w64", ".aif", ".aiff", ".caf", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".amr", ".ac3",
    ".eac3", ".au", ".wma", ".mka", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg",
    ".asf", ".wmv", ".gif", ".webp",
)  # fmt: skip


def take_audio(path: str, settings: Settings, target: Path, speaking: Speaking = USUAL) -> float:
    """The part of the voice in a file, at most settings.max_audio_seconds, as a WAV at `target`; its seconds. Raises
    UserError.

    A stranger's file is decoded here alone: page, worker and clip have the WAV.
    """
    source, start, end = Path(path), speaking.audio_start, speaking.audio_end
    check_part(source, start, end)
    voice = sound.read_voice(source, settings.max_audio_seconds, start, end)
    sound.store_wav(source, voice, target, settings.max_audio_seconds, start, end)
    return round(len(voice.samples) / sound.SAMPLE_RATE, 3)


def lasts(path: Path) -> float:
    """Seconds of a sound file, by what it says itself; 0 where it is none."""
    return _lasts(path, path.stat().st_mtime_ns) if os.path.isfile(path) else 0.0


@lru_cache(maxsize=16)
def _lasts(path: Path, changed: int) -> float:
    tracks = [stream for stream in decoder.streams(path) if stream.kind == "audio"]
    return decoder.duration(path) if tracks else 0.0


def check_part(path: Path, start: float, end: float) -> None:
    """Raises UserError where the part lies behind the end of the sound; of a file that does not say how long it lasts
    nothing is known."""
    whole = lasts(path) if start or end else 0.0
    for name, value in (("audio_start", start), ("audio_end", end)):
        if whole and (value > whole + 0.05 or (name == "audio_start" and value > whole - sound.MIN_SECONDS)):
            words = f"the sound lasts {whole:.2f} s, and {value:g} s is behind its end"
            raise UserError(f"{name}: {words}; choose an earlier second", field=name)


def frames_of(voice: Path, seconds: float, model: Model) -> int:
    """Frames of the clip that a voice drives. Raises UserError (field "audio") where nothing is to be heard."""
    samples = sound.decode(voice, seconds + 1)
    if not sound.is_loud(samples).any():
        raise UserError(
            f"audio: nothing in it is louder than {sound.QUIET_DB:g} dB, so there is no voice that could drive the "
            "picture; choose another file",
            field="audio",
        )
    return sound.frame_count(round(seconds * sound.SAMPLE_RATE), model.fps)


def look_at_clip(path: str, field: str) -> tuple[int, int, float]:
    """Width, height and frames per second of a video that is to be changed. Raises UserError, which names `field`."""
    source = Path(path)
    if not os.path.isfile(source):
        what = "is not a file; choose a clip" if os.path.exists(source) else "does not exist"
        raise UserError(f"{field}: {source.name} {what}", field=field)
    return muxer.probe(source)


def take_clip(path: str, target: Path) -> Path:
    """A copy of a video at `target`, with its own suffix."""
    suffix = Path(path).suffix.lower()
    target = target.with_suffix(suffix if suffix in SUFFIXES else "")
    shutil.copyfile(path, target)
    return target


def _cropped(path: str, size: str, model: Model, crop: Crop) -> np.ndarray:
    """A picture as the clip that is made of it shows it."""
    image = open_image(path)
    width, height = model.closest_size(*image.size) if size == "auto" else parse_size(size)
    return np.asarray(fit(image, width, height, crop))


def look_for_face(path: str, size: str, model: Model, number: int = 0, crop: Crop = MIDDLE) -> tuple[bool, str]:
    """Whether the clip that is made from a picture will have a face that can speak, and words. Raises UserError."""
    return usable_face(_cropped(path, size, model, crop), max(SMALLEST, model.face), number)


@lru_cache(maxsize=16)
def _usable_clip(path: Path, changed: int, number: int) -> tuple[bool, str]:
    return usable_clip(list(muxer.read_frames(path, limit=LOOKED_AT)[0][::3]), number)


def look_for_face_in_clip(path: Path, number: int = 0) -> tuple[bool, str]:
    """Whether a clip has a face that can speak, judged by its first seconds, and words. Raises UserError."""
    return _usable_clip(path, path.stat().st_mtime_ns, number)


def faces_of_picture(path: str, size: str, model: Model, crop: Crop = MIDDLE) -> tuple[np.ndarray, list[Face]]:
    """A picture as its clip shows it, and its faces from left to right. Raises UserError."""
    image = _cropped(path, size, model, crop)
    return image, numbered(image)


@lru_cache(maxsize=16)
def _faces_of_clip(path: Path, changed: int) -> tuple[np.ndarray, list[Face]]:
    return first_seen(muxer.read_frames(path, limit=LOOKED_AT)[0])


def faces_of_clip(path: Path) -> tuple[np.ndarray, list[Face]]:
    """The frame of a clip in which its faces are counted, and they. Raises UserError."""
    return _faces_of_clip(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _voice_trouble(path: Path, max_seconds: float, changed: int, start: float, end: float) -> str:
    try:
        check_part(path, start, end)
        samples = sound.decode(path, max_seconds, start, end)
    except UserError as error:
        return str(error)
    return "" if sound.is_loud(samples).any() else f"audio: {sound.describe(samples)}"


@lru_cache(maxsize=16)
def _is_voice(path: Path, changed: int, start: float, end: float) -> bool:
    most = start + LISTENED
    samples = sound.decode(path, LISTENED, start, min(end or most, most))
    return bool(voice_activity.voiced(samples).any())


def no_voice(path: str, speaking: Speaking = USUAL) -> str:
    """What is said of a sound without a voice, judged by its beginning; "" where one is heard, or cannot be told."""
    if speaking.every_sound or voice_activity.lacking():
        return ""
    source = Path(path)
    if _is_voice(source, source.stat().st_mtime_ns, speaking.audio_start, speaking.audio_end):
        return ""
    part = f"its first {LISTENED:.0f} s" if lasts(source) - speaking.audio_start > LISTENED else "it"
    return f"no voice is heard in {part}, so the mouth stays as it is in the clip unless the lips follow every sound"


def voice_trouble(path: str, settings: Settings, speaking: Speaking = USUAL) -> str:
    """Why nothing will be spoken with that sound file: it cannot be read, is too short, too long or silent; or ""."""
    source = Path(path)
    changed = source.stat().st_mtime_ns if os.path.isfile(source) else 0
    return _voice_trouble(source, settings.max_audio_seconds, changed, speaking.audio_start, speaking.audio_end)


def check_number(inputs: dict[str, str], number: int) -> None:
    """Raises UserError (field "face") where the picture or the clip among a job's inputs has no such face; of what is
    yet to be made nothing is known."""
    if not number:
        return
    if PICTURE.name in inputs:
        pick(numbered(np.asarray(open_image(inputs[PICTURE.name]))), number)
    elif CLIP.name in inputs:
        pick(faces_of_clip(Path(inputs[CLIP.name]))[1], number)
