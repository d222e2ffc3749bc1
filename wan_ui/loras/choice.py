"""Chosen LoRAs: which target suits an entry, what to warn of, and the check that every door goes through."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from wan_ui import limits, rules
from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.families import DIT, EXPERTS, NOISE_TARGETS, TARGETS, Transformer, of_width
from wan_ui.loras.entry import LoraEntry, base_title
from wan_ui.loras.folder import available, find, read_file
from wan_ui.place import DATA
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings

MAX_STRENGTH = 4.0
STRENGTH = rules.number(-MAX_STRENGTH, MAX_STRENGTH, f"a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}")
WORDS = {expert.target: f"the {expert.title}" for expert in EXPERTS.values()} | {DIT.target: "both experts"}


def base(model: Model) -> Transformer | None:
    """The transformer whose LoRAs fit `model`; None where it is like no released one."""
    if not model.embedded:
        return model.family.transformer
    config = DATA / model.root.removeprefix("embedded:") / model.family.experts[0].config
    try:
        return of_width(json.loads(config.read_text(encoding="utf-8"))["dim"])
    except (OSError, ValueError, KeyError, TypeError):  # said when the model is loaded, with the file's name
        return None


def read_spec(text: str) -> LoraSpec:
    """ "sepia.safetensors:0.8:low_noise" -> LoraSpec. Raises ValueError saying what is allowed."""
    found = re.fullmatch(r"(.+?)(?::([^:]*))?(?::([^:]*))?", text or " ")
    if found is None:
        raise ValueError(f"{text!r}: expected FILE, FILE:STRENGTH or FILE:STRENGTH:TARGET, in one line")
    file, strength, target = found.groups()
    if target is not None and target not in TARGETS:
        raise ValueError(f"{text!r}: the target is one of {', '.join(TARGETS)}, not {target!r}")
    try:
        return LoraSpec(file, STRENGTH.read(strength or "1"), target or "auto")
    except ValueError:
        raise ValueError(f"{text!r}: the strength is {STRENGTH.allowed}, not {strength!r}") from None


def suggest(entry: LoraEntry, model: Model) -> tuple[str, str]:
    """(target, reason in a few words). A model with a single expert takes "both"."""
    if model.family.single:
        return DIT.target, f"{model.title} has one expert"
    if entry.paired:
        return "both", "it has a file for each expert"
    if entry.made_for in NOISE_TARGETS:
        return entry.made_for, entry.made_for_why
    if entry.made_for == "both":
        return "both", entry.made_for_why
    return "both", f"{entry.made_for_why} which expert it was made for"


def warnings(spec: LoraSpec, entry: LoraEntry) -> list[str]:
    """What a person should know before running this; empty when all is as its maker meant it."""
    found = []
    made_for, target = entry.made_for, spec.target
    if made_for in NOISE_TARGETS and target != made_for:
        found.append(
            f"{entry.name} was made for {WORDS[made_for]} ({entry.made_for_why}), and is put on {WORDS[target]}."
        )
    if entry.paired and target != "both":
        found.append(f"{entry.name} has a file for each expert; only the one for {WORDS[target]} is used.")
    if entry.fits == "wan2.1":
        found.append(f"{entry.name} was made for Wan2.1 ({entry.fits_why}); on Wan2.2 its effect may differ.")
    if entry.left_out:
        found.append(f"Not used of {entry.name}: {'; '.join(entry.left_out)}.")
    if entry.strength_note:
        found.append(f"{entry.name}: {entry.strength_note}.")
    if spec.strength == 0:
        found.append(f"{entry.name} has strength 0 and changes nothing.")
    return found


def lora_warnings(specs: Sequence[LoraSpec], settings: Settings) -> list[str]:
    """`warnings` of all of a job's checked specs."""
    entries = available(settings) if specs else []
    return [words for spec in specs for words in warnings(spec, _entry(spec, entries))]


