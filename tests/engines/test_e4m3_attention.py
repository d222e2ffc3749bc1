"""q, k and v in e4m3 against float32: what rotation and the shared part of the keys do. Without a GPU interpreted."""

import pytest
import torch

from tests.engines.interpreter import DEVICE
from wan_ui.engines import e4m3_attention
from wan_ui.engines.e4m3_attention import hadamard, to_e4m3

HEADS, HEAD = 2, 128
OUTLIERS = {3: 6.0, 40: 8.0, 77: 10.0, 100: 12.0}  # channel -> how much larger it is


def with_outliers(tokens: int, seed: int, shared: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, HEADS, HEAD, generator=generator)
    x += shared * torch.randn(1, HEADS, HEAD, generator=generator)
    for channel, factor in OUTLIERS.items():
        x[..., channel] *= factor
    return x.to(DEVICE, torch.bfloat16)


def attend(q, k, v):
    """(tokens, heads, head) float32"""
    scores = torch.einsum("qhd,khd->hqk", q, k) * HEAD**-0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def relative(result, expected) -> float:
    return ((result - expected).norm() / expected.norm()).item()


def numbers(levels, scales):
    return levels.float() * scales[0][:, None]


def test_the_matrix_is_orthogonal():
    matrix = hadamard(HEAD, torch.device("cpu"), torch.float32) * HEAD**-0.5
    assert torch.allclose(matrix @ matrix.t(), torch.eye(HEAD), atol=1e-6)


@pytest.mark.parametrize(("rotated", "centred"), [(False, False), (True, False), (True, True)])
def test_the_numbers_are_those_that_torch_rounds(rotated, centred):
    x = with_outliers(70, seed=1, shared=2.0)  # more than one program, the last one in part
    exact = x.float() - (x.float().mean(0) if centred else 0)
    if rotated:
        exact = exact @ hadamard(HEAD, x.device, torch.float32) * HEAD**-0.5
    levels, scales = to_e4m3(x, rotated=rotated, centred=centred)
    assert scales.shape == (1, HEADS) and levels.shape == x.shape
    assert torch.allclose(scales[0], exact.abs().amax((0, 2)) / 448, rtol=0.02)
    # The interpreter cuts off where a GPU rounds.
    assert relative(numbers(levels, scales), exact) < (0.04 if DEVICE == "cuda" else 0.08)


def test_rotation_keeps_what_outliers_take_away():
    q, k, v = with_outliers(160, 1), with_outliers(160, 2, shared=2.0), with_outliers(160, 3)
    expected = attend(q.float(), k.float(), v.float())

    def error(rotated: bool, centred: bool) -> float:
        rounded = [to_e4m3(q, rotated=rotated, centred=False), to_e4m3(k, rotated=rotated, centred=centred)]
        return relative(attend(*(numbers(*part) for part in rounded), v.float()), expected)

    plain, turned, both = error(False, False), error(True, False), error(True, True)
    assert both < turned < plain / 2 and both < 0.12, (plain, turned, both)


def test_the_kernel_is_given_levels_and_scales(monkeypatch):
    """A stand-in for FlashAttention-3, which takes e4m3 and a factor for each head."""
    import sys
    import types

    def flash_attn_func(q, k, v, *, q_descale, k_descale, v_descale):
        assert {x.dtype for x in (q, k, v)} == {torch.float8_e4m3fn}
        parts = [numbers(x[0], scales) for x, scales in ((q, q_descale), (k, k_descale), (v, v_descale))]
        return attend(*parts)[None].to(torch.bfloat16)

    monkeypatch.setitem(sys.modules, "fa3_fwd_interface", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    q, k, v = (with_outliers(70, seed) for seed in (1, 2, 3))
    result = e4m3_attention.attention(q, k, v)
    assert result.dtype == torch.bfloat16 and result.shape == q.shape
    assert relative(result.float(), attend(q.float(), k.float(), v.float())) < 0.12
