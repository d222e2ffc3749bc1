"""Undistilled sampling in float32: whole loops against diffusers' pipeline and against the official code."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests import lora_files
from tests.engines.pipelines import run_pipeline
from tests.engines.random_models import make_engine, quiet
from wan_ui import settings
from wan_ui.catalog import load_catalog
from wan_ui.engines import schedule
from wan_ui.engines.solvers import make_solver
from wan_ui.errors import Cancelled
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.places import locate
from wan_ui.media.images import read_pixels
from wan_ui.qa.reference import float32_engine
from wan_ui.request import Request
from wan_ui.settings import ROOT

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000}


# Timesteps that the official schedulers gave: UniPC with shift 5, DPM++ with shift 12.
UNIPC_10 = [999, 978, 952, 920, 882, 833, 768, 681, 555, 356]
DPM_10 = [1000, 990, 979, 965, 947, 923, 888, 837, 750, 571]


def on_our_grid(base, grid, whole: bool, **config):
    """diffusers' scheduler, told the sigmas and timesteps of the official code, which are not quite its own."""

    class OnOurGrid(base):
        def set_timesteps(self, steps, device=None, **kwargs):
            super().set_timesteps(steps, device=device)
            self.sigmas = torch.tensor(grid)
            times = [1000 * sigma for sigma in grid[:-1]]
            self.timesteps = torch.tensor([int(time) for time in times] if whole else times)

    return OnOurGrid(**config)


def scheduler(solver, steps, shift):
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if solver == "unipc":
        return on_our_grid(UniPCMultistepScheduler, schedule.unipc_sigmas(steps, shift), True, **FLOW)
    grid = schedule.sigmas(steps, shift)
    if solver == "dpm++":
        return on_our_grid(DPMSolverMultistepScheduler, grid, True, **FLOW, solver_type="midpoint")
    return on_our_grid(FlowMatchEulerDiscreteScheduler, grid, False)


@pytest.fixture
def passes(isolated_settings):
    """Sets how the halves of guidance run."""

    def choose(name):
        settings.use(replace(isolated_settings, guidance_passes=name))

    yield choose
    settings.use(isolated_settings)


def full(make_request, model, **changes):
    guidance = (3.5,) if model.family.single else (4.0, 3.0)
    values = {"motion": "full", "negative": "fog waves", "guidance": guidance, "shift": 5.0, "solver": "unipc"}
    return make_request(model, **{**values, "frames": 5, "steps": 6, "scheme": "gguf-Q8_0", **changes})


@pytest.mark.parametrize("solver, steps", [("unipc", 1), ("unipc", 6), ("dpm++", 5), ("euler", 4)])
@pytest.mark.parametrize("family", ["a14b", "ti2v"])
def test_equals_pipeline(family, solver, steps, request, make_request, isolated_settings, passes):
    model = request.getfixturevalue(family)
    engine = make_engine(model, dtype=torch.float32)
    job = full(make_request, model, solver=solver, steps=steps)
    tokenizer = locate(model, model.scheme("gguf-Q8_0"), isolated_settings).tokenizer
    made = job.sampling
    expected = run_pipeline(engine, model, tokenizer, job, scheduler(made.solver, made.steps, made.shift)).numpy()
    for way in ("one", "two"):
        passes(way)
        clip = engine.generate(job, quiet)
        np.testing.assert_allclose(clip.latents, expected, atol=1e-4 * abs(expected).max())
        assert clip.facts["guidance"].endswith(f"passes of such a step: {way} (asked for)")
    plain = engine.generate(full(make_request, model, solver=solver, steps=steps, negative="cat"), quiet)
    assert abs(plain.latents - expected).max() > 1e-2, "the negative prompt counts"


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 40])
def test_solvers_equal_those_of_diffusers_on_any_grid(steps):
    def velocity(x, time):
        return torch.tanh(1.3 * x + time / 700) + 0.2 * torch.sin(3 * x)

    for name in ("unipc", "dpm++", "euler"):
        theirs = scheduler(name, steps, 8.0)
        theirs.set_timesteps(steps)
        ours = make_solver(name, [float(sigma) for sigma in theirs.sigmas])
        x = y = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(steps))
        for time in theirs.timesteps:
            x = theirs.step(velocity(x, float(time)), time, x, return_dict=False)[0]
            y = ours.step(y, velocity(y, float(time)))
        torch.testing.assert_close(y, x, atol=5e-6, rtol=0)


def test_schedules_are_those_of_the_official_code():
    """FlowUniPCMultistepScheduler and get_sampling_sigmas of Wan2.2 at 42bf4cf."""
    assert times(schedule.unipc_sigmas(10, 5.0)) == UNIPC_10
    assert times(schedule.sigmas(10, 12.0)) == DPM_10


