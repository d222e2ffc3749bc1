"""Stock LightX2V against this project's engine on one GPU, on the same random full-size weights.

python benchmarks/lightx2v_gpu.py --out figures.jsonl   # needs WAN_UI_LIGHTX2V_PATH and a GPU of 100 GB; 8 minutes
python benchmarks/lightx2v_gpu.py --levers --out levers.jsonl  # drafts, MP4s, graphs, small memory: ours alone

Each configuration is a process of its own, with a time limit; its figures are one JSON line, written as they
come. Three ways of running: "stock" is LightX2V as it is, through its own entry points, with its defaults
where they need no extension (attention torch_sdpa, rope torch_real_rope; its scheduler, its modulation);
"stock + loader" has the one patch in addition without which no GGUF file runs; "ours" is the engine as
`python -m wan_ui` uses it. Steps are timed from one step's end to the next one's, clips from the call to
the frames in host memory, without the MP4; a short clip before warms both up.
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
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui import settings as settings_module
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.media import muxer
from wan_ui.media.streaming import Mp4Writer
from wan_ui.qa import synthetic
from wan_ui.request import Progress, Request, Sampling
from wan_ui.settings import load_settings

A14B = ("i2v-a14b", ((480, 480), (832, 480)))
A14B_SMALL = ("i2v-a14b", ((480, 480),))
SMALL = ("ti2v-5b", ((480, 480),))
CASES = [
    *((*A14B, scheme, who) for scheme in ("bf16", "fp8") for who in ("stock", "ours")),
    *((*A14B, scheme, who) for scheme in ("gguf-Q8_0", "gguf-Q4_K_M") for who in ("stock", "stock + loader", "ours")),
    *((*SMALL, scheme, who) for scheme in ("gguf-Q8_0", "gguf-Q4_K_M") for who in ("stock", "stock + loader", "ours")),
]
# --levers: each optimisation beside the same without it. `who` is a key of WAYS.
LEVERS = [
    (*A14B, "fp8", "ours, each kind of clip"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours, e4m3"),
    (*A14B_SMALL, "gguf-Q8_0", "ours, e4m3"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours, 48 GiB"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours, 32 GiB"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours, 32 GiB, upstream's dequantising"),
    (*A14B_SMALL, "gguf-Q4_K_M", "ours, 14 GiB"),
    (*SMALL, "gguf-Q4_K_M", "ours"),
    (*SMALL, "gguf-Q4_K_M", "ours, no graphs"),
    (*SMALL, "gguf-Q8_0", "ours, 10 GiB"),
    (*A14B_SMALL, "fp8", "stock"),
]
# who -> settings that are otherwise
WAYS: dict[str, dict] = {
    "ours, e4m3": {"lightx2v_gguf": "e4m3"},
    "ours, 48 GiB": {"gpu_gib": 48.0},
    "ours, 32 GiB": {"gpu_gib": 32.0},
    "ours, 32 GiB, upstream's dequantising": {"gpu_gib": 32.0, "lightx2v_plain": "dequantise"},
    "ours, 14 GiB": {"gpu_gib": 14.0},
    "ours, 10 GiB": {"gpu_gib": 10.0},
    "ours, no graphs": {"lightx2v_plain": "graphs"},
}
# Kinds of clips that one loaded engine makes, each timed: "again" has the picture and the prompt of the one before; an
# MP4 is part of its clip's time.
KINDS = {"ours, each kind of clip": ("", "again", "draft", "MP4 after", "MP4 meanwhile")}
PROMPT = "a cat walks through high grass, the camera follows slowly"
LAST_WORD = re.compile(r"^(\w+(?:\.\w+)*(?:Error|Exception): .*)$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lightx2v_gpu.jsonl"))
    parser.add_argument("--levers", action="store_true", help="measure LEVERS instead of CASES")
    parser.add_argument("--only", default="", metavar="REGEX", help="of 'i2v-a14b fp8 ours'")
    parser.add_argument("--sizes", default="480x480 832x480", help="those of a model that are measured")
    parser.add_argument("--limit", type=float, default=150, metavar="S", help="seconds for one configuration")
    parser.add_argument("--seconds", type=float, default=520, metavar="S", help="seconds in all")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(json.loads(args.child))
    cases = [
        (model, tuple(size for size in sizes if "{}x{}".format(*size) in args.sizes.split()), scheme, who)
        for model, sizes, scheme, who in (LEVERS if args.levers else CASES)
        if re.search(args.only, f"{model} {scheme} {who}")
    ]
    started, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="wan-ui-bench-") as folder, args.out.open("w") as out:
        waiting = [start(case, folder) for case in cases[:1]]
        for index, case in enumerate(cases):
            process, log = waiting[index]
            if index + 1 < len(cases):  # imports while this one computes
                waiting.append(start(cases[index + 1], folder))
            left = args.seconds - (time.monotonic() - started)
            for row in finish(process, log, case, min(args.limit, left)):
                rows.append(row)
                out.write(json.dumps(row) + "\n")
                out.flush()
                print(json.dumps({key: row[key] for key in row if key not in ("facts", "log")}), flush=True)
    print(markdown(rows))
    return 0


def start(case, folder: str):
    model, sizes, scheme, who = case
    values = {"model": model, "sizes": sizes, "scheme": scheme, "who": who, "folder": folder}
    log = Path(folder) / f"{model}-{scheme}-{re.sub(r'[ ,]+', '-', who)}.log"
    command = [sys.executable, __file__, "--child", json.dumps(values)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True)
    return process, log


def finish(process, log: Path, case, limit: float) -> list[dict]:
    """The child's figures, one dict per size; of a failed one the error's text."""
    model, sizes, scheme, who = case
    words = "ran out of time"
    try:
        output, _ = process.communicate("go\n", timeout=max(1, limit))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    else:
        words = (LAST_WORD.findall(read_log(log)) or [f"exit code {process.returncode}"])[-1]
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    for width, height in sizes[len(rows) // len(KINDS.get(who, ("",))) :]:
        case = {"model": model, "scheme": scheme, "who": who, "size": f"{width}x{height}"}
        rows.append({**case, "error": words, "log": read_log(log)[-4000:]})
    return rows


def read_log(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


# ---------------------------------------------------------------- one configuration


def child(case: dict) -> int:
    model = load_catalog(load_settings({}).catalog)[case["model"]]
    scheme = model.scheme(case["scheme"])
    environ = {name: value for name, value in os.environ.items() if name.startswith("WAN_UI_")}
    config = replace(load_settings(environ), models=Path(case["folder"]) / "models", **WAYS.get(case["who"], {}))
    settings_module.use(config)
    ours = case["who"].startswith("ours")
    run = Ours(model, scheme, config) if ours else Stock(model, scheme, config, case["who"])
    import torch

    sys.stdin.readline()  # the GPU is free now
    synthetic.write(model, scheme, config, "lightx2v")
    kinds = KINDS.get(case["who"], ("",))
    if "draft" in kinds:
        write_small_decoder(model, config.models)
    begun = time.monotonic()
    run.load()
    torch.cuda.synchronize()
    load = time.monotonic() - begun
    for number, (width, height) in enumerate(case["sizes"], start=1):
        run.warm(width, height, number, kinds)
        for place, kind in enumerate(kinds):
            torch.cuda.reset_peak_memory_stats()
            told = {"kind": kind} if kind else {}
            inputs = 10 * number + 10 + place - (kind == "again")
            seconds, marks, finite = run.clip(width, height, model.default_frames, inputs, **told)
            steps = [after - before for before, after in itertools.pairwise(marks)]
            row = {
                "model": model.name,
                "scheme": scheme.name,
                "who": f"ours, {kind}" if kind else case["who"].removesuffix(", each kind of clip"),
                "size": f"{width}x{height}",
                "gpu": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "step_s": round(statistics.median(steps), 3),
                "steps_s": [round(step, 3) for step in steps],
                "clip_s": round(seconds, 2),
                "stages_s": {name: round(value, 3) for name, value in run.stages.items()},
                "load_s": round(load, 1),
                "resident_gib": round(torch.cuda.memory_allocated() / 2**30, 1),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
                "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 1),
                "finite": finite,
                "facts": run.facts,
            }
            print(json.dumps(row), flush=True)
    return 0


def write_small_decoder(model, models: Path) -> None:
    """The first of the model's small decoders, with random numbers."""
    from lightx2v.models.video_encoders.hf.tae import TAEHV
    from safetensors.torch import save_file

    repo, file = places.split(model.draft_decoders[0])
    (models / repo).mkdir(parents=True, exist_ok=True)
    save_file(TAEHV(None, model_type="wan21" if model.boundary else "wan22").state_dict(), models / repo / file)


