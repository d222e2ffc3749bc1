"""The decoder of either VAE on a GPU: convolutions by cuDNN, and between two of them one kernel (vae_kernels.py).

As vae_fast.Decoder, with three differences. What a convolution gives waits, without its bias, for the kernel that
reads it next (Waiting): that adds bias and shortcut, normalises, applies SiLU, and writes where the next convolution
reads, behind the two frames of its context; so there is no pass for a bias, an addition, a norm, a SiLU or a
concatenation. Several latent frames are decoded at once, since the two frames of context are copied for each call.
And the residual VAE of the 5B model, whose stages have a shortcut past their upsampling, goes the same way.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from wan_ui.engines.vae_fast import attention, conv2d
from wan_ui.engines.vae_strips import Strip, upsampler
from wan_ui.engines.wan_classes import AutoencoderKLWan, WanCausalConv3d, WanResample, WanResidualBlock

AT_ONCE, MANY_PIXELS = 2, 832 * 480  # latent frames in a call after the first; of larger clips one, to save memory
# cuDNN's kernels for Hopper take channels by 64; for 96 it falls back to an Ampere one, 1.8 times as slow as the
# Hopper one is on 128 channels, a quarter of them zeros.
HOPPER, MULTIPLE = 9, 64


def padded_weights(vae: AutoencoderKLWan, multiple: int | None = None) -> dict:
    """{causal convolution of the decoder: its weight for inputs with so many channels that a fast kernel takes them}.

    multiple  of channels; None: whatever this GPU wants
    """
    if multiple is None:
        device = vae.device
        hopper = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == HOPPER
        multiple = MULTIPLE if hopper else 1
    weights = {}
    for module in vae.decoder.modules():
        if isinstance(module, WanCausalConv3d) and module.weight.shape[-1] > 1:
            channels = module.weight.shape[1]
            missing = -channels % multiple if channels > multiple else 0
            weight = F.pad(module.weight, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else module.weight
            weights[module] = weight.contiguous(memory_format=torch.channels_last_3d)
    return weights


@dataclass(slots=True)
class Waiting:
    """A sum that the next kernel makes: y + bias + shortcut, each (T, H, W, C) or None, bias (C,)."""

    y: torch.Tensor
    bias: torch.Tensor | None = None
    shortcut: torch.Tensor | None = None


class FusedDecoder:
    """Decodes latent frames one after the other; holds the causal context of one clip.

    kernels  wan_ui.engines.vae_kernels, which imports triton
    weights  padded_weights(vae)
    strip    in a group of GPUs
    """

    def __init__(self, vae: AutoencoderKLWan, kernels, weights: dict, strip: Strip | None = None):
        self.decoder, self.kernels, self.weights, self.strip = vae.decoder, kernels, weights, strip
        self.context: dict = {}  # module -> its last two input frames

    def frames_for(self, module, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the causal convolution `module` reads next, its context filled in; and where the new frames go."""
        channels, taps = self.weights.get(module, module.weight).shape[1:3]
        whole = like.new_empty(len(like) + taps - 1, *like.shape[1:3], channels)
        if taps > 1 and module in self.context:
            whole[: taps - 1].copy_(self.context[module])
        elif taps > 1:
            whole[: taps - 1].zero_()
        return whole, whole[taps - 1 :]

    def convolve(self, module, whole: torch.Tensor) -> Waiting:
        weight = self.weights.get(module, module.weight)
        taps, pad = weight.shape[2], weight.shape[-1] // 2
        if taps > 1:
            self.context[module] = whole[1 - taps :].clone()
        out = F.conv3d(whole.permute(3, 0, 1, 2)[None], weight, padding=(0, pad, pad))
        return Waiting(out[0].permute(1, 2, 3, 0).contiguous(), module.bias)

    def normed(self, norm, x: Waiting, module, total: torch.Tensor | None = None) -> Waiting:
        """Norm, SiLU and the convolution `module`; the sum itself goes to `total`."""
        whole, new = self.frames_for(module, x.y)
        self.kernels.finish(x.y, x.bias, x.shortcut, gamma=norm.gamma.view(-1), total=total, out=new)
        return self.convolve(module, whole)

    def plain(self, x: Waiting) -> torch.Tensor:
        """The sum, made now, in the place of its first summand."""
        if x.bias is not None or x.shortcut is not None:
            self.kernels.finish(x.y, x.bias, x.shortcut, out=x.y)
        return x.y

    def resnet(self, block: WanResidualBlock, x: Waiting) -> Waiting:
        y = self.normed(block.norm1, x, block.conv1, total=x.y)
        shortcut = x.y  # now the sum
        if block.in_dim != block.out_dim:
            weight = block.conv_shortcut.weight[:, :, 0, 0, 0]
            shortcut = F.linear(shortcut, weight, block.conv_shortcut.bias)
        y = self.normed(block.norm2, y, block.conv2)
        y.shortcut = shortcut
        return y

    def upsample(self, block: WanResample, x: Waiting) -> Waiting:
        resample = block.resample[1]
        if block.mode == "upsample3d" and block in self.context:
            whole, new = self.frames_for(block.time_conv, x.y)
            self.kernels.finish(x.y, x.bias, x.shortcut, out=new)
            doubled = self.convolve(block.time_conv, whole)
            y = self.kernels.upsample(doubled.y, doubled.bias, parts=2)
        else:
            y = self.kernels.upsample(x.y, x.bias, x.shortcut)
        if block.mode == "upsample3d":
            self.context[block] = True  # the first latent frame is one frame, every later one becomes two
        return Waiting(conv2d(y, resample.weight, None, padding=1).contiguous(), resample.bias)

    def stage(self, number: int, block, x: Waiting) -> Waiting:
        last, shortcut = upsampler(block), None
        strip = None if last is None else self.strip
        if getattr(block, "avg_shortcut", None) is not None:
            first = last is not None and last.mode == "upsample3d" and last not in self.context
            x = Waiting(self.plain(x))
            shortcut = duplicated(block.avg_shortcut, x.y if strip is None else strip.cut(number, x.y), first)
            x = Waiting(x.y.clone())  # the stage's first kernel writes there
        for resnet in block.resnets:
            x = self.resnet(resnet, x)
        if strip is not None:
            x.y = strip.cut(number, x.y)
            x.shortcut = None if x.shortcut is None else strip.cut(number, x.shortcut)
        if last is not None:
            x = self.upsample(last, x)
        if shortcut is not None:
            x.shortcut = shortcut
        return x

    def decode_next(self, latents: torch.Tensor) -> torch.Tensor:
        """The next latent frames (1, z, k, h, w), the very first by itself -> (1, channels, T, H, W), T = 1 or 4 k."""
        d = self.decoder
        x = latents[0].permute(1, 2, 3, 0).contiguous()
        whole, new = self.frames_for(d.conv_in, x)
        self.kernels.finish(x, out=new)
        waiting = self.resnet(d.mid_block.resnets[0], self.convolve(d.conv_in, whole))
        x = attention(d.mid_block.attentions[0], self.plain(waiting))
        waiting = self.resnet(d.mid_block.resnets[1], Waiting(x))
        for number, block in enumerate(d.up_blocks):
            waiting = self.stage(number, block, waiting)
        pixels = self.normed(d.norm_out, waiting, d.conv_out)
        return (pixels.y if pixels.bias is None else pixels.y + pixels.bias).permute(3, 0, 1, 2)[None]


def duplicated(shortcut, x: torch.Tensor, first: bool) -> torch.Tensor:
    """The residual VAE's way past an upsampling: (T, H, W, C) -> (T * factor_t, 2 H, 2 W, out); of the very first
    latent frame the last of its frames alone.
    """
    frames, height, width, _ = x.shape
    time, space, out = shortcut.factor_t, shortcut.factor_s, shortcut.out_channels
    # Output channel o of part p reads input channel (o * parts + p) // repeats.
    parts = torch.arange(out * shortcut.factor, device=x.device).view(out, -1).t() // shortcut.repeats
    x = x[..., parts.flatten()].view(frames, height, width, time, space, space, out)
    x = x.permute(0, 3, 1, 4, 2, 5, 6)
    if first:
        x = x[:, time - 1 :]
    return x.reshape(-1, space * height, space * width, out)
