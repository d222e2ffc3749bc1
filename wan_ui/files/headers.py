"""Bounded header checks: what a weight file says about itself, before any library opens it.

Weight files come from strangers. gguf-py 0.19 hangs on a malformed file of 43 bytes, safetensors'
own errors name neither file nor tensor, and a `.pth` is a pickle. Everything here reads a bounded
number of bytes, never allocates by a count that the file gives without comparing it with the file's
size, and raises UserError with the file's name. No torch; numpy and gguf only for block sizes.

Sources: gguf.md of ggml (little-endian, version 2 and 3), the safetensors README.
"""

import json
import math
import os
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.valid_text import valid_name, valid_text

MAX_TENSORS = 65_536
MAX_METADATA = 65_536
MAX_NAME = 1024  # bytes
MAX_DIMS = 5  # ggml has 4, but Wan's patch_embedding.weight is written with 5 by some tools
# Bytes of a header that are read and kept. A14B's has 0.2 MB; 100 MB, safetensors' own limit, take 20 s and 2 GB.
MAX_HEADER = 16_000_000
MAX_ITEMS = 1024  # of a GGUF array; a longer one (a tokenizer's words) is passed over
MAX_STRINGS = 300_000  # in GGUF arrays that are passed over: that can only be done one by one
MAX_SIZE = 2**48  # of a dimension, and of an offset

# struct formats of the GGUF metadata types; 8 is a string, 9 an array
GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
GGUF_STRING, GGUF_ARRAY = 8, 9

SAFETENSORS_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `dtype` is GGML's or safetensors' name, `shape` in torch order (rows first)."""

    dtype: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    nbytes: int
    part: str = ""  # of weights in several files: the name of the one, in the same folder
    then: "TensorInfo | None" = None  # its other half, along the first dimension, where a layout has it in two tensors

    def file(self, path: Path) -> Path:
        """The file that the tensor lies in, of weights that are found at `path` (a file, or a folder of parts)."""
        return (path if path.is_dir() else path.parent) / self.part if self.part else path


@dataclass(frozen=True)
class Header:
    """metadata: safetensors' texts; GGUF's texts, numbers and arrays of up to MAX_ITEMS of them."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def damaged(path: Path, why: str) -> UserError:
    return UserError(f"{valid_name(str(path))}: {why}. The file is damaged or not what its name says; fetch it again.")


def read_header(path: Path) -> Header:
    """Header of a `.gguf` or `.safetensors` file, told apart by content. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: file not found")
    return gguf_header(path) if is_gguf(path) or path.suffix == ".gguf" else safetensors_header(path)


def is_gguf(path: Path) -> bool:
    """Told by content; a folder of parts is none."""
    if os.path.isdir(path):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


class _Reader:
    """Sequential little-endian reads that never pass the end of the file; at most MAX_HEADER bytes are kept."""

    def __init__(self, path: Path):
        self.path, self.size, self.file = path, path.stat().st_size, path.open("rb")
        self.kept = self.skipped = 0

    def bytes(self, count: int) -> bytes:
        self.kept += count
        if count > self.size - self.file.tell():
            raise damaged(self.path, f"the GGUF header ends early ({self.size} bytes in all)")
        if self.kept > MAX_HEADER:
            raise damaged(self.path, f"the GGUF header has more than {MAX_HEADER // 10**6} MB")
        return self.file.read(count)

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise damaged(self.path, f"the GGUF header ends early ({self.size} bytes in all)")
        self.file.seek(count, 1)

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.bytes(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        length = self.number("Q")
        if length > MAX_HEADER:
            raise damaged(self.path, f"a GGUF string of {length} bytes")
        return self.bytes(length).decode("utf-8", "replace")

    def name(self) -> str:
        name = self.string()
        if len(name) > MAX_NAME:
            raise damaged(self.path, f"a GGUF name of {len(name)} characters")
        return name

    def value(self, kind: int) -> Any:
        """None for an array of more than MAX_ITEMS."""
        if kind == GGUF_STRING:
            return self.string()
        if kind == GGUF_ARRAY:
            item, count = self.number("I"), self.number("Q")
            if item in GGUF_SCALARS:
                size = count * struct.calcsize("<" + GGUF_SCALARS[item])
                if count > MAX_ITEMS:
                    self.skip(size)
                    return None
                return list(struct.unpack(f"<{count}{GGUF_SCALARS[item]}", self.bytes(size)))
            if item == GGUF_STRING and count <= MAX_ITEMS:
                return [self.string() for _ in range(count)]
            if item == GGUF_STRING and self.skipped + count <= MAX_STRINGS:
                self.skipped += count
                for _ in range(count):
                    self.skip(self.number("Q"))
                return None
            raise damaged(self.path, f"a GGUF array of {count} items of type {item}")
        if kind not in GGUF_SCALARS:
            raise damaged(self.path, f"GGUF metadata of unknown type {kind}")
        return self.number(GGUF_SCALARS[kind])


def gguf_header(path: Path) -> Header:
    """Metadata and tensor table of a GGUF file (version 2 or 3, little-endian). Raises UserError."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    reader = _Reader(path)
    with reader.file:
        if reader.bytes(4) != b"GGUF":
            raise damaged(path, "not a GGUF file (no GGUF magic)")
        version, n_tensors, n_metadata = reader.number("I"), reader.number("Q"), reader.number("Q")
        if version not in (2, 3):
            raise damaged(path, f"GGUF version {version}, expected 2 or 3")
        if n_tensors > MAX_TENSORS or n_metadata > MAX_METADATA:
            raise damaged(path, f"the GGUF header claims {n_tensors} tensors and {n_metadata} metadata entries")

        metadata = {}
        for _ in range(n_metadata):
            name, value = reader.name(), reader.value(reader.number("I"))
            if value is not None:
                metadata[name] = value

        table = []
        for _ in range(n_tensors):
            name, n_dims = reader.name(), reader.number("I")
            if not 0 <= n_dims <= MAX_DIMS:
                raise damaged(path, f"tensor {name!r} has {n_dims} dimensions")
            dims = [reader.number("Q") for _ in range(n_dims)]
            if max(dims, default=0) > MAX_SIZE:
                raise damaged(path, f"tensor {name!r} has a dimension of {max(dims)}")
            table.append((name, tuple(reversed(dims)), reader.number("I"), reader.number("Q")))

        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 65_536:
            raise damaged(path, f"GGUF alignment {alignment!r}")
        start = math.ceil(reader.file.tell() / alignment) * alignment

    tensors = {}
    for name, shape, kind, offset in table:
        try:
            qtype = GGMLQuantizationType(kind)
        except ValueError:
            raise damaged(path, f"tensor {name!r} has the unknown GGML type {kind}") from None
        block, block_bytes = GGML_QUANT_SIZES[qtype]
        count = math.prod(shape)
        if shape and shape[-1] % block:
            raise damaged(path, f"tensor {name!r}: rows of {shape[-1]} values do not divide into {qtype.name} blocks")
        nbytes = count // block * block_bytes
        if start + offset + nbytes > reader.size:
            raise damaged(
                path, f"truncated: tensor {name!r} ends {start + offset + nbytes - reader.size} bytes too late"
            )
        if name in tensors:
            raise damaged(path, f"tensor {name!r} appears twice")
        tensors[name] = TensorInfo(qtype.name, shape, start + offset, nbytes)
    _refuse_wrong_places(path, tensors, start, alignment)
    return Header(metadata, tensors)


