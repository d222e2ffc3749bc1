"""The NVIDIA GPUs of this machine by NVML, the driver's own library: memory that all processes take, and temperature.

It needs neither torch nor a process on the GPU, so that the page's process can ask. Where it is not here, or fails,
that is said in words and nothing else is lost.
"""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 20.0  # seconds until a driver that does not answer is given up


@dataclass(frozen=True)
class Gpu:
    """uuid: what CUDA_VISIBLE_DEVICES names it by. total, used: GiB, 0 when not known. celsius: None when not known."""

    uuid: str
    name: str = ""
    total: float = 0.0
    used: float = 0.0
    celsius: int | None = None


def all_gpus() -> tuple[list[Gpu], str]:
    """Those of the machine, in the order of nvidia-smi, and why nothing is known of them, "" if it is."""
    found: list[tuple[list[Gpu], str]] = []
    # A driver that hangs must not take the caller with it.
    asking = threading.Thread(target=lambda: found.append(_ask()), name="wan-ui-nvml", daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return found[0] if found else ([], f"NVML gave no answer within {PATIENCE:.0f} s")


def _ask() -> tuple[list[Gpu], str]:
    try:
        import pynvml
    except Exception as error:  # a package of that name that is not the driver's may do anything at import
        return _devices(), f"the package nvidia-ml-py cannot be imported ({type(error).__name__}: {error})"
    try:
        # Begun and ended with every look: a driver that was updated or came later is then seen.
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return _devices(), "no NVIDIA driver is here (its library NVML was not found)"
    except Exception as error:
        return [], f"NVML: {error}"
    try:
        return [_read(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount())], ""
    except Exception as error:
        return [], f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()


def _read(pynvml: Any, number: int) -> Gpu:
    """What this card and its driver tell; on some boards memory or temperature are not told."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    total = used = 0.0
    celsius: int | None = None
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = memory.total / 2**30, memory.used / 2**30
    with contextlib.suppress(pynvml.NVMLError):
        celsius = int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)) or None
    return Gpu(_text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle)), total, used, celsius)


def _text(value: str | bytes) -> str:
    """Older bindings give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _devices() -> list[Gpu]:
    """Cards that are there although nothing tells of them."""
    return [Gpu(path.name.removeprefix("nvidia")) for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
