"""LightX2V's kernels one by one, as its models call them: for wan_ui.machine.probes, in a process of its own."""

import torch

from wan_ui.engines import lightx2v_config
from wan_ui.engines.lightx2v_upstream import import_lightx2v
from wan_ui.machine.hardware import measure
from wan_ui.settings import settings


def _registry(name: str):
    import_lightx2v(lightx2v_config.environment(settings(), measure()))
    from lightx2v.utils import registry_factory

    return getattr(registry_factory, name)


def linear(name: str, weight: torch.Tensor, scale: torch.Tensor):
    """A quantised layer with a bias of zeros. weight e4m3 as the class wants it, scale (out, 1) float32."""
    layer = _registry("MM_WEIGHT_REGISTER")[name]("blocks.0.ffn.0.weight", "blocks.0.ffn.0.bias")
    layer.weight, layer.weight_scale = weight, scale
    dtype = torch.float32 if getattr(layer, "bias_force_fp32", False) else torch.bfloat16
    layer.bias = torch.zeros(len(scale), dtype=dtype, device=weight.device)
    return layer


def rms_norm(name: str, weight: torch.Tensor):
    layer = _registry("RMS_WEIGHT_REGISTER")[name]("blocks.0.self_attn.norm_q.weight")
    layer.weight = weight
    return layer


def modulate(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """x (tokens, width); scale, shift (1, width)"""
    _registry("MM_WEIGHT_REGISTER")
    from lightx2v.models.networks.wan.infer.triton_ops import fuse_scale_shift_kernel

    return fuse_scale_shift_kernel(x, scale=scale, shift=shift)


def rope(name: str, head_dim: int):
    """kernel(q, k, turns), turns (tokens, 1, head_dim / 2) complex"""
    layer = _registry("ROPE_REGISTER")[name]()

    prepared = []

    def kernel(q, k, turns):
        if not prepared:  # as its models do: once per clip
            freqs = layer.prepare_freqs(turns, rotary_dim=head_dim)
            prepared.extend((freqs, layer.prepare_positions(freqs)))
        return layer.apply(q, k, prepared[0], positions=prepared[1])

    return kernel
