"""Clips that end at a picture, and clips of words alone, through the real LightX2V: stage by stage against diffusers.

For the first Wan-Tiny's files do, which were not trained for it; the second is a small random checkpoint.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engines.random_models import write_a14b
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_parity import CLOSE, errors, only
from wan_ui.families import FAMILIES


@pytest.fixture(scope="session")
def words_alone(model, tmp_path_factory):
    """A small random model without pictures."""
    root = tmp_path_factory.mktemp("t2v")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        write_a14b(root, channels=16)
    changes = {"family": FAMILIES["t2v-a14b"], "tasks": ("text-to-video",), "boundary": 0.875}
    return replace(model, name="random-t2v", root=f"embedded:{root}", **changes)


def with_end(request, folder):
    """The same request, ending at its picture upside down."""
    path = folder / "end.png"
    Image.fromarray(np.flipud(np.asarray(Image.open(request.inputs["image"])))).save(path)
    return replace(request, task="first-last-frame", inputs={**request.inputs, "end_image": str(path)})


def held(production, other, request, euler_steps):
    """{stage: (LightX2V's tensor, diffusers' tensor)} of one clip."""
    ours = production.generate(request, quiet)
    our_steps = list(euler_steps.values())
    euler_steps.clear()
    theirs = other.generate(request, quiet)
    stages = {"text": (only(production.prompts)["context"], only(other.prompts))}
    if request.inputs:
        stages["image"] = (only(production.images), only(other.images))
    for index, pair in enumerate(zip(our_steps, euler_steps.values(), strict=True), start=1):
        stages[f"step {index}"] = pair
    stages["frames"] = (torch.from_numpy(ours.frames), torch.from_numpy(theirs.frames))
    return stages


def judge(name, stages):
    found = errors(stages)
    print(f"\n| {name} |", " | ".join(f"{stage} {worst:.1e} / {mean:.1e}" for stage, (worst, mean) in found.items()))
    assert {stage: worst for stage, (worst, _) in found.items() if worst > CLOSE and stage != "frames"} == {}
    assert found["frames"][0] <= 1, "a pixel may fall on the other side of a rounding"


def test_the_last_frame(load, reference, euler_steps, model, tmp_path):
    request = with_end(make_request(tmp_path, model, "bf16"), tmp_path)
    production = load("bf16")
    stages = held(production, reference(model, "bf16"), request, euler_steps)
    mask = only(production.images)[:4]
    assert mask[:, 0].min() == 1 and mask[3, -1].min() == 1 and mask.mean(dim=(2, 3)).sum() == 5
    judge("last frame, bf16", stages)


def test_words_alone(words_alone, compute, reference, euler_steps, tmp_path):
    from wan_ui.engines.lightx2v import LightX2VEngine

    request = make_request(tmp_path, words_alone, "gguf-Q8_0", kind="text-to-video")
    request = replace(request, inputs={})
    compute(torch.float32)
    production = LightX2VEngine()
    production.load(words_alone, words_alone.scheme("gguf-Q8_0"), quiet)
    judge("words alone, gguf-Q8_0", held(production, reference(words_alone, "gguf-Q8_0"), request, euler_steps))
    production.close()
