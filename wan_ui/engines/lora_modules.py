"""Where a LoRA goes in a WanTransformer3DModel: see wan_ui.engines.lora.Slot."""

from typing import Any, Literal

import torch
from torch import nn

from wan_ui.engines.dit import module_names
from wan_ui.engines.lora_branch import Branch, Expert, with_branch


class LinearSlot:
    """nn.Linear, Fp8Linear or GgufLinear: whatever maps (..., in) to (..., out)."""

    linear: Literal[True] = True

    def __init__(self, module: Any):
        self.module = module
        self.branch: Branch | None = None
        plain = isinstance(module, nn.Linear)
        self.dtype = module.weight.dtype if plain else module.bias.dtype

    def attach(self, branch: Branch) -> None:
        self.branch = self.module.lora_branch = branch
        cls: type = type(self.module)
        self.module.__class__ = with_branch(cls, "forward")

    def clear(self) -> None:
        if self.branch is not None:
            self.module.__class__ = self.module.lora_base
            del self.module.lora_branch
            self.branch = None

    def run(self, x: torch.Tensor, with_branch: bool) -> torch.Tensor:
        home = self.module.weight.device
        self.module.to(x.device)
        try:
            return self.module(x) if with_branch else self.module.lora_base.forward(self.module, x)
        finally:
            self.module.to(home)


class TensorSlot:
    """Parameters that are exchanged. names: weight | bias -> (module, attribute)."""

    linear: Literal[False] = False
    branch: None = None

    def __init__(self, names: dict[str, tuple[nn.Module, str]]):
        self.names = names
        self.kept: dict[str, nn.Parameter] = {}

    def swap(self, leaf: str, difference: torch.Tensor) -> None:
        module, name = self.names[leaf]
        old = self.kept[leaf] = getattr(module, name)
        new = (old.float() + difference.to(old.device)).to(old.dtype)
        setattr(module, name, nn.Parameter(new, requires_grad=False))

    def clear(self) -> None:
        for leaf, old in self.kept.items():
            module, name = self.names[leaf]
            old.data = old.data.to(getattr(module, name).device)  # the expert may have been moved meanwhile
            setattr(module, name, old)
        self.kept.clear()


def expert(model: Any, side: str, shapes: dict[str, tuple[int, ...]]) -> Expert:
    """`shapes`: dit_file.parameters of the model."""
    names = module_names(shapes)

    def slot(module: str) -> LinearSlot | TensorSlot | None:
        if module not in names:
            return None
        path = names[module]
        if module.endswith("modulation"):
            holder, _, attribute = path.rpartition(".")
            return TensorSlot({"weight": (model.get_submodule(holder), attribute)})
        found = model.get_submodule(path)
        if f"{module}.weight" in shapes and len(shapes[f"{module}.weight"]) == 2:
            return LinearSlot(found)
        return TensorSlot({leaf: (found, leaf) for leaf in ("weight", "bias")})

    return Expert(side, shapes, slot)
