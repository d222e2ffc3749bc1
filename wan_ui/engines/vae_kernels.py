"""What lies between the convolutions of the VAE's decoder, one pass over memory each: Triton kernels.

Tensors are (frames, height, width, channels), channels contiguous. A convolution leaves its bias to the kernel that
reads its output next, as does the shortcut that is added to it: with cuDNN each would be a pass of its own.

Imported only where triton is installed; wan_ui.machine.probes tries the kernels on a card before an engine may.
"""

import torch
import triton
import triton.language as tl

TILE = 8192  # numbers a program works on


@triton.jit
def _finish(
    y, bias, shortcut, gamma, total, out, count, channels, out_channels, root,
    BIAS: tl.constexpr, SHORTCUT: tl.constexpr, TOTAL: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    rows = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (rows < count) & (columns < channels)
    at = rows * channels + columns
    value = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        value += tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)
    if SHORTCUT:
        value += tl.load(shortcut + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(inside, value.to(out.dtype.element_ty).to(tl.float32), 0.0)
    if TOTAL:
        tl.store(total + at, value.to(total.dtype.element_ty), mask=inside)
    if NORM:
        value *= root * tl.rsqrt(tl.sum(value * value, axis=1) + 1e-24)[:, None]
        value *= tl.load(gamma + columns, mask=columns < channels, other=0.0).to(tl.float32)
        value = value / (1.0 + tl.exp(-value))
    filled = (rows < count) & (columns < out_channels)
    tl.store(out + rows * out_channels + columns, value.to(out.dtype.element_ty), mask=filled)


def finish(y, bias=None, shortcut=None, *, gamma=None, total=None, out) -> None:
    """out = y + bias + shortcut, or with gamma SiLU of its RMS norm; total, if given, gets the sum itself.

    All but bias and gamma (channels,) are contiguous, of y's shape; total may be y, and out may have more channels,
    which become 0.
    """
    channels, out_channels = y.shape[-1], out.shape[-1]
    count, block = y.numel() // channels, triton.next_power_of_2(max(channels, out_channels))
    rows = max(1, TILE // block)
    _finish[(triton.cdiv(count, rows),)](
        y, y if bias is None else bias, y if shortcut is None else shortcut, y if gamma is None else gamma,
        y if total is None else total, out, count, channels, out_channels, channels**0.5,
        BIAS=bias is not None, SHORTCUT=shortcut is not None, TOTAL=total is not None, NORM=gamma is not None,
        ROWS=rows, BLOCK=block, num_warps=8,
    )  # fmt: skip


@triton.jit
def _upsample(
    y, bias, shortcut, out, count, width, channels, y_pixel, y_part, bias_part, frame_pixels,
    PARTS: tl.constexpr, BIAS: tl.constexpr, SHORTCUT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixels = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    part = tl.program_id(1)
    columns = tl.arange(0, BLOCK)[None, :]
    inside = (pixels < count) & (columns < channels)
    value = tl.load(y + pixels * y_pixel + part * y_part + columns, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        value += tl.load(bias + part * bias_part + columns, mask=columns < channels, other=0.0).to(tl.float32)
    if SHORTCUT:
        value += tl.load(shortcut + pixels * y_pixel + columns, mask=inside, other=0.0).to(tl.float32)
    value = value.to(out.dtype.element_ty)
    frame, pixel = pixels // frame_pixels, pixels % frame_pixels
    row, column = pixel // width, pixel % width
    height = frame_pixels // width
    first = ((frame * PARTS + part) * 2 * height + 2 * row) * 2 * width + 2 * column
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            tl.store(out + (first + down * 2 * width + right) * channels + columns, value, mask=inside)


def upsample(y, bias=None, shortcut=None, *, parts: int = 1) -> torch.Tensor:
    """y + bias + shortcut, each pixel four times: (T, H, W, parts * C) -> (T * parts, 2 H, 2 W, C).

    The parts of a pixel become frames that follow one another. shortcut only with one part.
    """
    frames, height, width, channels = y.shape
    channels //= parts
    out = y.new_empty(frames * parts, 2 * height, 2 * width, channels)
    count, block = frames * height * width, triton.next_power_of_2(channels)
    rows = max(1, TILE // block)
    _upsample[(triton.cdiv(count, rows), parts)](
        y, y if bias is None else bias, y if shortcut is None else shortcut, out,
        count, width, channels, channels * parts, channels, channels, height * width,
        PARTS=parts, BIAS=bias is not None, SHORTCUT=shortcut is not None, ROWS=rows, BLOCK=block, num_warps=8,
    )  # fmt: skip
    return out
