"""A LoRA file, read and matched with an expert: what it changes there, or why it cannot be used."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from wan_ui.engines.lora_branch import Expert
from wan_ui.errors import UserError
from wan_ui.files.dit_file import unfolds
from wan_ui.files.tensors import read_tensor
from wan_ui.loras.folder import beside, lora_header
from wan_ui.loras.keys import read_layout
from wan_ui.valid_text import valid_name


@dataclass
class Change:
    """What one file does to one module: tensors as stored, on the compute device, and what to multiply them by."""

    down: torch.Tensor | None = None  # (r, in)
    up: torch.Tensor | None = None  # (out, r)
    scale: float = 1.0  # of up: strength * alpha / rank
    diff: torch.Tensor | None = None  # the weight's shape
    diff_b: torch.Tensor | None = None  # (out,)
    strength: float = 1.0  # of diff and diff_b


@dataclass
class Plan:
    """One file, read and matched against one expert; nothing is applied yet."""

    index: int  # of its spec; -1 for one that belongs to the model
    changes: dict[str, Change]
    promised: int
    unmatched: tuple[str, ...]

    @property
    def count(self) -> str:
        return f"{len(self.changes)}/{self.promised}"


def plan_file(path: Path, strength: float, index: int, expert: Expert, device) -> Plan:
    """Read a file and match it with an expert. Raises UserError naming the file."""
    header = lora_header(path)
    layout = read_layout(header, beside(path))
    if layout.problem:
        raise _refused(path, layout.problem)

    def read(tensor_name: str) -> torch.Tensor:
        return read_tensor(path, header.tensors[tensor_name]).to(device)

    changes, unmatched, largest = {}, list(layout.unknown), {}
    for module, layer in layout.layers.items():
        weight = expert.shapes.get(f"{module}.weight", expert.shapes.get(module))
        if weight is None:
            unmatched.append(module)
            continue
        change = Change(strength=strength)
        if layer.down:
            down, up = read(layer.down).flatten(1), read(layer.up).flatten(1)
            rank = len(down)
            scale, why = layout.scales.of((layer.named, module), rank, bool(layer.alpha))
            if why:
                raise _refused(path, f"{module}: {why}")
            if layer.alpha:
                scale = read(layer.alpha).double().item() / rank
            if _fits(path, module, (len(up), down.shape[1]), (weight[0], math.prod(weight[1:]))):
                # NaN and infinity come through
                largest[module] = largest_value(up) * largest_value(down) * abs(scale)
                if len(weight) == 2:
                    change.down, change.up, change.scale = down, up, strength * scale
                else:  # the patch embedding, a convolution
                    change.diff = (scale * up.float() @ down.float()).reshape(weight)
            else:
                unmatched.append(module)
            if layer.up_bias:
                change.diff_b = scale * read(layer.up_bias).float()
        if layer.diff:
            diff = read(layer.diff)
            if unfolds(tuple(diff.shape), weight) or _fits(path, module, tuple(diff.shape), weight):
                diff = diff.reshape(weight)
                change.diff = diff if change.diff is None else change.diff + diff.float()
                largest[f"{module}.diff"] = largest_value(diff)
            else:
                unmatched.append(f"{module}.diff")
        if layer.diff_b:
            diff_b = read(layer.diff_b)
            change.diff_b = diff_b if change.diff_b is None else change.diff_b + diff_b.float()
        if change.diff_b is not None:
            if f"{module}.bias" in expert.shapes:
                _fits(path, f"{module}.bias", tuple(change.diff_b.shape), weight[:1])
                largest[f"{module}.bias"] = largest_value(change.diff_b)
            else:  # Wan's RMS norms have none
                unmatched.append(f"{module}.diff_b")
                change.diff_b = None
        if (change.down, change.diff, change.diff_b) != (None, None, None):
            changes[module] = change
    if not changes:
        raise _refused(path, f"none of its {len(layout.layers)} layers is in this model")
    sizes = torch.stack(list(largest.values())).cpu()  # one wait for the device, not one per layer
    if not torch.isfinite(sizes).all():
        first = next(name for name, size in zip(largest, sizes, strict=True) if not torch.isfinite(size))
        raise _refused(path, f"{first} holds NaN or infinite numbers")
    if not sizes.any():
        raise _refused(path, "it changes nothing: all of its differences are zero (an untrained LoRA?)")
    if strength == 0:
        changes = {module: Change() for module in changes}
    return Plan(index, changes, len(layout.layers), tuple(unmatched))


def largest_value(tensor: torch.Tensor) -> torch.Tensor:
    lowest, highest = torch.aminmax(tensor if tensor.dtype.itemsize > 1 else tensor.half())
    return torch.maximum(highest, -lowest).float()


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"loras: {valid_name(path.name)} cannot be used: {why}", field="loras")


def _fits(path: Path, name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether the shapes are the same. False for a patch embedding, which depends on the task and is then left out;
    raises UserError for any other layer.
    """
    if tuple(got) != tuple(expected) and name != "patch_embedding":
        raise _refused(path, f"{name} is for a layer of shape {tuple(got)}, and the model's has {tuple(expected)}")
    return tuple(got) == tuple(expected)
