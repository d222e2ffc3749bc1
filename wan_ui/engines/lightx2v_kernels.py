"""LightX2V's kernels, tried one by one as its models call them; in a process of its own, see wan_ui.machine.probes."""

from typing import Any

import torch

from wan_ui.engines import lightx2v_config
from wan_ui.engines.lightx2v_seams import put
from wan_ui.engines.lightx2v_upstream import import_lightx2v
from wan_ui.machine import trials
from wan_ui.machine.hardware import measure
from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import Trial, e4m3
from wan_ui.settings import settings


def _registry(name: str):
    import_lightx2v(lightx2v_config.environment(settings(), measure()))
    from lightx2v.utils import registry_factory

    return getattr(registry_factory, name)


def linear(name: str, weight: torch.Tensor, scale: torch.Tensor):
    """A quantised layer with a bias of zeros. weight e4m3 as the class wants it, scale (out, 1) float32."""
    layer = _registry("MM_WEIGHT_REGISTER")[name]("blocks.0.ffn.0.weight", "blocks.0.ffn.0.bias")
    put(layer, "weight", weight)
    put(layer, "weight_scale", scale)
    dtype = torch.float32 if getattr(layer, "bias_force_fp32", False) else torch.bfloat16
    put(layer, "bias", torch.zeros(len(scale), dtype=dtype, device=weight.device))
    return layer


def _rms_norm(name: str, weight: torch.Tensor):
    layer = _registry("RMS_WEIGHT_REGISTER")[name]("blocks.0.self_attn.norm_q.weight")
    put(layer, "weight", weight)
    return layer


def _modulate(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """x (tokens, width); scale, shift (1, width)"""
    _registry("MM_WEIGHT_REGISTER")
    from lightx2v.models.networks.wan.infer.triton_ops import fuse_scale_shift_kernel

    return fuse_scale_shift_kernel(x, scale=scale, shift=shift)


def _rope(name: str, head_dim: int):
    """kernel(q, k, turns), turns (tokens, 1, head_dim / 2) complex"""
    layer = _registry("ROPE_REGISTER")[name]()

    prepared: list[Any] = []

    def kernel(q, k, turns):
        if not prepared:  # as its models do: once per clip
            freqs = layer.prepare_freqs(turns, rotary_dim=head_dim)
            prepared.extend((freqs, layer.prepare_positions(freqs)))
        return layer.apply(q, k, prepared[0], positions=prepared[1])

    return kernel


# ---------------------------------------------------------------- probes


def _gemm(shape: Shape, name: str, transposed: bool) -> Trial:
    def kernel(weight):
        stored, scale = e4m3(weight, 1)
        return linear(name, stored.t() if transposed else stored, scale).apply

    return trials.gemm(shape, kernel)


def gemm_torchao(shape: Shape) -> Trial:
    return _gemm(shape, "fp8-torchao", transposed=True)


def gemm_triton(shape: Shape) -> Trial:
    return _gemm(shape, "fp8-triton", transposed=False)


def gemm_sgl(shape: Shape) -> Trial:
    return _gemm(shape, "fp8-sgl", transposed=True)


def modulate_triton(shape: Shape) -> Trial:
    return trials.modulate(shape, _modulate)


def norm_sgl(shape: Shape) -> Trial:
    return trials.norm(shape, lambda weight: _rms_norm("sgl-kernel", weight).apply)


def norm_one_pass(shape: Shape) -> Trial:
    return trials.norm(shape, lambda weight: _rms_norm("one-pass", weight).apply)


def rope_flashinfer(shape: Shape) -> Trial:
    return trials.rope(shape, _rope("flashinfer_rope", shape.head_dim))
