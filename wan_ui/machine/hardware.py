"""Facts about the machine: GPU, memory, installed kernels. Facts only; the choices are made elsewhere.

`installed` and `nvidia_gpu` need no torch, so that the page can say what this machine lacks. `measure`
is for the worker: it asks torch, which is exact and knows how much memory is free right now.
"""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from wan_ui.settings import lent_gpu

GIB = 2**30
# Bytes of a GPU that torch does not count as its own: the CUDA context and the workspaces of cuBLAS and cuDNN.
CONTEXT = 0.75 * GIB
# What LightX2V looks for at import; a missing one becomes None there and fails at its first use.
KERNELS = (
    "triton", "fa3_fwd_interface", "flash_attn_interface", "flash_attn", "sageattention", "sgl_kernel", "vllm",
    "q8_kernels", "flashinfer",
)  # fmt: skip


@dataclass(frozen=True)
class Hardware:
    """device cuda | cpu; capability (major, minor) of the GPU; sizes in bytes; kernels that can be imported."""

    device: str = "cpu"
    name: str = ""
    capability: tuple[int, int] = (0, 0)
    free: int = 0
    total: int = 0
    bf16: bool = False
    torch: str = ""
    kernels: frozenset[str] = field(default_factory=frozenset)

    @property
    def fp8(self) -> bool:
        """Whether the tensor cores multiply e4m3: Ada (8.9), Hopper and Blackwell."""
        return self.device == "cuda" and self.capability >= (8, 9)


def installed(names: tuple[str, ...] = KERNELS) -> frozenset[str]:
    """Those of `names` that can be found for import. Nothing is imported."""

    def found(name: str) -> bool:
        try:
            spec = importlib.util.find_spec(name)
            return spec is not None and spec.origin is not None  # a folder of that name is no package
        except (ImportError, ValueError):
            return False

    return frozenset(name for name in names if found(name))


@lru_cache
def nvidia_gpu() -> bool:
    """Whether an NVIDIA GPU seems to be there, or is lent, told without torch. Asked once."""
    return (
        Path("/dev/nvidia0").exists()
        or Path("/proc/driver/nvidia/gpus").is_dir()
        or bool(shutil.which("nvidia-smi"))
        or lent_gpu()
    )


@lru_cache
def driver_fault() -> str:
    """ "" unless nvidia-smi is here and says that the driver does not answer, then its own words. Asked once."""
    if not shutil.which("nvidia-smi"):
        return ""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi gave no answer ({type(error).__name__})"
    if done.returncode == 0:
        return ""
    words = " ".join((done.stdout or done.stderr).split())
    return words[:200] or f"nvidia-smi ended with exit code {done.returncode}"


def gpus() -> list[dict[str, str]]:
    """{"name", "driver", "memory"} of every GPU by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.strip().splitlines()]
    if done.returncode or any(len(row) != 3 for row in rows):
        return []
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows]


def gpu() -> dict[str, str]:
    """The first of `gpus`; {} where there is none."""
    return next(iter(gpus()), {})


def machine_of(card: str) -> dict[str, str]:
    """The GPU that torch calls `card` (a part of one is "NAME MIG ..."); without a card the first; {} if none is it."""
    first = gpu()
    if not card or card == first.get("name"):
        return first
    return next((row for row in gpus() if card == row["name"] or card.startswith(f"{row['name']} MIG ")), {})


def measure(limit_gib: float = 0.0) -> Hardware:
    """What torch sees, now; with a limit (GiB, 0 = none) no more of the GPU than that is free."""
    import torch

    if not torch.cuda.is_available():
        return Hardware(torch=torch.__version__, kernels=installed())
    free, total = torch.cuda.mem_get_info()
    if limit_gib:
        free = min(free, int(limit_gib * GIB - CONTEXT))
    return Hardware(
        device="cuda",
        name=torch.cuda.get_device_name(),
        capability=torch.cuda.get_device_capability(),
        free=free,
        total=total,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        torch=torch.__version__,
        kernels=installed(),
    )
