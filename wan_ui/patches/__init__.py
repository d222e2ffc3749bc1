"""Patches of LightX2V: one file each, applied in this order, verified, and reported.

Upstream is not forked: what breaks or silently miscomputes on a given machine is replaced in memory,
one callable at a time, with its reason. `apply_all` runs at load; a patch that applies and fails
raises PatchError with its name, one that does not apply says why in a line. `report` and `markdown`
are for people: they import nothing of LightX2V.
"""

from dataclasses import dataclass
from pathlib import Path

from wan_ui.catalog import Scheme
from wan_ui.patches import (
    bf16_loader,
    copy_back,
    embedded_sizes,
    fp8_scales,
    fp8_sgl,
    gc_freeze,
    gguf_loader,
    gguf_pinned,
    other_layouts,
    own_encoders,
    picture_eps,
    s2v_products,
    t5_offload,
    t5_tokenizer,
)
from wan_ui.patches.record import COMMIT, Facts, Patch, PatchError, in_source, resolve

PATCHES: tuple[Patch, ...] = (
    embedded_sizes.PATCH,
    other_layouts.PATCH,
    bf16_loader.PATCH,
    gguf_loader.PATCH,
    gguf_pinned.PATCH,
    fp8_scales.PATCH,
    fp8_sgl.PATCH,
    copy_back.PATCH,
    t5_tokenizer.PATCH,
    t5_offload.PATCH,
    own_encoders.PATCH,
    s2v_products.PATCH,
    picture_eps.PATCH,
    gc_freeze.PATCH,
)


@dataclass(frozen=True)
class Outcome:
    """state applied | not needed | off; figures is what `verify` found."""

    name: str
    state: str
    why: str
    figures: str = ""


def apply_all(
    phase: str, facts: Facts, scheme: Scheme, runner=None, off: frozenset[str] = frozenset()
) -> list[Outcome]:
    """Apply and verify the patches of `phase` that this load needs. Raises PatchError naming the one that failed.

    off  names of patches to leave out, in a process that has not applied them yet: none is ever undone
    """
    outcomes = []
    for patch in PATCHES:
        if patch.phase != phase:
            continue
        needed, why = patch.applies(facts, scheme)
        if not needed:
            outcomes.append(Outcome(patch.name, "not needed", why))
            continue
        patched = resolve(patch)
        if patch.name in off:
            if patched:
                raise PatchError(patch, "it is to be left out, but an earlier load of this process has applied it")
            outcomes.append(Outcome(patch.name, "off", f"switched off, although {why}"))
            continue
        try:
            if not patched:
                patch.apply(runner)
            outcomes.append(Outcome(patch.name, "applied", why, patch.verify(runner)))
        except PatchError:
            raise
        except Exception as error:
            raise PatchError(patch, f"it could not be verified ({type(error).__name__}: {error})") from error
    return outcomes


def report(facts: Facts, scheme: Scheme, checkout: Path | None) -> list[dict]:
    """One entry per patch for `python -m wan_ui patches --json`. target_wrong: "" unless it is not as expected."""
    entries = []
    for patch in PATCHES:
        needed, why = patch.applies(facts, scheme)
        wrong = in_source(patch, checkout) if checkout is not None else ""
        entries.append(
            {
                "name": patch.name,
                "phase": patch.phase,
                "target": patch.target,
                "applies": needed,
                "why": why,
                "target_found": "not checked: no LightX2V here" if checkout is None else wrong or "yes",
                "target_wrong": wrong,
                "symptom": patch.paragraph("Symptom"),
                "mechanism": patch.paragraph("Mechanism"),
                "remove_when": patch.remove_when,
            }
        )
    return entries


def markdown() -> str:
    """The README's table of patches, from the docstrings."""
    rows = [
        f"Patches of LightX2V `{COMMIT}`; each file in `wan_ui/patches/` says how it works.",
        "",
        "| patch | what goes wrong without it | remove when |",
        "|---|---|---|",
    ]
    for patch in PATCHES:
        symptom, remove = (text.replace("|", "\\|") for text in (patch.paragraph("Symptom"), patch.remove_when))
        rows.append(f"| `{patch.name}` | {symptom} | {remove} |")
    return "\n".join(rows)
