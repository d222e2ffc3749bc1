"""A faster walk through the Wan2.1 VAE: the same weights and the same numbers, less work.

diffusers' forward spends most of a CPU's time outside the convolutions: the norm reduces over a strided
channel dimension (half of the decode), every causal convolution pads and copies, and the encoder works
through all the zero frames that follow the picture. Here

- tensors are (frames, H, W, channels) contiguous, so that norm and SiLU run along memory, and a permuted
  view is exactly the channels_last layout that oneDNN and cuDNN convolve fastest;
- decoding, and encoding a video, keep the two last inputs of every causal convolution in a dict that lives as long as
  the job;
- encoding a picture uses that the clip is [picture, 0, 0, ...]. A causal convolution over a constant tail gives a
  constant tail, two frames later. So only the frames before the tail settles are computed, plus one that
  stands for all the rest: at 25 frames a third of the full-resolution work.

Seconds on 2 cores of an AMD EPYC with avx512_bf16, 256x256x25, VAE of wan-tiny, diffusers' forward -> this:
encode 1.0 -> 0.25 and decode 2.4 -> 1.2 in bf16, encode 2.5 -> 0.55 and decode 5.7 -> 2.3 in float32.

In float32 on a CPU the passes between the convolutions are spared too (cpu_kernels.py): a causal convolution adds up
its taps and the shortcut itself and reads its context where it lies, norm and SiLU go over strips that stay in the
cache, and the convolution after an upsampling reads the small frames.

Not for the residual VAE of the 5B model, which keeps diffusers' own forward (wan_ui/engines/vae.py).
tests/engines/test_vae.py holds both walks together.
"""

from typing import Any

import torch
import torch.nn.functional as F

from wan_ui.engines import cpu_kernels
from wan_ui.engines.vae_strips import Strip, of_encoder
from wan_ui.engines.wan_classes import AutoencoderKLWan, WanAttentionBlock, WanResample, WanResidualBlock


