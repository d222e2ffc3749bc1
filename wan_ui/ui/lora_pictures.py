"""Small pictures of LoRAs for the shelf: made once, kept in the cache, asked for by a key that the page was given."""

import io
import logging
import os
import re
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.loras.covers import Cover, content_of
from wan_ui.media.images import fit, open_image
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

SIZE = (240, 180)
KNOWN = 4000  # keys that are remembered, twice as many as there are files in a folder
KEY = re.compile(r"[0-9a-f]{32}")

_covers: OrderedDict[str, Cover] = OrderedDict()
_changing = threading.Lock()


def offer(cover: Cover) -> str:
    """The address of a picture that the page shows; relative, so that it also holds behind a proxy."""
    with _changing:
        _covers[cover.key] = cover
        _covers.move_to_end(cover.key)
        while len(_covers) > KNOWN:
            _covers.popitem(last=False)
    return f"api/lora-pictures/{cover.key}"


def small_picture(key: str, settings: Settings) -> bytes:
    """As WebP. Raises UserError where there is none, or none that can be read: the page has drawn one already."""
    with _changing:
        cover = _covers.get(key) if KEY.fullmatch(key) else None
    if cover is None:
        raise UserError("lora: there is no such picture")
    kept = settings.cache / "lora-pictures" / f"{key}.webp"
    try:
        return kept.read_bytes()
    except OSError:
        pass
    try:
        content = _made(content_of(cover))
    except OSError as error:
        raise UserError(f"lora: the picture cannot be read ({error.strerror})") from None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f".{key}.{threading.get_ident()}.part")
        part.write_bytes(content)
        os.replace(part, kept)
    except OSError as error:
        log.warning("the picture of a LoRA is not kept: %s", error)
    return content


def _made(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="wan-ui-lora-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        small = io.BytesIO()
        fit(open_image(path, "lora"), *SIZE).save(small, "WEBP", quality=82)
    return small.getvalue()
