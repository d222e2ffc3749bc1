"""The solvers of undistilled sampling: from velocities at falling sigmas to the clean latents.

The model predicts the velocity v of x(sigma) = (1 - sigma) * clean + sigma * noise, so what it takes the clean clip to
be is m = x - sigma * v. With a = 1 - sigma and lambda = log(a / sigma), both multistep solvers integrate

    x' = (sigma' / sigma) * x - a' * (exp(-h) - 1) * m,    h = lambda' - lambda

exactly for a constant m, and add what the change of m since the last step says of its slope. DPM++ is the 2M solver of
DPM-Solver++; UniPC is of order two with B(h) = exp(-h) - 1 and corrects each step once the next m is known. Latents are
float32, the coefficients Python's floats; at the ends lambda is infinite, which comes out right in each formula.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

from wan_ui.engines.schedule import euler_step, noises
from wan_ui.recipes import DMD


class Solver(Protocol):
    def step(self, latents: Any, velocity: Any) -> Any:
        """The latents of the next sigma; both are float32, and called once for each sigma in order."""


def make_solver(name: str, sigmas: list[float], seed: int = 0) -> Solver:
    """sigmas: of every step and of the end, 0; seed: of the clip, for a solver that takes more noise"""
    if name == DMD:
        return Dmd(sigmas, seed)
    solvers: dict[str, Callable[[list[float]], Solver]] = {"unipc": UniPC, "dpm++": DpmPlusPlus, "euler": Euler}
    return solvers[name](sigmas)


class Euler:
    def __init__(self, sigmas: list[float]):
        self.sigmas, self.done = sigmas, 0

    def step(self, latents: Any, velocity: Any) -> Any:
        k, self.done = self.done, self.done + 1
        return euler_step(latents, velocity, self.sigmas[k], self.sigmas[k + 1])


class Dmd:
    """To the clean clip at every step, and from there back to the next sigma with fresh noise: what comes next out of
    the generator that the clip's noise came from."""

    def __init__(self, sigmas: list[float], seed: int):
        self.sigmas, self.seed, self.done = sigmas, seed, 0
        self.noises: Any = None

    def step(self, latents: Any, velocity: Any) -> Any:
        k, self.done = self.done, self.done + 1
        clean = latents - self.sigmas[k] * velocity.float()
        then = self.sigmas[k + 1]
        if then == 0:
            return clean
        if self.noises is None:
            self.noises = noises(self.seed, tuple(latents.shape))
            next(self.noises)
        return (1 - then) * clean + then * next(self.noises).to(latents.device)


class DpmPlusPlus:
    def __init__(self, sigmas: list[float]):
        self.sigmas, self.done = sigmas, 0
        self.before: Any = None  # m of the step before

    def step(self, latents: Any, velocity: Any) -> Any:
        k, self.done = self.done, self.done + 1
        now, then = self.sigmas[k], self.sigmas[k + 1]
        clean = latents - now * velocity.float()
        h = log_ratio(then) - log_ratio(now)
        factor = (1 - then) * math.expm1(-h)
        result = (then / now) * latents - factor * clean
        if k and then > 0:  # the last step is of first order
            r = (log_ratio(now) - log_ratio(self.sigmas[k - 1])) / h
            result = result - (0.5 * factor / r) * (clean - self.before)
        self.before = clean
        return result


class UniPC:
    def __init__(self, sigmas: list[float]):
        self.sigmas, self.done = sigmas, 0
        self.order = 1  # of the step before
        self.start: Any = None  # its latents, corrected
        self.before: Any = None  # its m
        self.slope: Any = 0.0  # (m of the one before that - m) / r

    def step(self, latents: Any, velocity: Any) -> Any:
        k, self.done = self.done, self.done + 1
        clean = latents - self.sigmas[k] * velocity.float()
        if k:
            latents = self._correct(k, clean)
        order = min(2, len(self.sigmas) - 1 - k, k + 1)
        now, then = self.sigmas[k], self.sigmas[k + 1]
        h = log_ratio(then) - log_ratio(now)
        factor = (1 - then) * math.expm1(-h)
        result = (then / now) * latents - factor * clean
        slope: Any = 0.0
        if order == 2:
            r = (log_ratio(self.sigmas[k - 1]) - log_ratio(now)) / h
            slope = (self.before - clean) / r
            result = result - (0.5 * factor) * slope
        self.order, self.start, self.before, self.slope = order, latents, clean, slope
        return result

    def _correct(self, k: int, clean: Any) -> Any:
        """The latents of step k once more, now that its m is known."""
        now, then = self.sigmas[k - 1], self.sigmas[k]
        h = log_ratio(then) - log_ratio(now)
        factor = (1 - then) * math.expm1(-h)
        result = (then / now) * self.start - factor * self.before
        if self.order == 1:
            return result - (0.5 * factor) * (clean - self.before)
        r = (log_ratio(self.sigmas[k - 2]) - log_ratio(now)) / h
        first = math.expm1(-h) / -h - 1
        second = first / -h - 0.5
        b1, b2 = first / math.expm1(-h), 2 * second / math.expm1(-h)
        old = (b1 - b2) / (1 - r)
        return result - factor * (old * self.slope + (b1 - old) * (clean - self.before))


def log_ratio(sigma: float) -> float:
    """lambda: log of (1 - sigma) / sigma"""
    if sigma >= 1:
        return -math.inf
    return math.log1p(-sigma) - math.log(sigma) if sigma > 0 else math.inf
