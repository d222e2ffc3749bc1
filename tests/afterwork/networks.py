"""Random weights with the names and shapes of the official files, and what the official networks made of them.

Numbers of RIFE are from HolyWu/vs-rife 2a7f2c8d1f61 (which carries Practical-RIFE's versions), those of RRDBNet from
XPixelGroup/BasicSR 8d56e3a045f9, of SRVGGNetCompact from xinntao/Real-ESRGAN a4abfb2979a7; float32 on a CPU.
"""

import math

import torch

# of each version of RIFE: widths of its blocks, width and outputs of its encoder (0: none), how that is called, and
# channels of the last convolution of a block
RIFE = {
    "4.6": ((192, 128, 96, 64), 0, 0, "", 24),
    "4.7": ((192, 128, 96, 64), 16, 4, "plain", 24),
    "4.18": ((192, 128, 96, 64), 32, 8, "head", 24),
    "4.22": ((256, 192, 96, 48), 32, 8, "head", 52),
    "4.25": ((192, 128, 96, 64, 32), 16, 4, "head", 52),
}
THEIRS = {
    "4.6": [0.64682, 0.54915, 0.55547, 0.57332, 0.39917, 0.47804],
    "4.7": [0.45638, 0.72831, 0.61225, 0.48545, 0.46973, 0.49541],
    "4.18": [0.40612, 0.88105, 0.59176, 0.58149, 0.52442, 0.53565],
    "4.22": [0.35757, 0.57009, 0.42969, 0.54101, 0.4748, 0.75162],
    "4.25": [0.73686, 0.45558, 0.48978, 0.56694, 0.40728, 0.7157],
}
UPSCALERS = {
    "x4": [0.00534, 0.03869, 0.02603, 0.02178, -0.01234, -0.00658, 0.01024, 0.01471],
    "x2": [-0.02435, -0.0375, -0.00135, 0.0219, -0.09954, -0.13055, -0.10013, -0.06459],
    "vgg4": [0.06469, 0.42573, 0.67001, 0.57434, 0.94538, 0.59231, 0.65997, 0.55432],
    "vgg2": [-0.00238, 0.66101, 0.54442, 0.35742, 0.3609, 0.43683, 0.73955, 0.60148],
}


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator, made = torch.Generator().manual_seed(7), {}
    for name in sorted(shapes):
        shape = shapes[name]
        scale = 0.7 / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.05
        made[name] = torch.randn(shape, generator=generator) * scale
        if name.endswith("beta"):
            made[name] = torch.ones(shape) * 0.5
    return made


def two_frames(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(1, 3, height, width, generator=generator)
    return first, torch.rand(1, 3, height, width, generator=generator)


def _conv(name: str, outputs: int, inputs: int, kernel: int = 3, bias: int = 0) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (bias or outputs,)}


def rife_shapes(version: str) -> dict[str, tuple[int, ...]]:
    widths, width, outputs, kind, last = RIFE[version]
    shapes: dict[str, tuple[int, ...]] = {}
    if kind == "plain":
        shapes |= _conv("encode.0", width, 3) | _conv("encode.1", width, outputs, 4, outputs)
    elif kind:
        shapes |= _conv("encode.cnn0", width, 3) | _conv("encode.cnn1", width, width)
        shapes |= _conv("encode.cnn2", width, width) | _conv("encode.cnn3", width, outputs, 4, outputs)
    for number, block in enumerate(widths):
        inputs = 7 + 2 * outputs if number == 0 else 12 + 2 * outputs + (8 if last > 24 else 0)
        at = f"block{number}"
        shapes |= _conv(f"{at}.conv0.0.0", block // 2, inputs) | _conv(f"{at}.conv0.1.0", block, block // 2)
        for layer in range(8):
            shapes |= _conv(f"{at}.convblock.{layer}.conv", block, block)
            shapes[f"{at}.convblock.{layer}.beta"] = (1, block, 1, 1)
        shapes |= _conv(f"{at}.lastconv.0", block, last, 4, last)
    return shapes


def upscaler_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    if kind.startswith("vgg"):
        convs, scale = {"vgg4": (16, 4), "vgg2": (4, 2)}[kind]
        for layer in range(convs + 1):
            shapes |= _conv(f"body.{2 * layer}", 64, 3 if layer == 0 else 64)
            shapes[f"body.{2 * layer + 1}.weight"] = (64,)
        return shapes | _conv(f"body.{2 * convs + 2}", 3 * scale * scale, 64)
    blocks, inputs = {"x4": (2, 3), "x2": (1, 12)}[kind]
    shapes |= _conv("conv_first", 64, inputs) | _conv("conv_last", 3, 64)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        shapes |= _conv(name, 64, 64)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for conv in range(1, 6):
                at = f"body.{block}.rdb{dense}.conv{conv}"
                shapes |= _conv(at, 64 if conv == 5 else 32, 64 + 32 * (conv - 1))
    return shapes