def prepare(vae: AutoencoderKLWan) -> None:
    """Lay the weights out for channels-last convolutions, in place. Values do not change."""
    for parameter in vae.parameters():
        if parameter.dim() == 5 and cpu_kernels.on_cpu(parameter, "convolutions"):
            parameter.data = cpu_kernels.lay_out(parameter.data)
        elif parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        elif parameter.dim() == 4 and parameter.shape[1] > 1:  # a convolution, not a norm's gamma
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def conv2d(x: torch.Tensor, weight: torch.Tensor, bias, **kwargs) -> torch.Tensor:
    """Per frame: (T, H, W, C) -> (T, H', W', O)."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias, **kwargs).permute(0, 2, 3, 1)


def valid_conv3d(module, x: torch.Tensor) -> torch.Tensor:
    """Causal convolution without temporal padding: (T + k - 1, H, W, C) -> (T, H, W, O)."""
    weight, bias = module.weight, module.bias
    taps, pad = weight.shape[2], weight.shape[-1] // 2
    if taps == 1:
        return conv2d(x, weight[:, :, 0], bias, padding=pad)
    if len(x) == taps or x.dtype == torch.float32:
        # oneDNN has no fast float32 conv3d for few channels; three 2-D ones are up to four times faster.
        frames = len(x) - taps + 1
        out = conv2d(x[:frames], weight[:, :, 0], bias, padding=pad)
        for tap in range(1, taps):
            out += conv2d(x[tap : tap + frames], weight[:, :, tap], None, padding=pad)
        return out
    out = F.conv3d(x.permute(3, 0, 1, 2)[None], weight, bias, padding=(0, pad, pad))
    return out[0].permute(1, 2, 3, 0)


def norm_silu(norm, x: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
    """SiLU(RMS norm). in_place: x may be overwritten."""
    gamma = norm.gamma.view(-1)
    if cpu_kernels.on_cpu(x, "norms"):
        return cpu_kernels.norm_silu(x.contiguous(), gamma, in_place=in_place)
    return F.silu(F.rms_norm(x, (x.shape[-1],), gamma, eps=cpu_kernels.EPS))


def attention(block: WanAttentionBlock, x: torch.Tensor) -> torch.Tensor:
    """Single-head self-attention within each frame."""
    frames, height, width, channels = x.shape
    y = F.rms_norm(x, (channels,), block.norm.gamma.view(-1), eps=cpu_kernels.EPS)
    qkv = F.linear(y.reshape(frames, 1, -1, channels), block.to_qkv.weight[:, :, 0, 0], block.to_qkv.bias)
    q, k, v = qkv.chunk(3, dim=-1)
    y = F.scaled_dot_product_attention(q, k, v)
    return x + F.linear(y.view(frames, height, width, channels), block.proj.weight[:, :, 0, 0], block.proj.bias)


def residual(block: WanResidualBlock, x: torch.Tensor, conv) -> tuple[torch.Tensor, torch.Tensor]:
    """The shortcut, and what block.conv2 is to be applied to before both are added.

    conv(module, x)  the causal convolution: streaming, or over a tail
    """
    shortcut, y = x, conv(block.conv1, norm_silu(block.norm1, x))
    if block.in_dim != block.out_dim:
        narrow: Any = block.conv_shortcut
        shortcut = conv2d(x, narrow.weight[:, :, 0], narrow.bias)
    return shortcut, norm_silu(block.norm2, y, in_place=True)


class Stream:
    """Frames one after the other; holds the causal context of one clip."""

    def __init__(self) -> None:
        self.context: dict = {}  # module -> its last two input frames

    def conv(self, module, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """The causal convolution; added to `onto`, which may be overwritten."""
        taps = module.weight.shape[2]
        if taps > 1 and cpu_kernels.on_cpu(x, "convolutions"):
            context = self.context.get(module, x[:0])
            self.context[module] = (x if len(x) >= taps - 1 else torch.cat([context, x]))[1 - taps :]
            return cpu_kernels.causal(module, x, context, onto)
        if onto is not None:
            return self.conv(module, x).add_(onto)
        if taps == 1:
            return valid_conv3d(module, x)
        if module not in self.context:
            self.context[module] = x.new_zeros(taps - 1, *x.shape[1:])
        x = torch.cat([self.context[module], x])
        self.context[module] = x[1 - taps :].clone()
        return valid_conv3d(module, x)

    def residual(self, block: WanResidualBlock, x: torch.Tensor) -> torch.Tensor:
        shortcut, y = residual(block, x, self.conv)
        return self.conv(block.conv2, y, onto=shortcut)


class Decoder(Stream):
    def __init__(self, vae: AutoencoderKLWan, strip: Strip | None = None):
        super().__init__()
        self.decoder: Any = vae.decoder
        self.strip = strip  # in a group of GPUs

    def upsample(self, block: WanResample, x: torch.Tensor) -> torch.Tensor:
        if block.mode == "upsample3d":
            if block in self.context:
                frames, height, width, channels = x.shape
                x = self.conv(block.time_conv, x).view(frames, height, width, 2, channels)
                x = x.permute(0, 3, 1, 2, 4).reshape(2 * frames, height, width, channels)
            self.context[block] = True  # the first latent frame is one frame, every later one becomes four
        frames, height, width, channels = x.shape
        conv: Any = block.resample[1]
        if cpu_kernels.on_cpu(x, "upsampling"):
            if conv not in self.context:
                self.context[conv] = cpu_kernels.upsampled_weight(conv.weight)
            return cpu_kernels.upsample(x, self.context[conv], conv.bias)
        x = x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1).reshape(frames, 2 * height, 2 * width, channels)
        return conv2d(x, conv.weight, conv.bias, padding=1)

    def decode_next(self, frame: torch.Tensor) -> torch.Tensor:
        """The next latent frame (1, z, 1, h, w) -> its pixels (1, 3, 1 or 4, 8h, 8w) in about -1 .. 1."""
        d = self.decoder
        x = self.conv(d.conv_in, frame[0].permute(1, 2, 3, 0))
        x = self.residual(d.mid_block.resnets[0], x)
        x = self.residual(d.mid_block.resnets[1], attention(d.mid_block.attentions[0], x))
        for number, block in enumerate(d.up_blocks):
            for resnet in block.resnets:
                x = self.residual(resnet, x)
            if block.upsamplers is not None:
                x = self.upsample(block.upsamplers[0], x if self.strip is None else self.strip.cut(number, x))
        return self.conv(d.conv_out, norm_silu(d.norm_out, x, in_place=True)).permute(3, 0, 1, 2)[None]


class Encoder(Stream):
    def __init__(self, vae: AutoencoderKLWan):
        super().__init__()
        self.encoder: Any = vae.encoder
        self.quant_conv = vae.quant_conv

    def downsample(self, block: WanResample, x: torch.Tensor) -> torch.Tensor:
        x = halved(block, x)
        if block.mode == "downsample2d":
            return x
        before = self.context.get(block)
        self.context[block] = x[-1:].clone()  # what comes next may be added to x
        return x if before is None else thinned(block, torch.cat([before, x]))

    def encode_next(self, video: torch.Tensor) -> torch.Tensor:
        """The next frames (1, 3, 1 or 4, H, W) in -1 .. 1, first one and then four -> moments (1, 2z, 1, h, w)."""
        e = self.encoder
        x = self.conv(e.conv_in, video[0].permute(1, 2, 3, 0))
        for layer in e.down_blocks:
            x = self.residual(layer, x) if isinstance(layer, WanResidualBlock) else self.downsample(layer, x)
        x = self.residual(e.mid_block.resnets[0], x)
        x = self.residual(e.mid_block.resnets[1], attention(e.mid_block.attentions[0], x))
        x = self.conv(e.conv_out, norm_silu(e.norm_out, x, in_place=True))
        return self.conv(self.quant_conv, x).permute(3, 0, 1, 2)[None]


def halved(block: WanResample, x: torch.Tensor) -> torch.Tensor:
    """Each frame at half its size."""
    conv: Any = block.resample[1]
    return conv2d(F.pad(x, (0, 0, 0, 1, 0, 1)), conv.weight, conv.bias, stride=2)


def thinned(block: WanResample, x: torch.Tensor) -> torch.Tensor:
    """Of 2n + 1 frames n, each of three: 2i-2 .. 2i."""
    triples = torch.stack([x[:-2:2], x[1:-1:2], x[2::2]], dim=-2).flatten(-2)  # (n, H, W, 3 C)
    weight = block.time_conv.weight[..., 0, 0].permute(0, 2, 1).flatten(1)
    return F.linear(triples, weight, block.time_conv.bias)


class Tail:
    """A clip whose frames from `len(x) - 1` to `total - 1` are all equal to x[-1]."""

    def __init__(self, x: torch.Tensor, total: int):
        self.x, self.total = x[:total], total

    def extended(self, count: int) -> torch.Tensor:
        """The first `count` frames, count >= len(x)."""
        return torch.cat([self.x, self.x[-1:].expand(count - len(self.x), -1, -1, -1)])

    def conv(self, module) -> "Tail":
        """Causal convolution: the tail settles taps - 1 frames later."""
        taps = module.weight.shape[2]
        x = self.extended(min(len(self.x) + taps - 1, self.total))
        if taps > 1 and cpu_kernels.on_cpu(x, "convolutions"):
            return Tail(cpu_kernels.causal(module, x, x[:0]), self.total)
        return Tail(valid_conv3d(module, F.pad(x, (0, 0, 0, 0, 0, 0, taps - 1, 0))), self.total)

    def map(self, function) -> "Tail":
        """A function of each frame by itself."""
        return Tail(function(self.x), self.total)

    def residual(self, block: WanResidualBlock) -> "Tail":
        shortcut, y = residual(block, self.x, lambda module, x: Tail(x, self.total).conv(module).x)
        y = Tail(y, self.total).conv(block.conv2).x
        return Tail(y.add_(Tail(shortcut, self.total).extended(len(y))), self.total)

    def downsample(self, block: WanResample) -> "Tail":
        half = self.map(lambda x: halved(block, x))
        if block.mode == "downsample2d" or self.total == 1:
            return half
        # Frame 0 passes; frame i is the convolution of frames 2i-2 .. 2i, so it settles at 2i-2 >= len - 1.
        total = 1 + (self.total - 1) // 2
        count = min((len(half.x) + 2) // 2 + 1, total)
        x = half.extended(max(2 * count - 1, len(half.x)))[: 2 * count - 1]
        return Tail(torch.cat([x[:1], thinned(block, x)]), total)


def encode(vae: AutoencoderKLWan, image: torch.Tensor, frames: int, entering) -> torch.Tensor:
    """(1, 3, H, W) in -1 .. 1, then frames - 1 zero frames -> moments (1, 2z, t, h, w) in the VAE's dtype.

    entering  called with (k, n) before layer k of n
    """
    e: Any = vae.encoder
    n = len(e.down_blocks) + 2
    x = image.to(vae.dtype).permute(0, 2, 3, 1)
    entering(1, n)
    strip = of_encoder([not isinstance(layer, WanResidualBlock) for layer in e.down_blocks], *x.shape[1:3])
    if strip is not None:
        x = strip.cut(x)
    clip = Tail(torch.cat([x, torch.zeros_like(x)]), frames).conv(e.conv_in)
    for k, layer in enumerate(e.down_blocks):
        entering(k + 2, n)
        clip = clip.residual(layer) if isinstance(layer, WanResidualBlock) else clip.downsample(layer)
        if strip is not None and k == strip.last:
            clip = clip.map(strip.join)
    entering(n, n)
    clip = clip.residual(e.mid_block.resnets[0])
    clip = clip.map(lambda x: attention(e.mid_block.attentions[0], x)).residual(e.mid_block.resnets[1])
    clip = clip.map(lambda x: norm_silu(e.norm_out, x)).conv(e.conv_out).conv(vae.quant_conv)
    return clip.extended(clip.total).permute(3, 0, 1, 2)[None]
