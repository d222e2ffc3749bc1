"""This project's own Triton kernels, tried as wan_ui.machine.probes has them."""

import torch
import torch.nn.functional as F

from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import Trial, Unfit, attention, normal, relative, some


def blocks(shape: Shape) -> Trial:
    """wan_ui.engines.block_kernels on one block's tokens: addition, norm, modulation and e4m3; GELU; rotation."""
    from wan_ui.engines import block_kernels as kernels

    width = shape.width
    x, added = (normal(shape.tokens, width, seed=seed) for seed in (1, 2))
    gate, scale, shift = (normal(1, width, seed=seed) for seed in (3, 4, 5))
    hidden, weight = normal(shape.tokens, shape.ffn, seed=6), normal(width, seed=7)
    angles = torch.arange(shape.tokens, device=x.device)[:, None] * 0.01 ** torch.linspace(
        0, 1, shape.head_dim // 2, device=x.device
    )
    turns = torch.stack([angles.cos(), angles.sin()], -1)
    rows = some(shape.tokens)

    def run():
        residual, q = x.clone(), x.clone()
        normed = kernels.layer_norm(
            residual, scale, shift, eps=1e-6, modulated=True, added=added, gate=gate, plain=True, levels=True
        )
        wide = kernels.quantise(hidden, gelu=True)
        kernels.norm_rotate(q, weight, turns, eps=1e-6, head=shape.head_dim)
        return residual, normed, wide, q

    def error_of(result) -> float:
        residual, normed, wide, q = result
        exact = x[rows].float() + added[rows].float() * gate.float()
        modulated = F.layer_norm(exact, (width,), eps=1e-6) * (1 + scale.float()) + shift.float()
        pairs = F.rms_norm(x[rows].float(), (width,), weight.float(), 1e-6).view(len(rows), shape.heads, -1, 2)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns[rows])[:, None])
        return max(
            relative(residual[rows], exact),
            relative(normed.plain[rows], modulated),
            relative(normed.levels[rows].float() * normed.scales[rows], modulated),
            relative(wide.levels[rows].float() * wide.scales[rows], F.gelu(hidden[rows].float(), approximate="tanh")),
            relative(q[rows], turned.flatten(1)),
        )

    return Trial(run, error_of)


def draft_attention(shape: Shape) -> Trial:
    """wan_ui.engines.e4m3_attention, with outliers: without its rotation it would be wrong by 0.25."""
    from wan_ui.engines import e4m3_attention

    if shape.head_dim & (shape.head_dim - 1) or not 64 <= shape.head_dim <= 256:
        raise Unfit(f"heads of {shape.head_dim} numbers: the rotation needs 64, 128 or 256")
    if torch.cuda.get_device_capability()[0] != 9:
        raise Unfit("FlashAttention-3 in e4m3 is for Hopper")

    def kernel(q, k, v):
        return e4m3_attention.attention(q[0], k[0], v[0])[None]

    return attention(shape, kernel, outliers=True)


def decoder(shape: Shape) -> Trial:
    """wan_ui.engines.vae_kernels on a few small frames, at the width of every stage of either VAE."""
    from wan_ui.engines import vae_kernels as kernels

    cases = []
    for channels, padded in ((96, 128), (192, 192), (256, 256), (384, 384), (512, 512), (1024, 1024)):
        y, shortcut = (normal(3, 17, 23, channels, seed=seed) for seed in (1, 2))
        bias, gamma = (normal(channels, seed=seed) for seed in (3, 4))
        cases.append((y, shortcut, bias, gamma, padded))

    def run():
        results = []
        for y, shortcut, bias, gamma, padded in cases:
            total, out = torch.empty_like(y), y.new_empty(*y.shape[:3], padded)
            kernels.finish(y, bias, shortcut, gamma=gamma, total=total, out=out)
            results.append((total, out, kernels.upsample(y, bias, parts=1), kernels.upsample(y, bias, parts=2)))
        return results

    def error_of(results) -> float:
        worst = 0.0
        for (y, shortcut, bias, gamma, _), (total, out, larger, doubled) in zip(cases, results, strict=True):
            channels, wide = y.shape[-1], y.float() + bias.float()
            exact = wide + shortcut.float()
            normed = F.silu(F.normalize(exact, dim=-1) * channels**0.5 * gamma.float())
            frames = wide.view(*y.shape[:3], 2, -1).permute(0, 3, 1, 2, 4).flatten(0, 1)
            worst = max(
                worst,
                relative(total, exact),
                relative(out, F.pad(normed, (0, out.shape[-1] - channels))),
                relative(larger, wide.repeat_interleave(2, 1).repeat_interleave(2, 2)),
                relative(doubled, frames.repeat_interleave(2, 1).repeat_interleave(2, 2)),
            )
        return worst

    return Trial(run, error_of)
