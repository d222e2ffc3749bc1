"""LoRA files by what is in them: which ones a clip was made with, and whether they are here under another name."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from wan_ui import stored
from wan_ui.errors import UserError
from wan_ui.files.version import version
from wan_ui.loras.choice import locate
from wan_ui.loras.entry import LoraEntry
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings
from wan_ui.valid_text import valid_values

Files = dict[str, set[tuple[int, str]]]  # name of a LoRA -> bytes and sha256 of its files


def sha256(path: Path) -> str:
    """Of a file's content, once as long as it is the same file. Raises OSError."""
    return _sha256(path, version(path.stat()))


@lru_cache(maxsize=1000)
def _sha256(path: Path, stamp: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_carry(specs: Sequence[LoraSpec], settings: Settings) -> bytes:
    """For the file of a clip: a JSON list; b"" where there is nothing to say. Of what is not here, nothing is said."""
    entries = []
    for spec in specs:
        try:
            paths = dict.fromkeys(locate(spec, settings).values())
            files = [{"size": path.stat().st_size, "sha256": sha256(path)} for path in paths]
        except (UserError, OSError):  # it has gone since, or lies on another machine
            continue
        entries.append({"file": spec.file, "files": files})
    return json.dumps(entries).encode() if entries else b""


def read(content: bytes) -> Files:
    """What `to_carry` gave, of a stranger's file: as far as it can be read."""
    try:
        entries = valid_values(json.loads(content))
    except (ValueError, RecursionError):
        return {}
    found: Files = {}
    for entry in entries if isinstance(entries, list) else ():
        name, files = (entry.get("file"), entry.get("files")) if isinstance(entry, dict) else (None, None)
        good = {
            (int(file["size"]), file["sha256"])
            for file in (files if isinstance(files, list) else ())
            if isinstance(file, dict)
            and (stored.number(file.get("size")) or 0) > 0
            and isinstance(file.get("sha256"), str)
            and re.fullmatch("[0-9a-f]{64}", file["sha256"])
        }
        if isinstance(name, str) and good:
            found[name] = good
    return found


def find(name: str, files: set[tuple[int, str]], entries: Sequence[LoraEntry]) -> LoraEntry | None:
    """The entry whose files these are, first that of the same name. Only files of the same size are read."""
    return next((entry for entry in sorted(entries, key=lambda entry: entry.name != name) if _is(entry, files)), None)


def _is(entry: LoraEntry, files: set[tuple[int, str]]) -> bool:
    sizes = {size for size, _ in files}
    try:
        here = [path for path in entry.files.values() if path.stat().st_size in sizes]
        return len(here) >= len(files) and files <= {(path.stat().st_size, sha256(path)) for path in here}
    except OSError:
        return False
