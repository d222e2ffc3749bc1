"""What lies between the products of a transformer block, one pass over memory each: Triton kernels.

A row is one token. Sums are in float32; what is written is rounded once, to the residual stream's dtype or to e4m3
with one scale per row (largest magnitude / 448, as upstream's fp8-torchao does it). Each function has its plain
torch equivalent in tests/engines/test_block_kernels.py, which runs the kernels in Triton's interpreter.

Imported only where triton is installed; wan_ui.machine.probes tries the kernels on a card before an engine may.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

E4M3_MAX = 448.0


@triton.jit
def _write_row(value, columns, inside, row, width, plain, levels, scales, PLAIN: tl.constexpr, LEVELS: tl.constexpr):
    """A row in float32 -> as it is, rounded, and / or as e4m3 with its scale."""
    if PLAIN:
        tl.store(plain + row * width + columns, value.to(plain.dtype.element_ty), mask=inside)
    if LEVELS:
        scale = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-8) / 448.0
        tl.store(scales + row, scale)
        level = tl.minimum(tl.maximum(value / scale, -448.0), 448.0)
        tl.store(levels + row * width + columns, level.to(levels.dtype.element_ty), mask=inside)


@triton.jit
def _layer_norm(
    x, added, gate, scale, shift, plain, levels, scales, width, gate_stride, modulation_stride, eps,
    ADDED: tl.constexpr, GATED: tl.constexpr, MODULATED: tl.constexpr, PLAIN: tl.constexpr, LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        addition = tl.load(added + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            addition *= tl.load(gate + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
        stored = (value + addition).to(x.dtype.element_ty)
        tl.store(x + row * width + columns, stored, mask=inside)
        value = stored.to(tl.float32)
    mean = tl.sum(value, axis=0) / width
    centred = tl.where(inside, value - mean, 0.0)
    value = centred * tl.rsqrt(tl.sum(centred * centred, axis=0) / width + eps)
    factor = tl.load(scale + row * modulation_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if MODULATED:
        factor += 1.0
    value = value * factor + tl.load(shift + row * modulation_stride + columns, mask=inside, other=0.0).to(tl.float32)
    _write_row(value, columns, inside, row, width, plain, levels, scales, PLAIN, LEVELS)


@triton.jit
def _quantise(
    x, plain, levels, scales, width, row_stride, GELU: tl.constexpr, PLAIN: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * row_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if GELU:  # by tanh: x * sigmoid(2 z)
        value = value / (1.0 + tl.exp(-1.5957691216057308 * (value + 0.044715 * value * value * value)))
    _write_row(value, columns, inside, row, width, plain, levels, scales, PLAIN, True)


@triton.jit
def _norm_rotate(
    x, weight, turns, width, row_stride, eps, head: tl.constexpr, ROTATED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    at = x + row * row_stride + columns
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, axis=0) / width + eps)
    value *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if ROTATED:
        turn = tl.load(turns + row * head + columns % head, mask=inside, other=0.0)
        even, odd = tl.split(tl.reshape(value, (BLOCK // 2, 2)))
        real, imaginary = tl.split(tl.reshape(turn, (BLOCK // 2, 2)))
        turned = tl.join(even * real - odd * imaginary, even * imaginary + odd * real)
        value = tl.reshape(turned, (BLOCK,))
    tl.store(at, value.to(x.dtype.element_ty), mask=inside)


@dataclass(slots=True)
class Rows:
    """Tokens on their way into a product: `plain`, in the compute dtype, `levels` e4m3 with `scales` (n, 1), or all."""

    plain: torch.Tensor | None = None
    levels: torch.Tensor | None = None
    scales: torch.Tensor | None = None

    def pointers(self, stand_in: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What is not wanted is given another tensor, which the kernel leaves alone."""
        return tuple(stand_in if part is None else part for part in (self.plain, self.levels, self.scales))


def _empty_rows(like: torch.Tensor, plain: bool, levels: bool) -> Rows:
    count, width = like.shape
    rows = Rows()
    if plain:
        rows.plain = torch.empty(count, width, dtype=like.dtype, device=like.device)
    if levels:
        rows.levels = torch.empty(count, width, dtype=torch.float8_e4m3fn, device=like.device)
        rows.scales = torch.empty(count, 1, dtype=torch.float32, device=like.device)
    return rows


def _warps(block: int) -> int:
    return max(1, min(8, block // 512))


def _stride(vector: torch.Tensor) -> int:
    """0 for one row that serves all tokens."""
    return vector.stride(0) if vector.dim() == 2 and len(vector) > 1 else 0


def layer_norm(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    *,
    eps: float,
    modulated: bool,
    added: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
    plain: bool = True,
    levels: bool = False,
) -> Rows:
    """x += added * gate, in place; then norm(x) * (1 + scale) + shift, or norm(x) * scale + shift unless `modulated`.

    x, added (n, width) contiguous; gate, scale and shift (width,), (1, width) or (n, width)
    """
    count, width = x.shape
    rows, block = _empty_rows(x, plain, levels), triton.next_power_of_2(width)
    _layer_norm[(count,)](
        x, x if added is None else added, x if gate is None else gate, scale, shift, *rows.pointers(x),
        width, 0 if gate is None else _stride(gate), _stride(scale), eps,
        ADDED=added is not None, GATED=gate is not None, MODULATED=modulated, PLAIN=plain, LEVELS=levels,
        BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return rows


def quantise(x: torch.Tensor, *, gelu: bool = False, plain: bool = False) -> Rows:
    """x (n, width), rows contiguous -> e4m3 by row, of GELU(x) (tanh) if wanted."""
    count, width = x.shape
    rows, block = _empty_rows(x, plain, True), triton.next_power_of_2(width)
    _quantise[(count,)](
        x, *rows.pointers(x), width, x.stride(0), GELU=gelu, PLAIN=plain, BLOCK=block, num_warps=_warps(block)
    )
    return rows


def norm_rotate(x: torch.Tensor, weight: torch.Tensor, turns: torch.Tensor | None, *, eps: float, head: int) -> None:
    """RMS norm of every row, then its heads rotated; in place.

    x       (n, width) rows contiguous
    weight  (width,)
    turns   (n, head / 2, 2) float32, cosine and sine of each pair; None: no rotation
    """
    count, width = x.shape
    block = triton.next_power_of_2(width)
    _norm_rotate[(count,)](
        x, weight, weight if turns is None else turns, width, x.stride(0), eps,
        head=head, ROTATED=turns is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
