"""LightX2V against the diffusers engine: same files, same noise, float32, stage by stage.

fp8 is the exception: upstream also rounds the activations to e4m3 (that is what its kernels multiply),
the diffusers engine multiplies the file's weights in full, so they agree to a few percent only.
"""

import pytest
import torch

from tests.lightx2v.test_engine import make_request
from wan_ui.engines import schedule

CLOSE = 1e-4


@pytest.fixture
def both(load, model, tmp_path, monkeypatch, record_property):
    """both(scheme) -> {stage: (LightX2V's tensor, diffusers' tensor)}"""
    from wan_ui.engines import diffusers

    steps = {}  # by sigma; the diffusers engine's preview asks first, the step itself last
    euler_step = schedule.euler_step

    def recorded(latents, velocity, sigma, next_sigma):
        steps[sigma] = euler_step(latents, velocity, sigma, next_sigma)
        return steps[sigma]

    monkeypatch.setattr(schedule, "euler_step", recorded)
    monkeypatch.setattr(diffusers, "choose_dtype", lambda device: diffusers_choice(torch.float32))

    def run(scheme):
        request = make_request(tmp_path, model, scheme)
        production, reference = load(scheme), diffusers.DiffusersEngine()
        reference.load(model, model.scheme(scheme), lambda progress: None)
        ours = production.generate(request, lambda progress: None)
        our_steps = [step.cpu() for step in steps.values()]
        steps.clear()
        theirs = reference.generate(request, lambda progress: None)
        stages = {
            "text": (only(production.prompts)["context"], only(reference.prompts)),
            "image": (only(production.images)[4:], only(reference.images)[4:]),
        }
        for index, (ours_step, theirs_step) in enumerate(zip(our_steps, steps.values(), strict=True), start=1):
            stages[f"step {index}"] = (ours_step, theirs_step)
        latents = torch.from_numpy(theirs.latents)
        stages["decode"] = (production.runner.vae_decoder.decode(latents), decode(reference.vae, latents))
        stages["frames"] = (torch.from_numpy(ours.frames).float(), torch.from_numpy(theirs.frames).float())
        reference.close()
        return stages

    return run


def diffusers_choice(value):
    from wan_ui.engines.device import Choice

    return Choice(value, "for the comparison")


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
    """{stage: (largest, mean) absolute difference}; printed, to be put into the README."""
    table = {}
    for stage, (ours, theirs) in stages.items():
        difference = (ours.float().reshape(-1) - theirs.float().reshape(-1)).abs()
        table[stage] = (difference.max().item(), difference.mean().item())
        worst, mean = table[stage]
        print(f"  {stage:<8} max {worst:.2e}  mean {mean:.2e}  of {theirs.float().abs().max():.2f}")
    return table


@pytest.mark.parametrize("scheme", ("bf16", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0"))
def test_parity(both, scheme):
    print(f"\n{scheme}")
    table = errors(both(scheme))
    frames = table.pop("frames")
    assert {stage: worst for stage, (worst, _) in table.items() if worst > CLOSE} == {}
    assert frames[0] <= 1, "a pixel may fall on the other side of a rounding"


def test_parity_fp8(both):
    print("\nfp8")
    stages = both("fp8")
    errors(stages)
    ours, theirs = stages["step 4"]
    assert ((ours - theirs).norm() / theirs.norm()).item() < 0.05
