"""GGUF weights that get their numbers once, plain or as e4m3, against those that upstream makes at every use."""

import numpy as np
import pytest
import torch

from tests import lora_files
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_fused import psnr, relative, steps  # noqa: F401 - a fixture; skips without triton
from tests.lightx2v.test_loras import shapes  # noqa: F401
from wan_ui.engines.lightx2v_blocks import FusedBlocks
from wan_ui.engines.lightx2v_build import dequantise
from wan_ui.families import HIGH_NOISE, LOW_NOISE
from wan_ui.request import LoraSpec

E4M3 = 0.08  # relative, of a step; both sides of a product are rounded by 0.026


def kinds(engine):
    """The dtypes of the linear layers' weights, by block of the first expert."""
    return [
        {layer.weight.dtype for phase in block.compute_phases for layer in phase._modules.values() if layer_of(layer)}
        for block in engine.transformers[0].transformer_weights.blocks
    ]


def layer_of(thing):
    return (getattr(thing, "weight_name", None) or "").endswith(("attn.q.weight", "ffn.2.weight"))


@pytest.fixture
def own_lora(shapes, tmp_path):  # noqa: F811
    """own_lora(engine): it has a LoRA of its own, attached to either expert."""
    path = tmp_path / "own.safetensors"
    lora_files.write(path, shapes, rank=4, size=0.2)

    def attach(engine):
        engine.loras.fixed = {expert.side: [path] for expert in (HIGH_NOISE, LOW_NOISE)}
        engine.loras.current = None
        engine.set_loras([])

    return attach


def test_plain_numbers_are_those_of_every_use(load, steps):  # noqa: F811
    engine = load("gguf-Q8_0")
    expected = steps(engine)
    assert dequantise(engine, e4m3=False, merge=True) == {}
    for ours, theirs in zip(steps(engine), expected, strict=True):
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("fused", [False, True])
def test_e4m3_is_as_close_as_rounding_allows(load, steps, fused):  # noqa: F811
    """With upstream's blocks and with ours; the first and last block keep their numbers."""
    engine = load("gguf-Q8_0", torch.bfloat16)
    expected = steps(engine)
    dequantise(engine, e4m3=True, merge=True)
    plain, rounded = {torch.bfloat16}, {torch.float8_e4m3fn}
    assert kinds(engine) == [plain, *[rounded] * (len(kinds(engine)) - 2), plain]
    if fused:
        FusedBlocks([part.transformer_infer for part in engine.transformers])
    found = [relative(ours, theirs) for ours, theirs in zip(steps(engine), expected, strict=True)]
    print(f"e4m3, {'ours' if fused else 'upstream'}'s blocks: {found}")
    assert min(found) > 0.001 and max(found) < (0.1 if fused else E4M3)  # the interpreter cuts off, a GPU rounds


@pytest.mark.parametrize("e4m3", [False, True])
def test_the_models_own_lora_goes_into_the_weights_before_they_are_rounded(load, steps, own_lora, e4m3):  # noqa: F811
    engine = load("gguf-Q8_0", torch.bfloat16 if e4m3 else torch.float32)
    bases = steps(engine)
    own_lora(engine)
    beside = steps(engine)
    facts = dequantise(engine, e4m3=e4m3, merge=True)
    assert "merged" in facts["distill LoRA"] and not any(expert.attached for expert in engine.loras.experts)
    for ours, theirs, base in zip(steps(engine), beside, bases, strict=True):
        assert relative(base, theirs) > 2 * E4M3
        assert relative(ours, theirs) < (E4M3 if e4m3 else 1e-4)


@pytest.mark.parametrize("e4m3", [False, True])
def test_loras_beside_the_weights_of_a_model_that_keeps_its_own_apart(
    load, steps, own_lora, shapes, tmp_path, e4m3  # noqa: F811
):  # fmt: skip
    """An undistilled clip leaves the model's own out; what a job asks for is added, and comes off again."""
    engine = load("gguf-Q8_0", torch.bfloat16 if e4m3 else torch.float32)
    own_lora(engine)
    expected = steps(engine)
    assert dequantise(engine, e4m3=e4m3, merge=False) == {}
    with_own = steps(engine)
    for ours, theirs in zip(with_own, expected, strict=True):
        assert relative(ours, theirs) < (E4M3 if e4m3 else 1e-4)
    path = tmp_path / "x.safetensors"
    lora_files.write(path, shapes, rank=4, size=0.2, seed=1)
    engine.set_loras([LoraSpec(str(path), 1.0)])
    assert all(relative(ours, theirs) > 0.1 for ours, theirs in zip(steps(engine), with_own, strict=True))
    engine.set_loras([])
    assert all(map(torch.equal, steps(engine), with_own))


def test_a_clip_in_e4m3_is_that_of_the_scheme(load, model, tmp_path):
    request = make_request(tmp_path, model, "gguf-Q8_0")
    engine = load("gguf-Q8_0", torch.bfloat16)
    exact = engine.generate(request, quiet)
    dequantise(engine, e4m3=True, merge=True)
    rounded = engine.generate(request, quiet)
    error = np.linalg.norm(rounded.latents - exact.latents) / np.linalg.norm(exact.latents)
    print(f"e4m3: {psnr(rounded.frames, exact.frames):.1f} dB, latents {error:.3f}")
    assert psnr(rounded.frames, exact.frames) > 43 and error < E4M3
