"""Facts about the machine: GPU, memory, installed kernels. Facts only; the choices are made elsewhere.

`installed` and `nvidia_gpu` need no torch, so that the page can say what this machine lacks. `measure`
is for the worker: it asks torch, which is exact and knows how much memory is free right now.
"""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from wan_ui.settings import Settings

GIB = 2**30
# Bytes of a GPU that torch does not count as its own: the CUDA context and the workspaces of cuBLAS and cuDNN.
CONTEXT = 0.75 * GIB
# What LightX2V looks for at import; a missing one becomes None there and fails at its first use.
KERNELS = (
    "triton", "flash_attn_interface", "flash_attn", "sageattention", "sgl_kernel", "vllm", "q8_kernels", "flashinfer",
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


def nvidia_gpu() -> bool:
    """Whether an NVIDIA GPU seems to be there, told without torch."""
    return (
        Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/gpus").is_dir() or bool(shutil.which("nvidia-smi"))
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


def lightx2v_absent(settings: Settings) -> str:
    """ "" when LightX2V itself is here, whatever the GPU; else what to do about it."""
    if settings.lightx2v_path:
        if not (Path(settings.lightx2v_path) / "lightx2v" / "infer.py").is_file():
            return f"WAN_UI_LIGHTX2V_PATH={settings.lightx2v_path} is not a checkout of LightX2V"
    elif not installed(("lightx2v",)):
        return "LightX2V is not installed (make lightx2v), and WAN_UI_LIGHTX2V_PATH is not set"
    return ""


def lightx2v_missing(settings: Settings) -> str:
    """ "" when LightX2V can be used here, else what is missing. Imports neither torch nor LightX2V."""
    if absent := lightx2v_absent(settings):
        return absent
    if not nvidia_gpu():
        return "no CUDA GPU for LightX2V"
    if driver_fault():
        return f"the GPU's driver does not answer: {driver_fault()}"
    return ""


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
    figures = {"host_peak": next((int(x.split()[1]) for x in lines if x.startswith("VmHWM")), 0) * 1024}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        figures["gpu_resident"] = torch.cuda.memory_allocated()
        figures["gpu_peak"] = torch.cuda.max_memory_reserved()
        figures["gpu_context"] = max(0, total - free - torch.cuda.memory_reserved())
    return {name: round(value / GIB, 3) for name, value in figures.items()}
