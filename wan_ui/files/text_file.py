"""A text encoder's file of whatever converter: the release's `.pth`, Diffusers' folder, ComfyUI's file, GGUF.

    entries = read_text(path)                           # original name -> Entry; UserError saying what the file is
    tensor = plain_text(path, entries["norm.weight"])

All of a safetensors or GGUF file is settled from its header, as of a DIT (dit_file.py): names, shapes, scales. Of a
`.pth` the tensors themselves are the entries. Imports torch in functions: the page asks `text_is_fp8`.
"""

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Union

from wan_ui.errors import UserError
from wan_ui.files.dit_file import FP8, Stored, match, refuse_parts
from wan_ui.files.names import original_t5
from wan_ui.files.parts import read_weights, weights_size
from wan_ui.files.sizes import t5_parameters, t5_sizes
from wan_ui.valid_text import valid_text

if TYPE_CHECKING:
    import torch

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
MAX_PICKLE = 32_000_000  # bytes of the table in a .pth
# What Python's zipfile raises for an archive that is damaged, or of a kind that it does not know; OSError: its bz2.
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError,
    ValueError, OSError,
)  # fmt: skip
Entry = Union[Stored, "torch.Tensor"]


def is_pickle(path: Path) -> bool:
    """Whether torch has saved it, by name or content."""
    return path.is_file() and (path.suffix in PICKLES or zipfile.is_zipfile(path))


def read_text(path: Path) -> dict[str, Entry]:
    """What has the encoder's parameters, by their original names; of an fp8 `.pth` the scales too. Raises UserError."""
    if is_pickle(path):
        from wan_ui.files.tensors import read_pth

        return dict(original_t5(read_pth(path)))
    return dict(stored_text(path))


def stored_text(path: Path) -> dict[str, Stored]:
    """The same of a safetensors or GGUF file or folder, from its header alone. Raises UserError."""
    header = read_weights(path)
    if header.metadata.get("split.count"):
        refuse_parts(path, header)
    tensors = original_t5({name: (name, info) for name, info in header.tensors.items()})
    sizes = t5_sizes(path, {name: info for name, (_, info) in tensors.items()})
    wanted = t5_parameters(sizes)
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} tensors of the text encoder are missing (first: {', '.join(missing[:3])}). "
            "Is it the whole file?"
        )
    return match(path, header, tensors, wanted, "by its other tensors")


def plain_text(path: Path, entries: Mapping[str, Entry], name: str) -> "torch.Tensor":
    """A parameter as plain numbers; of an fp8 weight multiplied with its scale."""
    from wan_ui.files.tensors import dequantise_fp8, read_plain

    entry = entries[name]
    if isinstance(entry, Stored):
        return read_plain(path, entry)
    scale = entries.get(f"{name}_scale")
    if scale is not None and not isinstance(scale, Stored):
        return dequantise_fp8(entry, scale)
    return entry


def text_is_fp8(path: Path) -> bool:
    """Whether the linear layers are stored as fp8, so that an engine may multiply with them as they are."""
    if path.name.endswith("fp8.pth"):
        return True
    if is_pickle(path):
        return _pickle_names(path, b"weight_scale")
    try:
        return any(entry.info.dtype in FP8 for name, entry in stored_text(path).items() if ".attn." in name)
    except UserError:  # said when the file is read
        return False


def expanded_size(path: Path) -> int:
    """Bytes of the encoder in bf16, however it is stored; about."""
    size = weights_size(path)
    if is_pickle(path):
        return 2 * size if text_is_fp8(path) else size
    try:
        return 2 * sum(math.prod(entry.shape) for entry in stored_text(path).values())
    except UserError:  # said when the file is read
        return size


def pickle_table(path: Path) -> bytes:
    """The table of a `.pth`, of which nothing is executed; empty where it has none, or a huge one. Raises UserError."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next((entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")), None)
            if entry is None or entry.file_size >= MAX_PICKLE:
                return b""
            with archive.open(entry) as file:
                return file.read(MAX_PICKLE)  # what it says of its size need not be so
    except UNREADABLE as error:
        words = valid_text(str(error)) or "truncated"
        raise UserError(f"{path}: not a torch checkpoint that can be read ({words}); fetch it again") from None


def _pickle_names(path: Path, word: bytes) -> bool:
    """Whether the table of a `.pth` names a tensor with `word` in it."""
    try:
        return word in pickle_table(path)
    except UserError:
        return False
