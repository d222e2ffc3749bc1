"""python -m wan_ui bench: time a cold start and warm clips on this machine."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from wan_ui import rules
from wan_ui.commands import options
from wan_ui.commands.options import add_lora_option, add_model_options, draft
from wan_ui.place import DATA
from wan_ui.qa import toy
from wan_ui.reports import bench, stage_bars
from wan_ui.settings import settings

limit = options.by(rules.number(0, 1_000_000))
EXAMPLE = DATA / "assets" / "examples" / "cat.jpg"
VOICE = DATA / "assets" / "examples" / "voice.m4a"


def add(commands) -> None:
    parser = commands.add_parser("bench", help="time a cold start and warm clips on this machine")
    parser.add_argument("--image", default=str(EXAMPLE), metavar="FILE")
    parser.add_argument("--end-image", default="", metavar="FILE", help="the last frame, where the model takes one")
    parser.add_argument(
        "--task", type=options.task, default="", help="t2v: without a picture, where the model does both"
    )
    parser.add_argument(
        "--audio", default=str(VOICE), metavar="FILE", help="the voice, where one drives the model's clips"
    )
    parser.add_argument("--prompt", default="the camera slowly zooms in, sunset light", metavar="TEXT")
    parser.add_argument(
        "--clips", type=options.positive, default=3, metavar="N", help="warm clips; the median is shown"
    )
    parser.add_argument(
        "--synthetic",
        action="store_true",
        help="full-size random weights, drawn on the GPU: nothing is downloaded; "
        "without a GPU a model that needs one is made at toy size, which says nothing about it but that it runs",
    )
    parser.add_argument("--max-seconds", type=limit, default=0, metavar="S", help="exit with 1 if a clip takes longer")
    parser.add_argument(
        "--max-gib", type=limit, default=0, metavar="GIB", help="the GPU memory there is; exit with 1 if more is used"
    )
    parser.add_argument(
        "--png", default="", metavar="FILE", help="draw the stages against their floors; with --synthetic always"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, the last line of output")
    add_model_options(parser)
    add_lora_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = settings()
    if args.max_gib:
        config = replace(
            config, gpu_gib=max(1.0, args.max_gib)
        )  # what is offloaded follows from it, as on a card of that size
    made = draft(args, task=args.task)
    if args.synthetic and bench.at_toy_size(config, made):
        print(toy.LABEL, flush=True)
    figures = bench.bench(config, made, args.clips, random_weights=args.synthetic)
    missed = bench.failures(figures, args.max_seconds, args.max_gib)
    bench.print_table(figures)
    print("", *stage_bars.table(figures), sep="\n")
    if args.png or args.synthetic:
        name = f"{figures['model']}-{figures['scheme']}-{figures['size']}{'-toy' if figures['label'] else ''}.png"
        png = Path(args.png) if args.png else config.outputs / "bench" / name
        stage_bars.draw(figures, png)
        print(f"drawn: {png}")
    limited = args.max_seconds or args.max_gib
    if limited:
        print(f"no go: {'; '.join(missed)}" if missed else "go: within the limits")
    if args.json:
        print(json.dumps(figures | ({"go": not missed, "missed": missed} if limited else {})))
    return int(bool(missed))
