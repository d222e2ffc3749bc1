"""Which MuseTalk runs: the official weights where they are, the small one that ships otherwise. No torch."""

from pathlib import Path

from wan_ui.lipsync.files import find_weights
from wan_ui.settings import ROOT, Settings

OFFICIAL = "TMElyralab/MuseTalk"
EMBEDDED = ROOT / "assets" / "musetalk-tiny"


def choose_weights(settings: Settings) -> tuple[Path, str]:
    """The folder, and which it is with the reason, for people."""
    folder = settings.models / OFFICIAL
    missing = find_weights(folder)[1]
    if not missing:
        return folder, "MuseTalk 1.5 (its weights are in the models folder)"
    why = f"{folder} lacks {missing[0]}" if folder.is_dir() else f"no {OFFICIAL} in the models folder"
    return EMBEDDED, f"the small embedded MuseTalk ({why})"
