"""python -m wan_ui bench: seconds from start to the first clip, seconds of a warm clip, peak memory.

The clips take the way of every job (queue, worker, engine, MP4) in a temporary outputs folder. What
is measured on a machine says nothing about another: the table names the processor or GPU.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wan_ui.errors import UserError
from wan_ui.intake import Draft
from wan_ui.pipeline import Pipeline
from wan_ui.request import STAGES
from wan_ui.settings import ROOT, Settings


def machine() -> str:
    """The processor's name, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, f":{name}").partition(":")[2].strip()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def import_seconds(module: str = "wan_ui.ui") -> tuple[float, bool]:
    """Seconds that a fresh interpreter needs to import the page, and whether torch came along."""
    code = f"import sys, time; t = time.time(); import {module}; print(time.time() - t, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, torch_loaded = done.stdout.split()
    return float(seconds), torch_loaded == "True"


def peak_gib(pid: int) -> float:
    """Largest resident memory the process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20


def bench(settings: Settings, draft: Draft, clips: int) -> dict:
    """Run one cold and `clips` warm jobs of `draft`. Raises UserError if one of them fails."""
    with tempfile.TemporaryDirectory(prefix="wan-ui-bench-") as folder:
        pipeline = Pipeline()
        started = time.monotonic()
        pipeline.open(replace(settings, outputs=Path(folder)), warm=False)
        try:
            jobs, seconds = [], []
            for number in range(clips + 1):
                # Another seed and another picture each time: nothing may come out of a cache.
                job = pipeline.wait(
                    pipeline.submit(replace(draft, image=_picture(draft.image, number, folder), seed=number))
                )
                if job.state != "done":
                    raise UserError(f"bench: the job {job.state}: {job.error}")
                jobs.append(job)
                seconds.append(time.monotonic() - started)
                started = time.monotonic()
            memory = peak_gib(pipeline._worker.process.pid)
        finally:
            pipeline.close()
    imported, torch_loaded = import_seconds()
    warm = jobs[1:]
    stages = {s: statistics.median(job.result["seconds"].get(s, 0.0) for job in warm) for s in STAGES if s != "load"}
    request = jobs[0].request
    return {
        "machine": machine(),
        "model": request.model,
        "scheme": request.scheme,
        "engine": jobs[0].result["facts"]["engine"],
        "size": f"{request.width}x{request.height}",
        "frames": request.frames,
        "steps": request.steps,
        "first_clip_s": round(seconds[0], 2),
        "warm_clip_s": round(statistics.median(seconds[1:]), 2),
        "stages_s": {stage: round(spent, 2) for stage, spent in stages.items()},
        "peak_memory_gib": round(memory, 2),
        "import_ui_s": round(imported, 2),
        "import_ui_loads_torch": torch_loaded,
    }


def _picture(path: str, number: int, folder: str) -> str:
    """The picture, shifted by `number` pixels."""
    image = Image.open(path).convert("RGB")
    moved = Path(folder) / f"picture-{number}.png"
    image.transform(image.size, Image.Transform.AFFINE, (1, 0, number, 0, 1, 0)).save(moved)
    return str(moved)


def print_table(figures: dict) -> None:
    """A table for people, then one JSON line for scripts."""
    stages = ", ".join(f"{stage} {seconds}" for stage, seconds in figures["stages_s"].items())
    torch = "torch loaded" if figures["import_ui_loads_torch"] else "without torch"
    rows = {
        "machine": figures["machine"],
        "model": f"{figures['model']}, {figures['scheme']}, {figures['engine']}",
        "clip": f"{figures['size']}, {figures['frames']} frames, {figures['steps']} steps",
        "first clip after start": f"{figures['first_clip_s']} s",
        "warm clip": f"{figures['warm_clip_s']} s ({stages})",
        "peak memory of the worker": f"{figures['peak_memory_gib']} GiB",
        "import of the page": f"{figures['import_ui_s']} s, {torch}",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    print(json.dumps(figures))
