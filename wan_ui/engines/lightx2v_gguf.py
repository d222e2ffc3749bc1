"""GGUF layers that get their numbers at every use from one kernel (gguf_kernels.py), not in upstream's dozen passes."""

import logging
from typing import Any

import torch

from wan_ui.engines.lightx2v_seams import put

log = logging.getLogger(__name__)

SAMPLE = 64  # rows that are compared


def quicken(transformers: list[Any], dtype: torch.dtype, device: str) -> str:
    """Let the blocks' GGUF layers dequantise by the kernel, each type whose numbers are upstream's; in words which."""
    from lightx2v.common.ops.mm.mm_weight import MMWeightGGUFTemplate

    layers = [
        layer
        for transformer in transformers
        for block in transformer.transformer_weights.blocks
        for phase in block.compute_phases
        for layer in phase._modules.values()
        if isinstance(layer, MMWeightGGUFTemplate)
    ]
    agree: dict[str, str] = {}  # type -> what is wrong with the kernel, "" where nothing is
    for layer in layers:
        kind = kind_of(stored(layer))
        if kind not in agree:
            agree[kind] = disagreement(layer, kind, dtype, device)
            if agree[kind]:
                log.warning("GGUF %s is dequantised as upstream does it: %s", kind, agree[kind])
        if not agree[kind]:
            put(layer, "get_weight", quick(layer.get_weight))
    ours = sorted(kind for kind, wrong in agree.items() if not wrong)
    theirs = [f"{kind} as upstream does it: {wrong}" for kind, wrong in sorted(agree.items()) if wrong]
    return "; ".join([*([f"{', '.join(ours)} by one kernel (right when tried on this card)"] if ours else []), *theirs])


def stored(layer: Any) -> Any:
    """The layer's GGML blocks, wherever they wait; None of a plain one."""
    weight = getattr(layer, "weight", None)
    return weight if weight is not None else layer.pin_weight


def kind_of(tensor: Any) -> str:
    kind = getattr(tensor, "gguf_type", None)
    return kind.name if kind is not None else "plain"


def quick(upstream: Any) -> Any:
    """In place of a layer's get_weight."""
    from wan_ui.engines.gguf_kernels import TYPES, dequantise

    def get_weight(tensor: Any, dtype: torch.dtype) -> torch.Tensor | None:
        kind = kind_of(tensor)
        if kind not in TYPES:  # a bias
            numbers: torch.Tensor | None = upstream(tensor, dtype)
            return numbers
        return dequantise(tensor.data, kind, tuple(tensor.orig_shape), dtype)

    return get_weight


def disagreement(layer: Any, kind: str, dtype: torch.dtype, device: str) -> str:
    """What is wrong with the kernel's numbers for this layer's first rows."""
    from lightx2v.utils.ggml_tensor import GGMLTensor

    try:
        from wan_ui.engines.gguf_kernels import TYPES
    except ImportError:
        return "triton is not installed"
    if kind not in TYPES:
        return "no kernel for it"
    tensor = stored(layer)
    rows = tensor.data[:SAMPLE].to(device).contiguous()
    shape = torch.Size((len(rows), *tensor.orig_shape[1:]))
    few = GGMLTensor(data=rows, orig_shape=shape, gguf_type=tensor.gguf_type)
    try:
        numbers = quick(layer.get_weight)(few, dtype)
    except Exception as error:  # Triton's compiler raises of its own
        log.warning("the kernel for GGUF %s does not run", kind, exc_info=True)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return "" if torch.equal(numbers, layer.get_weight(few, dtype)) else "its numbers are others"
