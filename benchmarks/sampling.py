"""Undistilled sampling, seconds and likeness of each cache to none: python benchmarks/sampling.py --model ti2v-5b-full

One row for each way: both halves of guidance in one pass or in two, MagCache, TeaCache; of the frames PSNR (mean, worst
frame) and SSIM against the first row, which leaves nothing out. Without --model Wan-Tiny stands in, sampled by the
recipe of I2V A14B: toy size, on any CPU, which shows that all of it runs and nothing about A14B. Each row follows a
clip of the same kind that is not counted. The last line is JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wan_ui import settings as settings_module  # noqa: E402
from wan_ui.catalog import find_model, load_catalog  # noqa: E402
from wan_ui.engines.create import create_engine  # noqa: E402
from wan_ui.qa.compare import Item, measure  # noqa: E402
from wan_ui.recipes import NEGATIVE  # noqa: E402
from wan_ui.reports.bench import machine  # noqa: E402
from wan_ui.request import Progress, Request, Sampling  # noqa: E402


class Clock:
    """Seconds of the denoise steps, from what an engine reports."""

    def __init__(self):
        self.started, self.ended = 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "denoise" and not self.started:
            self.started = time.perf_counter()
        if progress.stage == "decode" and not self.ended:
            self.ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.ended - self.started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="wan-tiny")
    parser.add_argument("--scheme", default="")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--image", type=Path, default=ROOT / "assets/examples/portrait.jpg")
    parser.add_argument("--prompt", default="the camera slowly zooms in")
    parser.add_argument("--size", default="", metavar="WxH")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0)
    arguments = parser.parse_args()

    catalog = load_catalog(settings_module.settings().catalog)
    model = find_model(catalog, arguments.model)
    if model.embedded:
        model = replace(model, recipes=catalog["i2v-a14b"].recipes)
    recipe, scheme = model.recipes["full"], model.scheme(arguments.scheme)
    width, height = map(int, arguments.size.split("x")) if arguments.size else model.sizes[0]
    frames = arguments.frames or (model.frames[0] if model.embedded else model.default_frames)
    made = Sampling(
        prompt=arguments.prompt, model=model.name, scheme=scheme.name, engine=arguments.engine, seed=7,
        steps=arguments.steps or recipe.default_steps, motion="full", negative=NEGATIVE, guidance=recipe.guidance,
        shift=recipe.shift, solver=recipe.solver, cache="off",
    )  # fmt: skip
    engine, chosen = create_engine(arguments.engine)
    engine.load(model, scheme, lambda progress: None)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "input.png"
        Image.open(arguments.image).convert("RGB").resize((width, height)).save(picture)
        ways = [("one", "off"), ("two", "off"), *(("auto", name) for name in recipe.caches if name != "off")]
        rows, first = [], None
        for passes, cache in ways:
            settings_module.use(replace(settings_module.settings(), guidance_passes=passes))
            request = Request(
                "image-to-video", {"image": str(picture)}, width, height, frames, replace(made, cache=cache)
            )
            short = replace(request, made_with=replace(request.sampling, steps=1, cache="off"))
            engine.generate(short, lambda progress: None)
            clock = Clock()
            clip = engine.generate(request, clock)
            first = clip if first is None else first
            (pair,) = measure([Item(name, of.frames, of.fps, {}) for name, of in (("first", first), ("this", clip))])
            row = {
                "passes": passes,
                "cache": clip.facts.get("step cache", "off"),
                "guidance": clip.facts.get("guidance", ""),
                "seconds": round(clock.seconds, 2),
                "psnr": pair.psnr_total,
                "worst": min(pair.psnr),
                "ssim": pair.ssim_total,
            }
            rows.append(row)
            took = f"{passes:>4} | {row['cache']:<36} | {row['seconds']:8.2f} s"
            print(
                f"{took} | PSNR {row['psnr']:6.2f} dB, worst {row['worst']:6.2f} | SSIM {row['ssim']:.4f}", flush=True
            )
    what = {"model": model.name, "scheme": scheme.name, "engine": chosen.name, "steps": made.steps}
    print(json.dumps({**what, "size": f"{width}x{height}", "frames": frames, "rows": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
