"""Reading what another version, or a damaged disk, has stored: rows of the job table and settings in an MP4.

Nothing here raises. Every value is taken as far as it has the right type; what is not is left at its
neutral value and named, so that the page can say what was skipped. Fields that this version does not know
are kept (`Request.other`, `Result.other`).
"""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from wan_ui.changes import stored_changes
from wan_ui.crop import stored_crops
from wan_ui.families import TARGETS
from wan_ui.request import LATER, LoraMatch, LoraSpec, Request, Result, Sampling, Segment
from wan_ui.speaking import stored_speaking
from wan_ui.tasks import BY_STORED, DEFAULT, FILES, Task
from wan_ui.valid_text import valid_values

NEUTRAL: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False}
LISTS = ("loras", "segments", "guidance", "kind", "changes", "crops", "speaking")  # read by themselves
# Of the fields of a stored request the type and the default, MISSING where every version has had it; in their order.
_TYPES: dict[str, tuple[Any, Any]] = {
    entry.name: (entry.type, entry.default) for record in (Sampling, Request) for entry in fields(record)
}
_REQUEST = {
    **dict.fromkeys(FILES, (str, "")),
    **{
        name: _TYPES[name]
        for name in (*Request(DEFAULT.name, {}, 0, 0, 0).public(), *LATER, "batch", "without_picture")
        if name not in LISTS
    },
}
LARGEST = 2**63 - 1  # of a whole number; more does not go into the table, nor into a browser


