"""Tensors out of checked `.safetensors` and `.gguf` files, and the few numerics of stored weights.

Both formats are a header (wan_ui/files/headers.py) and raw little-endian bytes, so one reader serves both,
without mapping the file: a mapped file that is replaced or truncated meanwhile kills the process
with SIGBUS.

fp8 scaled, as we write it: `X.weight` is float8_e4m3fn (out, in), 448 at most; `X.weight_scale` is float32
(out, 1); the weight is their product. Which other layouts there are is told in wan_ui/files/dit_file.py.

Imports torch: for the worker process and the tools, not for the page.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch.overrides import TorchFunctionMode

from wan_ui.errors import UserError
from wan_ui.files.dit_file import FP8, Stored, read_raw
from wan_ui.files.headers import TensorInfo, check_pth, damaged

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
FP8_MAX = 448.0  # the largest float8_e4m3fn
MAPPED = 2**32  # bytes; larger `.pth` files are mapped


def is_blocks(info: TensorInfo) -> bool:
    """Whether the tensor is stored in GGML blocks (Q8_0, Q4_K ...), not as plain numbers."""
    return info.dtype not in DTYPES


def read_blocks(path: Path, info: TensorInfo) -> torch.Tensor:
    """The raw bytes: uint8, (rows, bytes per row) for a 2-D tensor in GGML blocks."""
    return torch.from_numpy(read_raw(path, info)).reshape(info.shape[0] if info.shape else 1, -1)


def read_tensor(path: Path, info: TensorInfo) -> torch.Tensor:
    """The tensor in its stored dtype; GGML blocks are dequantised to float32 (by gguf-py, exactly)."""
    if is_blocks(info):
        from gguf import GGMLQuantizationType, quants

        values = quants.dequantize(read_blocks(path, info).numpy(), GGMLQuantizationType[info.dtype])
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(info.shape)
    return torch.from_numpy(read_raw(path, info)).view(DTYPES[info.dtype]).reshape(info.shape)


def quantise_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, in) -> float8_e4m3fn (out, in) and its float32 scale (out, 1): one scale per output channel."""
    weight = weight.float()
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (weight / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale


def dequantise_fp8(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """float8 (out, in) and a scale of one value, (out, 1) or (out, blocks) -> float32 (out, in)."""
    scale = scale.float().reshape(len(weight) if scale.numel() > 1 else 1, -1, 1)
    return (weight.float().reshape(len(weight), scale.shape[1], -1) * scale).reshape(weight.shape)


def read_scale(path: Path, stored: Stored) -> torch.Tensor:
    """float32 (out, 1), or (out, blocks): 1 where the weight has no scale of its own."""
    out = stored.shape[0]
    if stored.scale is None:
        return torch.ones(out, 1)
    scale = read_tensor(path, stored.scale).float()
    return scale.reshape(1, 1).repeat(out, 1) if scale.numel() == 1 else scale.reshape(out, -1)


def read_plain(path: Path, stored: Stored) -> torch.Tensor:
    """A parameter as plain numbers in its own shape: scaled or dequantised to float32, else in the stored dtype."""
    tensor = read_tensor(path, stored.info).reshape(stored.shape)
    if stored.scale is not None:
        return dequantise_fp8(tensor, read_scale(path, stored))
    return tensor.float() if stored.info.dtype in FP8 else tensor


def read_fp8(path: Path, stored: Stored) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear layer's weight as float8_e4m3fn (out, in) and float32 (out, 1), for kernels that take nothing else.

    e5m2 has one bit of fraction less and a wider range: it is multiplied by a power of two per channel, which is exact
    but for numbers 2**17 times smaller than their channel's largest. What is no fp8 is quantised here.
    """
    if stored.info.dtype not in FP8:
        return quantise_fp8(read_plain(path, stored))
    weight, scale = read_tensor(path, stored.info).reshape(stored.shape), read_scale(path, stored)
    if stored.info.dtype == "F8_E4M3":
        return weight, scale
    largest = weight.float().abs().amax(dim=1, keepdim=True).clamp_min(2.0**-16)
    power = torch.exp2(torch.ceil(torch.log2(largest / FP8_MAX)))
    return (weight.float() / power).to(torch.float8_e4m3fn), scale * power


def float_tensors(path: Path, stored: dict[str, Stored]) -> dict[str, torch.Tensor]:
    """All parameters of a DIT file in float32, by their original names."""
    return {name: read_plain(path, parameter).float() for name, parameter in stored.items()}


def read_pth(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint of tensors only (weights_only=True: nothing in it is executed). Raises UserError.

    A mapped file that is cut off meanwhile ends the process with SIGBUS, so that it is copied. Only UMT5-XXL's 11 GB
    are mapped: they need not fit into memory beside everything else.
    """
    check_pth(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size > MAPPED)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError ... for damaged files
        raise damaged(path, f"torch cannot read it ({type(error).__name__})") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise damaged(path, "not a table of tensors")
    return tensors


class _NoFirstValues(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (*args, *kwargs.values())[0]
        return func(*args, **kwargs)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """The parameters of a module made in here have shapes, but no values nor room for them, see `load_strict`; what
    else it computes is real: on the meta device, a division alone imports torch's compiler, a second."""
    with init_empty_weights(), _NoFirstValues():
        yield


def load_strict(module: torch.nn.Module, tensors: dict[str, torch.Tensor], *, file: Path) -> None:
    """Put `tensors` into `module` as they are (assign, no copy and no cast), all or nothing.

    Raises UserError naming the file and the first missing or unexpected names, or the first shape
    that differs, expected against got.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors are missing (first: {', '.join(missing[:3])})")
        if unexpected:
            parts.append(f"{len(unexpected)} are unexpected (first: {', '.join(unexpected[:3])})")
        raise UserError(f"{file}: does not fit {type(module).__name__}: {'; '.join(parts)}. Is it the right file?")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != tuple(expected[name].shape):
            raise UserError(
                f"{file}: tensor {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
                f" by the model's config. Is it the right file?"
            )
    module.load_state_dict(tensors, strict=True, assign=True)
