"""LoRAs on a loaded model: declared as a whole set, applied beside the weights, verified, removed without a trace.

A LoRA is never merged into a weight: quantised weights cannot take it, and what has been rounded once
cannot be taken out bit for bit. A linear layer with LoRAs becomes an instance of a subclass whose forward
is the layer's own followed by Branch.add; removing sets the class back. All LoRAs of a layer are one pair
of matrices, joined along the rank, with strength and alpha folded into `up`, so that their number costs
nothing and the price is two thin GEMMs, the second of which adds into the layer's output in place (stock
LightX2V writes the product, scales it twice and adds it: four more passes over the activations). Norms,
modulation tables and the patch embedding get a new tensor; the old one is kept and put back.

Order of a change: every file is read and matched first (a bad file changes nothing), then all experts are
cleared, attached and probed. A failure on any expert clears all of them: never half-applied.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from pathlib import Path
from typing import Literal, Protocol

import torch
import torch.nn.functional as F

from wan_ui.errors import UserError
from wan_ui.families import EXPERTS
from wan_ui.files.dit_file import unfolds
from wan_ui.files.tensors import read_tensor
from wan_ui.loras import locate
from wan_ui.loras.folder import beside, lora_header
from wan_ui.loras.keys import read_layout
from wan_ui.request import LoraMatch, LoraSpec
from wan_ui.settings import Settings
from wan_ui.valid_text import valid_name

log = logging.getLogger(__name__)

PAD = 8  # columns added to carry a bias difference; GEMM kernels want multiples of 8
# Tokens of a probe: cuBLAS has no fp8 product of under 32 by 13,824 with a bias (14B on an H100, CUDA 13).
PROBE_TOKENS = 64
GPU_RANK = 32  # on a GPU ranks are filled up to a multiple of this: thin GEMMs cost the same, compiled ones are reused


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


class LoraSet:
    """The LoRAs of one loaded model. `fixed` belong to the model itself (a distill pair): side -> files."""

    def __init__(self, experts: Sequence[Expert], device: torch.device | str, fixed: dict[str, Sequence[Path]]):
        self.experts, self.device, self.fixed = list(experts), device, fixed
        self.with_fixed = True
        self.specs: tuple[LoraSpec, ...] = ()
        self.current: tuple | None = None
        self.matches: tuple[LoraMatch, ...] = ()
        self.own = ""  # what was matched of the fixed ones
        self.seconds = 0.0  # what the last change took

    def set(self, specs: Sequence[LoraSpec], settings: Settings) -> tuple[LoraMatch, ...]:
        """Make `specs` (beside the fixed ones) the full set. What was matched, one entry per spec.

        Raises UserError naming the file: damaged, not finite, not for this model, without any effect. The
        model is then without LoRAs, but for the fixed ones.
        """
        started = time.perf_counter()
        self.specs = tuple(specs)
        try:
            wanted = self._wanted(specs, settings)
            key = tuple((side, *map(_stamp, files)) for side, files in wanted.items())
            if key == self.current:
                return self.matches
            plans = {
                expert.side: [plan_file(*item, expert, self.device) for item in wanted[expert.side]]
                for expert in self.experts
            }
            self._replace(plans)
        except BaseException:
            self.current, self.matches = None, ()
            self._replace_by_fixed(specs)
            raise
        self.seconds = time.perf_counter() - started
        self.current, self.matches = key, self._report(specs, plans)
        own = {EXPERTS[side].target: plan for side, of_side in plans.items() for plan in of_side if plan.index == -1}
        self.own = ", ".join(f"{side.replace('_', ' ')} {plan.count}" for side, plan in own.items())
        for match in self.matches:
            log.info("LoRA %s", match.words)
        return self.matches

    def attach_fixed(self, on: bool, settings: Settings) -> bool:
        """Let the fixed ones work, or the weights be the base model's; the others stay. Whether there are any."""
        if not self.has_fixed:
            return False
        if on != self.with_fixed:
            own, self.with_fixed = self.own, on
            self.set(self.specs, settings)
            self.own = own
        return True

    @property
    def has_fixed(self) -> bool:
        return any(self.fixed.values())

    def clear(self) -> None:
        """No LoRA is attached any more; the next `set` begins anew."""
        for expert in self.experts:
            expert.clear()
        self.current = None

    def forget_fixed(self) -> None:
        """The fixed ones are part of the weights from now on."""
        self.clear()
        self.fixed = {}

    def facts(self) -> dict[str, str]:
        """For a clip's facts: what was matched of the chosen LoRAs and of the model's own; nothing without any."""
        words = {"loras": "; ".join(match.words for match in self.matches), "distill LoRA": self.own}
        return {name: text for name, text in words.items() if text}

    def _fixed(self, expert: Expert) -> Sequence[Path]:
        return self.fixed.get(expert.side, ()) if self.with_fixed else ()

    def _wanted(self, specs: Sequence[LoraSpec], settings: Settings) -> dict[str, list[tuple[Path, float, int]]]:
        wanted = {expert.side: [(path, 1.0, -1) for path in self._fixed(expert)] for expert in self.experts}
        for index, spec in enumerate(specs):
            files = locate(spec, settings)
            for expert in self.experts:
                if not expert.side:
                    wanted[""].append((next(iter(files.values())), spec.strength, index))
                elif EXPERTS[expert.side].target in files:
                    wanted[expert.side].append((files[EXPERTS[expert.side].target], spec.strength, index))
        return wanted

    def _replace(self, plans: dict[str, list[Plan]]) -> None:
        for expert in self.experts:
            expert.clear()
        for expert in self.experts:
            attach(expert, plans[expert.side])
        for expert in self.experts:
            verify(expert, plans[expert.side], self.device)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # offloaded blocks compute on a stream of their own

    def _replace_by_fixed(self, specs: Sequence[LoraSpec]) -> None:
        """After a failure: base again. When the fixed ones are what failed, there is nothing to go back to."""
        for expert in self.experts:
            expert.clear()
        if specs and any(self.fixed.values()):
            self._replace(
                {
                    expert.side: [
                        plan_file(path, 1.0, -1, expert, self.device) for path in self.fixed.get(expert.side, ())
                    ]
                    for expert in self.experts
                }
            )

    def _report(self, specs: Sequence[LoraSpec], plans: dict[str, list[Plan]]) -> tuple[LoraMatch, ...]:
        reports = []
        for index, spec in enumerate(specs):
            found = {
                EXPERTS[side].target: plan for side, of_side in plans.items() for plan in of_side if plan.index == index
            }
            matched = {side: plan.count for side, plan in found.items()}
            unmatched = dict.fromkeys(name for plan in found.values() for name in plan.unmatched)
            reports.append(LoraMatch(spec.file, spec.strength, spec.target, matched, tuple(unmatched)))
        return tuple(reports)


