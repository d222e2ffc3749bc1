"""Which kernels are right on this machine, and how fast: each tried in a child process, and remembered.

ok        its error against float32 is what its number format must cost
wrong     it ran, and its result is further off, or not a number
crashed   the child ended by a signal or an exit code, as kernels built for another GPU do, or gave no answer in time
failed    it raised
absent    a package is not installed, or the kernel is not for this machine or shape; says which

Results are kept in <cache>/probes.json under the GPU, its driver, and the versions of torch, triton and the
kernel's packages: after an upgrade of any of them the kernel is probed again. They are written kernel by kernel, so
that an interrupted run goes on where it was; kernels that are compiled at their first call come last. Nothing here
imports torch.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wan_ui.catalog import Model, load_catalog
from wan_ui.machine.hardware import installed, lightx2v_missing
from wan_ui.machine.probes import PROBES, Probe, Shape
from wan_ui.settings import ROOT, Settings, child_environment

log = logging.getLogger(__name__)

LIMIT = 90.0  # seconds for one kernel on all its shapes; imports and compiling are most of it
DISTRIBUTIONS = {
    "flash_attn": "flash-attn",
    "flash_attn_interface": "flash-attn-3",
    "sgl_kernel": "sgl-kernel",
    "flashinfer": "flashinfer-python",
}


@dataclass(frozen=True)
class Result:
    """One kernel on one shape. seconds and error are -1 where it gave none; versions is part of the cache's key."""

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


