"""The Triton kernels around the VAE's convolutions against torch; without a GPU in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F

from tests.engines.interpreter import DEVICE
from wan_ui.engines import vae_kernels as kernels


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("channels", (12, 32))
@pytest.mark.parametrize("with_shortcut", (False, True))
def test_bias_shortcut_norm_and_silu_in_one_pass(channels, with_shortcut):
    y, bias, gamma = numbers(3, 2, 5, channels), numbers(channels, seed=1), numbers(channels, seed=2)
    shortcut = numbers(3, 2, 5, channels, seed=3) if with_shortcut else None
    total = y + bias + (shortcut if with_shortcut else 0)
    out = torch.empty_like(y)
    kernels.finish(y, bias, shortcut, gamma=gamma, total=y, out=out)
    torch.testing.assert_close(y, total)
    torch.testing.assert_close(out, F.silu(F.normalize(total, dim=-1) * channels**0.5 * gamma))


def test_channels_that_only_the_result_has_become_zero():
    y, gamma = numbers(2, 1, 3, 12), numbers(12, seed=1)
    out = torch.full((2, 1, 3, 20), 7.0, device=DEVICE)
    kernels.finish(y, gamma=gamma, out=out)
    assert not out[..., 12:].any()
    torch.testing.assert_close(out[..., :12], F.silu(F.normalize(y, dim=-1) * 12**0.5 * gamma))


def test_zeros_have_a_norm_of_zero():
    out = torch.empty(1, 1, 2, 8, device=DEVICE)
    kernels.finish(torch.zeros(1, 1, 2, 8, device=DEVICE), gamma=torch.ones(8, device=DEVICE), out=out)
    assert not out.any()


def test_the_sum_alone():
    y, bias = numbers(2, 2, 2, 12), numbers(12, seed=1)
    out = torch.empty_like(y)
    kernels.finish(y, bias, out=out)
    torch.testing.assert_close(out, y + bias)


@pytest.mark.parametrize("parts", (1, 2))
def test_every_pixel_four_times_and_parts_as_frames(parts):
    y, bias = numbers(3, 2, 5, parts * 12), numbers(parts * 12, seed=1)
    shortcut = numbers(3, 2, 5, 12, seed=2) if parts == 1 else None
    total = y + bias + (0 if shortcut is None else shortcut)
    frames = total.view(3, 2, 5, parts, 12).permute(0, 3, 1, 2, 4).reshape(3 * parts, 2, 5, 12)
    expected = frames.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(kernels.upsample(y, bias, shortcut, parts=parts), expected)
