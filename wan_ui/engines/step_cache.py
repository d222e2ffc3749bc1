"""Step caches for undistilled sampling: a step whose blocks would add what they added before is spared them.

What the blocks add to the tokens changes little from step to step. Where little enough, the sum of the last step that
was computed is added again and only the head runs. Which steps these are is the same for both halves of guidance:

magcache  from measured ratios of the sums' magnitudes: their error is added up, with the threshold of its authors
teacache  from the change of the timestep's embedding, through a polynomial that its authors fitted

Both begin anew where the expert changes: what one expert added says nothing about the other.
"""

import tomllib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch

from wan_ui.engines.group import here
from wan_ui.engines.schedule import Step
from wan_ui.place import DATA
from wan_ui.recipes import CACHES, FEWEST_CACHED, Recipe

NUMBERS = DATA / "configs" / "step_caches.toml"
BOTH = -1  # the place of what was added to both halves in one pass


class StepCache:
    """The cache of one clip. Call `enter` before each step and `around` in place of the blocks.

    skips  step -> left out, as far as it is known
    """

    def __init__(self, steps: Sequence[Step]):
        self.steps = steps
        self.skips: dict[int, bool] = {}
        self.added: dict[int, Any] = {}  # half -> what its blocks added last
        self.step = 0
        self.title = ""

    def enter(self, step: int) -> None:
        if step and self.steps[step].expert != self.steps[step - 1].expert:
            self.added = {}
        self.step = step

    def around(self, half: int, tokens: Any, embedding: Any, blocks: Callable[[], Any]) -> Any:
        """What the blocks make of `tokens`, or would make. half: 0, 1 or BOTH; embedding: of the timestep."""
        if self.step not in self.skips:
            self.skips[self.step] = half in self.added and self.may_skip(embedding)
        if self.skips[self.step]:
            return tokens + self.added[half]
        before = tokens.clone()  # blocks may work in place
        after = blocks()
        self.added[half] = after - before
        return after

    def may_skip(self, embedding: Any) -> bool:
        raise NotImplementedError

    @property
    def words(self) -> str:
        return f"{self.title}: {sum(self.skips.values())} of {len(self.steps)} steps left out"


class MagCache(StepCache):
    def __init__(self, steps: Sequence[Step], numbers: dict[str, Any]):
        super().__init__(steps)
        self.title = CACHES["magcache"]
        self.planned = mag_plan([step.expert for step in steps], **numbers)

    def may_skip(self, embedding: Any) -> bool:
        return self.planned[self.step]


def mag_plan(
    experts: Sequence[int], threshold: float, longest: int, keep: float, high: bool, ratios: Sequence[float]
) -> list[bool]:
    """Which steps are left out; it depends on nothing but the numbers. experts: of each step."""
    halves = [nearest([1.0, *ratios[half::2]], len(experts)) for half in (0, 1)]
    count = len(experts)
    switch = experts.index(1) if 1 in experts else count
    first = int(2 * switch * keep) if high or switch == count else 2 * switch  # passes, of which a step has two
    last = 2 * switch + 2 * (count - switch) * keep
    kept = {0, switch, *(k for k in range(switch) if 2 * k < first)}
    kept |= {k for k in range(switch, count) if (2 * k <= last if high else 2 * k < int(last))}
    ratio, error, row = [1.0, 1.0], [0.0, 0.0], 0
    plan = []
    for k in range(count):
        if k == switch:
            ratio, error, row = [1.0, 1.0], [0.0, 0.0], 0
        if k in kept:
            plan.append(False)
            continue
        ratio = [product * of[k] for product, of in zip(ratio, halves, strict=True)]
        error = [total + abs(1 - product) for total, product in zip(error, ratio, strict=True)]
        row += 1
        plan.append(max(error) < threshold and row <= longest)
        if not plan[-1]:
            ratio, error, row = [1.0, 1.0], [0.0, 0.0], 0
    return plan


def nearest(values: Sequence[float], count: int) -> list[float]:
    """`count` of the values at even distances, for another number of steps than they were measured with."""
    if count == 1:
        return [values[-1]]
    return [values[round(k * (len(values) - 1) / (count - 1))] for k in range(count)]


class TeaCache(StepCache):
    def __init__(self, steps: Sequence[Step], numbers: dict[str, Any]):
        super().__init__(steps)
        self.title = CACHES["teacache"]
        self.threshold, self.coefficients = numbers["threshold"], numbers["coefficients"]
        self.before: Any = None  # the embedding of the step before
        self.change = 0.0  # since a step was computed

    def enter(self, step: int) -> None:
        super().enter(step)
        if not self.added:  # another expert
            self.before, self.change = None, 0.0

    def around(self, half: int, tokens: Any, embedding: Any, blocks: Callable[[], Any]) -> Any:
        result = super().around(half, tokens, embedding, blocks)
        self.before = embedding
        return result

    def may_skip(self, embedding: Any) -> bool:
        if self.before is None or self.step in (0, len(self.steps) - 1):
            self.change = 0.0
            return False
        means = torch.stack([(embedding - self.before).abs().mean(), self.before.abs().mean()])
        change, size = here().sums(means)  # of a group's ranks each may have its tokens' timesteps alone
        moved = (change / size).item()
        self.change += sum(c * moved**power for power, c in enumerate(reversed(self.coefficients)))
        if self.change < self.threshold:
            return True
        self.change = 0.0
        return False


def make_step_cache(name: str, recipe: Recipe | None, steps: Sequence[Step], task: str) -> tuple[StepCache | None, str]:
    """The cache that a job asks for, and why there is none. task: i2v | t2v"""
    if recipe is None or name not in ("magcache", "teacache"):
        return None, ""
    if len(steps) < FEWEST_CACHED:
        why = f"of {len(steps)} steps each is too unlike the one before; it takes {FEWEST_CACHED}"
        return None, f"off ({CACHES[name]} was asked for: {why})"
    numbers = _numbers()[name].get(getattr(recipe, name), {}).get(task)
    if numbers is None:
        return None, f"off ({CACHES[name]} was asked for: it was not measured for this kind of clip)"
    return (MagCache if name == "magcache" else TeaCache)(steps, numbers), ""


@lru_cache
def _numbers() -> dict[str, Any]:
    return tomllib.loads(NUMBERS.read_text(encoding="utf-8"))
