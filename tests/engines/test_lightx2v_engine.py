"""What the LightX2V engine itself does, on a stand-in of its upstream; tests/lightx2v has the real one."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.engines.lightx2v_standin import installed
from tests.engines.test_lightx2v_seams import found, rename
from tests.job_requests import changed
from tests.lightx2v.jobs import in_segments, make_request, make_segments, quiet, stop_at
from wan_ui import patches
from wan_ui import settings as settings_module
from wan_ui.catalog import load_catalog
from wan_ui.engines import create, lightx2v, schedule
from wan_ui.engines import lightx2v_seams as seams
from wan_ui.engines.base import READY
from wan_ui.engines.lightx2v import LightX2VEngine
from wan_ui.engines.solvers import make_solver
from wan_ui.errors import Cancelled, UserError
from wan_ui.files import places
from wan_ui.media.images import read_pixels
from wan_ui.patches import Outcome
from wan_ui.request import LoraSpec
from wan_ui.settings import load_settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Weights in other forms, made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def calls(cache, tmp_path, monkeypatch):
    """What upstream was asked for; the stand-in is installed, its patches count as applied."""
    before = settings_module.settings()
    values = {"WAN_UI_CACHE": str(cache), "WAN_UI_LORAS": str(tmp_path)}
    settings_module.use(load_settings(values | {"WAN_UI_LIGHTX2V_PLAIN": "vae"}))  # the stand-in has one
    monkeypatch.setattr(patches, "apply_all", lambda phase, *rest, **more: [Outcome(f"a-{phase}", "applied", "test")])
    found = []
    with installed(found):
        yield found
    settings_module.use(before)


@pytest.fixture
def model(calls):
    model = load_catalog(settings_module.settings().catalog)["wan-tiny"]
    missing = places.availability(model, model.scheme("bf16"), settings_module.settings())
    if missing:
        pytest.skip(f"Wan-Tiny: {missing}")
    return model


@pytest.fixture
def engine(model):
    engine = LightX2VEngine()
    engine.load(model, model.scheme("bf16"), quiet)
    yield engine
    engine.close()


def configuration(calls) -> dict:
    return next(entry[1] for entry in calls if entry[0] == "config")


def test_a_load_hands_over_files_and_schedule(engine, calls, model):
    values = configuration(calls)
    paths = places.locate(model, model.scheme("bf16"), settings_module.settings(), engine="lightx2v")
    assert values["model_cls"] == "wan2.2_moe_distill" and values["model_path"].endswith("wan-tiny")
    assert values["high_noise_original_ckpt"] == str(paths.experts[0])
    assert values["low_noise_original_ckpt"] == str(paths.experts[1])
    assert values["denoising_step_list"] == [1000, 750, 500, 250] and values["boundary_step_index"] == 2
    assert engine.facts["engine"] == "lightx2v" and engine.facts["patches"] == "a-before_init, a-after_init"
    assert engine.facts["offload"].startswith("model (no GPU")


@pytest.mark.parametrize("scheme", ["fp8", "gguf-Q8_0", "gguf-Q4_0"])
def test_quantised_files_go_under_their_own_keys(calls, model, scheme):
    engine = LightX2VEngine()
    engine.load(model, model.scheme(scheme), quiet)
    values = configuration(calls)
    assert values["dit_quantized"] and values["dit_quant_scheme"] == ("fp8-torchao" if scheme == "fp8" else scheme)
    assert "high_noise_original_ckpt" not in values and values["high_noise_quantized_ckpt"]
    engine.close()


def test_a_job_goes_through_its_stages(engine, calls, model, tmp_path):
    seen = []
    clip = engine.generate(make_request(tmp_path, model, "bf16", fps=24), seen.append)
    assert clip.frames.shape == (9, 64, 96, 3) and clip.frames.dtype == np.uint8 and clip.fps == 24 != model.fps
    assert clip.latents.shape == (16, 3, 8, 12) and clip.latents.dtype == np.float32
    assert list(dict.fromkeys(p.stage for p in seen)) == ["text", "image", "denoise", "decode"]
    steps = [(p.step, p.total, p.detail) for p in seen if p.stage == "denoise"]
    assert steps == [(k, 4, "high-noise expert" if k < 3 else "low-noise expert") for k in (1, 2, 3, 4)]
    assert [bool(p.preview) for p in seen if p.stage == "denoise"] == [False, True, True, True]
    assert [p.step for p in seen if p.stage == "decode"] == [0, 1, 2, 3]
    assert [call for call in calls if str(call).startswith("expert")] == ["expert 0"] * 2 + ["expert 1"] * 2


def test_the_steps_are_ours(engine, model, tmp_path):
    """Noise drawn on the CPU for the seed, exact sigmas, Euler steps in float32."""
    entered = []
    infer = engine.runner.model.infer

    def note(inputs):
        entered.append((engine.runner.scheduler.exact.clone(), engine.runner.scheduler.timestep_input.item()))
        infer(inputs)
        entered.append(engine.runner.scheduler.noise_pred.clone())

    engine.runner.model.infer = note
    clip = engine.generate(make_request(tmp_path, model, "bf16", seed=5), quiet)
    sigmas = schedule.sigmas(4, model.shift)
    latents = schedule.noise(5, (16, 3, 8, 12))
    for k in range(4):
        (exact, timestep), velocity = entered[2 * k], entered[2 * k + 1]
        assert torch.equal(exact, latents) and timestep == pytest.approx(1000 * sigmas[k], abs=1e-3)
        latents = latents + (sigmas[k + 1] - sigmas[k]) * velocity
    assert np.array_equal(clip.latents, latents.numpy())


def test_text_and_picture_are_encoded_once(engine, calls, model, tmp_path):
    request = make_request(tmp_path, model, "bf16")
    first = engine.generate(request, quiet)
    del calls[:]
    seen = []
    again = engine.generate(request, seen.append)
    assert not [call for call in calls if str(call).startswith(("text", "image"))]
    assert "already encoded" in [p.detail for p in seen if p.stage == "image"]
    assert np.array_equal(first.latents, again.latents)
    engine.generate(changed(request, prompt="pan left"), quiet)
    assert [call for call in calls if str(call).startswith(("text", "image"))] == ["text pan left"]
    # The encoder gets what the model is given, not what was typed.
    del calls[:]
    engine.generate(changed(request, prompt="a dragon, pan up", given="pan up"), quiet)
    assert "text pan up" in calls


def test_what_was_prepared_is_found_by_the_next_job_and_changes_nothing(engine, calls, model, tmp_path):
    request = make_request(tmp_path, model, "bf16")
    plain = engine.generate(request, quiet)
    for cache in (engine.encoded.prompts, engine.encoded.images):
        cache.clear()
    engine.prepare(request, quiet)
    del calls[:]
    clip = engine.generate(request, quiet)
    assert not [call for call in calls if str(call).startswith(("text", "image"))]
    assert clip.ready == dict.fromkeys(("text", "image"), READY) and clip.facts == plain.facts
    assert np.array_equal(clip.latents, plain.latents) and np.array_equal(clip.frames, plain.frames)
    for cache in (engine.encoded.prompts, engine.encoded.images):
        cache.clear()
    with pytest.raises(Cancelled):  # the text is ready, the picture is not
        engine.prepare(request, stop_at("image", 0))
    clip = engine.generate(request, quiet)
    assert clip.ready == {"text": READY} and np.array_equal(clip.latents, plain.latents)


def test_each_segment_goes_on_from_the_last_frame_and_is_a_clip_of_its_own(engine, model, tmp_path, monkeypatch):
    """What the engine keeps between clips, the encoded picture above all, does not reach into the next segment."""
    request = in_segments(make_request(tmp_path, model, "bf16", steps=2), "pan left")
    folder = tmp_path / "clip"
    folder.mkdir()
    frames, _, result, _ = make_segments(engine, model, request, folder, monkeypatch)
    assert result.frames == 17 and result.facts["segments"] == "2 of 2, seeds 7, 8"
    assert len(engine.encoded.images) == 2 and set(engine.encoded.prompts) == {"zoom in, sunset light", "pan left"}
    picture = tmp_path / "last.png"
    Image.fromarray(frames[0][-1]).save(picture)
    alone = changed(request, prompt="pan left", image=str(picture), seed=8, segments=())
    assert np.array_equal(engine.generate(alone, quiet).frames, frames[1])


def test_nothing_of_a_cancelled_job_survives_it(engine, model, tmp_path):
    request, runner = make_request(tmp_path, model, "bf16"), engine.runner
    expected = engine.generate(request, quiet)
    for at in [("text", 0), ("image", 0), ("denoise", 1), ("denoise", 4), ("decode", 2)]:
        engine.encoded.prompts.clear()
        engine.encoded.images.clear()
        with pytest.raises(Cancelled):
            engine.generate(changed(request, seed=99), stop_at(*at))
        assert runner.scheduler.latents is None and runner.input_info is None and not hasattr(runner, "inputs"), at
        assert runner.model.cur_model_index == -1 and not any(one.on_device for one in runner.model.model), at
        assert np.array_equal(engine.generate(request, quiet).latents, expected.latents), at


@pytest.mark.hardening(18)
def test_out_of_memory_says_what_to_do_and_costs_one_job(engine, model, tmp_path, monkeypatch):
    request = make_request(tmp_path, model, "bf16")
    expected = engine.generate(request, quiet)
    with monkeypatch.context() as patch:

        def exhausted(*_):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")

        patch.setattr(engine.runner.model.model[1].transformer_infer, "run_block", exhausted, raising=False)
        with pytest.raises(UserError, match=r"96x64, 9 frames \(CUDA out of memory") as caught:
            engine.generate(request, quiet)
    assert (caught.value.field, caught.value.memory) == ("size", "GPU")
    assert np.array_equal(engine.generate(request, quiet).latents, expected.latents)


def test_an_unexpected_error_keeps_its_kind(engine, model, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.runner, "run_text_encoder", lambda info: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.generate(make_request(tmp_path, model, "bf16", prompt="new"), quiet)
    assert engine.runner.input_info is None


def test_a_load_that_fails_leaves_nothing(engine, model, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(lightx2v, "flow_scheduler", broken)
    with pytest.raises(RuntimeError, match="no such layer"):
        engine.load(model, model.scheme("fp8"), quiet)
    assert engine.runner is None and engine.model is None
    with pytest.raises(RuntimeError, match="before load"):
        engine.generate(None, quiet)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (seams.RUNNERS[0], "run_input_encoder"),
        (seams.RUNNERS[0], "gen_video"),
        (seams.EXPERTS, "cur_model_index"),
        (seams.EXPERTS, "boundary_step_index"),
        (seams.BLOCKS, "infer_block"),
        (seams.BUFFERS, "need_init_first_buffer"),
        (seams.SCHEDULER, "infer_condition"),
    ],
)
def test_a_renamed_seam_fails_the_load_by_name_before_weights_are_read(calls, model, monkeypatch, place, name):
    rename(found(place), name, monkeypatch)
    engine, words = LightX2VEngine(), rf"^seam {place.partition(':')[2]}\.{name}: it is gone"
    with pytest.raises(UserError, match=words):
        engine.load(model, model.scheme("bf16"), quiet)
    with pytest.raises(UserError, match=words):
        engine.check(model, model.scheme("bf16"))
    assert not calls and engine.runner is None
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: None)  # as if there were a GPU
    assert create._unusable().startswith(f"seam {place.partition(':')[2]}.{name}: ")  # `auto` takes the other engine


def test_llama_cpp_is_refused(model, monkeypatch):
    monkeypatch.setattr(sys.modules["lightx2v.utils.ggml_tensor"], "dequantize_c", object())
    with pytest.raises(UserError, match="uninstall llama-cpp-python"):
        LightX2VEngine().load(model, model.scheme("bf16"), quiet)


def test_an_import_that_fails_says_so(model, monkeypatch):
    with monkeypatch.context() as patch:  # ends before the stand-in is taken out
        patch.setitem(sys.modules, "lightx2v.infer", None)
        with pytest.raises(UserError, match="LightX2V cannot be imported"):
            LightX2VEngine().load(model, model.scheme("bf16"), quiet)


def lora(path, size: float) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for block in range(2):
        name = f"diffusion_model.blocks.{block}.self_attn.o"
        tensors[f"{name}.lora_down.weight"] = torch.randn(4, 256, generator=generator) / 16
        tensors[f"{name}.lora_up.weight"] = size * torch.randn(256, 4, generator=generator)
    save_file(tensors, path)


def test_a_lora_is_added_beside_the_weights_and_leaves_no_trace(engine, model, tmp_path):
    lora(tmp_path / "x.safetensors", 0.1)
    request = make_request(tmp_path, model, "bf16")
    base = engine.generate(request, quiet)
    matches = engine.set_loras([LoraSpec("x.safetensors", 0.5, "low_noise")])
    assert matches[0].matched == {"low_noise": "2/2"}
    high, low = engine.runner.model.model
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    file = load_file(tmp_path / "x.safetensors")
    down = file["diffusion_model.blocks.0.self_attn.o.lora_down.weight"]
    up = file["diffusion_model.blocks.0.self_attn.o.lora_up.weight"]
    layer = low.blocks[0]
    assert torch.allclose(layer.apply(x), x @ layer.weight + 0.5 * x @ down.T @ up.T, atol=1e-5)
    assert torch.equal(high.blocks[0].apply(x), x @ high.blocks[0].weight)
    changed = engine.generate(request, quiet)
    assert not np.array_equal(changed.latents, base.latents) and "low noise 2/2" in changed.facts["loras"]
    engine.set_loras([])
    assert np.array_equal(engine.generate(request, quiet).latents, base.latents)


def test_a_bad_lora_changes_nothing(engine, model, tmp_path):
    lora(tmp_path / "good.safetensors", 0.1)
    save_file({"lora_te_x.lora_down.weight": torch.zeros(4, 8)}, tmp_path / "bad.safetensors")
    request = make_request(tmp_path, model, "bf16")
    base = engine.generate(request, quiet)
    with pytest.raises(UserError, match=r"bad\.safetensors"):
        engine.set_loras([LoraSpec("good.safetensors", 1.0, "both"), LoraSpec("bad.safetensors", 1.0, "both")])
    assert np.array_equal(engine.generate(request, quiet).latents, base.latents)


def test_its_stages_are_those_of_a_job(engine, model, tmp_path):
    request = make_request(tmp_path, model, "bf16")
    pixels = read_pixels(request)
    clip = engine.generate(request, quiet)
    text, image = engine.encode_text(request.sampling.prompt), engine.encode_image(pixels, request.frames)
    latents = schedule.noise(request.sampling.seed, (16, 3, 8, 12))
    plan = engine.plan(4)
    assert [expert for _, expert in plan] == [0, 0, 1, 1]
    shown = []
    for k, (sigma, expert) in enumerate(plan):
        following = plan[k + 1][0] if k < 3 else 0.0
        velocity = engine.predict(latents, sigma, expert, text, image, lambda index, hidden: shown.append(index))
        latents = schedule.euler_step(latents, velocity, sigma, following)
    assert shown == [-1, 0, 1] * 4
    assert np.allclose(latents.numpy(), clip.latents, atol=1e-5)
    decoded = engine.decode(latents)
    assert decoded.shape == (9, 64, 96, 3)
    assert np.array_equal(((decoded + 1) / 2).mul(255).round().byte().numpy(), clip.frames)


UNDISTILLED = {"motion": "full", "guidance": (4.0, 3.0), "negative": "fog", "shift": 5.0, "solver": "unipc"}


def test_guidance_and_solver_are_those_of_the_job(engine, calls, model, tmp_path):
    """Each half as upstream computes it alone, put together by hand."""
    request = changed(make_request(tmp_path, model, "bf16", steps=5, seed=5), **UNDISTILLED)
    seen = []
    clip = engine.generate(request, seen.append)
    assert {call for call in calls if str(call).startswith("text")} == {"text zoom in, sunset light", "text fog"}
    assert "passes of such a step: two (LightX2V takes one prompt at a time)" in clip.facts["guidance"]
    halves = [p.detail for p in seen if p.stage == "denoise" and p.step == 1]
    assert halves == ["high-noise expert", "high-noise expert, negative prompt"]

    texts = [engine.encode_text(text) for text in (request.sampling.text, "fog")]
    condition = engine.encode_image(read_pixels(request), request.frames)
    steps = schedule.steps_of(request.sampling, model)
    solver = make_solver("unipc", [step.sigma for step in steps] + [0.0])
    latents = schedule.noise(5, (16, 3, 8, 12))
    for step in steps:
        towards, away = (engine.predict(latents, step.timestep / 1000, step.expert, text, condition) for text in texts)
        latents = solver.step(latents, away + step.guidance * (towards - away))
    np.testing.assert_allclose(clip.latents, latents.numpy(), atol=1e-4)
    assert not engine.runner.config["enable_cfg"] and "run_pipeline" not in vars(engine.runner)
    distilled = engine.generate(make_request(tmp_path, model, "bf16", seed=5), quiet)
    assert "guidance" not in distilled.facts and abs(distilled.latents - clip.latents).max() > 1e-2


def test_the_second_half_can_be_cancelled(engine, model, tmp_path):
    request = changed(make_request(tmp_path, model, "bf16"), **UNDISTILLED)
    seen = []

    def report(progress):
        seen.append(progress.detail)
        if "negative prompt" in progress.detail:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.generate(request, report)
    assert seen[-1] == "high-noise expert, negative prompt"
    assert all("infer_main_blocks" not in vars(part.transformer_infer) for part in engine.transformers)


def test_a_step_cache_spares_the_blocks(engine, model, tmp_path):
    engine.model = replace(model, recipes=load_catalog(settings_module.settings().catalog)["i2v-a14b"].recipes)
    request = changed(make_request(tmp_path, model, "bf16", steps=20), **UNDISTILLED, cache="magcache")
    ran = []
    for part in engine.transformers:
        own = part.transformer_infer.run_block
        part.transformer_infer.run_block = lambda *args, own=own: (ran.append(args[0]), own(*args))[1]
    clip = engine.generate(request, quiet)
    assert clip.facts["step cache"] == "MagCache: 3 of 20 steps left out"
    assert ran.count(0) == 2 * 17


def test_more_motion_takes_the_distill_lora_off_and_on(engine, model, tmp_path):
    files = {side: tmp_path / f"{side}.safetensors" for side in ("high", "low")}
    for k, file in enumerate(files.values()):
        generator = torch.Generator().manual_seed(k)
        down, up = torch.randn(4, 256, generator=generator), torch.randn(256, 4, generator=generator) / 50
        save_file({"blocks.0.self_attn.o.lora_down.weight": down, "blocks.0.self_attn.o.lora_up.weight": up}, file)
    engine.loras.fixed = {side: [file] for side, file in files.items()}
    engine.set_loras([])
    seen = []
    more = {**UNDISTILLED, "motion": "more", "guidance": (3.5, 1.0), "solver": "euler"}
    request = changed(make_request(tmp_path, model, "bf16", steps=6), **more)
    entered = []
    infer = engine.runner.model.infer

    def note(inputs):
        entered.append((engine.loras.with_fixed, engine.runner.config["enable_cfg"]))
        infer(inputs)

    engine.runner.model.infer = note
    clip = engine.generate(request, seen.append)
    assert entered == [(False, True)] * 2 + [(True, False)] * 4
    assert "high-noise expert without the distill LoRA" in [p.detail for p in seen]
    assert clip.facts["motion"] == "More motion, 2 of 6 steps undistilled" and engine.loras.with_fixed


def test_a_merged_distill_lora_is_loaded_beside_the_weights_for_an_undistilled_clip(
    engine, model, tmp_path, monkeypatch
):
    loads, load = [], engine.load

    def note(*what, merge=True):
        loads.append(merge)
        load(*what, merge=merge)

    monkeypatch.setattr(engine, "load", note)
    engine.merged = True  # as after a load whose weights were dequantised
    engine.generate(make_request(tmp_path, model, "bf16"), quiet)
    assert loads == [], "distilled clips need nothing else"
    clip = engine.generate(changed(make_request(tmp_path, model, "bf16"), **UNDISTILLED), quiet)
    assert loads == [False] and not engine.merged and clip.facts["solver"] == "UniPC"
    engine.generate(changed(make_request(tmp_path, model, "bf16"), **UNDISTILLED), quiet)
    assert loads == [False]
