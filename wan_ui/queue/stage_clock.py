"""The seconds of each stage of a job and of each denoise step, taken from the progress that an engine reports."""

import threading
import time
from collections.abc import Callable

from wan_ui.errors import Cancelled
from wan_ui.request import Progress


class StageClock:
    """`report` for an engine: forwards progress, raises Cancelled, and sums the seconds of each stage."""

    def __init__(self, forward: Callable[[Progress], None], cancel: threading.Event):
        self._forward, self._cancel = forward, cancel
        self._spent: dict[str, float] = {}
        self._stage, self._since = "", time.monotonic()
        self.steps: list[float] = []  # seconds of each denoise step
        self.before: dict[str, float] = {}  # seconds of a stage before its first step
        self._step, self._step_since = 0, 0.0

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._stage:
            self._spent[self._stage] = self._spent.get(self._stage, 0.0) + now - self._since
        if progress.total and progress.stage not in self.before:
            self.before[progress.stage] = round(self._spent.get(progress.stage, 0.0), 3)
        self._stage, self._since = progress.stage, now
        step = progress.step if progress.stage == "denoise" else 0
        if step != self._step:
            if self._step:
                self.steps.append(round(now - self._step_since, 3))
            self._step, self._step_since = step, now
        self._forward(progress)
        if self._cancel.is_set():
            raise Cancelled

    def seconds(self) -> dict[str, float]:
        now = time.monotonic()
        spent = {**self._spent, self._stage: self._spent.get(self._stage, 0.0) + now - self._since}
        return {stage: round(seconds, 3) for stage, seconds in spent.items()}
