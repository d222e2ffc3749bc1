"""The least seconds that each stage of a clip can take on this machine: operations over what the chip gives.

A stage's floor is the larger of two times: its floating point operations (two for each multiplication with an
addition) over the chip's rate, and the bytes of its weights, each read once, over the memory's bandwidth. On a GPU both
are of its data sheet (CARDS, dense, sums in float32); a card that is not there has no floor. On a CPU the rate is
measured here right after the clips, by one large product, and bytes are left out: on a machine that is busy by turns
a stage may come out below it. Nothing that lies between two products is counted, so a
floor is never reached.

step    blocks x (tokens (12 d^2 + 4 d f) + 4 tokens^2 d + cross attention over 512 rows of prompt), with width d and
        feed-forward f; linear layers at the rate of the scheme's type (e4m3 for fp8, else bf16), attention at bf16's
image   the convolutions of the VAE's encoder, over the frames that differ: the grey ones that follow a picture are
        alike from a few frames on (wan_ui/engines/vae_fast.py), which is arithmetic, no approximation
decode  the convolutions of its decoder
text    reading the text encoder's weights once; on a CPU, where the prompt's few tokens are all that is computed: none
encode  the MP4 is ffmpeg's: none
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_ui.catalog import Model, Scheme
from wan_ui.families import latent_frames
from wan_ui.place import DATA
from wan_ui.qa import layouts
from wan_ui.settings import ROOT

PROMPT_ROWS = 512
SIDE = 2048  # of the product that a CPU is measured by
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Card:
    """What a chip gives at most.

    bf16, e4m3  operations a second, dense, sums in float32; e4m3 as bf16 where there is none
    memory      bytes a second; 0: not known
    """

    source: str
    bf16: float
    e4m3: float
    memory: float


def _sheet(bf16: float, e4m3: float, memory: float) -> Card:
    """In TFLOP/s and TB/s."""
    words = f"data sheet: {bf16:g} TFLOP/s bf16, {e4m3:g} e4m3, {memory:g} TB/s"
    return Card(words, bf16 * 1e12, e4m3 * 1e12, memory * 1e12)


# By what the driver calls them; the first whose name is in the card's.
CARDS = {
    "H200": _sheet(989, 1979, 4.8),
    "H100 PCIe": _sheet(756, 1513, 2.0),
    "H100 80GB HBM3": _sheet(989, 1979, 3.35),
    "A100": _sheet(312, 312, 2.0),
    "L40S": _sheet(362, 733, 0.864),
    "RTX 4090": _sheet(165, 330, 1.008),
    "RTX 5090": _sheet(209.5, 419, 1.792),
}


def card_named(name: str) -> Card | None:
    return next((card for part, card in CARDS.items() if part in name), None)


def stages(
    model: Model, scheme: Scheme, config: dict[str, Any], vae: Shapes, card: Card, size: tuple[int, int, int]
) -> dict[str, float]:
    """Seconds of image, step and decode, and of text where bandwidth is known. size: width, height, frames."""
    width, height, frames = size
    family = model.family
    _, t, h, w = family.vae.latents(width, height, frames)
    linear, attention = step_operations(config, latent_frames(frames) * (h // 2) * (w // 2))
    compute = linear / (card.e4m3 if scheme.kind == "fp8" else card.bf16) + attention / card.bf16
    found = {"step": compute, "decode": decode_operations(vae, (t, h, w)) / card.bf16}
    encoded = family.condition_frames(frames)
    if encoded:
        patch = family.vae.patch
        found["image"] = encode_operations(vae, (encoded, height // patch, width // patch)) / card.bf16
    if card.memory:
        if not model.embedded:
            layout = layouts.t5(layouts.UMT5_XXL, fp8=bool(model.t5))
            size_of = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
            read = (size_of[kind] * math.prod(shape) for name, (kind, shape) in layout.items() if "token_" not in name)
            found["text"] = sum(read) / card.memory
        found["step"] = max(found["step"], weight_bytes(config, scheme) / card.memory)
    return found


def step_operations(config: dict[str, Any], tokens: int) -> tuple[float, float]:
    """Of one forward of a transformer: in linear layers, and in attention."""
    d, f, blocks = config["dim"], config["ffn_dim"], config["num_layers"]
    rows = config.get("text_len", PROMPT_ROWS)
    linear = tokens * (12 * d * d + 4 * d * f) + 4 * rows * d * d
    return float(blocks * linear), float(blocks * 4 * tokens * (tokens + rows) * d)


def weight_bytes(config: dict[str, Any], scheme: Scheme) -> float:
    """Of the linear layers of the blocks, in the type that they are multiplied in."""
    d, f, blocks = config["dim"], config["ffn_dim"], config["num_layers"]
    return float(blocks * (8 * d * d + 2 * d * f) * (1 if scheme.kind == "fp8" else 2))


def _convolution(vae: Shapes, name: str, frames: int, height: int, width: int) -> float:
    shape = vae.get(f"{name}.weight")
    return 2.0 * math.prod(shape) * frames * height * width if shape else 0.0


def _layers(vae: Shapes, side: str) -> list[str]:
    """The layers between the ends, in order: decoder.upsamples.0, or decoder.upsamples.0.upsamples.0 ..."""
    kind = "upsamples" if side == "decoder" else "downsamples"
    found: dict[str, None] = {}
    for name in vae:
        parts = name.split(".")
        if parts[:2] == [side, kind]:
            found[".".join(parts[: 5 if parts[3] == kind else 3])] = None
    return sorted(found, key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])


def decode_operations(vae: Shapes, size: tuple[int, int, int]) -> float:
    """Of latents of t x h x w."""
    t, h, w = size
    total = _convolution(vae, "conv2", t, h, w) + _convolution(vae, "decoder.conv1", t, h, w)
    for layer in ("decoder.middle.0", "decoder.middle.2"):
        total += sum(_convolution(vae, f"{layer}.residual.{k}", t, h, w) for k in (2, 6))
    for layer in _layers(vae, "decoder"):
        if f"{layer}.resample.1.weight" not in vae:
            parts = ("residual.2", "residual.6", "shortcut")
            total += sum(_convolution(vae, f"{layer}.{part}", t, h, w) for part in parts)
            continue
        if f"{layer}.time_conv.weight" in vae:
            total += _convolution(vae, f"{layer}.time_conv", t - 1, h, w)
            t = 2 * t - 1
        h, w = 2 * h, 2 * w
        total += _convolution(vae, f"{layer}.resample.1", t, h, w)
    return total + _convolution(vae, "decoder.head.2", t, h, w)


def encode_operations(vae: Shapes, size: tuple[int, int, int]) -> float:
    """Of a picture followed by grey frames, T x H x W in all; of frames that are alike, one."""
    frames, h, w = size
    known = min(2, frames)  # frames until the tail, one of it included

    def causal(name: str) -> float:
        nonlocal known
        known = min(known + 2, frames)
        return _convolution(vae, name, known, h, w)

    total = causal("encoder.conv1")
    for layer in _layers(vae, "encoder"):
        if f"{layer}.resample.1.weight" not in vae:
            total += _convolution(vae, f"{layer}.shortcut", known, h, w)
            total += causal(f"{layer}.residual.2") + causal(f"{layer}.residual.6")
            continue
        h, w = h // 2, w // 2
        total += _convolution(vae, f"{layer}.resample.1", known, h, w)
        if f"{layer}.time_conv.weight" in vae and frames > 1:
            frames = 1 + (frames - 1) // 2
            known = min((known + 2) // 2 + 1, frames)
            total += _convolution(vae, f"{layer}.time_conv", known - 1, h, w)
    for layer in ("encoder.middle.0", "encoder.middle.2"):
        total += causal(f"{layer}.residual.2") + causal(f"{layer}.residual.6")
    total += causal("encoder.head.2")
    return total + _convolution(vae, "conv1", known, h, w)


# ---------------------------------------------------------------- this machine, and the files that are here


def of_run(model: Model, scheme: Scheme, facts: dict[str, str], size: tuple[int, int, int]) -> tuple[dict, str]:
    """The floors of a run whose facts are known, and what they are of. size: width, height, frames."""
    device = facts.get("device", "")
    on_cpu = device.startswith("cpu")
    card = None if on_cpu else card_named(device)
    if not on_cpu and card is None:
        return {}, f"none, no data sheet of {device} is kept here"
    config = layouts.dit_config(model.family)
    shapes: Shapes = {name: shape for name, (_, shape) in layouts.vae(model.family.vae).items()}
    path = Path()
    if model.embedded:
        root = DATA / model.root.partition(":")[2]
        path = root / model.family.vae.file
        config = json.loads((root / model.family.experts[0].config).read_text(encoding="utf-8"))
    if on_cpu or model.embedded:
        rate, stored = _ask(path, facts.get("dtype", "float32").split()[0], int(facts.get("threads", "1")))
        shapes = stored or shapes
        if on_cpu:
            words = f"measured here: {rate / 1e9:.0f} GFLOP/s by a product of {SIDE} x {SIDE}"
            card = Card(words, rate, rate, 0.0)
    assert card is not None
    return stages(model, scheme, config, shapes, card, size), card.source


def _ask(path: Path, dtype: str, threads: int) -> tuple[float, dict[str, tuple[int, ...]]]:
    """Operations a second of a product of this CPU, and the shapes in a VAE's file; by a child, for torch's sake."""
    code = f"from wan_ui.qa import floors; floors.look({str(path)!r}, {dtype!r}, {threads})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    rate, shapes = json.loads(done.stdout.splitlines()[-1])
    return rate, {name: tuple(shape) for name, shape in shapes.items()}


def look(path: str, dtype: str, threads: int) -> None:
    """What `_ask` reads: one line of JSON."""
    import torch

    from wan_ui.files.tensors import read_pth

    torch.set_num_threads(threads)
    matrix, seconds = torch.randn(SIDE, SIDE).to(getattr(torch, dtype)), []
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - started)
    file = Path(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in read_pth(file).items()} if file.is_file() else {}
    print(json.dumps([2 * SIDE**3 / min(seconds), shapes]))
