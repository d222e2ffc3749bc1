"""What a finished clip's file is given beside its settings: its pictures, and the checksums of its LoRAs."""

import io
import logging
from pathlib import Path

from PIL import Image

from wan_ui import limits
from wan_ui.loras import checksums
from wan_ui.media import carried
from wan_ui.request import Request, Result
from wan_ui.settings import Settings
from wan_ui.tasks import FORM, TASKS

log = logging.getLogger(__name__)
PICTURES = {entry.name: entry.file for entry in FORM if entry.kind == "picture"}


def carry(request: Request, folder: Path, result: Result, settings: Settings) -> None:
    """So that a video which is dropped on a page brings back what it was made of. request: with its files in `folder`.

    Never costs the clip: what goes wrong is in the log.
    """
    clip = folder / result.clip
    if not result.clip or not clip.is_file():
        return
    task, made = TASKS[request.task], request.made_with
    files: dict[str, bytes] = {}
    try:
        if not task.samples:  # of a clip that came from elsewhere: what it carried
            found = carried.read(Path(request.inputs[task.shape]))
            files = {name: found[name] for name in (*PICTURES, carried.LORAS) if name in found}
        if request.without_picture:
            files = {name: content for name, content in files.items() if name not in PICTURES}
        else:
            files |= {name: _picture(folder / file) for name, file in PICTURES.items() if (folder / file).is_file()}
        if made and made.loras and (sums := checksums.to_carry(made.loras, settings)):
            files[carried.LORAS] = sums
        carried.append(clip, files)
    except Exception:
        log.exception("what %s was made of is not in its file", clip.name)


def _picture(path: Path) -> bytes:
    """The picture as it was used, its pixels and nothing else; as JPEG where PNG is too large."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    image.info.clear()
    stored = io.BytesIO()
    image.save(stored, "PNG")
    if len(stored.getvalue()) > limits.CARRIED_BYTES:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=95, subsampling=0)
    return stored.getvalue()
