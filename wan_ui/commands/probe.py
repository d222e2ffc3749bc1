"""python -m wan_ui probe: which kernels are right on this machine, and how fast."""

import argparse
import json
import re
import sys
from dataclasses import asdict

from wan_ui import rules
from wan_ui.catalog import find_model
from wan_ui.commands import options
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.machine import probe_results, probing, shapes
from wan_ui.machine.hardware import gpu
from wan_ui.machine.probe_results import ProbeResult
from wan_ui.settings import Settings, settings

KINDS = ("attention", "gemm", "modulate", "norm", "rope", "compile")


def add(commands) -> None:
    parser = commands.add_parser("probe", help="which kernels are right on this machine, and how fast")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="MODEL:WxH[xFRAMES]",
        help="repeat for several; default: wan-tiny, and with a GPU A14B at 480x480 and 832x480",
    )
    parser.add_argument("--kind", action="append", default=[], choices=KINDS, help="repeat for several; default: all")
    parser.add_argument(
        "--limit",
        type=options.by(rules.number(1, 100_000)),
        default=probing.LIMIT,
        metavar="SECONDS",
        help="for one kernel; after that it counts as crashed and the next one is tried (default: %(default)g)",
    )
    parser.add_argument("--again", action="store_true", help="probe what is in the cache already, too")
    parser.add_argument("--json", action="store_true", help="print the results as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when no kernel is wrong, has crashed or has failed."""
    config = settings()
    wanted = [parse_shape(text, config) for text in args.shape] or shapes.default_shapes(config)
    results = probing.run(
        config,
        wanted,
        kinds=tuple(args.kind),
        again=args.again,
        limit=args.limit,
        report=lambda words: print(f"probing {words}", file=sys.stderr, flush=True),
    )
    print_table(results)
    chosen = {kind: probe_results.best(kind, config) for kind in KINDS}
    for kind, (name, reason) in chosen.items():
        print(f"{kind:<10} {name or '-':<20} {reason}")
    if args.json:
        print(json.dumps({"gpu": gpu(), "results": [asdict(result) for result in results], "best": chosen}))
    return int(any(result.status in ("wrong", "crashed", "failed") for result in results))


def parse_shape(text: str, config: Settings) -> shapes.Shape:
    name, _, size = text.partition(":")
    model = find_model(found.models(config), name)
    numbers = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", size)
    if not numbers:
        raise UserError(f"--shape: {text!r} is not MODEL:WIDTHxHEIGHT or MODEL:WIDTHxHEIGHTxFRAMES")
    width, height, frames = (int(number or model.default_frames) for number in numbers.groups())
    return shapes.shape_of(model, width, height, frames)


def print_table(results: list[ProbeResult]) -> None:
    for shape in dict.fromkeys(result.shape for result in results):
        print(shape)
        for result in (result for result in results if result.shape == shape):
            figures = f"{1000 * result.seconds:>10.3f} ms  error {result.error:<8.2g}" if result.seconds >= 0 else ""
            print(f"  {result.kind:<10}{result.name:<24}{result.status:<9}{figures:<30}{result.why}")
