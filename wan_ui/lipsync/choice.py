"""Which MuseTalk runs: the official weights where they are whole, the small one that ships otherwise. No torch."""

import importlib.util
from pathlib import Path

from wan_ui.lipsync.files import DETECTOR, PARSER, POSE, find_weights
from wan_ui.place import COMMAND, DATA
from wan_ui.settings import Settings

OFFICIAL = "TMElyralab/MuseTalk"
EMBEDDED = DATA / "assets" / "musetalk-tiny"
FETCH = f"`{COMMAND} download musetalk` fetches what is missing"


def choose_weights(settings: Settings) -> tuple[Path, str]:
    """The folder, and which it is with the reason, for people."""
    folder, words = settings.models / OFFICIAL, shortcoming(settings)
    if not find_weights(folder)[1]:
        return folder, f"MuseTalk 1.5 ({words or 'its weights are in the models folder'})"
    return EMBEDDED, f"the small embedded MuseTalk ({words or f'no {OFFICIAL} in the models folder'})"


def shortcoming(settings: Settings) -> str:
    """What a folder of the official weights that somebody has begun to fill lacks, and what that means; or ""."""
    folder = settings.models / OFFICIAL
    if not folder.is_dir():
        return ""
    missing = find_weights(folder)[1]
    if missing:
        return f"{OFFICIAL} in the models folder lacks {', '.join(missing)}, so the small model speaks; {FETCH}"
    if not (folder / PARSER).is_file():
        return f"{OFFICIAL} in the models folder lacks {PARSER}, so the mask follows the jaw's landmarks; {FETCH}"
    if has_dwpose(folder) and not can_run_dwpose():
        return "DWPose's files are there, but not what runs them, so libfacedetection finds the face; `make dwpose`"
    return ""


def has_dwpose(folder: Path) -> bool:
    return (folder / DETECTOR).is_file() and (folder / POSE).is_file()


def can_run_dwpose() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("rtmlib", "onnxruntime"))
