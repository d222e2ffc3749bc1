"""Clips that end at a picture, and clips of words alone, through the real LightX2V: stage by stage against diffusers.

For the first Wan-Tiny's files do, which were not trained for it; the second is a small random checkpoint.
"""

import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engines.random_models import write_a14b
from tests.engines.test_upstream_numbers import LAST_FRAME, with_end
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_parity import CLOSE, errors, only
from wan_ui import settings as settings_module
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


def held(production, other, request, euler_steps):
    """{stage: (LightX2V's tensor, diffusers' tensor)} of one clip."""
    ours = production.generate(request, quiet)
    our_steps = list(euler_steps.values())
    euler_steps.clear()
    theirs = other.generate(request, quiet)
    stages = {"text": (only(production.encoded.prompts), only(other.encoded.prompts))}
    if request.inputs:
        stages["image"] = (only(production.encoded.images), only(other.encoded.images))
    for index, pair in enumerate(zip(our_steps, euler_steps.values(), strict=True), start=1):
        stages[f"step {index}"] = pair
    stages["frames"] = (torch.from_numpy(ours.frames), torch.from_numpy(theirs.frames))
    return stages


def judge(name, stages):
    found = errors(stages)
    print(f"\n| {name} |", " | ".join(f"{stage} {worst:.1e} / {mean:.1e}" for stage, (worst, mean) in found.items()))
    assert {stage: worst for stage, (worst, _) in found.items() if worst > CLOSE and stage != "frames"} == {}
    assert found["frames"][0] <= 1, "a pixel may fall on the other side of a rounding"


@pytest.fixture
def upstream_vae(settings):
    """LightX2V encodes and decodes with its own VAE."""
    settings_module.use(replace(settings, lightx2v_plain="vae"))
    yield
    settings_module.use(settings)


def test_the_last_frame(load, reference, euler_steps, model, upstream_vae, lightx2v, tmp_path, request):
    job = with_end(make_request(tmp_path, model, "bf16"), tmp_path)
    production = load("bf16")
    stages = held(production, reference(model, "bf16"), job, euler_steps)
    mask = only(production.encoded.images)[:4]
    assert mask[:, 0].min() == 1 and mask[3, -1].min() == 1 and mask.mean(dim=(2, 3)).sum() == 5
    judge("last frame, bf16", stages)
    found = {"condition": stages["image"][0], "latents": stages["step 4"][0]}
    if request.config.getoption("--store"):
        commit = subprocess.run(
            ["git", "-C", lightx2v.__path__[0], "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        about = {"source": f"LightX2V {commit.stdout.strip()}, last frame, bf16, float32 on a CPU"}
        save_file({name: value.float().cpu().contiguous() for name, value in found.items()}, LAST_FRAME, about)
    for name, value in load_file(LAST_FRAME).items():
        torch.testing.assert_close(found[name].float().cpu(), value, atol=1e-3, rtol=0)


def test_words_alone(words_alone, compute, reference, euler_steps, tmp_path):
    from wan_ui.engines.lightx2v import LightX2VEngine

    request = make_request(tmp_path, words_alone, "gguf-Q8_0", kind="text-to-video")
    request = replace(request, inputs={})
    compute(torch.float32)
    production = LightX2VEngine()
    production.load(words_alone, words_alone.scheme("gguf-Q8_0"), quiet)
    judge("words alone, gguf-Q8_0", held(production, reference(words_alone, "gguf-Q8_0"), request, euler_steps))
    production.close()
