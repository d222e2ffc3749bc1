"""What an MP4 carries behind its clip: the pictures it was made of, and which LoRA files.

Each is a top-level `uuid` box (ISO/IEC 14496-12, 4.2), which players pass over, at the end of the finished file: 16
bytes that say it is ours, one byte with the length of its name, the name, the content. A file of a stranger may say
anything there, so a box is read only where it lies whole in the file and is no larger than what is written.
"""

import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from wan_ui import limits

log = logging.getLogger(__name__)

OURS = UUID("5b1f3c0e-92d4-4a7e-8f61-2d0a7777616e").bytes
NAMES = 16  # of what is carried: more than there is, each as large as it may be, would fill the memory
BOXES = 10_000  # looked at in one file: one that is made while it is recorded has a few thousand
LORAS = "loras"  # name of the list of LoRA files, JSON


def append(path: Path, files: Mapping[str, bytes]) -> None:
    """Behind the clip, by their names. What is too large is left out. Where it cannot be written, the file is as it
    was, and the log says why."""
    boxes = b"".join(_box(name, content) for name, content in files.items() if len(content) <= limits.CARRIED_BYTES)
    if not boxes:
        return
    try:
        with path.open("r+b") as file:
            end = file.seek(0, 2)
            try:
                file.write(boxes)
                file.flush()
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        log.warning("%s carries no pictures: %s", path.name, error)


def read(path: Path) -> dict[str, bytes]:
    """What the file carries, by name; {} where that is nothing, or it cannot be read."""
    found: dict[str, bytes] = {}
    try:
        with path.open("rb") as file:
            end, place = file.seek(0, 2), 0
            for _ in range(BOXES):
                file.seek(place)
                head = file.read(16)
                if len(head) < 8:
                    break
                size, kind, begin = int.from_bytes(head[:4], "big"), head[4:8], 8
                if size == 1 and len(head) == 16:  # too long for 32 bits
                    size, begin = int.from_bytes(head[8:], "big"), 16
                elif size == 0:  # as far as the file goes
                    size = end - place
                if size < begin or place + size > end:
                    break
                if kind == b"uuid" and begin + 17 < size <= begin + 17 + 255 + limits.CARRIED_BYTES:
                    file.seek(place + begin)
                    named = _opened(file.read(size - begin))
                    found = {**named, **found}  # the first of a name
                    if len(found) >= NAMES:
                        break
                place += size
    except OSError:
        return found
    return found


def _box(name: str, content: bytes) -> bytes:
    word = name.encode("ascii")
    body = OURS + bytes([len(word)]) + word + content
    return struct.pack(">I4s", 8 + len(body), b"uuid") + body


def _opened(body: bytes) -> dict[str, bytes]:
    length = body[16]
    word, content = body[17 : 17 + length], body[17 + length :]
    if body[:16] != OURS or len(word) < length or not word.isascii() or not 0 < len(content) <= limits.CARRIED_BYTES:
        return {}
    return {word.decode("ascii"): content}
