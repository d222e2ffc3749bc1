"""GGUF types that no file here has: random blocks, dequantised by LightX2V and by gguf-py, and experts made of them."""

import json
from dataclasses import replace

import gguf
import pytest
import torch

from wan_ui.catalog import Scheme
from wan_ui.engines import diffusers, lightx2v_decide
from wan_ui.qa import layouts, synthetic
from wan_ui.settings import settings

K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")


def blocks(qtype, shape):
    return synthetic.blocks(qtype, shape, 0.05, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("qtype", (*K_QUANTS, "Q8_0", "Q5_0", "Q4_0"))
def test_dequantised_as_by_gguf_py_and_multiplied(lightx2v, device, qtype):
    from lightx2v.utils.ggml_tensor import GGMLTensor, dequantize_tensor
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    kind, shape = gguf.GGMLQuantizationType[qtype], (96, 512)
    raw = blocks(qtype, shape)
    exact = torch.from_numpy(gguf.quants.dequantize(raw.numpy(), kind)).reshape(shape)
    assert 0.03 < exact.std() < 0.08
    stored = GGMLTensor(data=raw.to(device), orig_shape=torch.Size(shape), gguf_type=kind)
    assert torch.equal(dequantize_tensor(stored, torch.float32).cpu(), exact)
    layer = MM_WEIGHT_REGISTER[{"Q4_K": "gguf-Q4_K_M", "Q5_K": "gguf-Q5_K_M"}.get(qtype, f"gguf-{qtype}")]("w", None)
    layer.weight, layer.bias = stored, None
    x = torch.randn(7, 512, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer.apply(x.to(device)).cpu(), x @ exact.t(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("qtype", ("Q4_K_M", "Q5_K_M", "Q6_K"))
def test_experts_as_in_the_diffusers_engine(load, reference, model, monkeypatch, tmp_path, qtype):
    """Wan-Tiny's sizes with random weights, mixed as llama.cpp's files are; one step of either expert in float32."""
    scheme = Scheme(f"gguf-{qtype}", qtype, "gguf", qtype=qtype)
    synthetic.install()  # draws the values of files that are marked as such; others are read as before
    locate = lightx2v_decide.locate
    layout = layouts.dit(json.loads(locate(model, model.scheme("bf16"), settings()).configs[0].read_text()), scheme)
    experts = []
    for side in ("high_noise", "low_noise"):
        experts.append(tmp_path / f"{side}.gguf")
        synthetic.write_hole(experts[-1], layout, side)

    def found(model, scheme, *args, **kwargs):
        return replace(locate(model, model.scheme("gguf-Q8_0"), *args, **kwargs), experts=tuple(experts))

    monkeypatch.setattr(lightx2v_decide, "locate", found)
    monkeypatch.setattr(diffusers, "locate", found)
    production, other = load(scheme), reference(model, scheme)
    generator = torch.Generator().manual_seed(3)
    latents, condition = (torch.randn(size, 3, 8, 8, generator=generator) for size in (16, 20))
    prompt = torch.randn(32, 128, generator=generator)
    production.set_size(64, 64, 9)
    for engine in (production, other):
        engine.plan(4)
    for expert, sigma in enumerate((1.0, 0.7)):
        ours, theirs = (
            engine.predict(latents, sigma, expert, prompt, condition).cpu() for engine in (production, other)
        )
        assert theirs.std() > 0.1
        assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-4
