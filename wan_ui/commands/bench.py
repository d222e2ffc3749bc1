"""python -m wan_ui bench: time a cold start and warm clips on this machine."""

import argparse

from wan_ui.commands.options import add_lora_option, add_model_options, draft
from wan_ui.errors import UserError
from wan_ui.qa import bench
from wan_ui.settings import ROOT, settings

EXAMPLE = ROOT / "assets" / "examples" / "cat.jpg"


def add(commands) -> None:
    parser = commands.add_parser("bench", help="time a cold start and warm clips on this machine")
    parser.add_argument("--image", default=str(EXAMPLE), metavar="FILE")
    parser.add_argument("--prompt", default="the camera slowly zooms in, sunset light", metavar="TEXT")
    parser.add_argument("--clips", type=int, default=3, metavar="N", help="warm clips; the median is shown")
    add_model_options(parser)
    add_lora_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.clips < 1:
        raise UserError("--clips: at least 1")
    bench.print_table(bench.bench(settings(), draft(args), args.clips))
    return 0
