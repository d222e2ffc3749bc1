"""Where a LoRA lies in a loaded model: beside a linear layer, or in place of a tensor."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, Protocol

import torch
import torch.nn.functional as F

PAD = 8  # columns added to carry a bias difference; GEMM kernels want multiples of 8


class Branch:
    """What LoRAs add to one linear layer: y += x @ down.T @ up (+ x @ dense) (+ bias).

    down (r, in), up (r [+ PAD], out), dense (in, out) or None, all of the layer's compute dtype. A bias
    difference is a row of `up` that is multiplied by ones.
    """

    def __init__(self, down: torch.Tensor | None, up: torch.Tensor | None, dense: torch.Tensor | None, ones: bool):
        self.down, self.up, self.dense, self.ones = down, up, dense, ones

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """x (..., in), y (..., out): adds into y in place and returns it."""
        flat, out = x.reshape(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        if self.up is not None:
            hidden = flat.new_empty(len(flat), 0) if self.down is None else F.linear(flat, self.down)
            out.addmm_(F.pad(hidden, (0, PAD), value=1.0) if self.ones else hidden, self.up)
        if self.dense is not None:
            out.addmm_(flat, self.dense)
        return y

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """The addition alone, in float32: what a probe expects to see."""
        widest = self.dense if self.up is None else self.up
        assert widest is not None  # see join
        total = torch.zeros(len(x), widest.shape[1], device=x.device)
        if self.up is not None:
            hidden = x.new_empty(len(x), 0).float() if self.down is None else x.float() @ self.down.float().T
            total += (F.pad(hidden, (0, PAD), value=1.0) if self.ones else hidden) @ self.up.float()
        if self.dense is not None:
            total += x.float() @ self.dense.float()
        return total


class LinearSlot(Protocol):
    """A linear layer.

    dtype   what it computes in
    branch  what is attached; None when nothing is
    """

    linear: Literal[True]
    dtype: torch.dtype
    branch: Branch | None

    def attach(self, branch: Branch) -> None: ...

    def clear(self) -> None:
        """Back to the state before any attach, bit for bit."""

    def run(self, x: torch.Tensor, with_branch: bool) -> torch.Tensor:
        """The layer's forward, through the callable that the model calls, or its class's own."""


class TensorSlot(Protocol):
    """Tensors that are exchanged: a norm, an embedding, a modulation table."""

    linear: Literal[False]
    branch: None

    def swap(self, leaf: str, difference: torch.Tensor) -> None:
        """Add to the tensor `leaf` (weight | bias), keeping the old one."""

    def clear(self) -> None:
        """Back to the state before any swap, bit for bit."""


Slot = LinearSlot | TensorSlot  # a place in an expert that a LoRA can change


@dataclass
class Expert:
    """One transformer. shapes: dit_file.parameters; slot: canonical module -> Slot or None."""

    side: str  # high | low | ""
    shapes: dict[str, tuple[int, ...]]
    slot: Callable[[str], Slot | None]
    attached: dict[str, Slot] = field(default_factory=dict)

    def clear(self) -> None:
        for slot in self.attached.values():
            slot.clear()
        self.attached.clear()


@lru_cache
def with_branch(cls: type, method: str) -> type:
    """A subclass of a linear layer's class whose `method` (forward | apply) adds `self.lora_branch`."""
    own = getattr(cls, method)

    def forward(self, x):
        return self.lora_branch.add(x, own(self, x))

    return type(cls)(f"{cls.__name__}WithLora", (cls,), {method: forward, "lora_base": cls})
