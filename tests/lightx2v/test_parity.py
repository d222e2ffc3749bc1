"""LightX2V against the diffusers engine: same files, same noise, float32, stage by stage.

fp8 is the exception: upstream also rounds the activations to e4m3 (that is what its kernels multiply),
the diffusers engine multiplies the file's weights in full, so they agree to a few percent only.

`pytest tests/lightx2v/test_parity.py -s` ends with the table of errors that the README shows.
"""

import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet

CLOSE = 1e-4


@pytest.fixture(scope="module")
def table():
    """{scheme: {stage: (largest, mean) absolute difference}}, printed as Markdown at the end."""
    found = {}
    yield found
    lines = [f"| largest / mean error | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for stage in next(iter(found.values()), ()):
        cells = (" / ".join(f"{value:.1e}" for value in found[scheme][stage]) for scheme in found)
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    print("\n", *lines, sep="\n")


@pytest.fixture
def both(load, reference, euler_steps, model, tmp_path):
    """both(scheme) -> {stage: (LightX2V's tensor, diffusers' tensor)}"""

    def run(scheme):
        request = make_request(tmp_path, model, scheme)
        production, other = load(scheme), reference(model, scheme)
        ours = production.generate(request, quiet)
        our_steps = list(euler_steps.values())
        euler_steps.clear()
        theirs = other.generate(request, quiet)
        stages = {
            "text": (only(production.encoded.prompts), only(other.encoded.prompts)),
            "image": (only(production.encoded.images)[4:], only(other.encoded.images)[4:]),
        }
        for index, pair in enumerate(zip(our_steps, euler_steps.values(), strict=True), start=1):
            stages[f"step {index}"] = pair
        latents = torch.from_numpy(theirs.latents)
        decoded = production.decode(latents).permute(3, 0, 1, 2)
        stages["decode"] = (decoded, decode(other.vae, latents))
        stages["frames"] = (torch.from_numpy(ours.frames), torch.from_numpy(theirs.frames))
        return stages

    return run


def only(cache):
    (value,) = cache.values()
    return value


def decode(vae, latents):
    """diffusers' own decode, in float, clamped as both engines do."""
    from wan_ui.engines.vae import latent_statistics

    mean, std = latent_statistics(vae)
    with torch.inference_mode():
        return vae.decode(latents[None] * std + mean).sample.clamp(-1, 1)


def errors(stages):
    """{stage: (largest, mean) absolute difference}; frames in levels of 255."""
    found = {}
    for stage, pair in stages.items():
        ours, theirs = (value.float().cpu().reshape(-1) for value in pair)
        difference = (ours - theirs).abs()
        found[stage] = (difference.max().item(), difference.mean().item())
    return found


@pytest.mark.parametrize("scheme", ("bf16", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0"))
def test_parity(both, table, scheme):
    found = table[scheme] = errors(both(scheme))
    assert {stage: worst for stage, (worst, _) in found.items() if worst > CLOSE and stage != "frames"} == {}
    assert found["frames"][0] <= 1, "a pixel may fall on the other side of a rounding"


def test_parity_fp8(both, table):
    stages = both("fp8")
    table["fp8"] = errors(stages)
    ours, theirs = stages["step 4"]
    assert ((ours - theirs).norm() / theirs.norm()).item() < 0.05
