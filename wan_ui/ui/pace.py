"""How often somebody may ask: so many times in so many seconds, for each of many.

By the monotonic clock, in one step whatever the number of askers, and without a thread: the package `limits` counts by
the wall clock, which is set back, starts a thread with a request and walks over all askers in it.
"""

import time
from collections.abc import Callable

from wan_ui import limits


class Pace:
    """`count` at once, and as they are used up they come back evenly: all of them in `seconds`."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.each, self.seconds, self.clock = seconds / count, seconds, clock
        self._full: dict[str, float] = {}  # asker -> when all are there again; the one that asked last is last

    def take(self, asker: str) -> float:
        """Take one; 0.0, or the seconds until there is one again."""
        now = self.clock()
        full = max(self._full.pop(asker, now), now) + self.each
        wait = full - now - self.seconds
        if wait > 1e-6:
            full -= self.each
        self._full[asker] = full
        while len(self._full) > limits.ADDRESSES:
            del self._full[next(iter(self._full))]
        return max(0.0, wait) if wait > 1e-6 else 0.0

    def forget(self, asker: str) -> None:
        """All are there again."""
        self._full.pop(asker, None)
