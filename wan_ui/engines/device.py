"""Device, dtype, threads and residence of the weights: each choice is a value with its reason."""

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.headers import read_header

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SMALL = 2 * 2**30  # bytes of dequantised experts below which keeping them quantised saves nothing that matters


@dataclass(frozen=True)
class Choice:
    value: Any
    reason: str

    @property
    def text(self) -> str:
        return f"{self.value} ({self.reason})".replace("torch.", "")


@dataclass(frozen=True)
class Residence:
    """Where and how the experts stay. `device` is where they are loaded to: the CPU of a GPU run when offloaded."""

    device: torch.device
    quantised: bool
    weights: str
    offload: str


def choose_device(model: Model) -> Choice:
    """cuda where there is a GPU, else cpu. Raises UserError when the model needs a GPU."""
    if torch.cuda.is_available():
        return Choice(torch.device("cuda"), f"auto: {torch.cuda.get_device_name()}")
    if model.needs_gpu:
        raise UserError(
            f"{model.title} needs a CUDA GPU, and torch {torch.__version__} sees none; choose another model",
            field="model",
        )
    return Choice(torch.device("cpu"), "auto: no CUDA GPU")


def choose_dtype(device: torch.device) -> Choice:
    """bf16 where the hardware multiplies it natively, float32 elsewhere (emulated bf16 is slower than float32)."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice(torch.bfloat16, "auto: native on this GPU")
        return Choice(torch.float16, "auto: this GPU has no bf16")
    if torch.cpu._is_amx_tile_supported():
        return Choice(torch.bfloat16, "auto: amx_bf16")
    if torch.cpu._is_avx512_bf16_supported():
        return Choice(torch.bfloat16, "auto: avx512_bf16")
    return Choice(torch.float32, "auto: this CPU has no native bf16")


def use_threads(wanted: int) -> None:
    """Set torch's CPU threads; 0 means every core this process may run on (containers limit that)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or available)
    if sys.platform == "linux":
        # glibc gives blocks above 128 kB back to the kernel when they are freed, and every activation of a
        # convolution is one: the page faults of getting them again double the time of a VAE decode.
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
            libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def choose_residence(experts: tuple[Path, ...], device: torch.device) -> Residence:
    """How the experts stay in memory, from the file sizes and the free memory."""
    stored = sum(path.stat().st_size for path in experts)
    values = sum(_values(path) for path in experts)
    small = 4 * values < SMALL
    if device.type == "cpu":
        return Residence(
            device,
            not small,
            "dequantised once at load: small model" if small else "kept as stored: large model",
            "none (weights are in host memory)",
        )
    resident = 2 * values if small else stored
    free, _ = torch.cuda.mem_get_info()
    fits = resident < 0.7 * free  # the rest is for the text encoder, the VAE and activations
    return Residence(
        device if fits else torch.device("cpu"),
        not small,
        "dequantised once at load: small model" if small else "kept as stored: large model",
        f"{'none' if fits else 'inactive expert in host memory'}"
        f" (experts {resident / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free on the GPU)",
    )


def _values(path: Path) -> int:
    total = 0
    for info in read_header(path).tensors.values():
        size = 1
        for n in info.shape:
            size *= n
        total += size
    return total
