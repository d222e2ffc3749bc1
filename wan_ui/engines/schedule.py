"""The distilled flow-matching schedule: which timesteps, which expert, and the Euler step.

The model predicts the velocity v = noise - clean of x(sigma) = (1 - sigma) * clean + sigma * noise.
n steps start at the even grid sigma = 1, 1 - 1/n, ... 1/n, bent towards noise by the shift s:

    sigma' = s * sigma / (1 + (s - 1) * sigma)        timestep = 1000 * sigma'

With s = 5 and four steps that gives the timesteps 1000, 937.5, 833.33, 625, those that the 4-step
distillation was trained on. diffusers' FlowMatchEulerDiscreteScheduler, left alone, applies the shift
twice and ends at 24.4, which is wrong here. LightX2V lists the steps (`denoising_step_list`) and the
switch of experts (`boundary_step_index`); both follow from steps, shift and boundary.
"""


def sigmas(steps: int, shift: float) -> list[float]:
    """`steps` + 1 values falling from 1.0 to 0.0; the last is where sampling ends."""
    even = [1 - i / steps for i in range(steps)]
    return [shift * s / (1 + (shift - 1) * s) for s in even] + [0.0]


def expert_index(timestep: float, boundary: float) -> int:
    """0 (high noise) for timesteps >= boundary * 1000, else 1 (low noise). `boundary` 0: always 0."""
    return 0 if timestep >= boundary * 1000 else 1


def noise(seed: int, shape: tuple[int, ...]):
    """Standard normal float32, drawn on the CPU, so that a seed means the same noise on every machine and engine."""
    import torch

    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def euler_step(latents, velocity, sigma: float, next_sigma: float):
    """One step from sigma to next_sigma. Kept in float32: bf16 latents would lose 8 bits at every step."""
    return latents + (next_sigma - sigma) * velocity.float()
