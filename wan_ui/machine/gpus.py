"""The NVIDIA GPUs that this process may use, and the gauges of this machine's memory: the newest look and what it was.

The page's process looks; nobody needs torch for it.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from wan_ui.machine import memory, nvml
from wan_ui.machine.nvml import Gpu
from wan_ui.settings import visible_devices

FRESH = 5.0  # seconds for which a look serves all
KEPT = 120  # looks: ten minutes


def gpus() -> list[Gpu]:
    """Those that CUDA would count, in its order: the first is its number 0. Takes as long as NVML."""
    return visible(nvml.all_gpus()[0], visible_devices())


def visible(all_gpus: list[Gpu], devices: str | None) -> list[Gpu]:
    """Of them those that CUDA_VISIBLE_DEVICES names, by number or by the beginning of its UUID. As for CUDA the list
    ends with the first that is not there. A part of a GPU (MIG-...) is taken as it is."""
    if devices is None:
        return all_gpus
    seen = []
    for word in (part.strip() for part in devices.split(",")):
        if word.startswith("MIG-"):
            gpu = Gpu(word, "part of a GPU")
        elif word.isascii() and word.isdigit() and int(word) < len(all_gpus):
            gpu = all_gpus[int(word)]
        else:
            named = [gpu for gpu in all_gpus if word.startswith("GPU-") and gpu.uuid.startswith(word)]
            if len(named) != 1:
                break
            gpu = named[0]
        seen.append(gpu)
    return seen


@dataclass(frozen=True)
class Look:
    """host: GiB of the machine's memory that all programs take, and that there are. trouble: why no GPU is known."""

    host: tuple[float, float] = (0.0, 0.0)
    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""

    def gpu(self, uuid: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.uuid == uuid), None)


@dataclass
class Gauges:
    """The looks of the last minutes, each taken in a thread of its own: who asks never waits for a driver. They are
    the process's, so that a page that is opened again finds them."""

    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self._looked = float("-inf")
        self._looking = threading.Lock()

    def now(self) -> Look | None:
        """As it was seconds ago; None before the first look has ended."""
        if time.monotonic() - self._looked > FRESH and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="wan-ui-gauges", daemon=True).start()
        return self.looks[-1] if self.looks else None

    def _look(self) -> None:
        try:
            self._look_now()
        finally:
            self._looking.release()

    def _look_now(self) -> None:
        found, trouble = nvml.all_gpus()
        self.looks.append(Look(memory.host(), tuple(found), trouble))
        self._looked = time.monotonic()


GAUGES = Gauges()
