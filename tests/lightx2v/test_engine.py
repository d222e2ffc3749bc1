"""Wan-Tiny through the real LightX2V: every scheme, cancelling, seeds, and a failure in the middle."""

import gc
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.job_requests import changed
from tests.lightx2v.jobs import live_bytes, make_request, quiet, stop_at
from wan_ui.errors import Cancelled, UserError
from wan_ui.settings import settings

SCHEMES = ("bf16", "fp8", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(load, model, scheme, tmp_path):
    engine = load(scheme, torch.bfloat16)
    seen = []
    parts = []
    clip = engine.generate(make_request(tmp_path, model, scheme), seen.append, parts.append)
    assert np.array_equal(np.concatenate([part.frames for part in parts]), clip.frames)
    assert len(parts) == 3 and all((part.facts, part.fps) == (clip.facts, clip.fps) for part in parts)
    assert clip.frames.shape == (9, 64, 96, 3) and clip.frames.dtype == np.uint8
    assert np.isfinite(clip.latents).all() and clip.latents.shape == (16, 3, 8, 12)
    assert [bool(p.preview) for p in seen if p.stage == "denoise"] == [False, True, True, True]
    assert list(dict.fromkeys(p.stage for p in seen)) == ["text", "image", "denoise", "decode"]


def test_cancel_at_each_stage_then_the_next_job(load, model, tmp_path):
    engine = load("gguf-Q8_0")
    request = make_request(tmp_path, model, "gguf-Q8_0")
    expected = engine.generate(request, quiet)
    baseline = live_bytes()
    for stage, step in (("text", 0), ("image", 0), ("denoise", 1), ("denoise", 4), ("decode", 2)):
        with pytest.raises(Cancelled):
            engine.generate(request, stop_at(stage, step))
        assert live_bytes() <= baseline, stage
    engine.encoded.images.clear()
    with pytest.raises(Cancelled):
        engine.generate(request, stop_at("image", 2))
    again = engine.generate(request, quiet)
    assert np.array_equal(again.latents, expected.latents) and np.array_equal(again.frames, expected.frames)


def test_prepared_or_not_the_clip_is_the_same(load, model, tmp_path):
    engine = load("gguf-Q8_0")
    request = make_request(tmp_path, model, "gguf-Q8_0")
    expected = engine.generate(request, quiet)
    baseline = live_bytes()
    for cache in (engine.encoded.prompts, engine.encoded.images):
        cache.clear()
    engine.prepare(request, quiet)
    assert live_bytes() <= baseline
    clip = engine.generate(request, quiet)
    assert set(clip.ready) == {"text", "image"} and not expected.ready
    assert np.array_equal(clip.latents, expected.latents) and np.array_equal(clip.frames, expected.frames)


def test_out_of_memory_at_a_step_then_a_right_job_with_its_own_seed(load, model, tmp_path, monkeypatch):
    engine = load("bf16")
    request = make_request(tmp_path, model, "bf16", seed=11)
    expected = engine.generate(request, quiet)
    baseline = live_bytes()
    infer, calls = engine.runner.model.infer, []

    def exhausted(inputs):
        calls.append(engine.runner.scheduler.step_index)
        infer(inputs)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner.model, "infer", exhausted)
        with pytest.raises(UserError, match=r"ran out of memory at 96x64, 9 frames") as refused:
            engine.generate(changed(request, seed=12), quiet)
    assert refused.value.memory == "GPU"
    assert calls == [0, 1, 2] and engine.runner.scheduler.latents is None
    assert engine.offload != "model" or engine.runner.model.cur_model_index == -1
    assert live_bytes() <= baseline
    again = engine.generate(request, quiet)
    assert np.array_equal(again.latents, expected.latents)
    other = engine.generate(changed(request, seed=12), quiet)
    assert not np.array_equal(other.latents, expected.latents)


def test_a_failure_inside_a_block_with_block_offload(load, offload, model, tmp_path, monkeypatch):
    """Upstream prefetches the next block while one runs; what a failed job prefetched must not start the next."""
    request = make_request(tmp_path, model, "bf16")
    offload("model")
    whole = load("bf16").generate(request, quiet)
    offload("block")
    engine = load("bf16")
    assert np.array_equal(engine.generate(request, quiet).latents, whole.latents)
    infer = engine.runner.model.model[0].transformer_infer
    run_block = infer.run_block

    def exhausted(index, *args):
        if index == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run_block(index, *args)

    with monkeypatch.context() as patch:
        patch.setattr(infer, "run_block", exhausted)
        with pytest.raises(UserError, match="ran out of memory"):
            engine.generate(request, quiet)
    assert np.array_equal(engine.generate(request, quiet).latents, whole.latents)


def test_steps_and_sizes_change_between_jobs(load, model, tmp_path):
    engine = load("bf16")
    cases = ((1, 5, ["high"]), (3, 9, ["high"] * 2 + ["low"]), (4, 5, ["high"] * 2 + ["low"] * 2))
    for steps, frames, experts in cases:
        seen = []
        clip = engine.generate(make_request(tmp_path, model, "bf16", steps=steps, frames=frames), seen.append)
        assert len(clip.frames) == frames
        assert [p.detail.partition("-")[0] for p in seen if p.stage == "denoise"] == experts


