"""What a CPU does in fewer passes, against the plain way: one by one, and a clip with and without each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from wan_ui import settings as settings_module
from wan_ui.catalog import find_model, load_catalog
from wan_ui.engines import cpu_blocks, cpu_kernels
from wan_ui.engines.device import Choice
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.request import Request, Sampling
from wan_ui.settings import CPU_LEVERS, load_settings


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    def use(names: str) -> None:
        monkeypatch.setattr(settings_module, "_current", replace(load_settings({}), cpu_plain=names, threads=1))

    use("")
    return use


def test_the_operators_are_there():
    """With the pinned torch: else all of this would be slow without a word."""
    assert cpu_kernels.available()
    assert "fused convolutions" in cpu_kernels.words()


def test_an_operator_that_is_wrong_is_left(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "add_conv2d", lambda out, x, weight, bias, pad: out.add_(1))
    cpu_kernels.available.cache_clear()
    try:
        assert not cpu_kernels.available() and not cpu_kernels.on_cpu(torch.zeros(1), "norms")
        assert cpu_kernels.words().startswith("plain")
    finally:
        cpu_kernels.available.cache_clear()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("chunks", [[1, 1, 1, 4], [4, 1, 2], [1], [5, 3]])
@torch.inference_mode()
def test_a_causal_convolution_in_chunks(size, chunks):
    module = torch.nn.Conv3d(8, 5, (3, size, size))
    x = torch.randn(sum(chunks), 6, 7, 8)
    pad = size // 2
    padded = F.pad(x.permute(3, 0, 1, 2)[None], (pad, pad, pad, pad, 2, 0))
    expected = F.conv3d(padded, module.weight, module.bias)[0].permute(1, 2, 3, 0)
    shortcut = torch.randn_like(expected).contiguous()
    given = shortcut.clone()
    module.weight.data = cpu_kernels.lay_out(module.weight.data)
    got, added, past = [], [], x[:0]
    for chunk, onto in zip(x.split(chunks), given.split(chunks), strict=True):
        got.append(cpu_kernels.causal(module, chunk, past))
        added.append(cpu_kernels.causal(module, chunk, past, onto))
        past = torch.cat([past, chunk])[-2:]
    torch.testing.assert_close(torch.cat(got), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(added), expected + shortcut, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_upsampling_and_its_convolution_in_one():
    weight, bias, x = torch.randn(5, 8, 3, 3), torch.randn(5), torch.randn(2, 4, 6, 8)
    large = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    expected = F.conv2d(large.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
    got = cpu_kernels.upsample(x, cpu_kernels.upsampled_weight(weight), bias)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_norm_and_silu_over_strips(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "STRIP", 100)
    x, gamma = torch.randn(3, 5, 7, 12), torch.randn(12)
    expected = F.silu(F.rms_norm(x, (12,), gamma, eps=1e-24))
    torch.testing.assert_close(cpu_kernels.norm_silu(x, gamma), expected, atol=1e-5, rtol=0)


def clip(engine: DiffusersEngine, picture: Path):
    made = Sampling("zoom in", "wan-tiny", "bf16", "diffusers", 2, 0)
    return engine.generate(Request("image-to-video", {"image": str(picture)}, 96, 64, 5, made), lambda progress: None)


def test_a_clip_is_the_same_without(plain, tmp_path):
    """Float32 as on a CPU without native bf16, on Wan-Tiny's own weights; what differs is rounding."""
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((96, 64)).convert("RGB").save(path)
    model = find_model(load_catalog(settings_module.settings().catalog), "wan-tiny")
    engine = DiffusersEngine(Choice(torch.float32, "for the test"))
    engine.load(model, model.scheme("bf16"), lambda progress: None)
    assert engine.facts["cpu"].startswith("fused convolutions, ")
    quick = clip(engine, path)
    plain(",".join(CPU_LEVERS))
    assert cpu_kernels.words().startswith("plain; ")
    engine.encoded.images.clear()
    slow = clip(engine, path)
    np.testing.assert_allclose(quick.latents, slow.latents, atol=1e-4)
    assert np.abs(quick.latents - slow.latents).max() > 0  # both ways were gone
    assert np.abs(quick.frames.astype(int) - slow.frames).max() <= 1

    expert, attention = engine.experts[0], engine.experts[0].blocks[0].attn2.processor
    prompt, full = F.pad(torch.ones(2, 3, 4), (0, 0, 0, 6)), torch.ones(1, 9, 4)
    prompt[0, 2] = 0  # the shorter of two
    with cpu_blocks.shortened(expert, prompt) as rows:
        assert rows is prompt and attention.mask is None
    plain("")
    with cpu_blocks.shortened(expert, prompt) as rows:
        assert rows.shape == (2, 4, 4) and attention.mask.exp().flatten().tolist() == pytest.approx([1, 1, 1, 6])
    with cpu_blocks.shortened(expert, full) as rows:
        assert rows is full and attention.mask is None
