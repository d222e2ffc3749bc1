"""python -m wan_ui stages: hold each stage of a loaded pipeline against a reference."""

import argparse
import json
import logging
from pathlib import Path

from wan_ui.catalog import find_model
from wan_ui.commands import options
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("stages", help="which stage of a loaded pipeline is wrong, if any")
    parser.add_argument("--model", default="", help="see configs/catalog.toml (default wan-tiny)")
    parser.add_argument("--scheme", default="", help="how the weights are stored: bf16, fp8, gguf-Q8_0 ...")
    parser.add_argument("--engine", type=options.engine, default="", help="auto | diffusers | lightx2v")
    parser.add_argument(
        "--reference",
        default="auto",
        metavar="WHAT",
        help="stored | same-files (diffusers in float32) | none | a file; default: stored if there is one",
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="store the float32 reference in a file; nothing else")
    parser.add_argument(
        "--size", type=options.size, default="auto", metavar="WxH", help="with --save: the size of the trial"
    )
    parser.add_argument("--frames", type=options.positive, metavar="N", help="with --save: its length")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where pictures of the intermediate results go")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when every stage passed."""
    config = settings()
    model = find_model(found.models(config), args.model or config.model)
    scheme = model.scheme(args.scheme or (config.scheme if not args.model else ""))
    if args.save:
        return save(args, model, scheme)
    from wan_ui.engines.create import create_engine
    from wan_ui.qa import stages

    folder = args.out or config.cache / "doctor"  # where the doctor finds it
    engine, chosen = create_engine(args.engine or config.engine)
    try:
        engine.load(model, scheme, quiet)
        report = stages.examine(engine, model, scheme, args.reference, quiet, folder)
    finally:
        engine.close()
    print(f"{model.name}, {scheme.name}, {chosen.words}; reference: {report['reference']}")
    print_table(report)
    print(f"pictures: {folder}: {', '.join(report['pictures'].values())}")
    if args.json:
        print(json.dumps(report))
    return 1 if report["first_failing"] else 0


def quiet(progress) -> None:
    logging.getLogger(__name__).info("%s", progress.detail)


def print_table(report: dict) -> None:
    print(
        f"{'stage':<14}{'':<6}{'seconds':>8}{'MiB':>8}{'NaN':>5}{'Inf':>5}{'mean':>9}{'std':>8}{'cosine':>9}{'error':>9}"
    )
    for stage in report["stages"]:
        figures = ""
        if stage["shape"]:
            figures = (
                f"{stage['seconds']:>8.2f}{stage['peak_bytes'] / 2**20:>8.0f}{stage['nan']:>5}{stage['inf']:>5}"
                f"{stage['mean']:>9.3f}{stage['std']:>8.3f}"
            )
            compared = stage["error"] >= 0
            figures += f"{stage['cosine']:>9.5f}{stage['error']:>9.2g}" if compared else f"{'-':>9}{'-':>9}"
        print(f"{stage['name']:<14}{'ok' if stage['passed'] else 'FAIL':<6}{figures:<61}  {stage['why']}")
    for blocks in report["blocks"]:
        print(f"{blocks['stage']}: {blocks['verdict']}")
    print(f"first failing stage: {report['first_failing'] or 'none'}")


def save(args: argparse.Namespace, model, scheme) -> int:
    from dataclasses import replace

    from wan_ui.catalog import parse_size
    from wan_ui.qa import reference

    trial = reference.default_trial(model)
    if args.size != "auto":
        width, height = parse_size(args.size)
        trial = replace(trial, width=width, height=height)
    trial = replace(trial, frames=args.frames or trial.frames)
    if trial.width % 32 or trial.height % 32 or trial.frames % 4 != 1:
        raise UserError("--size must be multiples of 32, --frames 4k+1")
    engine = reference.float32_engine(model, scheme, quiet)
    reference.compute(engine, model, trial).save(args.save, f"diffusers in float32, {scheme.name}")
    print(f"{args.save}: {trial.width}x{trial.height}, {trial.frames} frames, {model.name} {scheme.name} in float32")
    return 0
