"""Device, dtype, threads and residence of the weights: each choice is a value with its reason."""

import contextlib
import ctypes
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.families import Family
from wan_ui.files.parts import read_weights, weights_size
from wan_ui.files.text_file import expanded_size
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.machine.hardware import measure
from wan_ui.machine.memory import free_memory
from wan_ui.request import Request
from wan_ui.settings import settings

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
    """Where and how the weights stay.

    experts    device they are loaded to: the CPU of a GPU run when only the active one is moved there
    quantised  whether fp8 and GGUF weights stay as stored, instead of being expanded once at load
    text       device and dtype of the text encoder
    way        of wan_ui.machine.offload; offload: it in words, with the reason
    """

    experts: torch.device
    quantised: bool
    text: torch.device
    text_dtype: torch.dtype
    weights: str
    offload: str
    way: str = "none"


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
    """Set torch's CPU threads; 0 means as many as this process may use CPUs (containers limit that)."""
    torch.set_num_threads(wanted or allowed_cpus())
    if sys.platform == "linux":
        # glibc gives blocks above 128 kB back to the kernel when they are freed, and every activation of a
        # convolution is one: the page faults of getting them again double the time of a VAE decode.
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
            libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def choose_passes(family: Family, config: Any, request: Request, dtype: torch.dtype) -> Choice:
    """Whether both halves of guidance go through the transformer in "one" pass or in "two".

    config  the transformer's; a pass works on tokens that are as wide, and on its feed-forward's
    """
    wish = settings().guidance_passes
    if wish != "auto":
        return Choice(wish, "asked for")
    tokens = family.tokens(request.width, request.height, request.frames)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    each = family.condition == "first frame"
    wanted = 2 * block_bytes(tokens, width, config["ffn_dim"], dtype.itemsize, each_its_time=each)
    free = free_memory(settings().gpu_gib)
    words = f"auto: {wanted / 2**30:.1f} GiB wanted, {free / 2**30:.1f} GiB free"
    return Choice("one" if wanted < free / 2 else "two", words)


def block_bytes(tokens: int, width: int, ffn: int, itemsize: int, *, each_its_time: bool) -> int:
    """The most that one block of the transformer holds at a time beside its weights, in bytes, from its shapes.

    itemsize       bytes of a number
    each_its_time  every token has a timestep, and so a modulation, of its own
    """
    row, wide, exact = tokens * width * itemsize, tokens * ffn * itemsize, tokens * width * 4
    norm = row + 4 * exact  # in float32: the tokens, normed, scaled, shifted; then as they were
    attention = 6 * row + exact  # normed, q, k, v, both turned; products with the cosines and sines
    feed_forward = 2 * row + max(2 * wide, wide + 4 * exact)  # normed, attention's; before and after GELU, or gated
    most = 2 * row + max(norm, attention, feed_forward)  # the block's tokens, and the caller's
    if not each_its_time:
        return most
    of_time = 6 * row  # for every block; each adds its own to it, in float32
    return of_time + max(2 * row + 12 * exact, most + 6 * exact)


def choose_residence(experts: tuple[Path, ...], t5: Path, device: torch.device, wish: str = "auto") -> Residence:
    """How the weights stay in memory, from the files' sizes and the free memory; on a GPU as `wish` says, if it does.

    A text encoder that does not fit beside an expert runs on the CPU: it reads 20 tokens, not 512, which
    is a second even at full size. It is float32 when small and bf16 otherwise; float16 overflows in UMT5.
    """
    stored = sum(weights_size(path) for path in experts)
    values = sum(math.prod(info.shape) for path in experts for info in read_weights(path).tensors.values())
    small = 4 * values < SMALL
    weights = "expanded once at load: small model" if small else "kept as stored: large model"
    text_bytes = expanded_size(t5)
    text_dtype = torch.float32 if text_bytes < SMALL else torch.bfloat16
    if device.type == "cpu":
        return Residence(device, not small, device, text_dtype, weights, "none (everything is in host memory)")
    free = measure(settings().gpu_gib).free
    room = 0.7 * free  # the rest is for the VAE and activations
    resident = 2 * values if small else stored
    cpu = torch.device("cpu")
    if wish == "model" or (wish == "auto" and resident > room):
        where, offload, active = cpu, "the inactive expert is in host memory", resident / len(experts)
    else:
        where, offload, active = device, "none", resident
    beside = wish == "none" or (wish != "text" and active + text_bytes < room)
    text = device if beside else cpu
    offload += f"{'' if text == device else ', text encoder on the CPU'}"
    way = "model" if where == cpu else "none" if text == device else "text"
    asked = "asked for: " if wish != "auto" else ""
    reason = (
        f"{asked}experts {resident / 2**30:.1f} GiB, text encoder {text_bytes / 2**30:.1f}, free {free / 2**30:.1f}"
    )
    return Residence(where, not small, text, text_dtype, weights, f"{offload} ({reason})", way)
