"""Animate through the real LightX2V against ours, on a small random model in float32: a step, and clips of segments."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engines.conftest import picture  # noqa: F401 - a fixture
from tests.engines.random_models import animate_model, random_tensors
from tests.engines.test_animate import OF_LIGHTX2V, one_step, tracks_of
from tests.job_requests import job_request
from tests.lightx2v.jobs import quiet
from wan_ui import settings as settings_module
from wan_ui.catalog import Scheme
from wan_ui.engines.animate import velocity
from wan_ui.errors import Cancelled
from wan_ui.families import FAMILIES
from wan_ui.files.quantise import quantise_file
from wan_ui.patches import embedded_sizes
from wan_ui.patches.record import resolve
from wan_ui.qa import layouts, stages
from wan_ui.qa import reference as references
from wan_ui.request import LoraSpec

CLOSE = 1e-4


@pytest.fixture(scope="module")
def performer(lightx2v, settings, tmp_path_factory):
    """The small model, with a CLIP of as many tokens as upstream counts on, in three schemes."""
    root = tmp_path_factory.mktemp("models")
    settings_module.use(replace(settings, models=root))
    model = animate_model(root)
    folder = root / "local" / "random-animate"
    sizes = {"width": 160, "ffn": 200, "layers": 3, "picture": 224, "patch": 14}
    clip = {name: torch.Size(shape) for name, (_, shape) in layouts.clip_vision(sizes).items()}
    torch.save(random_tensors(clip, 6), folder / FAMILIES["animate-14b"].performance.clip)
    schemes = dict(model.schemes)
    for kind, target, name in (("fp8", "fp8", "animate-fp8.safetensors"), ("gguf", "Q8_0", "animate-Q8_0.gguf")):
        quantise_file(folder / "animate.safetensors", folder / name, target, name="random Animate")
        high, qtype = f"local/random-animate:{name}", target if kind == "gguf" else ""
        schemes[kind] = Scheme(kind, kind, kind=kind, qtype=qtype, distilled=False, high=high)
    if not resolve(embedded_sizes.PATCH):
        embedded_sizes.PATCH.apply(None)  # the random text encoder and VAE are small as well
    yield replace(model, schemes=schemes)
    settings_module.use(settings)


@pytest.fixture
def performing(performer, opened):
    """performing(scheme, dtype) -> a loaded engine; closed at the end."""
    return lambda scheme="bf16", dtype=torch.float32: opened(performer, scheme, dtype)


@pytest.fixture
def job(performer, picture):  # noqa: F811
    def make(count, **more):
        values = {"kind": "animate", "solver": "euler", "motion": "full", "guidance": [1.0], "negative": "fog"}
        values |= {"width": 64, "height": 64, "steps": 2, "seed": 3, "overlap": 1, "prompt": "zoom in"} | more
        return job_request(image=str(picture), model=performer.name, engine="lightx2v", frames=count, **values)

    return make


def apart(ours, theirs, what):
    difference = np.abs(ours.astype(np.float64) - theirs)
    print(f"| {what} | {difference.max():.1e} / {difference.mean():.1e} |")
    return difference.max()


@pytest.mark.parametrize("count, overlap, guidance, replaced", [(14, 1, 2.0, False), (18, 5, 1.0, True)])
def test_clips_are_ours(performing, performer, reference, job, monkeypatch, count, overlap, guidance, replaced):
    """Several segments; with guidance, whose other half sees no face; and a character that is replaced."""
    tracks, request = tracks_of(count, replaced=replaced), job(count, overlap=overlap, guidance=[guidance])
    seen, longer = [], replace(performer, default_frames=9 if overlap == 1 else 13)
    engine, other = performing(), reference(performer, "bf16")
    for each in (engine, other):
        monkeypatch.setattr(each, "model", longer)
    ours = list(engine.perform(request, tracks, seen.append))
    theirs = list(other.perform(request, tracks, quiet))
    assert len(ours) == len(theirs) == 2 and sum(len(clip.frames) for clip in ours) == count
    for number, (one, same) in enumerate(zip(ours, theirs, strict=True), start=1):
        assert apart(one.latents, same.latents, f"segment {number}, latents") < CLOSE
        assert apart(one.frames, same.frames, f"segment {number}, levels") <= 1
    assert list(dict.fromkeys(event.stage for event in seen)) == ["text", "image", "denoise", "decode"]
    steps = [event.segment for event in seen if event.stage == "denoise"]
    halves = 2 if guidance > 1 else 1
    assert steps == [1] * 2 * halves + [2] * 2 * halves
    assert ours[0].facts["engine"] == "lightx2v" and "own_encoders" in ours[0].facts["patches"]


def test_the_stored_step_is_upstreams(performing, lightx2v, request):
    engine = performing()
    with torch.inference_mode(), engine.driven.at_work():
        found = one_step(engine.driven, velocity).cpu()
    if request.config.getoption("--store"):
        folder = lightx2v.__path__[0]
        commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        about = {"source": f"LightX2V {commit.stdout.strip()}, one step of a random Animate, float32 on a CPU"}
        save_file({"velocity": found.contiguous()}, OF_LIGHTX2V, about)
    torch.testing.assert_close(found, load_file(OF_LIGHTX2V)["velocity"], atol=1e-4, rtol=0)


def test_the_doctor_finds_every_stage_right(performing, performer, reference):
    kept = references.compute(reference(performer, "bf16"), performer, references.default_trial(performer))
    report = stages.check(performing(), performer, performer.scheme("bf16"), kept, "the diffusers engine", quiet)
    assert {"seen", "pose", "face"} <= {stage.name for stage in report.stages}
    assert [stage.name for stage in report.stages if not stage.passed] == [], report.stages


@pytest.mark.parametrize(("scheme", "allowed"), [("gguf", CLOSE), ("fp8", 0.06)])
def test_quantised(performing, performer, reference, job, scheme, allowed):
    """GGUF as the other engine expands it; fp8 rounds what it multiplies to e4m3, and the face's layers as well."""
    tracks, request = tracks_of(9), job(9, scheme=scheme, steps=1)
    (ours,) = performing(scheme).perform(request, tracks, quiet)
    (theirs,) = reference(performer, scheme).perform(request, tracks, quiet)
    off = np.linalg.norm(ours.latents - theirs.latents) / np.linalg.norm(theirs.latents)
    print(f"| {scheme} | {off:.1e} |")
    assert off < allowed