def parse(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`, its texts valid Unicode; None when it holds none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        return None
    return valid_values(values) if isinstance(values, dict) else None


def read_request(text: str) -> tuple[Request, tuple[str, ...]]:
    """A request as far as it can be read, and the names of its fields that cannot."""
    values = parse(text)
    if values is None:
        return _request(DEFAULT, {}, (), (), {}), ("request",)
    kind = values.get("kind", DEFAULT.stored)
    task = BY_STORED.get(kind, DEFAULT) if isinstance(kind, str) else DEFAULT
    required = {entry.name for entry in task.inputs if entry.required and entry.file}
    taken: dict[str, Any] = {}
    skipped = []
    for name, (type_, default) in _REQUEST.items():
        value = _of_type(type_, values[name]) if name in values else None
        if value is None:
            if name in values or name in required or default is MISSING:  # an older version had not the optional ones
                skipped.append(name)
            value = NEUTRAL[type_] if default is MISSING else default
        taken[name] = value
    if kind != task.stored:
        skipped.append("kind")
    loras, unread = _specs(values.get("loras", ()))
    guidance = _scales(values.get("guidance", ()))
    if guidance is None:
        skipped.append("guidance")
    segments, lost = _segments(values.get("segments", ()))
    changes = values.get("changes")
    if stored_changes(changes) is None and (changes is not None or task.done_by == "afterwork"):
        skipped.append("changes")
    crops = stored_crops(values.get("crops", {}))
    if crops is None:
        skipped.append("crops")
    speaking = values.get("speaking")
    if speaking is not None and stored_speaking(speaking) is None:
        skipped.append("speaking")
    other = {name: value for name, value in values.items() if name not in {*_REQUEST, *LISTS}}
    records = {"changes": changes, "crops": crops, "speaking": speaking}
    return _request(task, taken, loras, segments, other, guidance or (), records), (*skipped, *unread, *lost)


def _request(
    task: Task,
    taken: dict[str, Any],
    loras: tuple[LoraSpec, ...],
    segments: tuple[Segment, ...],
    other: dict[str, Any],
    guidance: tuple[float, ...] = (),
    records: dict[str, Any] | None = None,
) -> Request:
    values = {name: taken.get(name, NEUTRAL[type_]) for name, (type_, _) in _REQUEST.items()}
    lists = {"loras": [asdict(spec) for spec in loras], "segments": [asdict(segment) for segment in segments]}
    return Request.from_dict({**other, **values, **lists, "guidance": guidance, "kind": task.stored, **(records or {})})


def read_result(text: str) -> tuple[Result, tuple[str, ...]]:
    """A result as far as it can be read, and the names of its fields that cannot."""
    values = parse(text)
    if values is None:
        return Result(), ("result",)
    if not values:
        return Result(), ()
    taken: dict[str, Any] = {"version": 1}
    skipped, other = [], {}
    for name, value in values.items():
        if name not in RESULT:
            other[name] = value
        elif (read := RESULT[name](value)) is None:
            skipped.append(name)
        else:
            taken[name] = read
    if taken["version"] == 1:
        taken["engine_ran"] = taken.get("facts", {}).get("engine", "").partition(" ")[0]
    return Result(**taken, other=other), tuple(skipped)


def number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST and math.isfinite(value) else None


def _of_type(kind: Any, value: Any) -> Any:
    """`value` as a non-negative number, a text or a truth, None when it is something else."""
    if kind in (str, bool):
        return value if isinstance(value, kind) else None
    found = number(value)
    if found is None or found < 0 or (kind is int and found != int(found)):
        return None
    return kind(found)


def _specs(values: Any) -> tuple[tuple[LoraSpec, ...], tuple[str, ...]]:
    if not isinstance(values, list | tuple):
        return (), ("loras",)
    specs, skipped = [], []
    for place, value in enumerate(values, start=1):
        value = value if isinstance(value, dict) else {}
        file, strength = value.get("file"), number(value.get("strength", 1.0))
        target = value.get("target", "both")
        if isinstance(file, str) and strength is not None and target in TARGETS:
            specs.append(LoraSpec(file, float(strength), target))
        else:
            skipped.append(f"LoRA {place}")
    return tuple(specs), tuple(skipped)


def _scales(value: Any) -> tuple[float, ...] | None:
    """Of two experts at most; all or none."""
    scales = [number(entry) for entry in value] if isinstance(value, list | tuple) else [None]
    found = tuple(float(scale) for scale in scales if scale is not None and scale >= 1)
    return found if len(found) == len(scales) <= 2 else None


def _segments(values: Any) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """All or none: what comes after a segment goes on from it."""
    if not isinstance(values, list | tuple):
        return (), ("segments",)
    read = []
    for value in values:
        value = value if isinstance(value, dict) else {}
        words = {entry.name: value.get(entry.name, "") for entry in fields(Segment)}
        if not words["prompt"] or not all(isinstance(text, str) for text in words.values()):
            return (), ("segments",)
        read.append(Segment(**words))
    return tuple(read), ()


def _name(value: Any) -> str | None:
    """Of a file in the job's folder: a path out of it is none."""
    if not isinstance(value, str) or value in ("", ".", "..") or "\0" in value or Path(value).name != value:
        return None
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: Any) -> float | None:
    found = number(value)
    return None if found is None or found < 0 else float(found)


def _amounts(value: Any) -> dict[str, float] | None:
    """Name -> seconds or GiB; those that are no amounts are left out."""
    if not isinstance(value, dict):
        return None
    return {name: amount for name, entry in value.items() if (amount := _seconds(entry)) is not None}


def _steps(value: Any) -> tuple[float, ...] | None:
    """All or none: a step's place in the list is its number."""
    steps = [_seconds(entry) for entry in value] if isinstance(value, list) else [None]
    return None if None in steps else tuple(step for step in steps if step is not None)


def _facts(value: Any) -> dict[str, str] | None:
    return {key: str(words) for key, words in value.items()} if isinstance(value, dict) else None


def _matches(value: Any) -> tuple[LoraMatch, ...] | None:
    if not isinstance(value, list):
        return None
    found = []
    for match in value:
        specs, _ = _specs([match])
        matched, unmatched = (match.get("matched"), match.get("unmatched", ())) if specs else (None, ())
        if isinstance(matched, dict) and isinstance(unmatched, list | tuple):
            words = {side: str(count) for side, count in matched.items()}
            names = tuple(str(name) for name in unmatched)
            found.append(LoraMatch(specs[0].file, specs[0].strength, specs[0].target, words, names))
    return tuple(found)


def _fits(value: Any) -> dict[str, Any] | None:
    """All or none: what does not say how large a clip fits says nothing."""
    if not isinstance(value, dict) or value.get("of") not in ("GPU", "machine"):
        return None
    numbers = {name: _of_type(int, value.get(name)) for name in ("width", "height", "frames")}
    if not all(numbers.values()):
        return None
    offload = "auto" if value.get("offload") == "auto" else ""
    return {"of": value["of"], **numbers, "measured": _seconds(value.get("measured")) or 0.0, "offload": offload}


RESULT: dict[str, Callable[[Any], Any]] = {
    "clip": _name,
    "poster": _name,
    "silent": _name,
    "file": _name,
    "frames": lambda value: _of_type(int, value),
    "fps": lambda value: _of_type(float, value) or None,
    "engine_ran": _text,
    "engine_why": _text,
    "seconds": _amounts,
    "step_seconds": _steps,
    "load_seconds": _seconds,
    "before_lipsync": _seconds,
    "memory": _amounts,
    "facts": _facts,
    "loras": _matches,
    "latents_sha256": _text,
    "fits": _fits,
    "version": lambda value: _of_type(int, value) or None,
}
