"""The flow-matching schedules: which timesteps, which expert, with or without guidance, and the Euler step.

The model predicts the velocity v = noise - clean of x(sigma) = (1 - sigma) * clean + sigma * noise.
n steps start at the even grid sigma = 1, 1 - 1/n, ... 1/n, bent towards noise by the shift s:

    sigma' = s * sigma / (1 + (s - 1) * sigma)        timestep = 1000 * sigma'

With s = 5 and four steps that gives the timesteps 1000, 937.5, 833.33, 625, those that the 4-step
distillation was trained on. diffusers' FlowMatchEulerDiscreteScheduler, left alone, applies the shift
twice and ends at 24.4, which is wrong here. LightX2V lists the steps (`denoising_step_list`) and the
switch of experts (`boundary_step_index`); both follow from steps, shift and boundary.

Undistilled sampling goes as the official code does it (wan/utils/fm_solvers*.py): DPM++ on the same grid, UniPC on one
that begins at 0.999 before it is bent, and both tell the model whole timesteps, cut off rather than rounded.
"""

from dataclasses import dataclass

from wan_ui.catalog import Model
from wan_ui.recipes import DMD, MOTIONS, TITLES
from wan_ui.request import Sampling

DMD_SIGMAS = (1.0, 0.757, 0.522)  # `dmd_denoising_steps` of FastVideo, fastvideo/configs/pipelines/wan.py
UNIPC_START = 0.9990000128746033  # 1 - 1/1000 in float32, as the official code has it


@dataclass(frozen=True)
class Step:
    """One denoise step.

    sigma, next_sigma  where it begins and ends
    timestep   what the model is told, 0 .. 1000
    expert     its index
    guidance   1: one pass, without the negative prompt
    distilled  with the model's distill LoRA, where it has one
    """

    sigma: float
    next_sigma: float
    timestep: float
    expert: int
    guidance: float = 1.0
    distilled: bool = True


def steps_of(made: Sampling, model: Model) -> list[Step]:
    """Every denoise step of a job. Jobs of older versions say nothing but their number."""
    solver, shift = made.solver or "euler", made.shift or model.shift
    grids = {"unipc": unipc_sigmas, DMD: dmd_sigmas}
    grid = grids.get(solver, sigmas)(made.steps, shift)
    times = [1000 * sigma if solver in ("euler", DMD) else float(int(1000 * sigma)) for sigma in grid[:-1]]
    experts = [expert_index(time, model.boundary) for time in times]
    undistilled = {"full": made.steps, "more": (experts.count(0) + 1) // 2}.get(made.motion, 0)
    steps = []
    for k, (time, expert) in enumerate(zip(times, experts, strict=True)):
        guided = made.guidance and k < undistilled
        scale = made.guidance[min(expert, len(made.guidance) - 1)] if guided else 1.0
        steps.append(Step(grid[k], grid[k + 1], time, expert, scale, k >= undistilled))
    return steps


def distilled_steps(count: int, model: Model) -> list[Step]:
    """Those of a distilled clip."""
    grid = sigmas(count, model.shift)
    return [Step(s, grid[k + 1], 1000 * s, expert_index(1000 * s, model.boundary)) for k, s in enumerate(grid[:-1])]


def facts(made: Sampling, steps: list[Step], passes: str, cache: str, has_lora: bool) -> dict[str, str]:
    """How a clip was sampled, where that is not the plain distilled way.

    passes    how both halves of guidance ran
    has_lora  the model has a distill LoRA beside its weights
    """
    scales = dict.fromkeys(step.guidance for step in steps if step.guidance > 1)
    if made.motion not in ("more", "full"):
        return {}
    without = sum(not step.distilled for step in steps)
    said = {"motion": f"{MOTIONS[made.motion].title}, {without} of {len(steps)} steps undistilled"}
    if has_lora and without == len(steps):
        said["distill LoRA"] = "left out"
    if scales:
        guided = sum(step.guidance > 1 for step in steps)
        words = ", ".join(f"{scale:g}" for scale in scales)
        said["guidance"] = f"{words} in {guided} of {len(steps)} steps; passes of such a step: {passes}"
    said["solver"] = TITLES[made.solver or "euler"]
    return said | ({"step cache": cache} if cache else {})


def unipc_sigmas(steps: int, shift: float) -> list[float]:
    """As `sigmas`, from a little below 1: the logarithm of what is left of the clip is finite there."""
    even = [UNIPC_START * (1 - i / steps) for i in range(steps)]
    return [shift * s / (1 + (shift - 1) * s) for s in even] + [0.0]


def dmd_sigmas(steps: int, _shift: float) -> list[float]:
    """Those that FastWan was distilled at, whatever the shift; the last of them for fewer steps are left out."""
    return [*DMD_SIGMAS[:steps], 0.0]


def sigmas(steps: int, shift: float) -> list[float]:
    """`steps` + 1 values falling from 1.0 to 0.0; the last is where sampling ends."""
    even = [1 - i / steps for i in range(steps)]
    return [shift * s / (1 + (shift - 1) * s) for s in even] + [0.0]


def expert_index(timestep: float, boundary: float) -> int:
    """0 (high noise) for timesteps >= boundary * 1000, else 1 (low noise). `boundary` 0: always 0."""
    return 0 if timestep >= boundary * 1000 else 1


def noise(seed: int, shape: tuple[int, ...]):
    """Standard normal float32, drawn on the CPU, so that a seed means the same noise on every machine and engine."""
    return next(noises(seed, shape))


def noises(seed: int, shape: tuple[int, ...]):
    """The same, and what comes after it out of the same generator."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    while True:
        yield torch.randn(shape, generator=generator)


def euler_step(latents, velocity, sigma: float, next_sigma: float):
    """One step from sigma to next_sigma. Kept in float32: bf16 latents would lose 8 bits at every step."""
    return latents + (next_sigma - sigma) * velocity.float()
