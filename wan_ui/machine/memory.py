"""Memory of this process and of the GPU: a limit to it, how it grows, and what was needed at most."""

import contextlib
import ctypes
import sys
from pathlib import Path

import psutil

from wan_ui.machine.hardware import CONTEXT, GIB
from wan_ui.system import peak_resident

CGROUP = Path("/sys/fs/cgroup")
M_ARENA_MAX = -8  # malloc.h


def few_arenas() -> None:
    """For a process of many threads, before it has them. glibc gives each a share of memory of its own, eight for every
    CPU, and each share keeps the most that it ever held: the page grew by a twelfth in two thousand calls, and by a
    sixth in half an hour of twenty people's use. In two shares it stays as it is."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # musl and other systems have no such choice
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def limit_gpu(gib: float) -> None:
    """Let torch take no more than that of the GPU, the CUDA context included; 0 = no limit. Out of memory beyond it."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (gib * GIB - CONTEXT) / total) if gib else 1.0)


def let_memory_grow() -> None:
    """Have torch's GPU memory in segments that grow. In pieces of fixed sizes what one stage has freed does not fit the
    next, and a clip needs 2 to 10 GiB more than its tensors (A14B at 480x480 and 720p)."""
    import torch

    if torch.cuda.is_available():
        torch._C._accelerator_setAllocatorSettings("expandable_segments:True")


def give_back(most: float = 0) -> None:
    """Return the GPU memory that torch keeps for tensors to come, if that is more than `most` bytes.

    What a large clip took would else stay with the process, and be the peak of every small one after it. Asking the
    driver for it again takes some 10 ms a GiB, so that what the next clip needs may stay.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > most:
        torch.cuda.empty_cache()


def free_memory(gib: float = 0.0) -> int:
    """Bytes that this process can still take: of the GPU, with a limit to it, or without one of the host."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        allowed = int(gib * GIB - CONTEXT) - torch.cuda.memory_allocated() if gib else free + kept
        return int(min(free + kept, allowed))
    return free_host()


def free_host() -> int:
    """Bytes of the host's memory that are free."""
    return int(psutil.virtual_memory().available)


def host() -> tuple[float, float]:
    """GiB of the host's memory that are taken, by all programs, and that there are; in a container of what it may use.
    (0, 0) where neither is told."""
    seen = psutil.virtual_memory()
    used, total = seen.total - seen.available, seen.total
    try:
        most = int((CGROUP / "memory.max").read_text(encoding="utf-8"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        taken = int((CGROUP / "memory.current").read_text(encoding="utf-8")) - int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return used / GIB, total / GIB
    return (max(taken, 0) / GIB, most / GIB) if most < total else (used / GIB, total / GIB)


def resident(pid: int | None = None) -> float:
    """GiB of host memory that a process, or this one, takes now; 0 when it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss / GIB)
    except psutil.Error:
        return 0.0


def forget_peak() -> None:
    """Start the peaks of `memory_used` anew. Does nothing in a process that has not used a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def memory_used() -> dict[str, float]:
    """GiB of this process: host_peak, and with a GPU gpu_resident, gpu_peak (both as reserved from the driver)
    and gpu_context, which every process on a GPU pays beside them."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    peak = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")), 0)
    figures = {"host_peak": peak or peak_resident()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        figures["gpu_resident"] = torch.cuda.memory_allocated()
        figures["gpu_peak"] = torch.cuda.max_memory_reserved()
        figures["gpu_context"] = max(0, total - free - torch.cuda.memory_reserved())
    return {name: round(value / GIB, 3) for name, value in figures.items()}


# Of torch's allocator, of oneDNN, of C++ and of the system.
OUT_OF_HOST = (
    *("DefaultCPUAllocator", "can't allocate memory", "not enough memory"),
    *("could not create a primitive", "could not create a memory", "bad_alloc", "Cannot allocate memory"),
)


def ran_out(error: BaseException) -> str:
    """ "GPU" or "machine", of which this error says that its memory was not enough; "" of any other error."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    words = str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(part in words for part in OUT_OF_HOST)
    ):
        return "machine"
    return ""
