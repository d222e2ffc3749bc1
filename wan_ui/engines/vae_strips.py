"""A rank's strip of the frames: the VAE of a group of GPUs, each with some rows or columns, whichever are more.

Every convolution looks one pixel further, so a strip is computed with a margin that shrinks on its way: what the layers
to come look at, and no more. It is wide where an image is small and costs least, and one latent row or less at full
size, where the work is. The latents' own level, whose attention sees all of a frame, every rank decodes whole: a
twentieth of the work. Nothing is exchanged in between; of the encoder, whose attention comes at its end, the strips are
joined before that.

The pixels are those of the whole: what is cut off is what zeros beyond the strip's edge have changed.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from wan_ui.engines.group import Group, here


class Strip:
    """(frames, H, W, C) tensors at growing sizes: which part of each belongs to this rank.

    height, width  of the latents
    stages         of a decoder: (resnets, whether an upsampling follows)
    """

    def __init__(self, height: int, width: int, group: Group, stages: Sequence[tuple[int, bool]] = ()):
        self.dim, self.length, self.group = (1, height, group) if height >= width else (2, width, group)
        self.bounds = [self.length * rank // group.size for rank in range(group.size + 1)]
        self.start, self.end = self.bounds[group.rank : group.rank + 2]
        self.cuts: list[tuple[int, int]] = []  # (offset, count) where stage k is about to upsample
        halos, need = [0] * len(stages), 1  # the last convolution
        for number, (resnets, upsamples) in reversed(list(enumerate(stages))):
            if upsamples:  # and a convolution
                need = halos[number] = math.ceil((need + 1) / 2)
            need += 2 * resnets
        scale, first = 1, 0
        for halo, (_, upsamples) in zip(halos, stages, strict=True):
            if upsamples:
                wanted = max(0, self.start * scale - halo), min(self.length * scale, self.end * scale + halo)
                self.cuts.append((wanted[0] - first, wanted[1] - wanted[0]))
                scale, first = 2 * scale, 2 * wanted[0]
        self.scale, self.own = scale, (self.start * scale - first, (self.end - self.start) * scale)

    def cut(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """(frames, H, W, C) at the end of stage `number`: this rank's part, with its margin."""
        return x.narrow(self.dim, *self.cuts[number]).contiguous()

    def join(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Of every rank its own part, without margin -> the whole. dim  where x has the strip's dimension"""
        counts = [(end - start) * self.scale for start, end in zip(self.bounds, self.bounds[1:], strict=False)]
        most = max(counts)
        missing = most - x.shape[dim]
        if missing:
            x = F.pad(x, (0, 0) * (x.dim() - 1 - dim) + (0, missing))
        whole = self.group.whole(x, most * self.group.size, dim)
        if min(counts) == most:
            return whole
        return torch.cat([whole.narrow(dim, rank * most, count) for rank, count in enumerate(counts)], dim)

    def joined(self, pixels: torch.Tensor) -> torch.Tensor:
        """What a decoder gives of the strip (1, C, T, H, W), margin and all -> that of the whole frames."""
        return self.join(pixels.narrow(self.dim + 2, *self.own), self.dim + 2)


def of_decoder(decoder: Any, height: int, width: int) -> Strip | None:
    """For latents of that size; None for one GPU, or where there are fewer rows and columns than ranks."""
    group = here()
    if group.size == 1 or max(height, width) < group.size:
        return None
    stages = [(len(block.resnets), upsampler(block) is not None) for block in decoder.up_blocks]
    return Strip(height, width, group, stages)


def upsampler(block: Any) -> Any:
    """What a stage of a decoder ends with, or None."""
    if hasattr(block, "avg_shortcut"):
        return block.upsampler
    return None if block.upsamplers is None else block.upsamplers[0]


class EncoderStrip:
    """Of an image: this rank's part of what enters the encoder, and the whole after its last downsampling.

    layers  of the encoder: True for one that halves the image, else a residual block
    """

    def __init__(self, height: int, width: int, group: Group, layers: Sequence[bool]):
        self.last = max(k for k, halves in enumerate(layers) if halves)
        scale, need = 2 ** sum(layers), 0
        for halves in reversed(layers[: self.last + 1]):
            need = 2 * need + 1 if halves else need + 2
        margin = math.ceil((need + 1) / scale)  # in latents: then every downsampling begins where it would
        self.strip = Strip(height // scale, width // scale, group)
        self.first = max(0, self.strip.start - margin)
        end = min(self.strip.length, self.strip.end + margin)
        self.pixels = self.first * scale, (end - self.first) * scale

    def cut(self, image: torch.Tensor) -> torch.Tensor:
        """(frames, H, W, C)"""
        return image.narrow(self.strip.dim, *self.pixels)

    def join(self, x: torch.Tensor) -> torch.Tensor:
        strip = self.strip
        return strip.join(x.narrow(strip.dim, strip.start - self.first, strip.end - strip.start), strip.dim)


def of_encoder(layers: Sequence[bool], height: int, width: int) -> EncoderStrip | None:
    """For an image of that size; None as `of_decoder`."""
    group = here()
    if group.size == 1 or not any(layers) or max(height, width) // 2 ** sum(layers) < group.size:
        return None
    return EncoderStrip(height, width, group, layers)
