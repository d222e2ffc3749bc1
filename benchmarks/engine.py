"""Seconds of each stage of the diffusers engine, cold and warm: python benchmarks/engine.py [--model M] [--scheme S]

Cold is a fresh process: import, load, first clip. Warm is the median of --runs clips, each with a new
picture and prompt, so that nothing comes out of the caches. `python -m wan_ui bench` measures whole jobs
(queue, worker, MP4); this one looks inside the engine. A table for people, the last line JSON.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STAGES = ("text", "image", "denoise", "decode")


def write_picture(path: Path, width: int, height: int, seed: int) -> None:
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)


def measure(arguments: argparse.Namespace, width: int, height: int, frames: int) -> dict:
    """Run in a fresh process: import, load, one cold clip, then warm ones."""
    started = time.perf_counter()
    from wan_ui.catalog import find_model, load_catalog
    from wan_ui.engines.diffusers import DiffusersEngine
    from wan_ui.queue.stage_clock import StageClock
    from wan_ui.request import Request, Sampling
    from wan_ui.settings import settings

    result = {"width": width, "height": height, "frames": frames, "import": time.perf_counter() - started}
    model = find_model(load_catalog(settings().catalog), arguments.model)
    if arguments.root:
        model = replace(model, root=f"embedded:{arguments.root}")
    scheme = model.scheme(arguments.scheme)
    engine = DiffusersEngine()
    started = time.perf_counter()
    engine.load(model, scheme, lambda progress: None)
    result["load"] = time.perf_counter() - started

    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(arguments.runs + 1):
            picture = Path(folder) / f"{run}.png"
            write_picture(picture, width, height, run)
            steps = arguments.steps or model.default_steps
            made = Sampling(f"zoom in {run}", model.name, scheme.name, "diffusers", steps, run)
            request = Request("image-to-video", {"image": str(picture)}, width, height, frames, made)
            clock = StageClock(lambda message: None, threading.Event())
            clip = engine.generate(request, clock.report)
            seconds = clock.seconds()
            clips.append(seconds | {"clip": sum(seconds.values())})
    result["cold"], warm = clips[0], clips[1:]
    result["warm"] = {key: statistics.median(clip[key] for clip in warm) for key in clips[0]}
    result["facts"] = clip.facts
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="wan-tiny")
    parser.add_argument("--root", default="", help="folder to take an embedded model's files from instead")
    parser.add_argument("--scheme", default="")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3, help="warm clips per size")
    parser.add_argument("--sizes", nargs="*", default=["256x256x25"], help="WIDTHxHEIGHTxFRAMES ...")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments, *map(int, arguments.sizes[0].split("x")))))
        return

    results = []
    columns = ("import", "load", "clip", *STAGES)
    print(f"{'':24}" + "".join(f"{column:>9}" for column in columns))
    for size in arguments.sizes:
        options = ["--model", arguments.model, "--root", arguments.root, "--scheme", arguments.scheme]
        options += ["--steps", str(arguments.steps), "--runs", str(arguments.runs), "--sizes", size, "--child"]
        done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        result = json.loads(done.stdout.splitlines()[-1])
        for state in ("cold", "warm"):
            values = (result if state == "cold" else {}) | result[state]
            cells = "".join(f"{values[column]:9.2f}" if column in values else f"{'':9}" for column in columns)
            print(f"{size + ' ' + state:24}{cells}", flush=True)
        results.append(result)
    for key, value in results[-1]["facts"].items():
        print(f"{key:10} {value}")
    print(json.dumps({"machine": platform.processor() or platform.machine(), "results": results}))


if __name__ == "__main__":
    main()
