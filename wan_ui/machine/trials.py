"""What a kernel is tried on: inputs of a model's shape, and how far its result is from float32.

Products are checked on some rows only: float32 attention over 32,760 tokens would need 170 GB for its scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wan_ui.machine.shapes import Shape

ROWS = 64  # of the result that are checked
TEXT = 512  # tokens of a prompt, which cross attention looks at
OfTensor = Callable[[Tensor], Tensor]
Pair = tuple[Tensor, Tensor]


class Unfit(Exception):
    """The kernel is not for this machine or this shape; the text says why."""


@dataclass(frozen=True)
class Trial:
    """run makes the result; error_of says its relative error against float32."""

    run: Callable[[], Any]
    error_of: Callable[[Any], float]


# ---------------------------------------------------------------- inputs and errors


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def normal(*shape: int, seed: int) -> Tensor:
    """bf16 standard normal numbers on the device; the same on every machine for small shapes."""
    generator = torch.Generator(device()).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device(), dtype=torch.bfloat16)


def relative(result: Tensor, expected: Tensor) -> float:
    difference = (result.float() - expected.float()).norm() / expected.float().norm()
    return float(difference)


def some(count: int) -> Tensor:
    """Rows to check, spread over all of them, the last included: a wrong tail is the commonest fault."""
    rows: Tensor = torch.linspace(0, count - 1, min(ROWS, count)).long().unique()  # type: ignore[no-untyped-call]
    return rows.to(device())


def attention(
    shape: Shape, kernel: Callable[[Tensor, Tensor, Tensor], Tensor], keys: int = 0, outliers: bool = False
) -> Trial:
    """kernel takes q, k, v (1, tokens, heads, head_dim) bf16 and gives q's shape.

    keys      tokens of k and v, 0: as q
    outliers  a few channels of q and k are 6 to 12 times larger than the others, as those of trained models are
    """
    counts = (shape.tokens, keys or shape.tokens, keys or shape.tokens)
    q, k, v = (normal(1, n, shape.heads, shape.head_dim, seed=seed) for seed, n in enumerate(counts, start=1))
    # Real keys share a part that all queries see; SageAttention subtracts it, others must bear it.
    k = k + 2 * normal(1, 1, shape.heads, shape.head_dim, seed=4)
    if outliers:
        for place, factor in enumerate((6, 8, 10, 12)):
            channel = (2 * place + 1) * shape.head_dim // 8
            q[..., channel] *= factor
            k[..., channel] *= factor
    rows = some(shape.tokens)

    def error_of(result: Any) -> float:
        expected = torch.empty(len(rows), shape.heads, shape.head_dim, device=q.device)
        for head in range(shape.heads):
            scores = q[0, rows, head].float() @ k[0, :, head].float().t() * shape.head_dim**-0.5
            expected[:, head] = scores.softmax(dim=-1) @ v[0, :, head].float()
        return relative(result.view(1, shape.tokens, shape.heads, shape.head_dim)[0, rows], expected)

    return Trial(lambda: kernel(q, k, v), error_of)


def gemm(shape: Shape, kernel: Callable[[Tensor], OfTensor]) -> Trial:
    """kernel(weight)(x) with weight (ffn, width) and x (tokens, width), bf16."""
    x = normal(shape.tokens, shape.width, seed=1)
    weight = normal(shape.ffn, shape.width, seed=2) * shape.width**-0.5
    rows = some(shape.tokens)
    run = kernel(weight)
    return Trial(lambda: run(x), lambda result: relative(result[rows], x[rows].float() @ weight.float().t()))


def modulate(shape: Shape, kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Trial:
    """kernel(x, scale, shift): x * (1 + scale) + shift, scale and shift (1, width)."""
    x = normal(shape.tokens, shape.width, seed=1)
    scale, shift = (normal(1, shape.width, seed=seed) for seed in (2, 3))
    return Trial(
        lambda: kernel(x, scale, shift).reshape(x.shape),
        lambda result: relative(result, x.float() * (1 + scale.float()) + shift.float()),
    )


def norm(shape: Shape, kernel: Callable[[Tensor], OfTensor]) -> Trial:
    """kernel(weight)(x): RMS norm over the width, eps 1e-6."""
    x, weight = normal(shape.tokens, shape.width, seed=1), normal(shape.width, seed=2)
    run = kernel(weight)

    def error_of(result: Any) -> float:
        exact = torch.nn.functional.rms_norm(x.float(), (shape.width,), weight.float(), 1e-6)
        return relative(result, exact)

    return Trial(lambda: run(x), error_of)


def rope(shape: Shape, kernel: Callable[[Tensor, Tensor, Tensor], Pair]) -> Trial:
    """kernel(q, k, turns) -> both turned; q, k (tokens, heads, head_dim), turns (tokens, 1, head_dim / 2) complex."""
    q, k = (normal(shape.tokens, shape.heads, shape.head_dim, seed=seed) for seed in (1, 2))
    places = torch.arange(shape.tokens, device=q.device, dtype=torch.float32)[:, None, None]
    speeds = 10000.0 ** -torch.linspace(0, 1, shape.head_dim // 2, device=q.device)
    turns = torch.polar(torch.ones_like(places * speeds), places * speeds)
    rows = some(shape.tokens)

    def error_of(result: Any) -> float:
        pairs = torch.view_as_complex(q[rows].float().reshape(len(rows), shape.heads, -1, 2))
        return relative(result[0][rows], torch.view_as_real(pairs * turns[rows]).flatten(-2))

    return Trial(lambda: kernel(q.clone(), k.clone(), turns), error_of)


def e4m3(x: Tensor, dim: int | None) -> Pair:
    """x as e4m3, with a float32 scale per tensor (dim None) or along `dim`."""
    largest = x.abs().amax() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    scale = largest.float().clamp_min(1e-8) / 448.0
    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale
