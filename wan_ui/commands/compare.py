"""python -m wan_ui compare: clips side by side, a grid of settings, or a check against stored clips."""

import argparse
import json
import secrets
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from wan_ui.catalog import find_model
from wan_ui.commands import options
from wan_ui.commands.options import add_lora_option, draft, lora_spec
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.qa import compare
from wan_ui.queue.draft import MAX_SEED, Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.reports import golden
from wan_ui.settings import Settings, settings

READ = {"steps": options.positive, "seed": options.seed, "draft": options.switch, "shift": options.shift}
NAMES = ("model", "scheme", "engine", "motion", "guidance", "solver", "cache")  # words, which intake reads
VARIED = (*NAMES, *READ, "lora", "patches_off")


def add(commands) -> None:
    parser = commands.add_parser("compare", help="clips side by side, a grid of settings, or against stored clips")
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP.mp4", help="two or more; the first is the measure")
    parser.add_argument(
        "--golden", nargs="?", type=Path, const=golden.OWN, metavar="FOLDER", help="against stored clips"
    )
    parser.add_argument("--update", action="store_true", help="with --golden: store what is rendered now instead")
    parser.add_argument("--image", default="", metavar="FILE", help="make the clips first, from this picture")
    parser.add_argument("--prompt", default="", metavar="TEXT")
    parser.add_argument(
        "--seed", type=options.seed, default=-1, metavar="N", help="of every clip; default: one drawn for all"
    )
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="variants",
        metavar="KEY=VALUE,...",
        help=f"one clip each; keys: {', '.join(VARIED)}. Example: --with scheme=bf16 --with scheme=fp8,engine=lightx2v",
    )
    parser.add_argument("--all-schemes", action="store_true", help="one clip for every scheme that fits here")
    options.add_model_options(parser)  # with --golden: --scheme takes several, separated by commas; default: all stored
    add_lora_option(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="comparison.mp4, contact-sheet.png, comparison.json")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """With --golden 1 when a clip is not as stored; else 0."""
    if args.golden:
        return run_golden(args)
    if args.image:
        items = make(args, settings())
    elif len(args.clips) >= 2:
        names = unique([path.stem for path in args.clips])
        items = [compare.read_item(path, name) for path, name in zip(args.clips, names, strict=True)]
    else:
        raise UserError("compare: name two or more clips, or --image with --with or --all-schemes, or --golden")
    pairs = compare.measure(items)
    result = compare.report(items, pairs)
    print_table(items, pairs)
    if args.out:
        result["files"] = {name: str(path) for name, path in compare.export(items, pairs, args.out).items()}
        print(f"written: {', '.join(result['files'].values())}")
    if args.json:
        print(json.dumps(result))
    return 0


# ---------------------------------------------------------------- a grid


def make(args: argparse.Namespace, config: Settings) -> list[compare.Item]:
    """One finished clip per variant: the same picture, prompt, size and, unless varied, the same seed."""
    model = find_model(found.models(config), args.model or config.model)
    texts = list(args.variants)
    if args.all_schemes:
        fitting = [
            s for s in model.schemes.values() if not places.availability(model, s, config, args.engine or "auto")
        ]
        texts += [f"scheme={scheme.name}" for scheme in fitting]
    if len(texts) < 2:
        raise UserError("compare: give --with twice or more (or --all-schemes): one clip has nothing to differ from")
    seed = secrets.randbelow(MAX_SEED + 1) if args.seed == -1 else args.seed
    variants = [vary(draft(args, seed=seed), text) for text in texts]
    items = []
    with ExitStack() as stack:
        shared = None
        for text, (wanted, patches_off) in zip(texts, variants, strict=True):
            if patches_off:
                changed = replace(config, lightx2v_patches_off=patches_off)
                with golden.own_pipeline(changed) as pipeline:  # patches cannot be taken out of a running worker
                    items.append(finished(pipeline, wanted, text))
                continue
            if shared is None:
                shared = Pipeline().open(config, client_ok=True, warm=False)
                stack.callback(shared.close)
            items.append(finished(shared, wanted, text))
    return items


def vary(base: Draft, text: str) -> tuple[Draft, str]:
    """The draft with "scheme=fp8,engine=lightx2v" put in, and the names of patches to leave out. Raises UserError."""
    changes: dict = {}
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in VARIED:
            raise UserError(f"--with: {key!r} cannot be varied; the keys are {', '.join(VARIED)}")
        if key in READ:
            try:
                changes[key] = READ[key](value)
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--with: {key}={error}") from None
        elif key == "lora":  # besides those of --lora
            try:
                changes["loras"] = (*changes.get("loras", base.loras), lora_spec(value))
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--with: lora={error}") from None
        else:
            changes[key] = value.replace("+", ",") if key == "guidance" else value
    patches_off = changes.pop("patches_off", "").replace("+", ",")
    return replace(base, **changes), patches_off


def finished(pipeline: Pipeline, wanted: Draft, name: str) -> compare.Item:
    print(f"making {name}", file=sys.stderr, flush=True)
    job = pipeline.wait(pipeline.submit(wanted))
    if job.state != "done":
        raise UserError(f"{name}: {job.error or f'the job was {job.state}'}")
    values = {**job.request.to_dict(), "facts": job.result.facts}
    values["seconds"] = round(sum(job.result.seconds.values()), 2)
    return compare.read_item(pipeline.made(job), name, values)


def unique(names: list[str]) -> list[str]:
    return [f"{name} ({k + 1})" if names.count(name) > 1 else name for k, name in enumerate(names)]


def print_table(items: list[compare.Item], pairs: list[compare.Pair]) -> None:
    width = max(len(item.name) for item in items)
    print(f"{items[0].name:<{width}}  the measure")
    for pair in pairs:
        low = f"lowest {min(pair.psnr):.1f} dB at frame {pair.worst_frame}"
        print(f"{pair.name:<{width}}  PSNR {pair.psnr_total:6.2f} dB  SSIM {pair.ssim_total:.4f}  {low}")
    for key, values in compare.differences(items).items():
        print(f"  {key}: {' | '.join(value or '-' for value in values)}")


# ---------------------------------------------------------------- stored clips


def run_golden(args: argparse.Namespace) -> int:
    config = settings()
    schemes = tuple(name for name in args.scheme.split(",") if name)
    if args.update:
        return update(args, config, schemes)

    def show(outcome: golden.Outcome) -> None:
        figures = f"SSIM {outcome.ssim:.4f}  PSNR {outcome.psnr:5.2f} dB  " if outcome.ssim >= 0 else ""
        mark = "ok" if outcome.passed else "FAIL"
        print(f"{mark:<5} {outcome.scheme:<12} {outcome.clip:<14} {figures}{outcome.why}", flush=True)

    result = golden.run(config, args.golden, schemes=schemes, engine=args.engine, report=show)
    print(f"golden: {'all as stored' if result['passed'] else 'NOT as stored'}")
    if args.json:
        print(json.dumps(result))
    return 0 if result["passed"] else 1


def update(args: argparse.Namespace, config: Settings, schemes: tuple[str, ...]) -> int:
    model = find_model(found.models(config), args.model or config.model)
    try:
        stored = golden.load_golden(args.golden)
    except UserError:
        stored = golden.start_golden(args.golden, model, model.scheme(schemes[0] if schemes else "").name)
    with golden.own_pipeline(config) as pipeline:
        paths = golden.update(stored, pipeline, args.engine)
    print(f"stored, look at them before keeping them: {', '.join(map(str, paths))}")
    if args.json:
        print(json.dumps({"model": stored.model, "stored": [str(path) for path in paths]}))
    return 0