def picture(folder: Path, width: int, height: int, number: int) -> str:
    """Another one each time, so that nothing comes out of a cache."""
    colours = np.random.default_rng(abs(number)).integers(0, 256, (height // 16, width // 16, 3))
    path = folder / f"{width}x{height}-{number}.png"
    Image.fromarray(colours.astype(np.uint8).repeat(16, 0).repeat(16, 1)).save(path)
    return str(path)


class Timed:
    """Marks of the ends of the steps, from upstream's own callback."""

    def _watch(self, runner) -> None:
        import torch

        def end_of_step(*_) -> None:
            torch.cuda.synchronize()
            self.marks.append(time.monotonic())

        runner.set_progress_callback(end_of_step)


class Ours(Timed):
    def __init__(self, model, scheme, config):
        from wan_ui.engines import lightx2v_config, lightx2v_upstream
        from wan_ui.machine.hardware import measure

        self.model, self.scheme, self.folder = model, scheme, config.models.parent
        lightx2v_upstream.import_lightx2v(lightx2v_config.environment(config, measure()))

    def load(self) -> None:
        self.engine, _ = synthetic.create_engine("lightx2v")
        self.engine.load(self.model, self.scheme, lambda progress: None)
        self._watch(self.engine.runner)

    def warm(self, width, height, number, kinds=("",)) -> None:
        # Every size is compiled for once, and both experts have run.
        for kind in {"", "draft"} & set(kinds):
            self.clip(width, height, self.model.default_frames, -number, len(self.model.family.experts), kind)

    def clip(self, width, height, frames, number, steps=0, kind=""):
        import torch

        made = Sampling(
            prompt=f"{PROMPT} {number}",
            model=self.model.name,
            scheme=self.scheme.name,
            engine="lightx2v",
            steps=steps or self.model.default_steps,
            seed=abs(number),
            draft=kind == "draft",
        )
        inputs = {"image": picture(self.folder, width, height, number)}
        request = Request("image-to-video", inputs, width, height, frames, made)
        self.marks, begun, target, writer = [], time.monotonic(), self.folder / "clip.mp4", None
        entered: list[tuple[str, float]] = []  # stages, with the time when each began on an idle GPU

        def report(progress: Progress) -> None:
            if not entered or entered[-1][0] != progress.stage:
                torch.cuda.synchronize()
                entered.append((progress.stage, time.monotonic()))

        if kind == "MP4 meanwhile":
            writer = Mp4Writer(target, 16.0, {})
        clip = self.engine.generate(request, report, writer and (lambda part: writer.add(part.frames)))
        if writer is not None:
            writer.finish()
        elif kind == "MP4 after":
            muxer.write_mp4(clip.frames, target, 16.0, {})
        self.facts, ended = clip.facts, time.monotonic()
        ends = [*(at for _, at in entered[1:]), ended]
        self.stages = {stage: end - at for (stage, at), end in zip(entered, ends, strict=True)}
        return ended - begun, self.marks, bool(np.isfinite(clip.latents).all() and clip.frames.std() > 0)


def stock_size(width: int, height: int, frames: int) -> dict:
    """Upstream takes the sides from the root of the area, which a rounding may leave just below a whole number:
    832x480 would become 832x464.
    """
    return {"target_height": height + 0.001, "target_width": width, "target_video_length": frames}


class Stock(Timed):
    """set_config, init_runner, run_pipeline: as LightX2V's own infer.py does it."""

    def __init__(self, model, scheme, config, who: str, gpus: int = 1):
        self.model, self.scheme, self.config, self.loader = model, scheme, config, who.endswith("loader")
        self.gpus = gpus  # of which this process has one: see benchmarks/parallel.py
        self.facts, self.stages = {}, {}
        if config.lightx2v_path:
            sys.path.insert(0, config.lightx2v_path)
        import lightx2v.infer  # noqa: F401 - registers the runners

        import wan_ui.engines.lightx2v  # noqa: F401 - while the GPU is not ours yet

    def load(self) -> None:
        from wan_ui.engines import group, lightx2v_config, lightx2v_parallel, lightx2v_upstream
        from wan_ui.files.places import locate
        from wan_ui.patches import gguf_loader

        paths = locate(self.model, self.scheme, self.config, "lightx2v")
        kernel = {"bf16": "Default", "fp8": "fp8-torchao"}.get(self.scheme.kind, self.scheme.name)
        values = {
            "self_attn_1_type": "torch_sdpa",
            "cross_attn_1_type": "torch_sdpa",
            "cross_attn_2_type": "torch_sdpa",
            "rope_type": "torch_real_rope",
            "cpu_offload": False,
            **lightx2v_config.from_catalog(self.model),
            **lightx2v_config.from_paths(self.model, self.scheme, paths, kernel, "fp8-torchao"),
        }
        if self.gpus > 1:
            values["parallel"] = {"seq_p_size": self.gpus, "seq_p_attn_type": "ulysses"}
        if paths.loras:
            values["lora_dynamic_apply"] = True
            values["lora_configs"] = [
                {"name": f"{expert.name}_model", "path": str(path), "strength": 1.0}
                for expert, path in zip(self.model.family.experts, paths.loras, strict=True)
            ]
        synthetic.install_lightx2v()
        if self.loader:
            synthetic.install()
            gguf_loader.PATCH.apply(None)
        root = self.model.family.root(paths.configs[0])
        self.runner = lightx2v_upstream.start_runner(
            self.model.family, root, values, lambda config: lightx2v_parallel.prepare(config, group.here())
        )
        self._watch(self.runner)

    def warm(self, width, height, number, _kinds=("",)) -> None:
        self.clip(width, height, 17, -number)

    def clip(self, width, height, frames, number):
        import torch

        from wan_ui.engines.lightx2v_upstream import input_info

        self.runner.set_config(stock_size(width, height, frames))
        image = picture(self.config.models.parent, width, height, number)
        info = input_info(
            self.model.family,
            seed=abs(number),
            prompt=f"{PROMPT} {number}",
            image_path=image,
            return_result_tensor=True,
            save_result_path=None,
        )
        self.marks, begun = [], time.monotonic()
        video = self.runner.run_pipeline(info)["video"]
        seconds = time.monotonic() - begun
        if tuple(video.shape) != (frames, height, width, 3):
            raise UserError(f"stock: a clip of {tuple(video.shape)}, asked for {(frames, height, width, 3)}")
        return seconds, self.marks, bool(torch.isfinite(video).all())


# ---------------------------------------------------------------- the table


def markdown(rows: list[dict]) -> str:
    """One line per model, size and scheme: stock (with the loader where it needs one) and ours."""
    lines = [
        "| | stock step | ours | stock clip | ours | stock resident / peak GiB | ours |",
        "|---|---|---|---|---|---|---|",
    ]
    found = {(row["model"], row["size"], row["scheme"], row["who"]): row for row in rows}
    for model, size, scheme in dict.fromkeys((row["model"], row["size"], row["scheme"]) for row in rows):
        ours = found.get((model, size, scheme, "ours"), {})
        stock = found.get((model, size, scheme, "stock"), {})
        note = ""
        if "error" in stock and (model, size, scheme, "stock + loader") in found:
            stock, note = found[model, size, scheme, "stock + loader"], " (\\*)"

        def show(row: dict, *names: str) -> str:
            if "error" in row:
                return "fails"
            return " / ".join(str(row[name]) for name in names) if row else ""

        cells = [
            f"{model} {size} {scheme}{note}",
            show(stock, "step_s"),
            show(ours, "step_s"),
            show(stock, "clip_s"),
            show(ours, "clip_s"),
            show(stock, "resident_gib", "peak_gib"),
            show(ours, "resident_gib", "peak_gib"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    errors = {f"{row['model']} {row['scheme']} {row['who']}: {row['error']}" for row in rows if "error" in row}
    return "\n".join([*lines, "", *sorted(errors)])


if __name__ == "__main__":
    sys.exit(main())