def times(grid):
    return [int(1000 * sigma) for sigma in grid[:-1]]


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_whole_loop_is_that_of_the_official_code(solver, wan_tiny, tmp_path):
    """See tests/golden/make_sampling.py: WanI2V.generate with both experts, guidance 4 and 3, boundary 0.9."""
    with safe_open(ROOT / "tests/golden/of-wan22/sampling.safetensors", "np") as file:
        expected, source = file.get_tensor(solver), file.metadata()["source"]
    assert source.startswith("Wan-Video/Wan2.2 42bf4cfaa384bc21833865abc2f9e6c0e67233dc, WanI2V.generate")
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(path)
    values = {
        "image": str(path), "prompt": "slowly zoom in, sunset light", "negative": "fog", "model": "wan-tiny",
        "scheme": "gguf-Q8_0", "engine": "diffusers", "width": 64, "height": 64, "frames": 5, "steps": 8, "seed": 11,
        "motion": "full", "guidance": (4.0, 3.0), "shift": 5.0, "solver": solver,
    }  # fmt: skip
    clip = wan_tiny.generate(Request.from_dict(values), quiet)
    np.testing.assert_allclose(clip.latents, expected, atol=1e-4)


@pytest.fixture(scope="module")
def wan_tiny():
    model = load_catalog(settings.settings().catalog)["wan-tiny"]
    engine = float32_engine(model, model.scheme("gguf-Q8_0"), quiet)
    yield engine
    engine.close()


def test_each_half_can_be_cancelled(a14b, float32_engine, make_request, passes):
    passes("two")
    seen = []

    def report(progress):
        seen.append((progress.step, progress.detail))
        if progress.stage == "denoise" and progress.step == 2 and "negative" in progress.detail:
            raise Cancelled

    with pytest.raises(Cancelled):
        float32_engine.generate(full(make_request, a14b), report)
    assert seen[-2:] == [(2, "high-noise expert"), (2, "high-noise expert, negative prompt")]


def test_both_experts_have_their_guidance(a14b, make_request):
    steps = schedule.steps_of(full(make_request, a14b, steps=10).sampling, a14b)
    assert [step.guidance for step in steps] == [4.0] * 4 + [3.0] * 6
    assert [step.expert for step in steps] == [0] * 4 + [1] * 6 and not any(step.distilled for step in steps)
    more = full(make_request, a14b, steps=6, motion="more", guidance=(3.5, 1.0), solver="euler").sampling
    steps = schedule.steps_of(more, a14b)
    assert [(step.expert, step.guidance, step.distilled) for step in steps] == [
        (0, 3.5, False), (0, 3.5, False), (0, 1.0, True), (1, 1.0, True), (1, 1.0, True), (1, 1.0, True),
    ]  # fmt: skip
    old = schedule.steps_of(make_request(a14b).sampling, a14b)
    assert [step.timestep for step in old] == [1000 * sigma for sigma in schedule.sigmas(4, 5.0)[:-1]]


def test_more_motion_leaves_the_distill_lora_out_of_the_first_steps(a14b, make_request, tmp_path):
    engine = make_engine(a14b, dtype=torch.float32)
    shapes = read_parameters(locate(a14b, a14b.scheme("bf16"), settings.settings()).configs[0])
    for seed, side in enumerate(("high", "low")):
        lora_files.write(tmp_path / f"{side}.safetensors", shapes, seed=seed)
    engine.loras.fixed = {side: [tmp_path / f"{side}.safetensors"] for side in ("high", "low")}
    engine.set_loras([])
    seen = []
    job = full(make_request, a14b, motion="more", guidance=(3.5, 1.0), solver="euler", steps=6)
    clip = engine.generate(job, lambda progress: seen.append((progress.stage, progress.detail)))
    assert [words for stage, words in seen if stage == "denoise"] == [
        *["high-noise expert without the distill LoRA"] * 2, "high-noise expert", *["low-noise expert"] * 3,
    ]  # fmt: skip
    assert clip.facts["motion"] == "More motion, 2 of 6 steps undistilled"
    assert clip.facts["distill LoRA"].startswith("high noise ")

    made, prompts = job.sampling, [engine.encode_text(text) for text in ("zoom in slowly", "fog waves")]
    condition = engine.encode_image(read_pixels(job), 5)
    latents = schedule.noise(made.seed, (16, 2, 8, 8))
    for k, step in enumerate(schedule.steps_of(made, a14b)):
        engine.loras.fixed = {} if k < 2 else {side: [tmp_path / f"{side}.safetensors"] for side in ("high", "low")}
        engine.set_loras([])
        towards, away = (engine.predict(latents, step.sigma, step.expert, text, condition) for text in prompts)
        velocity = away + 3.5 * (towards - away) if k < 2 else towards
        latents = schedule.euler_step(latents, velocity, step.sigma, step.next_sigma)
    np.testing.assert_allclose(clip.latents, latents.numpy(), atol=1e-4)
    engine.loras.fixed = {side: [tmp_path / f"{side}.safetensors"] for side in ("high", "low")}
    whole = engine.generate(full(make_request, a14b, steps=2), quiet)
    assert whole.facts["distill LoRA"] == "left out" and engine.loras.with_fixed
    all_distilled = engine.generate(make_request(a14b, frames=5, steps=6, motion="fast"), quiet)
    assert abs(all_distilled.latents - clip.latents).max() > 1e-2 and "motion" not in all_distilled.facts
