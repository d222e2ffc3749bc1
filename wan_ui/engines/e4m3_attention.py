"""Attention in 8 bits, for drafts: FlashAttention-3's e4m3 kernel on q and k that were rotated first.

Some channels of q and k are many times larger than the rest. e4m3 with one scale per head keeps those and rounds the
rest away: the output is wrong by 0.25. A Hadamard matrix spreads each channel over all of them, and since it is
orthogonal, q k^T stays what it was; the error falls to 0.07. The part that all keys share adds the same to every score
of a row, which softmax takes out: it is subtracted before rounding, so that the scale need not hold it.

Two passes over q, k and v: the largest magnitude of each head, then its e4m3 numbers. The rotation is a product with
+1 and -1 in either, which is cheaper than writing its result.

Imported only where triton is installed; wan_ui.machine.probes tries it on a card before an engine may.
"""

import functools

import torch
import triton
import triton.language as tl

from wan_ui.engines.block_kernels import E4M3_MAX

ROWS = 64  # tokens that a program works on
WIDE = triton.knobs.runtime.interpret  # Triton's interpreter takes the bits of bf16 for whole numbers in a product


@triton.jit
def _tile(x, mean, signs, count, heads, HEAD: tl.constexpr, ROWS: tl.constexpr, CENTRED: tl.constexpr,
          ROTATED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """Tokens of one head in float32, (ROWS, HEAD): less the mean, and rotated but for the factor HEAD ** -0.5."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, HEAD)
    at = (rows[:, None] * heads + tl.program_id(1)) * HEAD + columns[None, :]
    tile = tl.load(x + at, mask=rows[:, None] < count, other=0.0)
    if CENTRED:
        shared = tl.load(mean + tl.program_id(1) * HEAD + columns)[None, :]
        shared = tl.where(rows[:, None] < count, shared, 0.0)
        tile = (tile.to(tl.float32) - shared.to(tl.float32)).to(tile.dtype)
    if ROTATED:
        matrix = tl.load(signs + columns[:, None] * HEAD + columns[None, :])
        if WIDE:
            tile, matrix = tile.to(tl.float32), matrix.to(tl.float32)
        tile = tl.dot(tile, matrix)
    return tile.to(tl.float32), at, rows


@triton.jit
def _largest(x, mean, signs, largest, count, heads, HEAD: tl.constexpr, ROWS: tl.constexpr, CENTRED: tl.constexpr,
             ROTATED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    tile, _, _ = _tile(x, mean, signs, count, heads, HEAD, ROWS, CENTRED, ROTATED, WIDE)
    tl.store(largest + tl.program_id(0) * heads + tl.program_id(1), tl.max(tl.max(tl.abs(tile), axis=1), axis=0))


@triton.jit
def _round(x, mean, signs, scales, levels, count, heads, HEAD: tl.constexpr, ROWS: tl.constexpr, CENTRED: tl.constexpr,
           ROTATED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    tile, at, rows = _tile(x, mean, signs, count, heads, HEAD, ROWS, CENTRED, ROTATED, WIDE)
    level = tile / tl.load(scales + tl.program_id(1))
    level = tl.minimum(tl.maximum(level, -448.0), 448.0)
    tl.store(levels + at, level.to(levels.dtype.element_ty), mask=rows[:, None] < count)


@functools.lru_cache
def hadamard(size: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """+1 and -1, (size, size); size ** -0.5 times it is orthogonal and its own inverse. size  a power of two"""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.to(device, dtype)


def to_e4m3(x: torch.Tensor, *, rotated: bool, centred: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """x (tokens, heads, head), head a power of two of at least 16 -> e4m3 of its shape, scales (1, heads) float32.

    centred  less the mean of all tokens
    rotated  by the Hadamard matrix
    """
    x = x.contiguous()
    count, heads, head = x.shape
    mean = x.mean(0) if centred else x
    signs = hadamard(head, x.device, x.dtype) if rotated else x
    grid = (triton.cdiv(count, ROWS), heads)
    how = {"HEAD": head, "ROWS": ROWS, "CENTRED": centred, "ROTATED": rotated, "WIDE": WIDE}
    largest = torch.empty(grid, dtype=torch.float32, device=x.device)
    _largest[grid](x, mean, signs, largest, count, heads, **how)
    scales = largest.amax(0, keepdim=True).clamp_min(1e-8) / E4M3_MAX
    levels = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    _round[grid](x, mean, signs, scales, levels, count, heads, **how)
    return levels, scales * head**-0.5 if rotated else scales


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(tokens, heads, head) -> the same, in q's dtype."""
    from fa3_fwd_interface import flash_attn_func

    dtype = q.dtype
    q, q_scales = to_e4m3(q, rotated=True, centred=False)
    k, k_scales = to_e4m3(k, rotated=True, centred=True)
    v, v_scales = to_e4m3(v, rotated=False, centred=False)
    found = flash_attn_func(q[None], k[None], v[None], q_descale=q_scales, k_descale=k_scales, v_descale=v_scales)
    return (found[0] if isinstance(found, tuple) else found)[0].to(dtype)