def shape_of(model: Model, width: int, height: int, frames: int) -> Shape:
    """What the transformer blocks of `model` work on at that size. Raises UserError for a damaged config."""
    released = model.family.transformer
    dim, heads, ffn = released.width, released.heads, released.ffn
    if model.embedded:
        file = ROOT / model.root.removeprefix("embedded:") / model.family.experts[0].config
        config = json.loads(file.read_text(encoding="utf-8"))
        dim, heads, ffn = config["dim"], config["num_heads"], config["ffn_dim"]
    tokens = model.family.tokens(width, height, frames)
    return Shape(f"{model.name} {width}x{height}x{frames}", tokens, heads, dim // heads, ffn)


def default_shapes(settings: Settings) -> list[Shape]:
    """Wan-Tiny's; on a GPU also those of A14B at 480x480 and 832x480."""
    catalog = load_catalog(settings.catalog)
    tiny = catalog["wan-tiny"]
    shapes = [shape_of(tiny, *tiny.sizes[0], tiny.default_frames)]
    if gpu():
        model = catalog["i2v-a14b"]
        shapes += [shape_of(model, *size, model.default_frames) for size in model.sizes[:2]]
    return shapes


# ---------------------------------------------------------------- what the results hold for


def gpus() -> list[dict[str, str]]:
    """{"name", "driver", "memory"} of every GPU by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.strip().splitlines()]
    if done.returncode or any(len(row) != 3 for row in rows):
        return []
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows]


def gpu() -> dict[str, str]:
    """The first of `gpus`; {} where there is none."""
    return next(iter(gpus()), {})


def machine_of(card: str) -> dict[str, str]:
    """The GPU that torch calls `card` (a part of one is "NAME MIG ..."); without a card the first; {} if none is it."""
    first = gpu()
    if not card or card == first.get("name"):
        return first
    return next((row for row in gpus() if card == row["name"] or card.startswith(f"{row['name']} MIG ")), {})


def version(package: str) -> str:
    """Of an installed distribution, by its import name; "" if unknown."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    return ""


def versions(probe: Probe, machine: dict[str, str], settings: Settings) -> str:
    """All that a result depends on, in words."""
    words = [f"{machine['name']}, driver {machine['driver']}" if machine else platform.machine()]
    for name in dict.fromkeys(("torch", "triton", *probe.packages)):
        there = not lightx2v_missing(settings) if name == "lightx2v" else bool(installed((name,)))
        words.append(f"{name} {version(name) or 'without a version' if there else 'absent'}")
    return ", ".join(words)


# ---------------------------------------------------------------- trying


def run(
    settings: Settings,
    shapes: list[Shape],
    *,
    kinds: tuple[str, ...] = (),
    again: bool = False,
    limit: float = LIMIT,
    probes: tuple[Probe, ...] = PROBES,
    report: Callable[[str], None] = lambda words: None,
    card: str = "",
) -> list[Result]:
    """Every kernel on every shape; from the cache what is known already, unless `again`.

    kinds  attention, gemm, modulate, norm, rope, compile; empty: all
    limit  seconds for one kernel; one that is not done by then has crashed, and the next one is tried
    card   torch's name of the GPU that a child will take; empty: the first that nvidia-smi lists
    """
    machine, known = machine_of(card), _read(settings)
    probes = tuple(probe for probe in probes if not kinds or probe.kind in kinds)
    keys = {probe: versions(probe, machine, settings) for probe in probes}
    for number, probe in enumerate(sorted(probes, key=lambda probe: "triton" in probe.packages), start=1):
        key = keys[probe]
        wanted = [shape for shape in shapes if again or _result(known.get(_key(probe, shape, key))) is None]
        if wanted:
            report(f"{number}/{len(probes)} {probe.kind}: {probe.name}")
            for shape, answer in zip(wanted, _try(probe, wanted, settings, machine, limit), strict=True):
                known[_key(probe, shape, key)] = asdict(judge(probe, shape, answer, key))
            # What did not fit beside something else may fit the next time.
            _write(settings, {key: entry for key, entry in known.items() if "OutOfMemoryError" not in str(entry)})
    return [_result(known[_key(probe, shape, keys[probe])]) for probe in probes for shape in shapes]


def judge(probe: Probe, shape: Shape, answer: dict, key: str) -> Result:
    facts = {"kind": probe.kind, "name": probe.name, "shape": shape.name, "choice": probe.choice, "versions": key}
    if answer["status"] != "ran":
        return Result(**facts, status=answer["status"], why=answer["why"], allowed=probe.allowed)
    error = answer["error"]
    right = math.isfinite(error) and error <= probe.allowed
    return Result(
        **facts,
        status="ok" if right else "wrong",
        why="" if right else f"relative error {error:.2g}, allowed {probe.allowed:g}",
        seconds=answer["seconds"],
        error=error if math.isfinite(error) else -1.0,
        allowed=probe.allowed,
    )


def _try(probe: Probe, shapes: list[Shape], settings: Settings, machine: dict, limit: float) -> list[dict]:
    """The child's answers, one per shape; what it could not answer any more says how it ended."""
    missing = _missing(probe, settings, machine)
    if missing:
        return [{"status": "absent", "why": missing}] * len(shapes)
    answers, end = [], time.monotonic() + limit
    while len(answers) < len(shapes):  # after a crash the remaining shapes get a child of their own
        left = shapes[len(answers) :]
        done = _child(probe.function, left, settings, end - time.monotonic())
        answers += done[: len(left)]
        if time.monotonic() >= end and len(answers) < len(shapes):
            late = shapes[len(answers) - 1].name
            answers += [
                {"status": "crashed", "why": f"not tried: there was no answer at {late} within {limit:g} s"}
            ] * (len(shapes) - len(answers))
    return answers


def _child(function: str, shapes: list[Shape], settings: Settings, limit: float) -> list[dict]:
    """At least one answer: the last may be a crash, or that `limit` seconds were over."""
    command = [sys.executable, "-m", "wan_ui.machine.probes", function, json.dumps([asdict(shape) for shape in shapes])]
    environ = child_environment({"WAN_UI_LIGHTX2V_PATH": settings.lightx2v_path})
    # Files, not pipes, and a process group: compilers start processes that would keep a pipe open for ever.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environ, cwd=ROOT, start_new_session=True)
        try:
            child.wait(limit)
            ending = ""
        except subprocess.TimeoutExpired:
            ending = f"timeout: no answer within {limit:.0f} s; --limit gives it more"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output, errors = (file.seek(0) or file.read().decode(errors="replace") for file in (stdout, stderr))
    answers = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError, AttributeError, KeyError):  # libraries print too
            answer = json.loads(line)
            if "status" in answer:
                answers.append(answer)
    if len(answers) < len(shapes):
        answers.append({"status": "crashed", "why": ending or _ending(child.returncode, errors)})
    return answers


