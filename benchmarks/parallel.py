"""One clip on several GPUs of one machine: stock LightX2V and ours, on 1, 2, 4 ... of them, in one call.

python -m benchmarks.parallel --gpus 1,2,4 --out parallel.jsonl  # needs WAN_UI_LIGHTX2V_PATH and the GPUs; 8 minutes
python -m benchmarks.parallel --toy --only ours --gpus 1,2,4 --out toy.jsonl  # the same way with Wan-Tiny on a CPU

Random full-size weights of A14B, drawn on each GPU. Each case is as many processes as it has GPUs, with a time limit
for all of them: one that fails or hangs ends its own case alone. Cases that fit beside each other run at the same time
on GPUs of their own; while they run, the processes of the next ones import. Figures are JSON lines, written as they
come: a step, the clip and its stages as benchmarks/lightx2v_gpu.py times them; where the time of a step goes (profile);
and how far a step of each expert, the encoded picture and the decoded frames are from those of one GPU.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from benchmarks.lightx2v_gpu import LAST_WORD, Ours, Stock
from wan_ui import settings as settings_module
from wan_ui.catalog import load_catalog
from wan_ui.qa import synthetic
from wan_ui.qa.stages import ACTIVATIONS, ARITHMETIC, EIGHT_BITS
from wan_ui.settings import child_environment, load_settings

MODEL, TOY = "i2v-a14b", "wan-tiny"
SIZES = ((480, 480), (832, 480), (1280, 720))
COMPARED = 2  # of the sizes; the others are timed alone
# The most important first. (who, scheme, sizes)
CASES = (
    ("ours", "fp8", SIZES),
    ("stock", "fp8", SIZES[:2]),
    ("ours", "bf16", SIZES[:2]),
    ("stock", "bf16", SIZES[:2]),
)
# Those of the doctor's stages: one GPU's outputs and several GPUs' differ by rounding alone.
ENCODERS, STEP = ARITHMETIC["bfloat16"]
TOLERANCE = {"fp8": STEP + ACTIVATIONS, "bf16": STEP}
KINDS = {  # of kernels, by what is in their names
    "exchange": r"nccl",
    "attention": r"flash|fmha|attention",
    "products": r"gemm|cutlass|nvjet|scaled_mm|cublas|sm90",
    "between them": r"triton|_kernel|norm|elementwise|copy|vectorized|reduce|cat",
}
GRACE = 10.0  # seconds for the other ranks, when one has ended badly
POLL = 0.1


@dataclass
class Case:
    who: str
    scheme: str
    sizes: tuple[tuple[int, int], ...]
    gpus: tuple[int, ...] = ()
    processes: list[subprocess.Popen] = field(default_factory=list)
    started: float = 0.0
    failed: float = 0.0
    read: int = 0  # of the first rank's lines
    done: bool = False

    @property
    def name(self) -> str:
        return f"{self.who}-{self.scheme}-{len(self.gpus)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs that share a clip; the largest are what is used")
    parser.add_argument("--out", type=Path, default=Path("parallel.jsonl"))
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'ours-fp8-2'")
    parser.add_argument("--sizes", default="480x480 832x480 1280x720", help="those that are measured")
    parser.add_argument("--limit", type=float, default=150, metavar="S", help="seconds for one case")
    parser.add_argument("--seconds", type=float, default=450, metavar="S", help="seconds in all")
    parser.add_argument("--one-by-one", action="store_true", help="never two cases at the same time")
    parser.add_argument("--toy", action="store_true", help="Wan-Tiny and small clips, on a CPU")
    parser.add_argument("--rank", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(json.loads(args.child), args.rank)
    counts = [int(part) for part in args.gpus.split(",")]
    sizes = [size for size in SIZES if "{}x{}".format(*size) in args.sizes.split()]
    waves = plan(counts, sizes, args.only, args.one_by_one)
    begun, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="wan-ui-bench-") as folder, args.out.open("w") as out:

        def tell(row: dict) -> None:
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(json.dumps({key: row[key] for key in row if key != "facts"}), flush=True)

        run(waves, Path(folder), args.toy, args.limit, begun + args.seconds, tell)
    print(markdown(rows))
    return 0


def plan(counts: list[int], sizes: list[tuple[int, int]], only: str, one_by_one: bool) -> list[list[Case]]:
    """Cases in waves: those of a wave have GPUs of their own."""
    cases = [
        Case(who, scheme, tuple(size for size in of_case if size in sizes), tuple(range(count)))
        for who, scheme, of_case in CASES
        for count in sorted(counts)
    ]
    waiting, waves = [case for case in cases if re.search(only, case.name) and case.sizes], []
    while waiting:
        wave: list[Case] = []
        for case in list(waiting):
            used = sum(len(other.gpus) for other in wave)
            if used + len(case.gpus) <= max(counts) and not (one_by_one and wave):
                case.gpus = tuple(used + place for place in range(len(case.gpus)))
                wave.append(case)
                waiting.remove(case)
        waves.append(wave)
    return waves


def run(waves: list[list[Case]], folder: Path, is_toy: bool, limit: float, until: float, tell) -> None:
    for case in waves[0]:
        start(case, folder, is_toy)
    for number, wave in enumerate(waves):
        for case in wave:
            (folder / f"{case.name}.go").touch()
            case.started = time.monotonic()
        for case in waves[number + 1] if number + 1 < len(waves) else []:
            start(case, folder, is_toy)  # they import meanwhile
        while not all(case.done for case in wave):
            time.sleep(POLL)
            for case in wave:
                if not case.done:
                    watch(case, folder, min(limit, until - case.started), tell)
        compare_all([case for before in waves[: number + 1] for case in before], folder, tell)


def start(case: Case, folder: Path, is_toy: bool) -> None:
    values = {
        "who": case.who, "scheme": case.scheme, "sizes": case.sizes, "size": len(case.gpus), "name": case.name,
        "folder": str(folder), "toy": is_toy,
    }  # fmt: skip
    environ = child_environment({"CUDA_VISIBLE_DEVICES": "" if is_toy else ",".join(map(str, case.gpus))})
    for rank in range(len(case.gpus)):
        command = [sys.executable, "-m", "benchmarks.parallel", "--rank", str(rank), "--child", json.dumps(values)]
        with (
            (folder / f"{case.name}.{rank}.log").open("w") as log,
            (folder / f"{case.name}.{rank}.out").open("w") as to,
        ):
            case.processes.append(subprocess.Popen(command, stdout=to, stderr=log, env=environ, cwd=Path.cwd()))


def watch(case: Case, folder: Path, limit: float, tell) -> None:
    """Tell what is new; end the case where it is over, by itself or not."""
    codes = [process.poll() for process in case.processes]
    lines = (folder / f"{case.name}.0.out").read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for line in lines[case.read :]:
        if line.startswith("{"):
            tell(json.loads(line))
    case.read = len(lines)
    now, why = time.monotonic(), ""
    if not case.failed and (any(codes) or codes[0] is not None):
        case.failed = now
    if all(code is not None for code in codes):
        bad = [rank for rank, code in enumerate(codes) if code]
        why = f"rank {bad[0]}: {last_words(folder / f'{case.name}.{bad[0]}.log', codes[bad[0]])}" if bad else "ended"
    elif case.failed and now - case.failed > GRACE:
        rank = next((rank for rank, code in enumerate(codes) if code), 0)
        why = f"rank {rank}: {last_words(folder / f'{case.name}.{rank}.log', codes[rank])}"
    elif now - case.started > limit:
        why = "ran out of time"
    if not why:
        return
    for process in case.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
    case.done = True
    told = {
        tuple(row["px"]) for row in map(json.loads, filter(lambda line: line.startswith("{"), lines)) if "px" in row
    }
    for size in case.sizes:
        if size not in told:
            tell(row_of(case.who, case.scheme, len(case.gpus), size) | {"error": why})


def last_words(log: Path, code: int | None) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    found = LAST_WORD.findall(text)
    return found[-1][:400] if found else f"exit code {code}: {' '.join(text.split())[-300:]}"


def row_of(who: str, scheme: str, gpus: int, size: tuple[int, int]) -> dict:
    return {"who": who, "scheme": scheme, "gpus": gpus, "size": "{}x{}".format(*size)}


# ---------------------------------------------------------------- one rank of a case


def child(case: dict, rank: int) -> NoReturn:
    folder, size = Path(case["folder"]), case["size"]
    environ = {name: value for name, value in os.environ.items() if name.startswith("WAN_UI_")}
    config = load_settings(environ)
    if case["toy"]:
        config = replace(config, lightx2v_attention="torch_sdpa", threads=1)
        be_a_cpu(config)
    own = folder / f"{case['name']}.{rank}.files"
    own.mkdir()
    config = replace(config, models=own / "models")
    settings_module.use(config)
    import torch

    from wan_ui.engines import group

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    model = load_catalog(config.catalog)[TOY if case["toy"] else MODEL]
    scheme = model.scheme(case["scheme"])
    synthetic.write(model, scheme, config, "lightx2v")
    ours = case["who"] == "ours"
    if case["toy"]:
        model = replace(model, default_frames=9)
    # It imports while the GPUs are not ours yet.
    run = Ours(model, scheme, config) if ours else Stock(model, scheme, config, case["who"], size)
    while not (folder / f"{case['name']}.go").exists():
        time.sleep(POLL)
    if size > 1:
        group.join(rank, size, folder / f"{case['name']}.meeting")
    begun = time.monotonic()
    run.load()
    torch.cuda.synchronize()
    load = time.monotonic() - begun
    sizes = [(full, toy_size(full) if case["toy"] else full) for full in map(tuple, case["sizes"])]
    for number, (full, (width, height)) in enumerate(sizes, start=1):
        run.warm(width, height, number)
        if not ours:
            watch_stages(run)
        torch.cuda.reset_peak_memory_stats()
        seconds, marks, finite = run.clip(width, height, model.default_frames, 10 * number + 10)
        steps = [after - before for before, after in itertools.pairwise(marks)]
        if rank == 0:
            row = row_of(case["who"], case["scheme"], size, full) | {
                "px": full,
                "step_s": round(statistics.median(steps), 4),
                "steps_s": [round(step, 4) for step in steps],
                "clip_s": round(seconds, 3),
                "stages_s": {name: round(value, 3) for name, value in run.stages.items()},
                "load_s": round(load, 1),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
                "finite": finite,
                "gpu": "none, toy size" if case["toy"] else torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "facts": run.facts,
            }
            print(json.dumps(row), flush=True)
    # What slows a process down comes when all is timed.
    for number, (_, (width, height)) in enumerate(sizes[: COMPARED if ours else 0], start=1):
        path = folder / f"{case['name']}-{number}"
        outputs(run.engine, model, width, height, path if rank == 0 else None)
    for full, (width, height) in sizes[: COMPARED if ours else 0][::-1]:
        profile = step_profile(run.engine, model, width, height, rank == 0, case["toy"])
        if rank == 0:
            print(json.dumps(row_of("ours", case["scheme"], size, full) | {"profile": profile}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # not by way of the libraries' own endings, which may wait for ranks that are gone


def toy_size(full: tuple[int, int]) -> tuple[int, int]:
    return 16 * round(full[0] / 160), 16 * round(full[1] / 160)


def be_a_cpu(config) -> None:
    """What a CPU lacks for LightX2V and for the timing of GPUs."""
    settings_module.default_environment({"PLATFORM": "cpu", "SKIP_PLATFORM_CHECK": "1"})
    import diffusers  # noqa: F401 - they look for torchvision themselves: before it is mocked
    import torch
    import torch._inductor.runtime.triton_heuristics
    import torch.utils.flop_counter
    import transformers  # noqa: F401

    from tests.lightx2v.cpu import Absent, be_a_platform

    sys.meta_path.append(Absent())
    sys.path.insert(0, config.lightx2v_path)
    be_a_platform()
    torch.set_num_threads(1)
    for name, value in {"synchronize": None, "reset_peak_memory_stats": None, "max_memory_allocated": 0}.items():
        setattr(torch.cuda, name, lambda value=value: value)


def watch_stages(run) -> None:
    """Time stock's stages, by its runner's own seams."""
    import torch

    run.stages = {}
    for name, stage in {"run_input_encoder": "text and image", "run_vae_decoder": "decode"}.items():
        own = getattr(run.runner, name)
        if hasattr(own, "timed"):
            continue

        def timed(*args, own=own, stage=stage):
            torch.cuda.synchronize()
            begun = time.monotonic()
            result = own(*args)
            torch.cuda.synchronize()
            run.stages[stage] = time.monotonic() - begun
            return result

        timed.timed = True  # type: ignore[attr-defined]
        setattr(run.runner, name, timed)


def inputs_of(engine, model, width: int, height: int):
    """The same noise for every number of GPUs."""
    import torch

    generator = torch.Generator().manual_seed(0)
    frames, config = model.default_frames, engine.runner.config
    latents = torch.randn(model.family.vae.latents(width, height, frames), generator=generator)
    condition = torch.randn(model.family.condition_shape(width, height, frames), generator=generator)
    prompt = torch.randn(config["text_len"], config.get("text_dim", 4096), generator=generator)
    engine.set_size(width, height, frames)
    return latents, condition, prompt


def outputs(engine, model, width: int, height: int, path: Path | None) -> None:
    """A step of each expert, the encoded picture and the decoded frames, kept at `path` for `compare`."""
    import numpy as np
    import torch

    latents, condition, prompt = inputs_of(engine, model, width, height)
    made = {
        f"step of {expert.title}": engine.predict(latents, 0.9 - 0.5 * number, number, prompt, condition).cpu()
        for number, expert in enumerate(model.family.experts)
    }
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    made["picture"] = engine.encode_image(pixels, model.default_frames).float().cpu()
    with torch.no_grad():
        made["frames"] = engine.vae.decode(latents.to(made["picture"]), lambda progress: None)
    if path is not None:
        torch.save(made, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)


def step_profile(engine, model, width: int, height: int, watched: bool, is_toy: bool) -> dict:
    """Milliseconds of one step on this GPU: by kinds of kernels, in all, and while nothing but exchanges ran."""
    import torch
    from torch.profiler import ProfilerActivity

    latents, condition, prompt = inputs_of(engine, model, width, height)
    activity, profiler, wall, failed = ProfilerActivity.CPU if is_toy else ProfilerActivity.CUDA, None, 0.0, ""
    for _ in range(2):  # the first time it starts up
        try:
            profiler = torch.profiler.profile(activities=[activity]) if watched else None
            if profiler is not None:
                profiler.start()
        except Exception as error:  # the other ranks wait in a step
            profiler, failed = None, f"{type(error).__name__}: {error}"
        torch.cuda.synchronize()
        begun = time.monotonic()
        engine.predict(latents, 0.9, 0, prompt, condition)
        torch.cuda.synchronize()
        wall = time.monotonic() - begun
        if profiler is not None:
            profiler.stop()
    if profiler is None:
        return {"error": failed}
    sums: dict[str, float] = {}
    spans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for event in profiler.events():
        time_us = event.time_range.elapsed_us()
        name = event.name.lower()
        kind = next((kind for kind, words in KINDS.items() if re.search(words, name)), "other")
        sums[kind] = sums.get(kind, 0.0) + time_us / 1000
        spans[kind == "exchange"].append((event.time_range.start, event.time_range.end))
    rounded = {kind: round(value, 1) for kind, value in sorted(sums.items(), key=lambda item: -item[1])}
    working = covered(spans[False]) / 1000
    exposed = (covered(spans[True] + spans[False]) - covered(spans[False])) / 1000
    return rounded | {
        "wall": round(1000 * wall, 1),
        "working": round(working, 1),
        "exposed exchange": round(exposed, 1),
    }


def covered(spans: list[tuple[float, float]]) -> float:
    """How much of the time any of them lasts."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


