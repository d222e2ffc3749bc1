"""Which transformer block of a denoise step is wrong, against stored hidden states.

A `BlockTrial` is one small denoise step with everything that goes into it and the hidden states after every block,
computed once by a right engine in float32. The engine under test runs the same step; behind each block it is handed
the stored states, so that one bad block does not spoil the next, and the error of each is its own.

A trial that was stored with a reference judges the code, the file and its reader. One that was computed on the spot, by
the diffusers engine on the same files, cannot judge the diffusers engine: both would have the same fault. Then the
verdict says that it can't tell.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from wan_ui.engines.base import Stages

WIDTH, HEIGHT, FRAMES = 64, 64, 5  # of the picture: 32 tokens for A14B, 8 for 5B
# A block's own error is a third of what a whole denoise step may have: residual connections carry most of the states.
SHARE = 1 / 3


@dataclass(frozen=True)
class BlockTrial:
    """One denoise step of one expert; float32 on the CPU, without a batch dimension.

    latents   (z, t, h, w), at `sigma`
    text      (l, d); image: the condition, as Stages.encode_image gives it
    hidden    (blocks + 1, tokens, width): what enters the first block, then what leaves each
    velocity  (z, t, h, w): what the step gives
    more      what else `predict` is given, by name
    """

    sigma: float
    latents: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    hidden: torch.Tensor
    velocity: torch.Tensor
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Blocks:
    """The transformer blocks of one denoise step, each fed with the reference output of the block before.

    errors     relative error after each; the first is of what enters block 0 (patch embedding)
    not_finite NaN and Inf counted after each
    head       relative error of the step, from the right states after the last block; -1 if it did not get there
    verdict    which is the first bad one, in words; first is its index, -1 the input, None no single one
    innocent   nothing was found although the trial could have shown it
    """

    stage: str
    errors: list[float]
    not_finite: list[int]
    verdict: str
    first: int | None = None
    head: float = -1.0
    innocent: bool = False


def record(engine: Stages, expert: int, sigma: float, latents, text, image, **more: Any) -> BlockTrial:
    """The trial as a right `engine` computes it. more: see BlockTrial."""
    hidden: list[torch.Tensor] = []

    def keep(_index: int, states: torch.Tensor) -> None:
        hidden.append(states.detach().float().cpu())

    velocity = engine.predict(latents, sigma, expert, text, image, on_block=keep, **more)
    latents, text, image, states, velocity = (
        tensor.detach().float().cpu() for tensor in (latents, text, image, torch.stack(hidden), velocity)
    )
    return BlockTrial(sigma, latents, text, image, states, velocity, more)


def compare(engine: Stages, trial: BlockTrial, expert: int, stage: str, allowed: float, independent: bool) -> Blocks:
    """Run the trial's step in `engine`, handing each block what the trial has in front of it.

    allowed      relative error of a whole denoise step that is right
    independent  whether the trial can differ from `engine`: it was stored, or another engine made it
    """
    errors: list[float] = []
    not_finite: list[int] = []

    def hold(index: int, states: torch.Tensor) -> torch.Tensor:
        right, states = trial.hidden[index + 1], states.detach().float().cpu()
        not_finite.append(int((~states.isfinite()).sum()))
        errors.append(relative_error(states.nan_to_num(), right))
        return right

    inputs = (trial.latents, trial.sigma, expert, trial.text, trial.image)
    try:
        velocity = engine.predict(*inputs, on_block=hold, **trial.more)
    except Exception as error:  # a broken kernel raises anything; the blocks that ran still tell
        words = f"{type(error).__name__} in block {len(errors) - 1}: {str(error).splitlines()[0][:200]}"
        return Blocks(stage, errors, not_finite, words, len(errors) - 1)
    head = relative_error(velocity.detach().float().cpu().nan_to_num(), trial.velocity)
    first, verdict = verdict_on(errors, not_finite, head, allowed)
    if verdict:
        return Blocks(stage, errors, not_finite, verdict, first, head)
    if independent:
        verdict = (
            f"every block is right on a small step ({short(max(errors))} at most): look at what goes into this one "
            "(latents, text, condition), or at what depends on the size (rope, attention over many tokens)"
        )
    else:
        verdict = (
            "can't tell: the reference is this engine's own code on the same files, so a fault of the code or of the "
            "weights is in both; a stored reference (stages --save, made where all is right) would show it"
        )
    return Blocks(stage, errors, not_finite, verdict, None, head, innocent=independent)


def relative_error(values: torch.Tensor, right: torch.Tensor) -> float:
    """|values - right| / |right|, both finite."""
    a, b = values.double().flatten(), right.double().flatten()
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


def verdict_on(errors: list[float], not_finite: list[int], head: float, allowed: float) -> tuple[int | None, str]:
    """The first bad block, -1 for what enters block 0, None where none stands out; "" when all is right."""
    broken = next((k for k, count in enumerate(not_finite) if count), None)
    if broken is not None:
        what = "what enters block 0 (patch embedding)" if broken == 0 else f"block {broken - 1}"
        return broken - 1, f"{what} is the first with NaN or Inf ({not_finite[broken]} values)"
    entering, blocks = errors[0], errors[1:]
    right = allowed * SHARE
    usual = sorted(blocks)[(len(blocks) - 1) // 4]  # the lower quartile: most blocks are right
    if entering > max(0.02, right) and usual > max(0.05, right):
        return (
            -1,
            f"the patch embedding ({short(entering)}) and all blocks are off: another expert's or model's weights?",
        )
    if entering > max(0.02, right):
        return -1, f"what enters block 0 (the patch embedding) is off by {short(entering)}"
    if usual > right:
        words = "all blocks are off: it is something they share (rope, timestep, text, the attention kernel)"
        return None, f"{words}; the least is {short(min(blocks))}, rounding explains {short(right)}"
    bad = [k for k, error in enumerate(blocks) if error > max(2 * usual, right)]
    if bad:
        others = f"; {len(bad) - 1} more after it" if len(bad) > 1 else ""
        off = f"off by {short(blocks[bad[0]])}, the usual is {short(usual)}"
        return bad[0], f"block {bad[0]} is the first bad one: {off}{others}"
    if not math.isfinite(head) or head > allowed:
        return None, f"every block is right, what follows them (the head) is off by {short(head)}"
    return None, ""


def full_size(
    engine: Stages, other: Callable[[], Stages], inputs: tuple, stage: str, allowed: float, more: dict[str, Any]
) -> Blocks:
    """The failing step itself, against another engine on the same files: for faults that a small step does not show.

    inputs, more  of Stages.predict: latents, sigma, expert, text, image, and what is given by name
    Holds the hidden states of all blocks in host memory as float32: 4 GB for A14B at its smallest size.
    """
    latents, sigma, expert, text, image = inputs
    trial = record(other(), expert, sigma, latents, text, image, **more)
    return compare(engine, trial, expert, stage, allowed, independent=True)


def short(error: float) -> str:
    """Two digits, never 2e+02."""
    return f"{error:.2g}" if error < 99.5 else f"{error:.0f}"
