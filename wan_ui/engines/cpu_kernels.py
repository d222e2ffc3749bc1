"""What a CPU does for the VAE and the blocks in fewer passes over memory; the numbers stay those of float32.

The convolutions of Wan-Tiny have 16 to 96 channels, so that on two cores moving their frames takes as long as
multiplying them. oneDNN, which torch convolves with, can add to what is there, and can apply GELU to a product before
it is written; torch has both as operators for its own compiler (`torch.ops.mkldnn`), which needs no compiler to be
called. `available` tries them once: where they are missing or wrong, everything is done as before. Each can be left
out by WAN_UI_CPU_PLAIN, and benchmarks/LOG.md has what each gives.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from wan_ui.settings import CPU_LEVERS, settings, split_names

STRIP = 2**19  # values that are normalised at a time: 2 MB in float32, so that most passes find them in the cache
LANES = 16  # float32 values of a register of AVX-512; oneDNN fills up output channels to so many
EPS = 1e-24  # stands in for F.normalize's clamp: only exact zeros feel either


def wanted(lever: str) -> bool:
    return lever not in split_names(settings().cpu_plain)


@cache
def available() -> bool:
    """Whether torch has oneDNN's operators here, and they give what the plain ones give."""
    generator = torch.Generator().manual_seed(0)
    try:
        x = torch.randn(2, 6, 7, 16, generator=generator)
        weight = torch.randn(16, 16, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last)
        bias, out = torch.randn(16, generator=generator), torch.randn(2, 6, 7, 16, generator=generator)
        wanted_sum = out + F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
        add_conv2d(out, x, weight, bias, 1)
        rows, matrix = torch.randn(5, 16, generator=generator), torch.randn(8, 16, generator=generator)
        product = F.gelu(F.linear(rows, matrix, bias[:8]), approximate="tanh")
        return torch.allclose(out, wanted_sum, atol=1e-4) and torch.allclose(
            linear_gelu(rows, matrix, bias[:8]), product, atol=1e-4
        )
    except (RuntimeError, AttributeError, TypeError):  # another torch: its own operators have no promise
        return False


def words() -> str:
    """For the facts: what is done so, and why the rest is not."""
    if not available():
        return "plain (this torch has no oneDNN operators, or they were wrong)"
    taken = [lever for lever in CPU_LEVERS if wanted(lever)]
    left = [lever for lever in CPU_LEVERS if lever not in taken]
    return (f"fused {', '.join(taken)}" if taken else "plain") + (f"; {', '.join(left)} switched off" if left else "")


