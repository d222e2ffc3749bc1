"""AutoencoderKLWan over a whole clip at once: the same weights and result as diffusers' loop, faster.

diffusers (like the official code) feeds the causal VAE one frame, then four at a time,
with a cache of past activations. The caches exist to bound memory; for short training
clips the same function is a plain causal convolution over all frames, if the three places
where the loop treats the first frame apart are kept:
  - temporal convolutions see two zero frames before the first (causal padding);
  - temporal downsampling keeps frame 0 and convolves the rest with stride 2;
  - temporal upsampling doubles all latent frames but the first, and its causal window
    starts after that one.

Layout: activations are (N, T, H, W, C) contiguous, so a permuted view is channels-last for
cuDNN and RMS norm runs over the last, contiguous dimension.
"""

import torch
import torch.nn.functional as F


def norm_silu(x, gamma):
    """RMS norm over channels times gamma, then SiLU. Compiled by the trainers on CUDA."""
    f = x.float()
    y = f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-12) * gamma
    return F.silu(y).to(x.dtype)


COMPILED = {"norm_silu": norm_silu}


def act(x, norm):
    return COMPILED["norm_silu"](x, norm.gamma.flatten())


def conv(m, x):
    """WanCausalConv3d, kernel 1 or 3."""
    w, b = m.weight.to(x.dtype), m.bias.to(x.dtype)
    if w.shape[2:] == (1, 1, 1):
        return F.linear(x, w.flatten(1), b)
    if x.shape[1] == 1:  # one frame: the earlier taps only ever see zeros
        return conv2d(x, w[:, :, -1], b, padding=1)
    y = F.conv3d(F.pad(x, (0, 0, 0, 0, 0, 0, 2, 0)).permute(0, 4, 1, 2, 3), w, b, padding=(0, 1, 1))
    return y.permute(0, 2, 3, 4, 1).contiguous()


def conv2d(x, w, b, **options):
    """A spatial convolution of every frame."""
    N, T, H, W, C = x.shape
    y = F.conv2d(x.reshape(N * T, H, W, C).permute(0, 3, 1, 2), w.to(x.dtype), b.to(x.dtype), **options)
    y = y.permute(0, 2, 3, 1).contiguous()
    return y.view(N, T, *y.shape[1:])


def residual(m, x):
    h = conv(m.conv_shortcut, x) if hasattr(m.conv_shortcut, "weight") else x
    return conv(m.conv2, act(conv(m.conv1, act(x, m.norm1)), m.norm2)) + h


def attention(m, x):
    """Single-head attention inside each frame."""
    N, T, H, W, C = x.shape
    f = x.float()
    y = (f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + 1e-12) * m.norm.gamma.flatten()).to(x.dtype)
    qkv = F.linear(y, m.to_qkv.weight.flatten(1).to(x.dtype), m.to_qkv.bias.to(x.dtype))
    q, k, v = qkv.view(N * T, 1, H * W, 3 * C).chunk(3, -1)
    y = F.scaled_dot_product_attention(q, k, v).view(N, T, H, W, C)
    return x + F.linear(y, m.proj.weight.flatten(1).to(x.dtype), m.proj.bias.to(x.dtype))


def middle(m, x):
    return residual(m.resnets[1], attention(m.attentions[0], residual(m.resnets[0], x)))


def downsample(m, x):
    T, C = x.shape[1], x.shape[-1]
    conv_space = m.resample[1]
    x = conv2d(F.pad(x, (0, 0, 0, 1, 0, 1)), conv_space.weight, conv_space.bias, stride=2)
    if m.mode == "downsample3d" and T > 1:
        w = m.time_conv.weight.to(x.dtype)[..., 0, 0]  # (C, C, 3)
        window = torch.cat([x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2]], -1)
        y = F.linear(window, w.permute(0, 2, 1).reshape(C, 3 * C), m.time_conv.bias.to(x.dtype))
        x = torch.cat([x[:, :1], y], 1)
    return x


def upsample(m, x):
    N, T, H, W, C = x.shape
    if m.mode == "upsample3d" and T > 1:
        w = m.time_conv.weight.to(x.dtype)[..., 0, 0]  # (2C, C, 3)
        z = F.pad(x[:, 1:], (0, 0, 0, 0, 0, 0, 2, 0))
        window = torch.cat([z[:, :-2], z[:, 1:-1], z[:, 2:]], -1)
        y = F.linear(window, w.permute(0, 2, 1).reshape(2 * C, 3 * C), m.time_conv.bias.to(x.dtype))
        y = y.view(N, T - 1, H, W, 2, C).permute(0, 1, 4, 2, 3, 5).reshape(N, 2 * (T - 1), H, W, C)
        x = torch.cat([x[:, :1], y], 1)
        T = x.shape[1]
    x = x[:, :, :, None, :, None].expand(N, T, H, 2, W, 2, C).reshape(N, T, 2 * H, 2 * W, C)
    conv_space = m.resample[1]
    return conv2d(x, conv_space.weight, conv_space.bias, padding=1)


def encode(vae, clip, dtype=torch.float32):
    """clip (N, 3, T, H, W) in [-1, 1] -> raw latents' mean (N, 16, 1 + (T-1)/4, H/8, W/8), fp32."""
    e = vae.encoder
    x = conv(e.conv_in, clip.to(dtype).permute(0, 2, 3, 4, 1).contiguous())
    for block in e.down_blocks:
        x = residual(block, x) if hasattr(block, "conv1") else downsample(block, x)
    x = conv(e.conv_out, act(middle(e.mid_block, x), e.norm_out))
    x = conv(vae.quant_conv, x.float())[..., :16]  # the last, linear map in fp32: it carries the folded statistics
    return x.permute(0, 4, 1, 2, 3)


def decode(vae, latents, dtype=torch.float32):
    """Raw latents (N, 16, t, h, w) -> clip (N, 3, 1 + 4(t-1), 8h, 8w), fp32, not clamped."""
    d = vae.decoder
    x = conv(vae.post_quant_conv, latents.float().permute(0, 2, 3, 4, 1).contiguous()).to(dtype)
    x = middle(d.mid_block, conv(d.conv_in, x))
    for block in d.up_blocks:
        for m in block.resnets:
            x = residual(m, x)
        if block.upsamplers is not None:
            x = upsample(block.upsamplers[0], x)
    return conv(d.conv_out, act(x, d.norm_out)).float().permute(0, 4, 1, 2, 3)


def normalise(latents, vae):
    """Raw latents -> the experts' space, by the official constants."""
    mean, std = _statistics(latents, vae)
    return (latents - mean) / std


def denormalise(latents, vae):
    mean, std = _statistics(latents, vae)
    return latents * std + mean


def _statistics(x, vae):
    def t(v):
        return torch.tensor(v, device=x.device).view(1, -1, 1, 1, 1)

    return t(vae.config.latents_mean), t(vae.config.latents_std)


if __name__ == "__main__":  # the parallel forward against diffusers' loop, random weights
    import architecture

    torch.manual_seed(0)
    vae = architecture.build_vae().eval()
    clip = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    with torch.no_grad():
        z = vae.encode(clip).latent_dist.mode()
        print("encode", (encode(vae, clip) - z).abs().max().item() / z.abs().max().item())
        r = vae.decode(z).sample
        print("decode", (decode(vae, z).clamp(-1, 1) - r).abs().max().item() / r.abs().max().item())
