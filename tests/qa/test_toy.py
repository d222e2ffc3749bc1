"""Every model at toy size: the catalog that stands for the real one, and clips of random weights on a CPU."""

from dataclasses import fields, replace

import numpy as np
import pytest

from wan_ui import settings as settings_module
from wan_ui.catalog import load_catalog
from wan_ui.engines import dit, lora_plan
from wan_ui.errors import UserError
from wan_ui.files import places, tensors, vae_file
from wan_ui.qa import synthetic, toy
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.reports import bench
from wan_ui.settings import ROOT, Settings

CHANGED = ("needs_gpu", "sizes", "frames", "default_frames", "repositories")
CAT = str(ROOT / "assets" / "examples" / "cat.jpg")
PICTURE, BOTH = {"image": CAT}, {"image": CAT, "end_image": CAT}


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    """Settings of a machine without one; the readers that are replaced, and the settings, are put back."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for module in (places, places.choose_engine.__globals__["hardware"]):
        monkeypatch.setattr(module, "nvidia_gpu", lambda: False)
    for module in (tensors, dit, lora_plan, vae_file):
        for name in ("read_tensor", "read_blocks", "read_pth"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))
    before = settings_module.settings()
    yield replace(Settings(), outputs=tmp_path / "outputs", cache=tmp_path / "cache", threads=1)
    settings_module.use(before)


def test_all_but_sizes_is_as_in_the_catalog(tmp_path):
    real, small = load_catalog(Settings().catalog), load_catalog(toy.shrink(Settings(), tmp_path).catalog)
    assert list(small) == list(real) and small["wan-tiny"] == replace(real["wan-tiny"], repositories={})
    for name, model in real.items():
        same = [field.name for field in fields(model) if field.name not in CHANGED]
        assert {key: getattr(small[name], key) for key in same} == {key: getattr(model, key) for key in same}
    a14b, turbo = small["i2v-a14b"], small["ti2v-5b"]
    assert a14b.sizes == ((96, 96), (96, 48), (48, 96)) and turbo.sizes == ((192, 192), (192, 96), (96, 192))
    assert small["s2v-14b"].frames == (17,)
    for model in (model for model in small.values() if model.family.performance):
        assert min(model.frames) >= 2 * max(model.family.performance.overlaps), "so many new frames for the next one"
    assert a14b.frames == (5, 9, 13, 17, 21) and a14b.default_frames == 21 and not a14b.needs_gpu


@pytest.mark.parametrize(
    ("draft", "experts", "words"),
    [
        (Draft(model="t2v-a14b", scheme="fp8"), {"high-noise", "low-noise"}, ""),
        (
            Draft(BOTH, model="i2v-a14b", scheme="gguf-Q4_K_M", motion="full", solver="dpm++", guidance="4,3"),
            {"high-noise", "low-noise"},
            "Full, 4 of 4 steps undistilled",
        ),
        (Draft(PICTURE, model="ti2v-5b"), {"transformer"}, ""),
        (Draft(model="fastwan-5b", size="1280x704", steps=3), {"transformer"}, ""),
        (Draft(model="wan21-t2v-1b", scheme="diffusers"), {"transformer"}, "Full, 4 of 4 steps undistilled"),
    ],
    ids=lambda value: value.model if isinstance(value, Draft) else "",
)
def test_a_clip_of_random_weights(no_gpu, tmp_path, draft, experts, words):
    shortest = min(load_catalog(no_gpu.catalog)[draft.model].frames)
    draft = replace(draft, inputs=draft.inputs | {"prompt": "waves at night"}, frames=shortest, steps=draft.steps or 4)
    draft = replace(draft, engine="diffusers", seed=1)
    with pytest.raises(UserError, match="needs a CUDA GPU"):  # with weights of full size
        resolve(draft, no_gpu, tmp_path)
    assert bench.at_toy_size(no_gpu, draft)
    settings, draft = bench.lay_out(no_gpu, draft, str(tmp_path), small=True)
    settings_module.use(settings)
    request = resolve(draft, settings, tmp_path)
    model = load_catalog(settings.catalog)[draft.model]
    engine, choice = synthetic.create_engine("diffusers")
    seen = []
    engine.load(model, model.scheme(draft.scheme), lambda progress: None)
    clip = engine.generate(request, seen.append)
    engine.close()

    stages = dict.fromkeys(progress.stage for progress in seen)
    assert list(stages) == ["text", *(["image"] if "image" in draft.inputs else []), "denoise", "decode"]
    steps = [progress.detail for progress in seen if progress.stage == "denoise"]
    assert len(steps) == request.sampling.steps
    assert {detail.partition(" expert")[0] for detail in steps} == experts
    assert clip.frames.shape == (5, request.height, request.width, 3) and max(clip.frames.shape) in (96, 192)
    assert np.isfinite(clip.latents).all() and clip.frames.std() > 1
    assert clip.facts.get("motion", "") == words and "synthetic weights" in choice.why


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": "96x96"}, "size: ti2v-5b makes 480x480, 832x480, 480x832, 1280x704, 704x1280, not 96x96"),
        ({"frames": 9}, "frames: ti2v-5b makes 17, 33, 49, 65, 81 frames, not 9"),
    ],
)
def test_only_what_the_full_size_model_makes_has_something_that_stands_for_it(no_gpu, tmp_path, wrong, words):
    with pytest.raises(UserError, match=words):
        bench.lay_out(no_gpu, Draft(model="ti2v-5b", **wrong), str(tmp_path), small=True)


def test_random_weights_are_never_written_over_a_file_that_is_here(no_gpu, tmp_path):
    """A scheme of a file that was found names the file itself."""
    with pytest.raises(UserError, match="'found-mine' is not available for ti2v-5b"):
        bench.lay_out(no_gpu, Draft(model="ti2v-5b", scheme="found-mine"), str(tmp_path), small=True)
