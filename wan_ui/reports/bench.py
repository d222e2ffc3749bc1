"""python -m wan_ui bench: seconds from start to the first clip, seconds of a warm clip, peak memory.

The clips take the way of every job (queue, worker, engine, MP4) in a temporary outputs folder. What
is measured on a machine says nothing about another: the table names the processor or GPU.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wan_ui.catalog import Model, find_model
from wan_ui.engines import schedule
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.media import muxer
from wan_ui.media.muxer import read_frames
from wan_ui.performance import skeleton
from wan_ui.qa import floors, synthetic, toy
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.worker import ENGINE_FACTORY
from wan_ui.request import STAGES, Sampling
from wan_ui.settings import ROOT, Settings
from wan_ui.tasks import TASKS, find_task


def machine() -> str:
    """The processor's name, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        name = next(lines, f":{name}").partition(":")[2].strip()
    return f"{name}, {allowed_cpus()} cores"


def import_seconds(module: str = "wan_ui.ui") -> tuple[float, bool]:
    """Seconds that a fresh interpreter needs to import the page, and whether torch came along."""
    code = f"import sys, time; t = time.time(); import {module}; print(time.time() - t, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    seconds, torch_loaded = done.stdout.split()
    return float(seconds), torch_loaded == "True"


def at_toy_size(settings: Settings, draft: Draft) -> bool:
    """Whether random weights of the draft's model are small ones here: there is no GPU for those of full size."""
    return places.lacks_gpu(find_model(found.models(settings), draft.model or settings.model))


def lay_out(settings: Settings, draft: Draft, folder: str, *, small: bool) -> tuple[Settings, Draft]:
    """Files of random weights for the draft's model below `folder`: settings that find them and nothing that is here
    already, and the draft, at toy size with sizes to match."""
    models = Path(folder) / "models"
    models.mkdir()
    settings = replace(settings, models=models, comfyui="")
    model = find_model(found.models(settings), draft.model or settings.model)
    if small:
        size, frames = toy.in_place_of(model, draft.size, draft.frames)
        draft, settings = replace(draft, size=size, frames=frames), toy.shrink(settings, Path(folder))
    engine = choose_engine(draft.engine or settings.engine, settings, family=model.family).name
    synthetic.write(model, model.scheme(draft.scheme or settings.scheme), settings, engine, small=small)
    return settings, draft


def bench(settings: Settings, draft: Draft, clips: int, *, random_weights: bool = False) -> dict:
    """Run one cold and `clips` warm jobs of `draft`. Raises UserError if one of them fails.

    random_weights  in place of the model's files: see wan_ui.qa.synthetic. Without a GPU that the model needs, small
                    ones: see wan_ui.qa.toy
    """
    model = find_model(found.models(settings), draft.model or settings.model)
    asked = find_task(draft.task)
    tasks = [asked] if asked else [TASKS[name] for name in model.tasks]
    if not any(task.driven for task in tasks):
        draft = replace(draft, inputs={name: value for name, value in draft.inputs.items() if name != "audio"})
    takes_picture = any(task.input("image") for task in tasks)
    small = random_weights and at_toy_size(settings, draft)
    with tempfile.TemporaryDirectory(prefix="wan-ui-bench-") as folder:
        settings = replace(settings, outputs=Path(folder))
        factory = ENGINE_FACTORY
        if random_weights:
            settings, draft = lay_out(settings, draft, folder, small=small)
            factory = "wan_ui.qa.synthetic:create_engine"
        pipeline = Pipeline()
        started = time.monotonic()
        pipeline.open(settings, warm=False, engine_factory=factory)
        try:
            jobs, seconds = [], []
            for number in range(clips + 1):
                # Another seed and another picture each time: nothing may come out of a cache.
                given = dict(draft.inputs)
                if takes_picture:
                    given["image"] = shifted(draft.inputs["image"], number, folder)
                else:
                    given.pop("image", None)
                if any(task.performed for task in tasks):
                    given["pose_video"] = _pose(number, model, folder, small)
                job = pipeline.wait(pipeline.submit(replace(draft, inputs=given, seed=number)))
                if job.state != "done":
                    raise UserError(f"bench: the job {job.state}: {job.error}")
                jobs.append(job)
                seconds.append(time.monotonic() - started)
                if not read_frames(pipeline.made(job))[0].std() > 0:
                    raise UserError("bench: the clip is of one colour: the engine made numbers that are none")
                started = time.monotonic()
        finally:
            pipeline.close()
    request, made, facts = jobs[0].request, jobs[0].request.sampling, jobs[0].result.facts
    size = (request.width, request.height, request.frames)
    least, least_of = (
        ({}, "none at toy size") if small else floors.of_run(model, model.scheme(made.scheme), facts, size)
    )
    imported, torch_loaded = import_seconds()
    warm = jobs[1:]
    stages = {s: statistics.median(job.result.seconds.get(s, 0.0) for job in warm) for s in STAGES if s != "load"}
    steps = [statistics.median(times) for times in zip(*(job.result.step_seconds for job in warm), strict=True)]
    memory = {name: max(job.result.memory[name] for job in jobs) for name in jobs[0].result.memory}
    return {
        "machine": machine(),
        "label": toy.LABEL if small else "",
        "model": made.model,
        "scheme": made.scheme,
        "engine": jobs[0].result.facts["engine"],
        "facts": facts,
        "card": machine() if facts.get("device", "").startswith("cpu") else facts.get("device", ""),
        "size": f"{request.width}x{request.height}",
        "frames": request.frames,
        "steps": made.steps,
        "first_clip_s": round(seconds[0], 2),
        "load_s": round(jobs[0].result.load_seconds or 0.0, 2),
        "warm_clip_s": round(statistics.median(seconds[1:]), 2),
        "stages_s": {stage: round(spent, 3) for stage, spent in stages.items() if spent},
        "steps_s": [round(spent, 3) for spent in steps],
        "expert_step_s": _of_experts(model, made, steps),
        "floors_s": {stage: round(seconds, 4) for stage, seconds in least.items()},
        "floors_of": least_of,
        "memory_gib": memory,
        "import_ui_s": round(imported, 2),
        "import_ui_loads_torch": torch_loaded,
    }


