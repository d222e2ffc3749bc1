"""The Triton kernels around a block's products against torch; without a GPU in Triton's interpreter.

The interpreter cuts what does not fit bf16 and e4m3 off, where a GPU rounds to the nearest.
"""

import pytest
import torch
import torch.nn.functional as F

from tests.engines.interpreter import DEVICE
from wan_ui.engines import block_kernels as kernels


def numbers(*shape, dtype=torch.bfloat16, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def same(got, expected):
    """Equal, or in the interpreter the number below it."""
    if DEVICE == "cuda":
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got, expected, atol=0, rtol=2**-7)


def same_levels(rows, exact):
    """Rounded to e4m3 by row, as upstream's fp8-torchao does it; a last bit of an exp may turn a tie."""
    levels = (exact / (exact.abs().amax(1, keepdim=True) / 448)).clamp(-448, 448).to(torch.float8_e4m3fn).float()
    got = rows.levels.float()
    close = (levels - got).abs() <= levels.abs() / 8 + 2**-9  # e4m3 has three bits behind the point
    # In the interpreter a mantissa that rounds up to the next power of two is left at half of it.
    assert close.all() if DEVICE == "cuda" else close.float().mean() > 0.9
    assert DEVICE == "cpu" or (levels == got).float().mean() > 0.99


@pytest.mark.parametrize("per_token", (False, True))
@pytest.mark.parametrize("width", (48, 128))
def test_residual_norm_modulation_and_e4m3_in_one_pass(width, per_token):
    x, added = numbers(7, width), numbers(7, width, seed=1)
    gate, scale, shift = (numbers(7 if per_token else 1, width, seed=seed) for seed in (2, 3, 4))
    residual = (x.float() + added.float() * gate.float()).bfloat16()
    rows = kernels.layer_norm(
        x, scale, shift, eps=1e-6, modulated=True, added=added, gate=gate, plain=True, levels=True
    )
    same(x, residual)
    expected = F.layer_norm(x.float(), (width,), eps=1e-6) * (1 + scale.float()) + shift.float()
    torch.testing.assert_close(rows.plain, expected.bfloat16(), atol=2**-7, rtol=2**-7)
    torch.testing.assert_close(rows.scales, expected.abs().amax(1, keepdim=True) / 448, atol=0, rtol=1e-5)
    same_levels(rows, expected)


def test_affine_norm_without_an_addition_leaves_x_alone():
    x, weight, bias = numbers(5, 48), numbers(48, seed=1), numbers(48, seed=2)
    before = x.clone()
    rows = kernels.layer_norm(x, weight, bias, eps=1e-6, modulated=False)
    assert torch.equal(x, before) and rows.levels is None
    expected = F.layer_norm(x.float(), (48,), weight.float(), bias.float(), 1e-6)
    torch.testing.assert_close(rows.plain, expected.bfloat16(), atol=2**-7, rtol=2**-7)


def test_an_addition_without_a_gate():
    x, added, scale = numbers(3, 32), numbers(3, 32, seed=1), torch.zeros(1, 32, dtype=torch.bfloat16, device=DEVICE)
    expected = x + added
    kernels.layer_norm(x, scale, scale, eps=1e-6, modulated=True, added=added)
    same(x, expected)


@pytest.mark.parametrize("gelu", (False, True))
def test_quantise_equals_upstreams_formula(gelu):
    x = numbers(6, 96)[:, :72]  # rows of a wider tensor
    exact = F.gelu(x.float(), approximate="tanh") if gelu else x.float()
    scale = exact.abs().amax(1, keepdim=True) / 448
    rows = kernels.quantise(x, gelu=gelu, plain=True)
    torch.testing.assert_close(rows.scales, scale, atol=0, rtol=1e-5)
    same_levels(rows, exact)
    torch.testing.assert_close(rows.plain, exact.bfloat16(), atol=2**-8, rtol=2**-7)


def test_a_row_of_zeros_stays_zero():
    rows = kernels.quantise(torch.zeros(2, 32, dtype=torch.bfloat16, device=DEVICE))
    assert rows.levels.float().abs().max() == 0 and rows.scales.min() > 0


@pytest.mark.parametrize("rotated", (False, True))
def test_norm_and_rotation_of_heads(rotated):
    heads, head = 3, 16
    width = heads * head
    wider, weight = numbers(5, 2 * width), numbers(width, seed=1)
    x, beside = wider[:, :width], wider[:, width:].clone()
    angles = numbers(5, head // 2, dtype=torch.float32, seed=2)
    turns = torch.stack([angles.cos(), angles.sin()], -1)
    expected = F.rms_norm(x.float(), (width,), weight.float(), 1e-6)
    if rotated:
        pairs = torch.view_as_complex(expected.view(5, heads, head // 2, 2)) * torch.view_as_complex(turns)[:, None]
        expected = torch.view_as_real(pairs).reshape(5, width)
    kernels.norm_rotate(x, weight, turns if rotated else None, eps=1e-6, head=head)
    torch.testing.assert_close(x, expected.bfloat16(), atol=2**-7, rtol=2**-7)
    assert torch.equal(wider[:, width:], beside)
