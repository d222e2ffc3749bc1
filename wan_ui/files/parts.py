"""Weights that lie in one file, or in several beside each other: Diffusers' and the official release's folders.

    header = read_weights(path)     # as of one file; each tensor says which part it lies in
    weights_size(path)              # bytes of all parts

`path` is a file, a folder with one set of weights, its `*.safetensors.index.json`, or any of the parts. The parts are
found by the index, and without one by their own names (`NAME-00001-of-00003.safetensors`). No torch.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from wan_ui.errors import UserError
from wan_ui.files.headers import Header, TensorInfo, damaged, is_gguf, read_header

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
INDEX = ".safetensors.index.json"
MAX_INDEX = 32_000_000  # bytes
MAX_PARTS = 1000
SUFFIXES = (".safetensors", ".gguf", ".pth")


def read_weights(path: Path) -> Header:
    """The header of all parts together. Raises UserError naming the part that is missing, damaged or another's."""
    parts, index = find_parts(path)
    if parts == [path]:
        return read_header(path)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, Any] = {}
    for part in parts:
        header = read_header(part)
        metadata |= header.metadata
        for name, info in header.tensors.items():
            if name in tensors:
                raise damaged(part, f"tensor {name!r} is in {tensors[name].part}, too")
            tensors[name] = replace(info, part=part.name)
    lost = next((name for name in index if name not in tensors), "")
    if lost:
        raise damaged(parts[0].parent / index[lost], f"the index says that tensor {lost!r} is in it, and it is not")
    return Header(metadata, tensors)


def find_parts(path: Path) -> tuple[list[Path], dict[str, str]]:
    """The files of the weights at `path`, and what the index says: tensor -> name of its file; {} without one.

    Raises UserError: nothing there, a part that is missing, several sets of weights in one folder.
    """
    if path.name.endswith(INDEX):
        return _indexed(path)
    match = PART.fullmatch(path.name)
    if os.path.isfile(path) and match and not is_gguf(path):
        index = path.with_name(match["stem"] + INDEX)
        return _indexed(index) if index.is_file() else (_numbered(path.parent, match), {})
    if not os.path.isdir(path):
        return [path], {}
    indices = sorted(path.glob(f"*{INDEX}"))
    files = sorted(file for file in path.glob("*.safetensors") if not file.name.startswith("."))
    if len(indices) == 1:
        return _indexed(indices[0])
    if len(indices) > 1 or not files:
        what = "no .safetensors file" if not files else f"{len(indices)} indices ({', '.join(i.name for i in indices)})"
        raise UserError(f"{path}: the folder holds {what}; name a folder or a file that holds one set of weights")
    matches = [PART.fullmatch(file.name) for file in files]
    if matches[0] and all(match and match["stem"] == matches[0]["stem"] for match in matches):
        return _numbered(path, matches[0]), {}
    if len(files) > 1:
        raise UserError(
            f"{path}: the folder holds {len(files)} files ({', '.join(file.name for file in files[:3])}) and no index; "
            "name the one that is meant"
        )
    return files, {}


def all_parts(ref: str) -> list[str]:
    """The names of all parts, from that of one of them; of a whole file that one."""
    match = PART.fullmatch(ref)
    if not match:
        return [ref]
    numbers = range(1, int(match["count"]) + 1)
    return [f"{match['stem']}-{number:05}-of-{match['count']}.safetensors" for number in numbers]


def weights_in(folder: Path) -> list[Path]:
    """What may be weights directly in a folder, one path for each set: a file, an index, or the first of its parts."""
    found, seen = [], set()
    names = sorted(name.name for name in folder.iterdir() if name.is_file() and not name.name.startswith("."))
    for name in sorted(names, key=lambda name: not name.endswith(INDEX)):
        match = PART.fullmatch(name)
        stem = match["stem"] if match else name.removesuffix(INDEX)
        if name.endswith(INDEX) or (match and stem not in seen):
            seen.add(stem)
            found.append(folder / name)
        elif not match and PurePath(name).suffix in SUFFIXES:
            found.append(folder / name)
    return found


def weights_size(path: Path) -> int:
    """Bytes of the weights at `path`, of all parts together; what is missing counts nothing."""
    try:
        parts, _ = find_parts(path)
    except UserError:
        return 0
    return sum(part.stat().st_size for part in parts if part.is_file())


def _indexed(index: Path) -> tuple[list[Path], dict[str, str]]:
    if not index.is_file():
        raise UserError(f"{index}: file not found")
    if index.stat().st_size > MAX_INDEX:
        raise damaged(index, f"an index of {index.stat().st_size / 1e6:.0f} MB")
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(index, f"not an index of weights ({type(error).__name__})") from None
    wrong = [name for name in names if not isinstance(name, str) or PurePath(name).name != name]
    if wrong or not 1 <= len(names) <= MAX_PARTS:
        raise damaged(index, f"it names the part {str(wrong[0])[:80]!r}" if wrong else f"it names {len(names)} parts")
    parts = [index.parent / name for name in names]
    missing = [part.name for part in parts if not os.path.isfile(part)]
    if missing:
        raise UserError(
            f"{index}: {len(missing)} of {len(parts)} parts are missing (first: {index.parent / missing[0]}); "
            "fetch what is missing, or the folder again"
        )
    return parts, places


def _numbered(folder: Path, match: re.Match[str]) -> list[Path]:
    count = int(match["count"])
    names = [f"{match['stem']}-{number:05}-of-{match['count']}.safetensors" for number in range(1, count + 1)]
    missing = [name for name in names[:MAX_PARTS] if not (folder / name).is_file()]
    if missing or not 1 <= count <= MAX_PARTS:
        raise UserError(
            f"{folder / match.string}: it is one part of a split file, and {len(missing)} of {count} parts are not "
            f"beside it (first: {(missing or ['?'])[0]}); fetch what is missing"
        )
    return [folder / name for name in names]
