"""What of a model's weights is on the GPU, as what numbers, and in how many bytes: counted against what is free.

The layers of a GGUF file multiply in one of four ways, the first of these for which there is memory:

bf16    they get their numbers once, at load: exact, two bytes a number
e4m3    they get them once, rounded a second time, for fp8's products: one byte a number. By itself only where the
        file's own rounding is the coarser one; WAN_UI_LIGHTX2V_GGUF=e4m3 puts it first for every file
anew    they get them at every use, from a kernel of ours: exact, as stored
""      the same as upstream does it
"""

import math
import re
from pathlib import Path

from wan_ui.catalog import Model, Scheme
from wan_ui.engines.kernel_choice import Chooser, left_plain
from wan_ui.errors import UserError
from wan_ui.files.parts import read_weights, weights_size
from wan_ui.files.places import Paths, work
from wan_ui.machine.hardware import GIB, Hardware
from wan_ui.settings import Settings

FINE = ("Q8", "Q6")  # GGUF types whose rounding is finer than that of e4m3
WAYS = {
    "bf16": "dequantised once",
    "e4m3": "dequantised once, rounded to fp8 but in the first and last block",
    "anew": "dequantised at every use, by one kernel",
}
LAYER = re.compile(r"blocks\.(\d+)\.(self_attn|cross_attn|ffn)\.\w+\.weight$")


def on_gpu(scheme: Scheme, paths: Paths) -> dict[str, int]:
    """Bytes on the GPU while a step runs, by what is offloaded; GGUF weights as stored."""
    experts = [_resident(path, scheme) for path in paths.experts]
    return {
        "none": sum(experts) + _beside(paths) + weights_size(paths.t5),
        "text": sum(experts) + _beside(paths),
        "model": max(experts) + _beside(paths),
    }


def is_slim(model: Model, scheme: Scheme, paths: Paths, hardware: Hardware, offload: str) -> bool:
    """Whether memory is so short that the VAE decodes one latent frame at a time, which takes 0.05 s more."""
    if hardware.device != "cuda":
        return False
    return on_gpu(scheme, paths).get(offload, 0) + work(*model.sizes[0]) > hardware.free


def products(chooser: Chooser, scheme: Scheme, paths: Paths, offload: str, fused: bool) -> tuple[str, str]:
    """How the layers of a GGUF file multiply, and why; of "" only why it is not what was asked for.

    fused  whether the blocks run on kernels of ours, which `anew` needs
    """
    model, hardware, settings = chooser.model, chooser.hardware, chooser.settings
    if scheme.kind != "gguf" or hardware.device != "cuda" or "products" in left_plain(settings):
        return "", ""
    asked = settings.lightx2v_gguf == "e4m3"
    if offload not in ("none", "text"):
        return "", "e4m3 was asked for: weights are moved" if asked else ""
    wanted = _wanted(model, scheme, paths, offload)
    fits = {way for way, size in wanted.items() if size <= hardware.free}
    if offload != "none":
        fits.discard("bf16")
    if without := _no_e4m3(chooser, scheme):
        fits.discard("e4m3")
    if fused and not model.embedded and "dequantise" not in left_plain(settings):
        fits.add("anew")
    way = next((way for way in (("e4m3", *WAYS) if asked else WAYS) if way in fits), "")

    def gib(way: str) -> str:
        return f"{wanted[way] / GIB:.1f} GiB wanted, {hardware.free / GIB:.1f} GiB free" if way in wanted else ""

    words = [": ".join(filter(None, (WAYS[way], gib(way))))] if way else []
    if asked and way != "e4m3":
        words.append(f"e4m3 was asked for: {without or gib('e4m3')}")
    return way, "; ".join(words)


def quick(scheme: Scheme, hardware: Hardware, settings: Settings, way: str) -> bool:
    """Whether GGUF layers that multiply in this way get their numbers from a kernel of ours."""
    if scheme.kind != "gguf" or hardware.device != "cuda" or "dequantise" in left_plain(settings):
        return False
    return way in ("anew", "")


def _no_e4m3(chooser: Chooser, scheme: Scheme) -> str:
    """Why products in e4m3 are out of the question here, "" if they are not."""
    wish, hardware = chooser.settings.lightx2v_gguf, chooser.hardware
    if wish == "bf16":
        return "bf16 is asked for"
    if wish == "auto" and scheme.qtype.startswith(FINE):
        return f"{scheme.qtype} is finer"
    if not hardware.fp8:
        return f"{hardware.name} does not multiply fp8"
    status, why = chooser.found("gemm", "fp8-torchao")
    return f"its product {status} when tried on this card: {why}" if status not in ("", "ok") else ""


def _wanted(model: Model, scheme: Scheme, paths: Paths, offload: str) -> dict[str, float]:
    """Bytes that each way takes with everything beside it; of what cannot be told, nothing."""
    try:
        headers = [read_weights(path) for path in paths.experts]
    except UserError:  # said when the file is read
        return {}
    beside = (
        _beside(paths) + (weights_size(paths.t5) if offload == "none" else 0) + work(*max(model.sizes, key=math.prod))
    )
    bf16, e4m3 = 0, 0
    for header in headers:
        numbers = {name: math.prod(info.shape) for name, info in header.tensors.items()}
        places = {name: int(found[1]) for name in numbers if (found := LAYER.search(name))}
        rounded = [name for name, place in places.items() if 0 < place < max(places.values())]
        bf16 += 2 * sum(numbers.values())
        e4m3 += 2 * sum(numbers.values()) - sum(numbers[name] for name in rounded)
    return {"bf16": bf16 + beside, "e4m3": e4m3 + beside}


def _beside(paths: Paths) -> int:
    return weights_size(paths.vae) // 2 + sum(path.stat().st_size for path in paths.loras)  # the VAE is float32


def _resident(expert: Path, scheme: Scheme) -> int:
    """Bytes of an expert on the GPU: as in its file, but two a number where the file holds plain ones."""
    if scheme.kind != "bf16":
        return weights_size(expert)
    try:
        return 2 * sum(math.prod(info.shape) for info in read_weights(expert).tensors.values())
    except UserError:  # said when the file is read
        return weights_size(expert)
