"""Checkpoints of other people's converters in LightX2V: each expert answers as it does in the diffusers engine."""

from dataclasses import replace

import pytest
import torch

from tests import dit_files
from tests.lightx2v.test_loras import predict, shapes  # noqa: F401 - fixtures
from wan_ui.catalog import Scheme
from wan_ui.engines import diffusers, lightx2v_decide
from wan_ui.errors import UserError
from wan_ui.files import convert, places
from wan_ui.files.dit_file import read_dit
from wan_ui.files.tensors import float_tensors
from wan_ui.settings import settings

QUANT = dit_files.said("float8_e4m3fn")


def partly(tensors):
    """Scaled, unscaled and bf16 layers in one file, behind ComfyUI's prefix."""
    scaled = dit_files.scaled_fp8(tensors, "scale_weight", dtype=dit_files.E5M2)
    for name in filter(dit_files.LINEAR.match, tensors):
        if "cross_attn" in name:
            scaled[name] = tensors[name].to(dit_files.E4M3)
            del scaled[name.replace(".weight", ".scale_weight")]
        elif ".ffn.2." in name:
            scaled[name] = tensors[name].bfloat16()
            del scaled[name.replace(".weight", ".scale_weight")]
    return dit_files.prefixed(scaled) | {"vae.conv1.weight": torch.zeros(4, 4)}


# name -> (kind, how a file is written, the largest difference between the engines, relative)
LAYOUTS = {
    "all-in-one": ("bf16", lambda p, t: dit_files.save(p, dit_files.prefixed(t) | {"vae.x": torch.zeros(2)}), 2e-3),
    "per tensor": ("fp8", lambda p, t: dit_files.save(p, dit_files.scaled_fp8(t, comfy_quant=QUANT)), 0.12),
    "partly scaled e5m2": ("fp8", lambda p, t: dit_files.save(p, partly(t)), 0.12),
    "GGUF F16, two joined": ("gguf", lambda p, t: dit_files.save_gguf(p, t, "F16", None, "joined"), 2e-3),
    "GGUF Q4_1": ("gguf", lambda p, t: dit_files.save_gguf(p, t, "Q4_1", "pig", "silent"), 2e-3),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, load, reference, model, predict, tmp_path, monkeypatch):  # noqa: F811
    kind, write, bound = LAYOUTS[name]
    own = places.locate(model, model.scheme("gguf-Q8_0"), settings(), "lightx2v")
    files = []
    for side, path in zip(("high", "low"), own.experts, strict=True):
        target = tmp_path / f"own_{side}_noise.{'gguf' if kind == 'gguf' else 'safetensors'}"
        files.append(write(target, float_tensors(path, read_dit(path))))
    for engine in (lightx2v_decide, diffusers):
        monkeypatch.setattr(engine, "locate", lambda *args, **options: replace(own, experts=tuple(files)))
    scheme = Scheme("mine", "mine", kind)
    ours, theirs = predict(load(scheme)), predict(reference(model, scheme))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < bound * other.norm()


def test_what_is_refused_leaves_the_loaded_model(load, model, predict, tmp_path, monkeypatch):  # noqa: F811
    engine = load("bf16")
    base = predict(engine)
    own = places.locate(model, model.scheme("gguf-Q8_0"), settings(), "lightx2v")
    target = tmp_path / "own_high_noise.gguf"
    dit_files.save_gguf(target, float_tensors(own.experts[0], read_dit(own.experts[0])), "IQ4_NL")
    monkeypatch.setattr(
        lightx2v_decide, "locate", lambda *args, **options: replace(own, experts=(target, own.experts[1]))
    )
    with pytest.raises(UserError, match=r"IQ4_NL, which LightX2V cannot dequantise.*--engine diffusers"):
        engine.check(model, Scheme("gguf-IQ4_NL", "x", "gguf", "IQ4_NL"))
    assert all(map(torch.equal, predict(engine), base))


def test_text_encoder_vae_and_experts_of_diffusers_folders(load, model, tmp_path, monkeypatch):
    """The same numbers as from the release's files, bit for bit."""
    own = places.locate(model, model.scheme("bf16"), settings(), "lightx2v")
    paths = {"t5": own.t5, "vae": own.vae, "high": own.experts[0], "low": own.experts[1]}
    for name, path in paths.items():
        convert.write(convert.plan(path, "diffusers"), tmp_path / name, lambda *progress: None)
    other = replace(own, t5=tmp_path / "t5", vae=tmp_path / "vae", experts=(tmp_path / "high", tmp_path / "low"))
    latents = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    results = []
    for found in (own, other):
        monkeypatch.setattr(lightx2v_decide, "locate", lambda *args, found=found, **options: found)
        engine = load("bf16")
        prompt = engine.encode_text("zoom in, sunset light")
        condition = torch.zeros(20, 3, 8, 8)
        velocity = engine.predict(latents, 1.0, 0, prompt, condition)
        results.append((prompt, velocity, engine.decode(latents)))
    assert "other_layouts" in engine.facts["patches"]
    for one, same in zip(*results, strict=True):
        assert torch.equal(one, same)
