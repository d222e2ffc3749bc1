"""What is known of the kernels on this machine, and which is the best that is right.

ok        its error against float32 is what its number format must cost
wrong     it ran, and its result is further off, or not a number
crashed   the child ended by a signal or an exit code, as kernels built for another GPU do, or gave no answer in time
failed    it raised
absent    a package is not installed, or the kernel is not for this machine or shape; says which

Results are kept in <cache>/probes.json under the GPU, its driver, and the versions of torch, triton and the
kernel's packages: after an upgrade of any of them the kernel is probed again (probing.py).
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wan_ui.machine import hardware
from wan_ui.machine.engine_choice import lightx2v_missing
from wan_ui.machine.probes import PROBES, Probe
from wan_ui.place import COMMAND
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

Identity = tuple[str, str, str, str]  # kind, name, shape, versions
DISTRIBUTIONS = {
    "fa3_fwd_interface": "fa3-fwd",
    "flash_attn": "flash-attn",
    "flash_attn_interface": "flash-attn-3",
    "sgl_kernel": "sgl-kernel",
    "flashinfer": "flashinfer-python",
}


@dataclass(frozen=True)
class ProbeResult:
    """One kernel on one shape. seconds and error are -1 where it gave none; versions is all that it depends on."""

    kind: str
    name: str
    shape: str
    status: str
    why: str = ""
    seconds: float = -1.0
    error: float = -1.0
    allowed: float = 0.0
    choice: str = ""
    versions: str = ""

    @property
    def identity(self) -> Identity:
        return self.kind, self.name, self.shape, self.versions


@functools.cache  # each reads a file, and an engine asks for all of them a dozen times at every load
def version(package: str) -> str:
    """Of an installed distribution, by its import name; "" if unknown."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    return ""


def versions(probe: Probe, machine: dict[str, str], settings: Settings) -> str:
    """All that a result depends on, in words."""
    words = [f"{machine['name']}, driver {machine['driver']}" if machine else platform.machine()]
    for name in dict.fromkeys(("torch", "triton", *probe.packages)):
        there = not lightx2v_missing(settings) if name == "lightx2v" else bool(hardware.installed((name,)))
        words.append(f"{name} {version(name) or 'without a version' if there else 'absent'}")
    return ", ".join(words)


def results_file(settings: Settings) -> Path:
    return settings.cache / "probes.json"


def stored(settings: Settings) -> dict[Identity, ProbeResult]:
    """All results of the file that can be read, whatever they hold for."""
    try:
        status = results_file(settings).stat()
    except OSError:
        return {}
    return dict(_stored(settings, (status.st_ino, status.st_size, status.st_mtime_ns)))


@functools.lru_cache(maxsize=4)
def _stored(settings: Settings, _: tuple[int, ...]) -> dict[Identity, ProbeResult]:
    """Once per change of the file: an engine asks for a dozen kernels at every load."""
    return {result.identity: result for result in map(read_result, read_entries(settings).values()) if result}


def store(settings: Settings, results: Iterable[ProbeResult]) -> None:
    """Add results to the file, in place of those of the same kernel, shape and versions."""
    new = {result.identity: result for result in results}
    entries = {}
    for key, entry in read_entries(settings).items():
        result = read_result(entry)
        if result is None or result.identity not in new:
            entries[key] = entry
    for identity, result in new.items():
        entries[hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]] = asdict(result)
    path = results_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    os.replace(part, path)


def read_entries(settings: Settings) -> dict[str, object]:
    """The file's entries as they are; what `read_result` cannot read stays there and is probed again."""
    try:
        entries = json.loads(results_file(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s): nothing is known of the kernels", results_file(settings), error)
        return {}
    return entries if isinstance(entries, dict) else {}


def read_result(entry: object) -> ProbeResult | None:
    """An entry of the file, which another version may have written or a full disk cut off; None if it is none."""
    if not isinstance(entry, dict):
        return None
    values = {field.name: entry[field.name] for field in fields(ProbeResult) if field.name in entry}
    numbers = [field.name for field in fields(ProbeResult) if isinstance(field.default, float)]
    for field in fields(ProbeResult):
        if not isinstance(values.get(field.name, field.default), (int, float) if field.name in numbers else str):
            return None
    return ProbeResult(**values)


def remembered(settings: Settings, card: str = "") -> list[ProbeResult]:
    """All results that hold on this machine as it is now; with a card (torch's name for it) only if they are of it."""
    machine = hardware.machine_of(card)
    if card and not machine:
        return []
    results = stored(settings).values()
    tried = {(result.kind, result.name) for result in results}
    probes = [probe for probe in PROBES if (probe.kind, probe.name) in tried]
    now = {(probe.kind, probe.name): versions(probe, machine, settings) for probe in probes}
    return [result for result in results if now.get((result.kind, result.name)) == result.versions]


def best(
    kind: str, settings: Settings, model: str = "", allowed: tuple[str, ...] = (), card: str = ""
) -> tuple[str, str]:
    """(name, reason) of the fastest kernel that is ok, as an engine's configuration calls it; ("", why) if none.

    kind     attention | cross | gemm | modulate | norm | rope | compile | blocks | decoder
    model    only results for that model's shapes; its largest shape decides
    allowed  names to choose from; empty: every one that an engine can be told
    card     only what was found on it; empty: on the first of this machine
    """
    results = [result for result in remembered(settings, card) if result.kind == kind and result.choice]
    results = [result for result in results if not allowed or result.choice in allowed]
    if model:
        results = [result for result in results if result.shape.partition(" ")[0] == model]
    if not results:
        return "", f"no {kind} kernel has been probed here for {model or 'any model'}: {COMMAND} probe"
    slowest: dict[str, float] = {}
    for result in results:
        slowest[result.shape] = max(slowest.get(result.shape, 0.0), result.seconds)
    shape = max(slowest, key=slowest.__getitem__)
    bad = {r.choice: r.status for r in results if r.status in ("wrong", "crashed", "failed")}  # at any shape
    right = [r for r in results if r.shape == shape and r.status == "ok" and r.choice not in bad]
    right.sort(key=lambda r: r.seconds)
    told = [f"{name} {status}" for name, status in bad.items()]
    if not right:
        return "", f"no {kind} kernel that can be chosen is right at {shape}: {', '.join(told) or 'all are absent'}"
    rivals = ", ".join([f"{r.choice} {1000 * r.seconds:.2f}" for r in right[1:]] + told)
    first = right[0]
    words = f"probed at {shape}: {1000 * first.seconds:.2f} ms, error {first.error:.1g}"
    return first.choice, words + (f"; {rivals}" if rivals else "")
