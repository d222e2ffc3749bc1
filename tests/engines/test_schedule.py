"""The distilled schedule against LightX2V's loop and against the catalog."""

import itertools

import pytest

from wan_ui.catalog import load_catalog
from wan_ui.engines import schedule
from wan_ui.engines.schedule import euler_step, expert_index, sigmas
from wan_ui.engines.solvers import make_solver
from wan_ui.settings import ROOT

torch = pytest.importorskip("torch")


def lightx2v(latents, model, steps, shift):
    """WanStepDistillScheduler's deterministic loop, after its set_denoising_timesteps: a table of 1000 shifted
    sigmas, of which the listed steps take entries, and x0-prediction followed by renoising with the same noise."""
    table = torch.linspace(1.0, 0.0, 1001)[:-1]
    table = shift * table / (1 + (shift - 1) * table)
    chosen = [table[1000 - round(1000 * (1 - i / steps))].item() for i in range(steps)]
    for i, sigma in enumerate(chosen):
        velocity = model(latents, sigma * 1000)
        clean = latents - sigma * velocity
        noise = latents + (1 - sigma) * velocity
        following = chosen[i + 1] if i + 1 < steps else 0.0
        latents = (1 - following) * clean + following * noise
    return latents


def test_four_steps_of_the_release():
    assert [round(1000 * s, 2) for s in sigmas(4, 5.0)] == [1000, 937.5, 833.33, 625, 0]


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_equals_lightx2v(steps, shift):
    torch.manual_seed(0)
    weight, start = torch.randn(8, 8) / 4, torch.randn(8)

    def model(x, timestep):
        return torch.tanh(weight @ x + timestep / 1000)

    values = sigmas(steps, shift)
    latents = start
    for sigma, following in itertools.pairwise(values):
        latents = euler_step(latents, model(latents, sigma * 1000), sigma, following)
    torch.testing.assert_close(latents, lightx2v(start, model, steps, shift), atol=2e-6, rtol=0)


def test_experts_follow_the_boundary():
    model = load_catalog(ROOT / "configs/catalog.toml")["i2v-a14b"]

    def experts(steps, shift, boundary):
        return [expert_index(1000 * sigma, boundary) for sigma in sigmas(steps, shift)[:-1]]

    assert experts(4, model.shift, model.boundary) == [0, 0, 1, 1]
    assert experts(1, 5.0, 0.9) == [0]
    assert experts(8, 5.0, 0.9) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert experts(4, 1.0, 0.9) == [0, 1, 1, 1]
    assert experts(4, 5.0, 0.0) == [0, 0, 0, 0]


def test_fastwans_steps_take_fresh_noise_from_the_clips_own_generator():
    """As FastVideo's DmdDenoisingStage: x0 of every step, and the next sigma's share of new noise."""
    generator = torch.Generator().manual_seed(7)
    first, second, third = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(3))
    sigmas = schedule.dmd_sigmas(3, 5.0)
    assert sigmas == [1.0, 0.757, 0.522, 0.0]
    solver = make_solver("dmd", sigmas, 7)
    latents = expected = schedule.noise(7, (2, 3, 4, 4))
    assert torch.equal(latents, first)
    for sigma, then, noise in ((1.0, 0.757, second), (0.757, 0.522, third), (0.522, 0.0, 0.0)):
        velocity = 0.3 * latents + 1
        clean = expected - sigma * velocity
        expected = (1 - then) * clean + then * noise
        latents = solver.step(latents, velocity)
        assert torch.allclose(latents, expected)
