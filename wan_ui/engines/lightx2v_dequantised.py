"""GGUF weights that get their numbers once, at load, for all steps: plain ones, or levels of e4m3 for fp8's products.

Plain numbers are the very ones that upstream makes anew at every use. In e4m3 a weight is rounded a second time, to a
relative error of 0.026, and so is what it is multiplied with: as fast as the fp8 scheme, in half the memory of plain
numbers. The first and the last block, in which an error weighs most, stay plain.
"""

from typing import Any

import torch

from wan_ui.engines.lightx2v_lora import LinearSlot
from wan_ui.engines.lightx2v_seams import put
from wan_ui.engines.lora import LoraSet
from wan_ui.engines.lora_branch import PAD, Branch
from wan_ui.files.tensors import quantise_fp8

FP8 = "fp8-torchao"  # upstream's name of the weight class whose products are torch's own, and ours (lightx2v_blocks.py)


def dequantise_once(transformers: list[Any], dtype: torch.dtype, loras: LoraSet, *, e4m3: bool = False) -> bool:
    """Give every GGUF layer of the blocks its numbers in `dtype` and the class of a plain layer, or e4m3 and fp8's.

    loras  those that are attached, which belong to the model and are never taken out, go into the weights before these
           are rounded: beside them they cost a tenth of a step

    Whether they did: not if one of them changes anything but linear layers. None is attached any more.
    """
    from lightx2v.common.ops.mm.mm_weight import MMWeightGGUFTemplate
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    plain, fp8 = MM_WEIGHT_REGISTER["Default"], MM_WEIGHT_REGISTER[FP8]
    slots = [slot for expert in loras.experts for slot in expert.attached.values()]
    linear = [slot for slot in slots if isinstance(slot, LinearSlot)]
    known = [slot for slot in linear if isinstance(slot.weight, (MMWeightGGUFTemplate, plain))]
    merged = bool(slots) and len(known) == len(slots)
    own = [(slot.weight, slot.branch) for slot in linear if merged and slot.branch is not None]
    loras.clear()
    branches = {id(layer): branch for layer, branch in own}
    for transformer in transformers:
        blocks = list(transformer.transformer_weights.blocks)
        for block in blocks:
            finer = not e4m3 or block in (blocks[0], blocks[-1])
            for phase in block.compute_phases:
                for layer in phase._modules.values():
                    if isinstance(layer, MMWeightGGUFTemplate):
                        _dequantise(layer, dtype, plain if finer else fp8, branches.pop(id(layer), None))
    for layer, branch in own:
        if id(layer) in branches:  # a layer that was plain before
            layer.weight.copy_(_changed(layer.weight.t(), branch).t())
            put(layer, "bias", _changed_bias(layer.bias, branch))
    return merged


def _dequantise(layer: Any, dtype: torch.dtype, cls: type, branch: Branch | None) -> None:
    from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

    fp8 = cls is MM_WEIGHT_REGISTER[FP8]
    weight, bias = layer.get_weight(layer.weight, torch.float32 if fp8 else dtype), layer.get_weight(layer.bias, dtype)
    if branch is not None:
        weight, bias = _changed(weight, branch), _changed_bias(bias, branch)
    for name in ("pin_weight", "pin_bias"):
        put(layer, name, None)
    put(layer, "__class__", cls)
    put(layer, "bias", bias)
    if not fp8:
        put(layer, "weight", weight.to(dtype).t())
        return
    levels, scale = quantise_fp8(weight)
    put(layer, "weight", levels.t())
    put(layer, "weight_scale", scale)
    put(layer, "infer_dtype", dtype)


def _changed(weight: torch.Tensor, branch: Branch) -> torch.Tensor:
    """weight (out, in) with what the branch adds, float32."""
    changed = weight.float()
    if branch.up is not None and branch.down is not None:
        rank = len(branch.up) - (PAD if branch.ones else 0)
        changed = changed + (branch.down.float().t() @ branch.up[:rank].float()).t()
    return changed if branch.dense is None else changed + branch.dense.float().t()


def _changed_bias(bias: torch.Tensor, branch: Branch) -> torch.Tensor:
    if not branch.ones:
        return bias
    assert branch.up is not None
    return (bias.float() + branch.up[-PAD:].float().sum(0)).to(bias.dtype)