def test_a_lora_changes_the_clip_and_leaves_no_trace(performing, job, tmp_path):
    engine, tracks, request = performing("gguf"), tracks_of(9), job(9, scheme="gguf", steps=1)
    (plain,) = engine.perform(request, tracks, quiet)
    names = [f"diffusion_model.blocks.1.self_attn.q.lora_{side}.weight" for side in "AB"]
    save_file(dict(zip(names, (torch.randn(4, 128), torch.randn(128, 4)), strict=True)), tmp_path / "lora.safetensors")
    (match,) = engine.set_loras([LoraSpec(str(tmp_path / "lora.safetensors"), 1.0, "both")])
    assert match.matched == {"both": "1/1"}
    (changed,) = engine.perform(request, tracks, quiet)
    engine.set_loras([])
    (again,) = engine.perform(request, tracks, quiet)
    assert np.abs(changed.latents - plain.latents).max() > 1e-4 and np.array_equal(again.latents, plain.latents)


def test_in_bf16_and_a_job_that_is_stopped(performing, job):
    tracks, request = tracks_of(14), job(14)
    engine = performing(dtype=torch.bfloat16)
    expected = [clip.latents for clip in engine.perform(request, tracks, quiet)]

    def stop(progress):
        if (progress.segment, progress.stage, progress.step) == (2, "denoise", 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        list(engine.perform(request, tracks, stop))
    assert engine.runner.scheduler.latents is None
    again = [clip.latents for clip in engine.perform(request, tracks, quiet)]
    assert all(np.array_equal(*pair) for pair in zip(again, expected, strict=True))
    exactly = [clip.latents for clip in performing().perform(request, tracks, quiet)]
    assert 1e-4 < np.linalg.norm(expected[0] - exactly[0]) / np.linalg.norm(exactly[0]) < 0.05
