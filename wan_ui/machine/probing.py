"""Each kernel tried in a child process, whatever it does there, and the result stored.

Results are written kernel by kernel, so that an interrupted run goes on where it was; kernels that are compiled at
their first call come last. Nothing here imports torch.
"""

import contextlib
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from wan_ui.machine import hardware
from wan_ui.machine.engine_choice import lightx2v_missing
from wan_ui.machine.probe_results import ProbeResult, store, stored, versions
from wan_ui.machine.probes import PROBES, Probe
from wan_ui.machine.shapes import Shape
from wan_ui.settings import ROOT, Settings, child_environment
from wan_ui.system import end_family

Answer = dict[str, Any]  # a line of probe_child: status, and error, seconds, why, out_of_memory where it has them
LIMIT = 90.0  # seconds for one kernel on all its shapes; imports and compiling are most of it


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
) -> list[ProbeResult]:
    """Every kernel on every shape; from the cache what is known already, unless `again`.

    kinds  attention, cross, gemm, modulate, norm, rope, compile, blocks, decoder; empty: all
    limit  seconds for one kernel; one that is not done by then has crashed, and the next one is tried
    card   torch's name of the GPU that a child will take; empty: the first that nvidia-smi lists
    """
    machine, known = hardware.machine_of(card), stored(settings)
    probes = tuple(probe for probe in probes if not kinds or probe.kind in kinds)
    keys = {probe: versions(probe, machine, settings) for probe in probes}
    for number, probe in enumerate(sorted(probes, key=lambda probe: "triton" in probe.packages), start=1):
        key = keys[probe]
        wanted = [shape for shape in shapes if again or (probe.kind, probe.name, shape.name, key) not in known]
        if wanted:
            report(f"{number}/{len(probes)} {probe.kind}: {probe.name}")
            answers = _try(probe, wanted, settings, machine, limit)
            judged = [judge(probe, shape, answer, key) for shape, answer in zip(wanted, answers, strict=True)]
            known |= {result.identity: result for result in judged}
            # What did not fit beside something else may fit the next time.
            crowded = [answer.get("out_of_memory", False) for answer in answers]
            store(settings, [result for result, full in zip(judged, crowded, strict=True) if not full])
    return [known[probe.kind, probe.name, shape.name, keys[probe]] for probe in probes for shape in shapes]


def judge(probe: Probe, shape: Shape, answer: Answer, key: str) -> ProbeResult:
    facts: dict[str, Any] = {
        "kind": probe.kind,
        "name": probe.name,
        "shape": shape.name,
        "choice": probe.choice,
        "versions": key,
    }
    if answer["status"] != "ran":
        return ProbeResult(**facts, status=answer["status"], why=answer["why"], allowed=probe.allowed)
    error = answer["error"]
    right = math.isfinite(error) and error <= probe.allowed
    return ProbeResult(
        **facts,
        status="ok" if right else "wrong",
        why="" if right else f"relative error {error:.2g}, allowed {probe.allowed:g}",
        seconds=answer["seconds"],
        error=error if math.isfinite(error) else -1.0,
        allowed=probe.allowed,
    )


def _try(probe: Probe, shapes: list[Shape], settings: Settings, machine: dict[str, str], limit: float) -> list[Answer]:
    """The child's answers, one per shape; what it could not answer any more says how it ended."""
    missing = _missing(probe, settings, machine)
    if missing:
        return [{"status": "absent", "why": missing}] * len(shapes)
    answers: list[Answer] = []
    end = time.monotonic() + limit
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


def _child(function: str, shapes: list[Shape], settings: Settings, limit: float) -> list[Answer]:
    """At least one answer: the last may be a crash, or that `limit` seconds were over."""
    wanted = json.dumps([asdict(shape) for shape in shapes])
    command = [sys.executable, "-m", "wan_ui.machine.probe_child", function, wanted]
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
            end_family(child)
            child.wait()
        for file in (stdout, stderr):
            file.seek(0)
        output, errors = (file.read().decode(errors="replace") for file in (stdout, stderr))
    answers: list[Answer] = []
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


def _missing(probe: Probe, settings: Settings, machine: dict[str, str]) -> str:
    if probe.cuda and not machine:
        return "needs a CUDA GPU"
    for package in probe.packages:
        if package == "lightx2v":
            if missing := lightx2v_missing(settings):
                return missing
        elif not hardware.installed((package,)):
            return f"{package} is not installed"
    return ""