def _refuse_wrong_places(path: Path, tensors: dict[str, TensorInfo], start: int, alignment: int) -> None:
    """GGUF tensors lie one after another, each at a multiple of the alignment; a wrong type or offset breaks that."""
    end = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if (info.offset - start) % alignment or not 0 <= info.offset - end < alignment:
            raise damaged(path, f"tensor {name!r}: its offset does not fit the tensor before it")
        end = info.offset + info.nbytes


def safetensors_header(path: Path, limit: int = MAX_HEADER) -> Header:
    """Metadata and tensor table of a safetensors file whose header has at most `limit` bytes. Raises UserError.

    Metadata that is not text, which the format does not allow, is left out.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise damaged(path, "the safetensors header has a name twice")
        return dict(pairs)

    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if prefix == b"version ":
            raise damaged(path, "only the Git LFS pointer to a file, not the file itself")
        if len(prefix) < 8 or length > size - 8:
            raise damaged(path, f"not a safetensors file (header of {length} bytes in a file of {size})")
        if length > limit:
            raise damaged(path, f"its header has {length / 1e6:.0f} MB; at most {limit // 10**6} can be right")
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError):  # ValueError: an integer of more than 4300 digits, too
        raise damaged(path, "the safetensors header is not JSON") from None
    if not isinstance(entries, dict):
        raise damaged(path, "the safetensors header is not a table")

    metadata = entries.pop("__metadata__", {})
    if len(entries) > MAX_TENSORS:
        raise damaged(path, f"the safetensors header has {len(entries)} tensors")
    found = [(name, _entry(path, name, entry, 8 + length)) for name, entry in entries.items()]
    tensors = dict(sorted(found, key=lambda item: (item[1].offset, item[1].nbytes)))
    covered = 8 + length
    for name, info in tensors.items():
        if info.offset != covered:
            raise damaged(path, f"tensor {name!r}: its offset does not fit the tensor before it")
        covered += info.nbytes
    if covered != size:
        raise damaged(path, f"truncated or too long: {size} bytes, the header describes {covered}")
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return Header({valid_text(key): valid_text(value) for key, value in texts if isinstance(value, str)}, tensors)


def _entry(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    """One tensor of a safetensors header; the data begin at byte `start`."""
    if len(name) > MAX_NAME or name != valid_text(name):
        raise damaged(path, f"a tensor is called {valid_text(name[:80])!r}")
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "the safetensors header has an entry without dtype, shape or data_offsets") from None
    if not isinstance(dtype, str) or dtype not in SAFETENSORS_BYTES:
        raise damaged(path, f"tensor {name!r} has the unknown type {dtype!r:.40}")
    numbers = (*shape, begin, end)
    if len(shape) > 16 or not all(type(number) is int and 0 <= number <= MAX_SIZE for number in numbers):
        raise damaged(path, f"tensor {name!r}: its shape or its offsets are no sizes")
    if end - begin != math.prod(shape) * SAFETENSORS_BYTES[dtype]:
        raise damaged(path, f"tensor {name!r}: offsets {begin}..{end} do not fit shape {shape} of {dtype}")
    return TensorInfo(dtype, shape, start + begin, end - begin)


def check_pth(path: Path) -> None:
    """Check that a torch `.pth` is a whole zip archive. Its pickle is for torch's weights_only=True."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: file not found")
    if not zipfile.is_zipfile(path):
        raise damaged(path, "not a torch checkpoint (no zip directory; truncated?)")


def expert_side(path: Path, metadata: dict[str, Any]) -> str:
    """ "high", "low" or "" for which noise expert a DIT file says it is.

    Metadata (`general.name` in GGUF, any text in safetensors) counts before the file's name.
    """
    texts = [str(value) for key, value in metadata.items() if isinstance(value, str) and len(value) < 500 and key]
    for text in (*texts, path.name):
        found: set[str] = {match.lower() for match in re.findall(r"(?i)(high|low)[-_ ]?noise", text)}
        if len(found) == 1:
            return found.pop()
    return ""
