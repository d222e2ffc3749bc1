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
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import torch

from wan_ui.engines.lora_branch import PAD, Branch, Expert
from wan_ui.engines.lora_plan import Change, Plan, plan_file
from wan_ui.families import EXPERTS
from wan_ui.files.version import version
from wan_ui.loras import locate
from wan_ui.request import LoraMatch, LoraSpec
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

# Tokens of a probe: cuBLAS has no fp8 product of under 32 by 13,824 with a bias (14B on an H100, CUDA 13).
PROBE_TOKENS = 64
GPU_RANK = 32  # on a GPU ranks are filled up to a multiple of this: thin GEMMs cost the same, compiled ones are reused


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
    return str(path), version(path.stat()), strength, index


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