def _entry(spec: LoraSpec, entries: list[LoraEntry]) -> LoraEntry:
    """Of a checked spec. Raises UserError when the file has gone since."""
    path = Path(spec.file)
    return read_file(path, path.name) if path.is_absolute() else find(spec.file, entries)


def fits(entry: LoraEntry, model: Model) -> str:
    """ "" when the entry can be put on `model`, else why not."""
    wanted = base(model)
    if entry.fits == (wanted.name if wanted else "other"):
        return ""
    if wanted and entry.fits == wanted.older and entry.width == wanted.width:
        return ""
    return f"{entry.name} is for {base_title(entry.fits)} ({entry.fits_why}), not for {model.title}"


def check(specs: Iterable[LoraSpec], model: Model, settings: Settings, *, paths: bool = False) -> tuple[LoraSpec, ...]:
    """Validated specs, as a job stores them; target "auto" becomes what `suggest` says.

    Raises UserError with field "loras" and the entry's name.

    paths  `file` may also be the path of a file on this machine (the command line's privilege);
           such a spec comes back with the absolute path.
    """
    specs = tuple(specs)
    if len(specs) > limits.LORAS_PER_JOB:
        raise UserError(f"loras: {len(specs)} LoRAs; at most {limits.LORAS_PER_JOB} together", field="loras")
    entries = available(settings) if specs else []
    return tuple(_check(spec, model, entries, paths) for spec in specs)


def _check(spec: LoraSpec, model: Model, entries: list[LoraEntry], paths: bool) -> LoraSpec:
    if not isinstance(spec.file, str) or not spec.file:
        raise UserError("loras: choose a file for each LoRA", field="loras")
    if spec.target not in (*TARGETS, "auto"):
        raise UserError(f"loras: {spec.file}: target {spec.target!r}; choose {', '.join(TARGETS)}", field="loras")
    if model.family.single and spec.target in NOISE_TARGETS:
        raise UserError(f"loras: {spec.file}: {model.title} has one expert; the target is both", field="loras")
    try:
        strength = float(spec.strength)
    except (TypeError, ValueError):
        strength = math.nan
    if not math.isfinite(strength) or abs(strength) > MAX_STRENGTH:
        raise UserError(
            f"loras: {spec.file}: strength {spec.strength!r} is not a number from {-MAX_STRENGTH} to {MAX_STRENGTH}",
            field="loras",
        )
    file = spec.file
    known = any(entry.name == file for entry in entries)
    if paths and not known and os.path.isfile(os.path.expanduser(file)):
        file = str(Path(os.path.expanduser(file)).resolve())
        entry = read_file(Path(file), Path(file).name)
    else:
        entry = find(file, entries)
    if entry.problem:
        raise UserError(f"loras: {entry.name} cannot be used: {entry.problem}", field="loras")
    reason = fits(entry, model)
    if reason:
        raise UserError(f"loras: {reason}", field="loras")
    return LoraSpec(file, strength, suggest(entry, model)[0] if spec.target == "auto" else spec.target)


def locate(spec: LoraSpec, settings: Settings) -> dict[str, Path]:
    """Files of a checked spec by expert, {"high_noise": path, "low_noise": path}, limited to its target.

    A model with a single expert takes the file under either name. Raises UserError when the file has gone since.
    """
    entry = _entry(spec, available(settings))
    if entry.problem:
        raise UserError(f"loras: {entry.name} cannot be used: {entry.problem}", field="loras")
    sides = NOISE_TARGETS if spec.target == "both" else (spec.target,)
    return {side: entry.files[side if entry.paired else "both"] for side in sides}


def trigger_words(specs: Sequence[LoraSpec], settings: Settings) -> list[tuple[str, ...]]:
    """Of each checked spec the words that its file says it answers to; () where it names none or has gone."""
    entries = available(settings) if specs else []
    found: list[tuple[str, ...]] = []
    for spec in specs:
        path = Path(spec.file)
        try:
            entry = read_file(path, path.name) if path.is_absolute() else find(spec.file, entries)
        except UserError:  # said where its files are located
            found.append(())
            continue
        found.append(entry.trigger_words)
    return found