def _of_experts(model: Model, made: Sampling, steps: list[float]) -> dict[str, float]:
    """Seconds of one step of each expert that took one: the median."""
    taken: dict[str, list[float]] = {}
    for step, seconds in zip(schedule.steps_of(made, model), steps, strict=False):
        taken.setdefault(model.family.experts[step.expert].title, []).append(seconds)
    return {title: round(statistics.median(spent), 3) for title, spent in taken.items()}


def shifted(path: str, number: int, folder: str) -> str:
    """The picture, shifted by `number` pixels."""
    image = Image.open(path).convert("RGB")
    moved = Path(folder) / f"picture-{number}.png"
    image.transform(image.size, Image.Transform.AFFINE, (1, 0, number, 0, 1, 0)).save(moved)
    return str(moved)


def _pose(number: int, model: Model, folder: str, small: bool) -> str:
    """A drawn skeleton that waves: one segment long, at toy size two."""
    count = 25 if small else model.default_frames
    moved = Path(folder) / f"pose-{number}.mp4"
    muxer.write_mp4((skeleton.waving(k / 8 + number, 480, 480) for k in range(count)), moved, model.fps)
    return str(moved)


def failures(figures: dict, max_seconds: float, max_gib: float) -> list[str]:
    """Which limits the figures miss, in words; 0 is no limit. GPU memory counts with the CUDA context's share."""
    missed = []
    if max_seconds and figures["warm_clip_s"] > max_seconds:
        missed.append(f"a clip takes {figures['warm_clip_s']} s, more than the {max_seconds:g} s allowed")
    peak = peak_gib(figures["memory_gib"])
    if max_gib and peak > max_gib:
        missed.append(f"memory peaks at {peak:.2f} GiB, more than the {max_gib:g} GiB allowed")
    return missed


def peak_gib(memory: dict[str, float]) -> float:
    """Of the GPU where one was used, else of the worker process."""
    return memory["gpu_peak"] + memory["gpu_context"] if "gpu_peak" in memory else memory["host_peak"]


def print_table(figures: dict) -> None:
    """A table for people."""
    stages = ", ".join(f"{stage} {seconds}" for stage, seconds in figures["stages_s"].items())
    memory, gpu = figures["memory_gib"], {}
    if "gpu_peak" in memory:
        gpu["GPU memory"] = (
            f"{memory['gpu_resident']} GiB resident, {memory['gpu_peak']} GiB at most, and {memory['gpu_context']} GiB "
            "for CUDA itself"
        )
    choices = (
        *("attention", "kernel", "offload", "compile", "modulate", "rope", "dtype", "patches"),
        *("motion", "distill LoRA", "guidance", "solver", "step cache", "draft"),
    )
    gpu |= {name: figures["facts"][name] for name in choices if name in figures["facts"]}
    torch = "torch loaded" if figures["import_ui_loads_torch"] else "without torch"
    rows = {
        "machine": figures["machine"],
        **({"size": figures["label"]} if figures["label"] else {}),
        "model": f"{figures['model']}, {figures['scheme']}, {figures['engine']}",
        "clip": f"{figures['size']}, {figures['frames']} frames, {figures['steps']} steps",
        "first clip after start": f"{figures['first_clip_s']} s, of which load {figures['load_s']} s",
        "warm clip": f"{figures['warm_clip_s']} s ({stages})",
        "denoise steps": " ".join(f"{spent} s" for spent in figures["steps_s"]),
        "peak memory of the worker": f"{memory['host_peak']} GiB",
        **gpu,
        "import of the page": f"{figures['import_ui_s']} s, {torch}",
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
