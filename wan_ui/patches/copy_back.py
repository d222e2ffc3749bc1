"""Weights that leave the GPU are dropped, not copied back.

Symptom: with model offload every switch of experts moves 14 to 28 GB to the host for nothing, on top of
the same amount that the next expert needs; a GGUF expert loses its page-locked copy at the first switch,
and each later one is slower.

Mechanism: move_tensor_to_device and DefaultTensor.to_cpu copy the device's tensor into the pinned host
tensor before they drop it, although inference never changes a weight. A GGMLTensor moves itself, pinned
data included, and comes back unpinned. Here the pinned tensor stays what it is, and leaving the device
means forgetting the device's copy. The same makes an interrupted move safe: an expert that was half on
the GPU when memory ran out can be put back without looking at what it has.

Remove when: upstream's to_cpu no longer copies, and a GGMLTensor's `to` leaves the original alone.
"""

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "copy_back"
MOVE = "lightx2v.common.ops.utils:move_tensor_to_device"
TO_CPU = "lightx2v.common.ops.tensor.tensor:DefaultTensor.to_cpu"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.offload == "model":
        return True, "the idle expert waits in host memory"
    return False, f"offload is {facts.offload}: experts do not change places"


def move(obj, attr_name, target_device, non_blocking=False, use_copy=False) -> None:
    held = getattr(obj, f"pin_{attr_name}", None)
    if held is None:
        current = getattr(obj, attr_name, None)
        if current is not None:
            setattr(obj, attr_name, current.to(target_device, non_blocking=non_blocking))
        return
    setattr(obj, attr_name, held if str(target_device) == "cpu" else moved(held, target_device, non_blocking))


def moved(tensor, device, non_blocking: bool):
    """A copy of the tensor (plain or GGML) on the device."""
    import torch

    if isinstance(tensor, torch.Tensor):
        return tensor.to(device, non_blocking=non_blocking)
    data = tensor.data.to(device, non_blocking=non_blocking)
    return type(tensor)(data=data, orig_shape=tensor.orig_shape, gguf_type=tensor.gguf_type, aligned=False)


def to_cpu(self, non_blocking=False) -> None:
    if hasattr(self, "pin_tensor"):
        self.tensor = self.pin_tensor
    else:
        self.tensor = self.tensor.to("cpu", non_blocking=non_blocking)


def apply(_runner) -> None:
    replace(NAME, MOVE, move)
    replace(NAME, TO_CPU, to_cpu)


def verify(_runner) -> str:
    import torch

    place, name = owner("lightx2v.common.ops.mm.mm_weight:move_attr_to_cpu")
    consumer = getattr(place, name)  # what the weight classes call, and where it looks the helper up
    assert is_ours(consumer.__globals__["move_tensor_to_device"], NAME), "weights are moved by upstream's function"
    place, name = owner(TO_CPU)
    assert is_ours(getattr(place, name), NAME), "DefaultTensor.to_cpu is upstream's"

    class Weight:
        pin_weight, weight = torch.ones(2), torch.zeros(2)

    weight = Weight()
    consumer(weight, [("weight", "weight", False)], {})
    assert weight.weight is weight.pin_weight and weight.weight.sum() == 2, "the host's copy was overwritten"
    return "the page-locked copy is handed back as it was"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={
        MOVE: ("obj", "attr_name", "target_device", "non_blocking", "use_copy"),
        TO_CPU: ("self", "non_blocking"),
    },
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