def _ending(code: int, stderr: str) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    words = [line for line in stderr.strip().splitlines() if line.strip()]
    return f"ended with exit code {code}" + (f": {words[-1][:200]}" if words else "")


def _missing(probe: Probe, settings: Settings, machine: dict) -> str:
    if probe.cuda and not machine:
        return "needs a CUDA GPU"
    for package in probe.packages:
        if package == "lightx2v":
            why = lightx2v_missing(settings)
            if why:
                return why
        elif not installed((package,)):
            return f"{package} is not installed"
    return ""


# ---------------------------------------------------------------- remembering


def _file(settings: Settings) -> Path:
    return settings.cache / "probes.json"


def _key(probe: Probe, shape: Shape, versions: str) -> str:
    text = json.dumps([probe.kind, probe.name, probe.function, asdict(shape), versions])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(settings: Settings) -> dict:
    """The file's entries as they are; what `_result` cannot read stays there and is probed again."""
    try:
        entries = json.loads(_file(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s): nothing is known of the kernels", _file(settings), error)
        return {}
    return entries if isinstance(entries, dict) else {}


def _result(entry) -> Result | None:
    """An entry of the file, which another version may have written or a full disk cut off; None if it is none."""
    if not isinstance(entry, dict):
        return None
    values = {field.name: entry[field.name] for field in fields(Result) if field.name in entry}
    right = {str: str, float: (int, float)}
    if not all(isinstance(values.get(field.name, field.default), right[field.type]) for field in fields(Result)):
        return None
    return Result(**values)


def _write(settings: Settings, known: dict[str, dict]) -> None:
    path = _file(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(known, indent=1), encoding="utf-8")
    os.replace(part, path)


def remembered(settings: Settings, card: str = "") -> list[Result]:
    """All results that hold on this machine as it is now; with a card (torch's name for it) only if they are of it."""
    machine = machine_of(card)
    if card and not machine:
        return []
    now = {(probe.kind, probe.name): versions(probe, machine, settings) for probe in PROBES}
    results = filter(None, map(_result, _read(settings).values()))
    return [result for result in results if now.get((result.kind, result.name)) == result.versions]


def best(
    kind: str, settings: Settings, model: str = "", allowed: tuple[str, ...] = (), card: str = ""
) -> tuple[str, str]:
    """(name, reason) of the fastest kernel that is ok, as an engine's configuration calls it; ("", why) if none.

    kind     attention | gemm | modulate | norm | rope | compile
    model    only results for that model's shapes; its largest shape decides
    allowed  names to choose from; empty: every one that an engine can be told
    card     only what was found on it; empty: on the first of this machine
    """
    results = [result for result in remembered(settings, card) if result.kind == kind and result.choice]
    results = [result for result in results if not allowed or result.choice in allowed]
    if model:
        results = [result for result in results if result.shape.partition(" ")[0] == model]
    if not results:
        return "", f"no {kind} kernel has been probed here for {model or 'any model'}: python -m wan_ui probe"
    slowest: dict[str, float] = {}
    for result in results:
        slowest[result.shape] = max(slowest.get(result.shape, 0.0), result.seconds)
    shape = max(slowest, key=slowest.__getitem__)
    bad = {r.choice: r.status for r in results if r.status in ("wrong", "crashed", "failed")}  # at any shape
    right = [r for r in results if r.shape == shape and r.status == "ok" and r.choice not in bad]
    right.sort(key=lambda r: r.seconds)
    bad = [f"{name} {status}" for name, status in bad.items()]
    if not right:
        return "", f"no {kind} kernel that can be chosen is right at {shape}: {', '.join(bad) or 'all are absent'}"
    rivals = ", ".join([f"{r.choice} {1000 * r.seconds:.2f}" for r in right[1:]] + bad)
    first = right[0]
    words = f"probed at {shape}: {1000 * first.seconds:.2f} ms, error {first.error:.1g}"
    return first.choice, words + (f"; {rivals}" if rivals else "")
