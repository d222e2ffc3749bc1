"""Whether the page's process takes more memory than it may, and what it then gives back."""

import contextlib
import ctypes
import gc
import logging
import time

from wan_ui.machine.hardware import GIB
from wan_ui.machine.memory import resident

log = logging.getLogger(__name__)

FRESH = 1.0  # seconds for which a look serves
REST = 10.0  # seconds between attempts to give memory back


class OwnMemory:
    def __init__(self, most_gb: float):
        self.most = most_gb * 1e9
        self._short, self._looked, self._gave = False, 0.0, 0.0

    def is_short(self) -> bool:
        """More is taken than may be, also after what is not needed was given back."""
        now = time.monotonic()
        if now - self._looked < FRESH:
            return self._short
        self._looked = now
        if self._taken() > self.most and now - self._gave > REST:
            self._gave = now
            gc.collect()
            trim()
        short = self._taken() > self.most
        if short and not self._short:
            log.error("the page takes %.1f GB, more than WAN_UI_MAX_PAGE_GB: no new pages", self._taken() / 1e9)
        self._short = short
        return short

    def _taken(self) -> float:
        return resident() * GIB


def trim() -> None:
    """What the C library keeps of freed memory goes back to the system, where it is glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
