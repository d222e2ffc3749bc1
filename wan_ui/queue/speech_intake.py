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
from wan_ui.lipsync.usable import SMALLEST, usable_clip, usable_face
from wan_ui.media import muxer, sound
from wan_ui.media.images import fit, open_image
from wan_ui.settings import Settings

LOOKED_AT = 48  # frames of a clip, for words about it; the pass itself judges all of them


# Of the copies in a job's folder, which are served: any other name is not kept.
SUFFIXES = (
    ".wav", ".w64", ".aif", ".aiff", ".caf", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".amr", ".ac3",
    ".eac3", ".au", ".wma", ".mka", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg",
    ".asf", ".wmv", ".gif", ".webp",
)  # fmt: skip


def take_audio(path: str, settings: Settings, target: Path) -> float:
    """The voice in a file, at most settings.max_audio_seconds, as a WAV at `target`; its seconds. Raises UserError.

    A stranger's file is decoded here alone: page, worker and clip have the WAV.
    """
    voice = sound.read_voice(Path(path), settings.max_audio_seconds)
    sound.store_wav(Path(path), voice, target, settings.max_audio_seconds)
    return round(len(voice.samples) / sound.SAMPLE_RATE, 3)


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


def look_for_face(path: str, size: str, model: Model, crop: Crop = MIDDLE) -> tuple[bool, str]:
    """Whether the clip that is made from a picture will have a face that can speak, and words. Raises UserError."""
    image = open_image(path)
    width, height = model.closest_size(*image.size) if size == "auto" else parse_size(size)
    return usable_face(np.asarray(fit(image, width, height, crop)), max(SMALLEST, model.face))


@lru_cache(maxsize=16)
def _usable_clip(path: Path, changed: int) -> tuple[bool, str]:
    return usable_clip(list(muxer.read_frames(path, limit=LOOKED_AT)[0][::3]))


def look_for_face_in_clip(path: Path) -> tuple[bool, str]:
    """Whether a clip has a face that can speak, judged by its first seconds, and words. Raises UserError."""
    return _usable_clip(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _voice_trouble(path: Path, max_seconds: float, changed: int) -> str:
    try:
        samples = sound.decode(path, max_seconds)
    except UserError as error:
        return str(error)
    return "" if sound.is_loud(samples).any() else f"audio: {sound.describe(samples)}"


def voice_trouble(path: str, settings: Settings) -> str:
    """Why nothing will be spoken with that sound file: it cannot be read, is too short, too long or silent; or ""."""
    source = Path(path)
    changed = source.stat().st_mtime_ns if os.path.isfile(source) else 0
    return _voice_trouble(source, settings.max_audio_seconds, changed)
