"""GGUF blocks to numbers, one pass over memory: a Triton kernel for the types that files of transformers have.

A block holds 256 (K types) or 32 numbers of a row as levels of a few bits, with scales and offsets
(https://github.com/ggml-org/llama.cpp, ggml-common.h). Every operation is rounded to the type of the result, as
LightX2V's dequantisation in torch does it (utils/ggml_tensor.py): the numbers are the same, bit for bit, without the
dozen passes.

Imported only where triton is installed.
"""

import torch
import triton
import triton.language as tl

# GGUF type -> (numbers and bytes of a block)
TYPES = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
TILE = 1024  # numbers that a program writes


@triton.jit
def _rounded(value, out):
    return value.to(out.dtype.element_ty).to(tl.float32)


@triton.jit
def _dequantise(
    data, halves, out, count, TYPE: tl.constexpr, BLOCK: tl.constexpr, BYTES: tl.constexpr, TILE: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < count
    block, place = at // BLOCK, (at % BLOCK).to(tl.int32)
    begin = block * BYTES
    half = begin // 2  # where the block begins among numbers of two bytes
    if TYPE == "Q6_K":
        group = place // 128
        within = place % 128
        low = (
            tl.load(data + begin + group * 64 + within % 64, mask=inside, other=0).to(tl.int32) >> (within // 64 * 4)
        ) & 15
        high = tl.load(data + begin + 128 + group * 32 + within % 32, mask=inside, other=0).to(tl.int32)
        level = (low | (((high >> (within // 32 * 2)) & 3) << 4)) - 32
        step = tl.load(data + begin + 192 + place // 16, mask=inside, other=0).to(tl.int8, bitcast=True).to(tl.float32)
        scale = _rounded(tl.load(halves + half + 104, mask=inside, other=0.0).to(tl.float32), out)
        value = _rounded(scale * step, out) * level.to(tl.float32)
    elif TYPE == "Q4_K" or TYPE == "Q5_K":
        group = place // 32
        within = place % 32
        scales = data + begin + 4
        # Six bits each: those of groups 4 to 7 are low bits of their own and the high bits of the other bytes.
        upper = group >= 4
        first = tl.load(scales + group % 4, mask=inside, other=0).to(tl.int32)
        second = tl.load(scales + 4 + group % 4, mask=inside, other=0).to(tl.int32)
        third = tl.load(scales + 8 + group % 4, mask=inside, other=0).to(tl.int32)
        step = tl.where(upper, (third & 15) | ((first >> 2) & 48), first & 63).to(tl.float32)
        least = tl.where(upper, (third >> 4) | ((second >> 2) & 48), second & 63).to(tl.float32)
        levels = 16 if TYPE == "Q4_K" else 48
        byte = tl.load(data + begin + levels + group // 2 * 32 + within, mask=inside, other=0).to(tl.int32)
        level = (byte >> (group % 2 * 4)) & 15
        if TYPE == "Q5_K":
            high = tl.load(data + begin + 16 + within, mask=inside, other=0).to(tl.int32)
            level = level | (((high >> group) & 1) << 4)
        scale = _rounded(tl.load(halves + half, mask=inside, other=0.0).to(tl.float32), out)
        offset = _rounded(tl.load(halves + half + 1, mask=inside, other=0.0).to(tl.float32), out)
        value = _rounded(_rounded(scale * step, out) * level.to(tl.float32), out) - _rounded(offset * least, out)
    else:
        scale = _rounded(tl.load(halves + half, mask=inside, other=0.0).to(tl.float32), out)
        if TYPE == "Q8_0":
            level = tl.load(data + begin + 2 + place, mask=inside, other=0).to(tl.int8, bitcast=True).to(tl.int32)
        else:
            header = BYTES - 16
            byte = tl.load(data + begin + header + place % 16, mask=inside, other=0).to(tl.int32)
            level = (byte >> (place // 16 * 4)) & 15
            if TYPE == "Q5_0" or TYPE == "Q5_1":
                high = tl.load(data + begin + header - 4 + place // 8, mask=inside, other=0).to(tl.int32)
                level = level | (((high >> (place % 8)) & 1) << 4)
            if TYPE == "Q4_0":
                level -= 8
            if TYPE == "Q5_0":
                level -= 16
        value = scale * level.to(tl.float32)
        if TYPE == "Q4_1" or TYPE == "Q5_1":
            offset = _rounded(tl.load(halves + half + 1, mask=inside, other=0.0).to(tl.float32), out)
            value = _rounded(value, out) + offset
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def dequantise(data: torch.Tensor, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Blocks (uint8, contiguous) of a GGUF type of TYPES -> numbers of that shape; bf16 or fp16, on the same device."""
    block, size = TYPES[kind]
    out = torch.empty(shape, dtype=dtype, device=data.device)
    raw = data.view(torch.uint8)
    if raw.numel() // size * block != out.numel():
        raise ValueError(f"{raw.numel()} bytes of {kind} are no {tuple(shape)}")
    grid = (triton.cdiv(out.numel(), TILE),)
    _dequantise[grid](raw, raw.view(torch.float16), out, out.numel(), TYPE=kind, BLOCK=block, BYTES=size, TILE=TILE)
    return out
