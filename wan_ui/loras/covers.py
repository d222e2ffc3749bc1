"""Where the picture of a LoRA is: beside its file, or in its metadata. Nothing is decoded here."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.loras.entry import LoraEntry
from wan_ui.loras.folder import COVERS, lora_header

BESIDE = (".png", ".jpg", ".jpeg", ".webp")  # behind the file's name without its ending, or after ".preview"
MAX_BYTES = 20_000_000  # of a picture that is made small


@dataclass(frozen=True)
class Cover:
    """path: a picture, or the LoRA whose metadata hold one (`inside`). key: another one whenever it has changed."""

    path: Path
    inside: bool
    key: str


def cover_of(entry: LoraEntry) -> Cover | None:
    """The first that there is; of a pair either file's. Never raises."""
    for inside in (False, True):
        for path in entry.files.values():
            for place in (path,) if inside else _beside(path):
                try:
                    there = place.stat()
                    right = place.is_file() and place.resolve().parent == path.resolve().parent
                except (OSError, RuntimeError):
                    continue
                if right and ((inside and entry.cover) or (not inside and there.st_size <= MAX_BYTES)):
                    said = f"{place}|{there.st_size}|{there.st_mtime_ns}"
                    return Cover(place, inside, hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32])
    return None


def _beside(path: Path) -> list[Path]:
    names = [path.stem + middle + suffix for middle in ("", ".preview") for suffix in BESIDE]
    return [path.with_name(name) for name in names]


def content_of(cover: Cover) -> bytes:
    """The picture as it is stored. Raises UserError or OSError."""
    if not cover.inside:
        with cover.path.open("rb") as file:
            return file.read(MAX_BYTES + 1)[:MAX_BYTES]
    metadata = lora_header(cover.path).metadata
    for key in COVERS:
        if isinstance(text := metadata.get(key), str) and text and (content := _decoded(text)):
            return content
    raise UserError("its metadata hold no picture that can be read")


def _decoded(text: str) -> bytes:
    """ "data:image/jpeg;base64,...", base64 alone, or the first of a JSON list of such; b"" for anything else."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return b""
        text = next((entry for entry in found if isinstance(entry, str)), "")
    head, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        return b""
