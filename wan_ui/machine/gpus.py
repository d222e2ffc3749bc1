"""The NVIDIA GPUs that this process may use, each with its memory and temperature, told by nvidia-smi without torch."""

import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from wan_ui.settings import visible_devices

QUERY = "uuid,name,memory.total,memory.used,temperature.gpu"
FRESH = 5.0  # seconds for which a look at the GPUs serves all


@dataclass(frozen=True)
class Gpu:
    """uuid: what CUDA_VISIBLE_DEVICES names it by. total, used: GiB, 0 when not known. celsius: None when not known."""

    uuid: str
    name: str = ""
    total: float = 0.0
    used: float = 0.0
    celsius: int | None = None


def gpus() -> list[Gpu]:
    """Those that CUDA would count, in its order: the first is its number 0. Takes as long as nvidia-smi."""
    return _visible(_all_gpus(), visible_devices())


def _all_gpus() -> list[Gpu]:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except FileNotFoundError:
        return [Gpu(path.name.removeprefix("nvidia")) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.strip().splitlines()]
    if done.returncode or any(len(row) != 5 for row in rows):
        return []
    return [
        Gpu(uuid, name, _number(total) / 1024, _number(used) / 1024, int(_number(heat)) if _number(heat) else None)
        for uuid, name, total, used, heat in rows
    ]


def _number(text: str) -> float:
    """0 for "[N/A]"."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _visible(all_gpus: list[Gpu], devices: str | None) -> list[Gpu]:
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


class Gauges:
    """The newest look at the GPUs, taken in a thread of its own: the page never waits for nvidia-smi."""

    def __init__(self) -> None:
        self.by_uuid: dict[str, Gpu] = {}
        self._looked = float("-inf")
        self._looking = threading.Lock()

    def look(self, uuid: str) -> Gpu | None:
        """As it was seconds ago; None before the first look has ended."""
        if time.monotonic() - self._looked > FRESH and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="wan-ui-gpus", daemon=True).start()
        return self.by_uuid.get(uuid)

    def _look(self) -> None:
        try:
            self.by_uuid = {gpu.uuid: gpu for gpu in _all_gpus()}
            self._looked = time.monotonic()
        finally:
            self._looking.release()


GAUGES = Gauges()
