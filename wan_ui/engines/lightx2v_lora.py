"""Where a LoRA goes in a LightX2V expert: see wan_ui.engines.lora.Slot.

Upstream has a LoRA branch of its own in its weight classes; it takes one file, cannot change its rank, reports
success when nothing matched, ignores bias differences after a switch, and costs four passes over the
activations. So the weight objects of the tree are found by the names that they carry, and get the same
Branch as the other engine's modules.

With block offload the weights that compute are two buffers which take turns; each notes which block it was
last filled with. Buffers that were filled before a norm was exchanged are filled again.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch

from wan_ui.engines.lightx2v_seams import put, put_back
from wan_ui.engines.lora_branch import Branch, Expert, with_branch

BUFFERS = ("offload_block_cuda_buffers", "offload_phase_cuda_buffers")
TENSORS = ("weight", "bias", "weight_scale", "tensor")


class LinearSlot:
    """A weight object with `apply(x)`; of a block, also the buffers that stand in for it."""

    linear: Literal[True] = True

    def __init__(self, weight: Any, dtype: torch.dtype, block: int | None, buffers: list[Any]):
        self.weight, self.dtype, self.block, self.buffers = weight, dtype, block, buffers
        self.branch: Branch | None = None

    def attach(self, branch: Branch) -> None:
        self.branch = branch
        put(self.weight, "lora_branch", branch)
        cls: type = type(self.weight)
        put(self.weight, "__class__", with_branch(cls, "apply"))
        for buffer in self.buffers:
            buffer.lora_branch.branches[self.block] = branch

    def clear(self) -> None:
        if self.branch is not None:
            put(self.weight, "__class__", self.weight.lora_base)
            put_back(self.weight, "lora_branch")
            for buffer in self.buffers:
                del buffer.lora_branch.branches[self.block]
            self.branch = None

    def run(self, x: torch.Tensor, with_branch: bool) -> torch.Tensor:
        weight = self.weight
        kept = {name: getattr(weight, name) for name in TENSORS if hasattr(weight, name)}
        weight.to_cuda()  # upstream's name for "to the compute device"; with offload it may be on the host
        try:
            return weight.apply(x) if with_branch else weight.lora_base.apply(weight, x)
        finally:
            for name in TENSORS:
                if name in kept:
                    put(weight, name, kept[name])
                elif hasattr(weight, name):
                    put_back(weight, name)


class BlockBranch:
    """What a buffer of block offload adds: the branch of the block that it holds just now."""

    def __init__(self, weight: Any):
        self.branches: dict[int | None, Branch] = {}
        self.block = 0
        fill = weight.load_state_dict

        def noted(source: Any, block: int, *rest: Any) -> Any:
            self.block = block
            return fill(source, block, *rest)

        put(weight, "load_state_dict", noted)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        branch = self.branches.get(self.block)
        return y if branch is None else branch.add(x, y)


class TensorSlot:
    """A norm, an embedding or a modulation table: its tensor and, with offload, the host's copy are exchanged."""

    linear: Literal[False] = False
    branch: None = None

    def __init__(self, weight: Any):
        self.weight = weight
        self.kept: dict[str, tuple[Any, Any]] = {}

    def swap(self, leaf: str, difference: torch.Tensor) -> None:
        name = "tensor" if leaf == "weight" and not hasattr(self.weight, "weight_name") else leaf
        self.kept[name] = (getattr(self.weight, name, None), getattr(self.weight, f"pin_{name}", None))
        for attribute, old in zip((name, f"pin_{name}"), self.kept[name], strict=True):
            if old is not None:
                new = (old.float() + difference.to(old.device)).to(old.dtype)
                put(self.weight, attribute, new.pin_memory() if old.is_pinned() else new)

    def clear(self) -> None:
        for name, (old, pinned) in self.kept.items():
            current = getattr(self.weight, name, None)
            if pinned is not None:
                put(self.weight, f"pin_{name}", pinned)
                old = pinned
            if current is not None:
                put(self.weight, name, old.to(current.device))
        self.kept.clear()


def expert(model: Any, side: str, shapes: dict[str, tuple[int, ...]]) -> Expert:
    """`model`: a WanModel; `shapes`: dit_file.parameters of the model."""
    from lightx2v.common.ops.mm.mm_weight import MMWeightTemplate
    from lightx2v.utils.envs import GET_DTYPE

    weights: dict[str, list[Any]] = {}
    buffers: dict[str, list[Any]] = {}
    for group in (model.pre_weight, model.transformer_weights):
        for name, weight, buffered in _leaves(group):
            (buffers.setdefault(_of_any_block(name), []) if buffered else weights.setdefault(name, [])).append(weight)
    for weight in (weight for group in buffers.values() for weight in group):
        if isinstance(weight, MMWeightTemplate):
            put(weight, "lora_branch", BlockBranch(weight))
            cls: type = type(weight)
            put(weight, "__class__", with_branch(cls, "apply"))

    def slot(module: str) -> LinearSlot | TensorSlot | None:
        if module not in weights:
            return None
        weight = weights[module][0]
        if not isinstance(weight, MMWeightTemplate):
            return TensorSlot(weight)
        block = int(module.split(".")[1]) if module.startswith("blocks.") else None
        return LinearSlot(weight, GET_DTYPE(), block, buffers.get(_of_any_block(module), []))

    return Expert(side, shapes, slot)


def changed(model: Any, expert: Expert) -> None:
    """Tell the code that runs the blocks: buffers of block offload are to be filled again, for they hold the next
    clip's first block already; and which shapes were added, since each set of them is compiled once.
    """
    infer = model.transformer_infer
    if hasattr(infer, "offload_manager"):
        put(infer.offload_manager, "need_init_first_buffer", True)
    ranks = {
        (_of_any_block(module), None if slot.branch.up is None else len(slot.branch.up), slot.branch.dense is not None)
        for module, slot in expert.attached.items()
        if slot.branch is not None
    }
    put(infer, "lora_variant", tuple(sorted(ranks, key=str)))


def _of_any_block(name: str) -> str:
    return ".".join(["blocks", "*", *name.split(".")[2:]]) if name.startswith("blocks.") else name


def _leaves(group: Any, buffered: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(canonical name, weight object, whether it is an offload buffer) of everything that holds a named tensor."""
    for registry in (group._modules, group._parameters):
        for key, child in registry.items():
            if child is None:
                continue
            if hasattr(child, "_modules"):
                yield from _leaves(child, buffered or key in BUFFERS)
            name = getattr(child, "weight_name", None) or getattr(child, "tensor_name", None)
            if name:
                yield name.removesuffix(".weight"), child, buffered
