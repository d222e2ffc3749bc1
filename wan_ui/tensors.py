"""Tensors out of checked `.safetensors` and `.gguf` files, and the few numerics of stored weights.

Both formats are a header (wan_ui/headers.py) and raw little-endian bytes, so one reader serves both,
without mapping the file: a mapped file that is replaced or truncated meanwhile kills the process
with SIGBUS.

fp8 scaled: `X.weight` is float8_e4m3fn (out, in), 448 at most; `X.weight_scale` is float32 (out, 1);
the weight is their product. ComfyUI's files have one scalar, `X.scale_weight`, instead. Dropping the
scale still loads and still runs, with a relative error of 1.35, which is why `load_strict` counts
scales as tensors that somebody must want.

Imports torch: for the worker process and the tools, not for the page.
"""

from pathlib import Path

import numpy as np
import torch

from wan_ui.headers import Header, TensorInfo

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
FP8_MAX = 448.0  # the largest float8_e4m3fn


def is_blocks(info: TensorInfo) -> bool:
    """Whether the tensor is stored in GGML blocks (Q8_0, Q4_K ...), not as plain numbers."""
    return info.dtype not in DTYPES


def read_blocks(path: Path, info: TensorInfo) -> torch.Tensor:
    """The raw bytes: uint8, (rows, bytes per row) for a 2-D tensor in GGML blocks."""
    raw = np.fromfile(path, dtype=np.uint8, count=info.nbytes, offset=info.offset)
    return torch.from_numpy(raw).reshape(info.shape[0] if info.shape else 1, -1)


def read_tensor(path: Path, info: TensorInfo) -> torch.Tensor:
    """The tensor in its stored dtype; GGML blocks are dequantised to float32 (by gguf-py, exactly)."""
    if is_blocks(info):
        from gguf import GGMLQuantizationType, quants

        values = quants.dequantize(read_blocks(path, info).numpy(), GGMLQuantizationType[info.dtype])
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).reshape(info.shape)
    raw = np.fromfile(path, dtype=np.uint8, count=info.nbytes, offset=info.offset)
    return torch.from_numpy(raw).view(DTYPES[info.dtype]).reshape(info.shape)


def original_shape(header: Header, name: str, info: TensorInfo) -> tuple[int, ...]:
    """The shape before a GGUF writer folded dimensions (GGML has four): city96's metadata, or the stored one."""
    shape = header.metadata.get(f"comfy.gguf.orig_shape.{name}")
    return tuple(shape) if isinstance(shape, list) and np.prod(shape) == np.prod(info.shape) else info.shape


def quantise_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, in) -> float8_e4m3fn (out, in) and its float32 scale (out, 1): one scale per output channel."""
    weight = weight.float()
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / FP8_MAX
    return (weight / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale


def dequantise_fp8(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """float8 (out, in) and a scale of (out, 1) or of one value -> float32 (out, in)."""
    return weight.float() * scale.float().reshape(-1, 1)


def float_tensors(path: Path, header: Header) -> dict[str, torch.Tensor]:
    """All tensors of a DIT file in float32 with their original names and shapes; fp8 scales are applied."""
    from wan_ui.engines.checkpoints import strip_prefix

    read = {
        strip_prefix(name): read_tensor(path, info).reshape(original_shape(header, name, info))
        for name, info in header.tensors.items()
    }
    tensors = {}
    for name, tensor in read.items():
        if name.endswith((".weight_scale", ".scale_weight", ".scale_input")) or name == "scaled_fp8":
            continue
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            module = name.removesuffix(".weight")
            scale = read.get(f"{module}.weight_scale", read.get(f"{module}.scale_weight"))
            tensors[name] = tensor.float() if scale is None else dequantise_fp8(tensor, scale)
        else:
            tensors[name] = tensor.float()
    return tensors