def on_cpu(x: torch.Tensor, lever: str) -> bool:
    """Whether `lever` is taken for this tensor: float32 on a CPU. bf16 has convolutions and products of its own."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and wanted(lever) and available()


# ---------------------------------------------------------------- the VAE: tensors are (T, H, W, C)


def lay_out(weight: torch.Tensor) -> torch.Tensor:
    """A weight (O, C, taps, h, w) of the same values in which the weight of each tap lies as conv2d wants it."""
    return weight.permute(2, 0, 3, 4, 1).contiguous().permute(1, 4, 0, 2, 3)


def add_conv2d(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: Any, pad: int) -> None:
    """out += the convolution of every frame of x."""
    torch.ops.mkldnn._convolution_pointwise_.binary(
        out.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight, bias,
        [pad, pad], [1, 1], [1, 1], 1, "add", 1.0, None, [], None,
    )  # fmt: skip


def causal(module: Any, x: torch.Tensor, context: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
    """The causal convolution of x, of whose past `context` is known (no more frames than taps - 1); before it: zeros.

    onto  what it is added to, in place
    """
    weight, bias = module.weight, module.bias
    last, pad = weight.shape[2] - 1, weight.shape[-1] // 2
    if onto is None and (last + 1) * len(weight) <= LANES:
        return _narrow(weight, bias, x, context, pad)
    newest = weight[:, :, last]
    if onto is None:
        onto = F.conv2d(x.permute(0, 3, 1, 2), newest, bias, padding=pad).permute(0, 2, 3, 1)
    else:
        add_conv2d(onto, x, newest, bias, pad)
    count, known = len(x), len(context)
    for back in range(1, last + 1):
        tap = weight[:, :, last - back]
        if count > back:
            add_conv2d(onto[back:], x[:-back], tap, None, pad)
        first, end = max(0, back - known), min(back, count)  # frames that look so far back, and find something
        if first < end:
            add_conv2d(onto[first:end], context[known - back + first : known - back + end], tap, None, pad)
    return onto


def _narrow(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, context: torch.Tensor, pad: int) -> torch.Tensor:
    """`causal` for few output channels, as for RGB: those of all taps fill one register and are convolved at once."""
    channels, _, taps = weight.shape[:3]
    whole = weight.permute(2, 0, 1, 3, 4).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    past = torch.cat([x.new_zeros(taps - 1 - len(context), *x.shape[1:]), context])
    parts = [F.conv2d(part.permute(0, 3, 1, 2), whole, padding=pad).permute(0, 2, 3, 1) for part in (past, x)]
    y, frames = torch.cat([part.unflatten(-1, (taps, channels)) for part in parts]), len(x)
    out = y[taps - 1 :, :, :, taps - 1] + bias
    for tap in range(taps - 1):
        out += y[tap : tap + frames, :, :, tap]
    return out


def upsampled_weight(weight: torch.Tensor) -> torch.Tensor:
    """(O, C, 3, 3), for an image of which each pixel was repeated 2 x 2 -> (4 O, C, 2, 2) for the image itself.

    Of three neighbours in a row two are the same pixel: the first two for an odd one, the last two for an even one.
    """
    even = torch.stack([weight[..., 0], weight[..., 1] + weight[..., 2]], dim=-1)
    odd = torch.stack([weight[..., 0] + weight[..., 1], weight[..., 2]], dim=-1)
    phases = []
    for rows in (0, 1):
        for half in (even, odd):
            pair = [half[..., :1, :], half[..., 1:2, :] + half[..., 2:, :]]
            if rows:
                pair = [half[..., :1, :] + half[..., 1:2, :], half[..., 2:, :]]
            phases.append(torch.cat(pair, dim=-2))
    return torch.cat(phases).contiguous(memory_format=torch.channels_last)


def upsample(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Nearest-neighbour upsampling to twice the size and a convolution in one; weight: upsampled_weight()."""
    frames, height, width, _ = x.shape
    channels = len(bias)
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias.repeat(4), padding=1).permute(0, 2, 3, 1)
    out = x.new_empty(frames, height, 2, width, 2, channels)
    for phase in range(4):
        row, column = divmod(phase, 2)
        part = y[:, row : row + height, column : column + width, phase * channels : (phase + 1) * channels]
        out[:, :, row, :, column] = part
    return out.view(frames, 2 * height, 2 * width, channels)


def norm_silu(x: torch.Tensor, gamma: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
    """SiLU(RMS norm) over the last dimension; in_place: into x itself, whose pages are there already."""
    channels = x.shape[-1]
    mean = x.new_full((channels, 1), 1 / channels)
    out = x if in_place else torch.empty_like(x)
    rows = max(1, STRIP // channels)
    scratch = x.new_empty(min(rows, x.numel() // channels), channels)
    for strip, target in zip(x.view(-1, channels).split(rows), out.view(-1, channels).split(rows), strict=True):
        squares = torch.mul(strip, strip, out=scratch[: len(strip)])
        scale = torch.mm(squares, mean).add_(EPS).rsqrt_()
        torch.mul(strip, scale, out=target)
        F.silu(target.mul_(gamma), inplace=True)
    return out


# ---------------------------------------------------------------- the blocks


def linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")
