"""GGUF weights are kept once, not twice.

Symptom: loading GGUF experts takes their size again in host memory (17 GB for A14B Q4_K_M, 30 GB for
Q8_0) although nothing is offloaded, and minutes on a machine that cannot pin that much.

Mechanism: MMWeightGGUFTemplate.load copies every tensor into page-locked host memory, wherever the
tensor lies. That copy is what offloading reads from; a weight that stays on the GPU never needs it.
Here a tensor on the GPU is kept as it is, and a tensor in host memory is kept as the pinned copy only,
as upstream does for its other weight classes.

Remove when: upstream's load makes the pinned copy only where the tensor is in host memory.
"""

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "gguf_pinned"
TARGET = "lightx2v.common.ops.mm.mm_weight:MMWeightGGUFTemplate.load"


def applies(facts, scheme) -> tuple[bool, str]:
    if scheme.kind != "gguf":
        return False, "no GGUF weights"
    where = "stay on the GPU" if facts.offload in ("none", "text") else "wait in host memory"
    return True, f"the weights {where}: one copy is enough"


def load(self, weight_dict) -> None:
    if self.lazy_load:
        return
    assert not self.create_cuda_buffer, "GGUF weights can be offloaded by whole models only"
    for attribute, name in (("weight", self.weight_name), ("bias", self.bias_name)):
        tensor = None if name is None else weight_dict[name]
        if tensor is not None and tensor.device.type == "cpu":
            setattr(self, f"pin_{attribute}", pinned(tensor))
            tensor = None  # moved to the device when the expert's turn comes
        setattr(self, attribute, tensor)


def pinned(tensor):
    """The tensor (plain or GGML) in page-locked memory where there is a GPU to copy to."""
    import torch

    if isinstance(tensor, torch.Tensor):
        return tensor.pin_memory() if torch.cuda.is_available() else tensor
    tensor.data = pinned(tensor.data)
    return tensor


def apply(_runner) -> None:
    replace(NAME, TARGET, load)


def verify(_runner) -> str:
    import torch

    place, name = owner("lightx2v.utils.registry_factory:MM_WEIGHT_REGISTER")
    weight = getattr(place, name)["gguf-Q8_0"]("blocks.0.ffn.0.weight", None)
    assert is_ours(type(weight).load, NAME), "the weight class in the registry has upstream's load"
    weight.load({"blocks.0.ffn.0.weight": torch.empty(2, 32, device="meta")})  # not host memory
    assert weight.weight.shape == (2, 32) and not hasattr(weight, "pin_weight"), "a copy was made in host memory"
    return "no copy of a weight that is not in host memory"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "weight_dict")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