# ---------------------------------------------------------------- what came out


def compare_all(cases: list[Case], folder: Path, tell) -> None:
    """Each of ours on several GPUs beside the one on one GPU."""
    for case in cases:
        for number, size in enumerate(case.sizes[:COMPARED], start=1):
            path, alone = folder / f"{case.name}-{number}", folder / f"ours-{case.scheme}-1-{number}"
            if case.who == "ours" and len(case.gpus) > 1 and path.exists() and alone.exists():
                try:
                    told = compare(path, alone, case.scheme)
                except Exception as error:  # the figures that come after it are worth having
                    told = {"error": f"{type(error).__name__}: {error}"}
                path.unlink()
                tell(row_of("ours", case.scheme, len(case.gpus), size) | {"against one GPU": told})


def compare(path: Path, alone: Path, scheme: str) -> dict:
    import torch

    ours, theirs = torch.load(path), torch.load(alone)
    told: dict = {}
    for name, tensor in theirs.items():
        error, size = ours[name].float() - tensor.float(), tensor.float()
        if name == "frames":
            ratio = 255**2 / error.square().mean().clamp_min(1e-9)
            told["frames_db"] = round(min(99.0, 10 * ratio.log10().item()), 1)
            error, size = error / 127.5, size / 127.5 - 1
        told[name] = round((error.norm() / size.norm()).item(), 6)
    steps = [value for name, value in told.items() if name.startswith("step")]
    limits = ((max(steps), TOLERANCE[scheme]), (told["picture"], ENCODERS), (told["frames"], ENCODERS + EIGHT_BITS))
    told["within"] = all(error <= limit for error, limit in limits)
    return told


def markdown(rows: list[dict]) -> str:
    """One line per size, scheme and who; step and clip on each number of GPUs, and how many times as fast."""
    timed = {(row["size"], row["scheme"], row["who"], row["gpus"]): row for row in rows if "clip_s" in row}
    counts = sorted({key[3] for key in timed})
    lines = [
        f"| | {' | '.join(f'{count} GPU: step / clip' for count in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    for size, scheme, who in dict.fromkeys(key[:3] for key in timed):
        alone, cells = timed.get((size, scheme, who, 1)), []
        for count in counts:
            row = timed.get((size, scheme, who, count))
            words = "" if row is None else f"{row['step_s']:.3f} / {row['clip_s']:.2f}"
            if row and alone and count > 1:
                words += f" ({alone['step_s'] / row['step_s']:.2f}x, {alone['clip_s'] / row['clip_s']:.2f}x)"
            cells.append(words)
        lines.append(f"| {size} {scheme} {who} | {' | '.join(cells)} |")
    lines += [
        f"{row['who']} {row['scheme']} {row['gpus']} {row['size']}: {row['error']}" for row in rows if "error" in row
    ]
    lines += [json.dumps(row) for row in rows if "against one GPU" in row]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
