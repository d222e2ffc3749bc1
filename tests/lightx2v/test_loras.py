"""LoRAs in LightX2V on Wan-Tiny: the same files as in the diffusers engine, on every scheme, and off again."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import lora_files
from tests.engines import test_loras
from tests.lightx2v.jobs import make_request, quiet
from wan_ui.errors import UserError
from wan_ui.families import NOISE_TARGETS
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.places import locate
from wan_ui.request import LoraSpec
from wan_ui.settings import settings


@pytest.fixture(scope="module")
def shapes(model):
    return read_parameters(locate(model, model.scheme("gguf-Q8_0"), settings()).configs[0])


@pytest.fixture
def predict(model):
    """predict(engine) -> what each expert says to the same input, float32."""
    generator = torch.Generator().manual_seed(3)
    latents, condition = (torch.randn(size, 3, 8, 8, generator=generator) for size in (16, 20))
    prompt = torch.randn(32, 128, generator=generator)

    def run(engine):
        engine.set_size(64, 64, 9) if hasattr(engine, "set_size") else None
        engine.plan(4)
        return [
            engine.predict(latents, sigma, index, prompt, condition).cpu() for index, sigma in enumerate((1.0, 0.7))
        ]

    return run


def test_every_format_on_either_expert(load, reference, model, predict, shapes, tmp_path):
    """Both engines change by the same, layer counts included, and return to base bit for bit."""
    production, other = load("bf16"), reference(model, "bf16")
    bases = predict(production), predict(other)
    for number, form in enumerate(lora_files.FORMATS):
        path = tmp_path / f"{form}.safetensors"
        alpha = 2 if form in ("kohya", "kijai") else None
        lora_files.write(path, shapes, form, rank=4 + number, alpha=alpha, size=0.2, seed=number, diffs=True)
        target = NOISE_TARGETS[number % 2]
        spec = LoraSpec(str(path), 0.7, target)
        ours, theirs = production.set_loras([spec]), other.set_loras([spec])
        assert ours == theirs
        assert ours[0].matched[target].split("/")[0] == ours[0].matched[target].split("/")[1]
        changed = [predict(engine) for engine in (production, other)]
        one, untouched = number % 2, 1 - number % 2
        assert torch.equal(changed[0][untouched], bases[0][untouched])
        change = changed[1][one] - bases[1][one]
        assert change.norm() > 0.01 * bases[1][one].norm()
        assert (changed[0][one] - changed[1][one]).norm() < 2e-3 * change.norm(), form
    production.set_loras([])
    assert all(map(torch.equal, predict(production), bases[0]))


@pytest.mark.parametrize("scheme", ("fp8", "gguf-Q4_0"))
def test_on_quantised_weights(load, predict, shapes, tmp_path, scheme):
    for name, rank in (("a", 4), ("b", 16)):
        lora_files.write(tmp_path / f"{name}.safetensors", shapes, rank=rank, seed=rank, size=0.3, diffs=True)
    engine = load(scheme, torch.bfloat16)
    base = predict(engine)

    def specs(*strengths, target="both"):
        return [
            LoraSpec(str(tmp_path / f"{name}.safetensors"), s, target) for name, s in zip("ab", strengths, strict=False)
        ]

    (match,) = engine.set_loras(specs(1.0))
    assert set(match.matched) == set(NOISE_TARGETS)
    first = predict(engine)
    assert not any(map(torch.equal, first, base))
    engine.set_loras(specs(0.5, 0.5))
    assert not any(map(torch.equal, predict(engine), first))
    engine.set_loras(specs(0.0, 0.0))
    assert all(map(torch.equal, predict(engine), base))
    engine.set_loras(specs(1.0))
    assert all(map(torch.equal, predict(engine), first))
    engine.set_loras(specs(1.0, target="low_noise"))
    changed = predict(engine)
    assert torch.equal(changed[0], base[0]) and torch.equal(changed[1], first[1])
    (tmp_path / "b.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"b\.safetensors"):
        engine.set_loras(specs(1.0, 1.0))
    assert all(map(torch.equal, predict(engine), base))


def test_block_offload(load, offload, predict, shapes, tmp_path):
    """The weights that compute are two buffers then; the first block's was filled before the norms changed."""
    lora_files.write(tmp_path / "a.safetensors", shapes, size=0.3, diffs=True)
    spec = LoraSpec(str(tmp_path / "a.safetensors"), 1.0, "both")
    whole = load("bf16")
    whole.set_loras([spec])
    expected = predict(whole)
    offload("block")
    engine = load("bf16")
    assert engine.offload == "block"
    base = predict(engine)
    engine.set_loras([spec])
    for got, wanted in zip(predict(engine), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)
    engine.set_loras([])
    assert all(map(torch.equal, predict(engine), base))


def test_clip_with_loras_equals_the_other_engine(load, reference, model, shapes, tmp_path):
    """Different LoRAs on the two experts, four steps."""
    for seed, side in enumerate(NOISE_TARGETS):
        lora_files.write(tmp_path / f"{side}.safetensors", shapes, seed=seed, size=0.1)
    specs = [LoraSpec(str(tmp_path / f"{side}.safetensors"), 1.0, side) for side in NOISE_TARGETS]
    request = make_request(tmp_path, model, "bf16")
    clips = []
    for engine in (load("bf16"), reference(model, "bf16")):
        base = engine.generate(request, quiet)
        engine.set_loras(specs)
        clip = engine.generate(request, quiet)
        assert clip.facts["loras"].count("layers") == 2
        assert np.abs(clip.latents - base.latents).max() > 0.1
        clips.append(clip)
    assert np.abs(clips[0].latents - clips[1].latents).max() < 2e-3


def test_the_same_change_in_every_form(load, predict, shapes, tmp_path):
    """Alphas, patterns, prefixes, convolution shapes and what is left out: as in the other engine."""
    engine = load("bf16")
    base, layers = predict(engine), test_loras.layers_of(shapes)

    def changed(made):
        tensors, metadata = made if isinstance(made, tuple) else (made, None)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "x.safetensors", metadata)
        engine.set_loras([LoraSpec(str(tmp_path / "x.safetensors"), 0.2, "both")])
        return predict(engine)

    expected = changed(test_loras.pairs(layers, test_loras.comfy))
    for name, make in test_loras.SAME.items():
        for got, wanted, without in zip(changed(make(layers)), expected, base, strict=True):
            assert (got - wanted).norm() < 1e-3 * (wanted - without).norm(), name
    engine.set_loras([])
    assert all(map(torch.equal, predict(engine), base))