def test_text_encoder_in_fp8(load, model, tmp_path, monkeypatch):
    """What TI2V-5B uses: linear layers as e4m3 with a scale per output channel, in upstream's own layer."""
    from wan_ui.engines import lightx2v_decide
    from wan_ui.files.tensors import quantise_fp8, read_pth

    locate, tensors = lightx2v_decide.locate, {}
    for name, tensor in read_pth(locate(model, model.scheme("bf16"), settings()).t5).items():
        if re.search(r"\.(attn\.[qkvo]|ffn\.(gate\.0|fc1|fc2))\.weight$", name):
            tensors[name], tensors[f"{name}_scale"] = quantise_fp8(tensor)
        else:
            tensors[name] = tensor
    file = tmp_path / "models_t5_umt5-xxl-enc-fp8.pth"
    torch.save(tensors, file)

    def context(engine):
        return engine.encode_text("zoom in, sunset light").float()

    expected = context(load("bf16", torch.bfloat16))
    monkeypatch.setattr(lightx2v_decide, "locate", lambda *args, **kwargs: replace(locate(*args, **kwargs), t5=file))
    engine = load("bf16", torch.bfloat16)
    assert engine.runner.config["t5_quant_scheme"] == "fp8-torchao"
    assert ((context(engine) - expected).norm() / expected.norm()).item() < 0.1


def test_closing_frees_the_weights(load, model, tmp_path):
    before = live_bytes()
    engine = load("bf16")
    engine.generate(make_request(tmp_path, model, "bf16"), quiet)
    held = live_bytes() - before
    engine.close()
    assert live_bytes() - before < 0.05 * held


def lora_file(path, side, scale):
    """A LoRA for every attention output of Wan-Tiny's experts; `side` "" gives keys that fit nothing."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for block in range(8):
        name = f"diffusion_model.blocks.{block}.self_attn.o" if side else f"lora_te_blocks_{block}_self_attn_o"
        tensors[f"{name}.lora_down.weight"] = torch.randn(4, 256, generator=generator)
        tensors[f"{name}.lora_up.weight"] = scale * torch.randn(256, 4, generator=generator)
    save_file(tensors, path)


def test_distill_loras_of_the_catalog(load, model, tmp_path):
    for side in ("high", "low"):
        lora_file(tmp_path / f"{side}.safetensors", side, 0.05)
    plain = model.scheme("gguf-Q8_0")
    scheme = replace(
        plain,
        lora_high=f"embedded:{tmp_path}:high.safetensors",
        lora_low=f"embedded:{tmp_path}:low.safetensors",
    )
    request = make_request(tmp_path, model, "gguf-Q8_0")
    base = load("gguf-Q8_0").generate(request, quiet).latents
    changed = load(scheme).generate(request, quiet).latents
    assert not np.allclose(base, changed, atol=1e-3)


def test_a_lora_that_fits_nothing_is_an_error(load, model, tmp_path):
    for side in ("high", "low"):
        lora_file(tmp_path / f"{side}.safetensors", "", 0.1)
    scheme = replace(
        model.scheme("gguf-Q8_0"),
        lora_high=f"embedded:{tmp_path}:high.safetensors",
        lora_low=f"embedded:{tmp_path}:low.safetensors",
    )
    with pytest.raises(UserError, match=r"high\.safetensors cannot be used: none of its 16 keys is known"):
        load(scheme)


def test_bad_files_are_named_before_weights_are_read(load, model, tmp_path, monkeypatch):
    from wan_ui.engines import lightx2v, lightx2v_decide

    paths = lightx2v_decide.locate(model, model.scheme("fp8"), settings())
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(paths.experts[0].read_bytes()[:-100])
    wide = tmp_path / "config.json"
    wide.write_text(paths.configs[0].read_text().replace('"num_layers": 8', '"num_layers": 40'))
    cases = (
        (replace(paths, experts=paths.experts[::-1]), "this is the low-noise expert.*exchanged"),
        (replace(paths, experts=(truncated, paths.experts[1])), r"truncated\.safetensors: truncated"),
        (replace(paths, configs=(wide, wide)), "8 blocks, expected 40 .*another model"),
    )
    monkeypatch.setattr(lightx2v, "start_runner", lambda *args: pytest.fail("weights were read"))
    for bad, words in cases:
        monkeypatch.setattr(lightx2v_decide, "locate", lambda *args, bad=bad, **kwargs: bad)
        with pytest.raises(UserError, match=words):
            load("fp8")


def test_upstreams_vae_is_gone_before_ours_is_read(load, monkeypatch):
    """Both do not fit on a GPU that has little."""
    from wan_ui.engines import lightx2v

    own, there = lightx2v.OwnVae, []

    def noted(*args):
        there.extend(
            type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__ in ("WanVAE", "WanVAE_")
        )
        return own(*args)

    monkeypatch.setattr(lightx2v, "OwnVae", noted)
    load("bf16")
    assert there == []