def _stamp(item: tuple[Path, float, int]) -> tuple:
    path, strength, index = item
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns, strength, index


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


def attach(expert: Expert, plans: list[Plan]) -> None:
    """Put the plans' changes on a cleared expert."""
    modules = dict.fromkeys(module for plan in plans for module in plan.changes)
    for module in modules:
        changes = [plan.changes[module] for plan in plans if module in plan.changes]
        slot = expert.slot(module)
        if slot is None:
            raise RuntimeError(f"{module} is in the checkpoint, but not in the loaded model")
        expert.attached[module] = slot
        if slot.linear:
            branch = join(changes, slot.dtype)
            if branch is not None:
                slot.attach(branch)
            continue
        for leaf, differences in (
            ("weight", [change.strength * change.diff.float() for change in changes if change.diff is not None]),
            ("bias", [change.strength * change.diff_b.float() for change in changes if change.diff_b is not None]),
        ):
            if differences:
                slot.swap(leaf, reduce(torch.add, differences))


def join(changes: list[Change], dtype: torch.dtype) -> Branch | None:
    """One branch of all changes to a linear layer; None when they change nothing."""
    downs = [change.down.to(dtype) for change in changes if change.down is not None]
    ups = [change.scale * change.up.float() for change in changes if change.up is not None]
    biases = [change.strength * change.diff_b.float() for change in changes if change.diff_b is not None]
    dense = [change.strength * change.diff.float() for change in changes if change.diff is not None]
    if downs and downs[0].device.type == "cuda" and (short := -sum(map(len, downs)) % GPU_RANK):
        downs.append(downs[0].new_zeros(short, downs[0].shape[1]))
        ups.append(ups[0].new_zeros(len(ups[0]), short))
    rows = [up.T for up in ups]
    if biases:
        bias = reduce(torch.add, biases)
        rows += [bias[None], bias.new_zeros(PAD - 1, len(bias))]
    if not rows and not dense:
        return None
    return Branch(
        torch.cat(downs).contiguous() if downs else None,
        torch.cat(rows).to(dtype).contiguous() if rows else None,
        reduce(torch.add, dense).T.to(dtype).contiguous() if dense else None,
        bool(biases),
    )


@torch.inference_mode()
def verify(expert: Expert, plans: list[Plan], device) -> None:
    """The layers that a forward will use are those that were changed, and a forward differs. Raises."""
    for plan in plans:
        missing = [module for module in plan.changes if module not in expert.attached]
        if missing:
            raise RuntimeError(f"{len(missing)} layers were matched but not changed: {missing[0]}")
    branches = [
        (module, slot, slot.branch)
        for module, slot in expert.attached.items()
        if slot.linear and slot.branch is not None
    ]
    generator = torch.Generator("cpu").manual_seed(0)
    for i in sorted({0, len(branches) // 2, len(branches) - 1}) if branches else ():
        module, slot, branch = branches[i]
        x = torch.randn(PROBE_TOKENS, expert.shapes[f"{module}.weight"][1], generator=generator).to(device, slot.dtype)
        base, changed, delta = slot.run(x, False).float(), slot.run(x, True).float(), branch.delta(x)
        error = (changed - base - delta).norm()
        if error > 0.05 * delta.norm() + 0.02 * base.norm():
            raise RuntimeError(f"{module}: a probe is off by {error:.3g}; its change should be {delta.norm():.3g}")
        if (delta.abs() > 0.01 * base.abs()).any() and torch.equal(changed, base):
            raise RuntimeError(f"{module}: the output with LoRA is the same as without")


@lru_cache
def with_branch(cls: type, method: str) -> type:
    """A subclass of a linear layer's class whose `method` (forward | apply) adds `self.lora_branch`."""
    own = getattr(cls, method)

    def forward(self, x):
        return self.lora_branch.add(x, own(self, x))

    return type(cls)(f"{cls.__name__}WithLora", (cls,), {method: forward, "lora_base": cls})
