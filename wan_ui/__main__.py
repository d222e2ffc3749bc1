"""Command line: python -m wan_ui serve | generate | download | patches | bench.

`generate` takes the same way as the page: a job in the same queue. If an app is running on the same
outputs folder, its warm model does the work.
"""

import argparse
import json
import logging
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from wan_ui import __version__, download, patches, progress
from wan_ui.catalog import find_model, load_catalog
from wan_ui.engines import lightx2v_config
from wan_ui.errors import UserError
from wan_ui.hardware import engine_name
from wan_ui.intake import Draft
from wan_ui.pipeline import PIPELINE
from wan_ui.qa import bench
from wan_ui.settings import ROOT, settings
from wan_ui.worker import describe

EXAMPLE = ROOT / "assets" / "examples" / "cat.jpg"


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed, 2 bad usage, 130 cancelled with Ctrl-C."""
    args = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        return args.run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wan_ui", description="Wan2.2 image-to-video.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the app decides and why")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="start the page")
    serve.add_argument("--host", help="address to listen on (default 127.0.0.1: this machine only)")
    serve.add_argument("--port", type=int, help="default 7860")
    serve.set_defaults(run=_serve)

    generate = commands.add_parser("generate", help="make one clip")
    generate.add_argument("--image", required=True, metavar="FILE", help="the picture to start from")
    generate.add_argument("--prompt", required=True, metavar="TEXT", help="what should happen")
    generate.add_argument("--out", required=True, metavar="FILE.mp4", type=Path)
    _add_model_options(generate)
    generate.add_argument("--seed", type=int, default=-1, metavar="N", help="default: a random one, which is printed")
    generate.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    generate.set_defaults(run=_generate)

    fetch = commands.add_parser("download", help="fetch what a model and scheme need")
    fetch.add_argument("model", metavar="MODEL", help="i2v-a14b, ti2v-5b ...: see configs/catalog.toml")
    fetch.add_argument("scheme", metavar="SCHEME", nargs="?", default="", help="default: the model's")
    fetch.add_argument("--engine", default="auto", help="auto | lightx2v | diffusers: they read different VAE files")
    fetch.add_argument("--dry-run", action="store_true", help="only show files and sizes")
    fetch.add_argument("--check", action="store_true", help="compare files that are there with the hub's checksums")
    fetch.set_defaults(run=_download)

    patch_report = commands.add_parser("patches", help="what is patched in LightX2V for a model, and why")
    patch_report.add_argument("--model", default="")
    patch_report.add_argument("--scheme", default="")
    patch_report.add_argument("--json", action="store_true", help="the whole report as JSON")
    patch_report.add_argument("--markdown", action="store_true", help="the README's table")
    patch_report.set_defaults(run=_patches)

    bench_command = commands.add_parser("bench", help="time a cold start and warm clips on this machine")
    bench_command.add_argument("--image", default=str(EXAMPLE), metavar="FILE")
    bench_command.add_argument("--prompt", default="the camera slowly zooms in, sunset light", metavar="TEXT")
    bench_command.add_argument("--clips", type=int, default=3, metavar="N", help="warm clips; the median is shown")
    _add_model_options(bench_command)
    bench_command.set_defaults(run=_bench)
    return parser


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", help="see configs/catalog.toml (default wan-tiny)")
    command.add_argument("--scheme", default="", help="how the weights are stored: bf16, fp8, gguf-Q8_0 ...")
    command.add_argument("--engine", default="", help="auto | lightx2v | diffusers")
    command.add_argument("--size", default="auto", metavar="WxH", help="default: the size nearest the picture's shape")
    command.add_argument("--frames", type=int, default=0, metavar="N")
    command.add_argument("--steps", type=int, default=0, metavar="N", help="denoise steps (default: the model's)")


def _draft(args: argparse.Namespace, **more) -> Draft:
    names = ("image", "prompt", "model", "scheme", "engine", "size", "frames", "steps")
    return Draft(**{name: getattr(args, name) for name in names}, **more)


def _serve(args: argparse.Namespace) -> int:
    from app import serve  # gradio is only needed here

    chosen = {name: value for name, value in (("host", args.host), ("port", args.port)) if value is not None}
    serve(replace(settings(), **chosen))
    return 0


def _generate(args: argparse.Namespace) -> int:
    if args.out.suffix.lower() != ".mp4":
        raise UserError(f"--out: {args.out} must end in .mp4")
    if not args.out.parent.is_dir():
        raise UserError(f"--out: the folder {args.out.parent} does not exist")
    pipeline = PIPELINE.open(settings(), client_ok=True, warm=False)
    try:
        job_id = pipeline.submit(_draft(args, seed=args.seed))
        try:
            job = _follow(pipeline, job_id, quiet=args.json and not sys.stderr.isatty())
        except KeyboardInterrupt:
            pipeline.cancel(job_id)
            pipeline.wait(job_id)
            raise
        if job.state != "done":
            raise UserError(job.error or f"the job was {job.state}")
        # Beside the destination first: nothing half-written is ever visible under its name.
        part = args.out.with_name(f".{args.out.name}.part")
        shutil.copyfile(pipeline.clip(job), part)
        os.replace(part, args.out)
    finally:
        pipeline.close()
    seconds = job.result["seconds"]
    summary = {
        "out": str(args.out),
        "job": job.id,
        **{key: value for key, value in job.request.to_dict().items() if key != "image"},
        **{key: job.result[key] for key in ("fps", "seconds", "facts", "latents_sha256")},
    }
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items())
    print(f"{args.out}: {job.request.frames} frames, seed {job.request.seed}, {sum(seconds.values()):.1f} s ({stages})")
    if args.json:
        print(json.dumps(summary))
    return 0


def _download(args: argparse.Namespace) -> int:
    config = settings()
    model = find_model(load_catalog(config.catalog), args.model)
    scheme = model.scheme(args.scheme)
    engine = engine_name(args.engine, config)
    items = download.plan(model, scheme, config, engine, check=args.check)
    for item in items:
        state = "there" if item.present else f"{item.have / 1e9:.2f} GB there" if item.have else "to download"
        print(f"{item.size / 1e9:8.2f} GB  {state:<14}  {item.repo}/{item.file} -> {item.target}")
    left = sum(item.left for item in items)
    print(f"{left / 1e9:8.2f} GB  to download for {model.name} {scheme.name} with {engine}")
    if args.dry_run:
        return 0
    with tqdm(total=left, unit="B", unit_scale=True, disable=not left) as bar:
        before = {item.file: item.have for item in items}

        def show(item: download.Item, done: int) -> None:
            bar.set_description_str(item.target.name, refresh=False)
            bar.update(done - before[item.file])  # less than nothing when a file starts again
            before[item.file] = done

        download.fetch(items, show)
    print("all files are there")
    return 0


def _patches(args: argparse.Namespace) -> int:
    if args.markdown:
        print(patches.markdown())
        return 0
    config = settings()
    model = find_model(load_catalog(config.catalog), args.model or config.model)
    scheme = model.scheme(args.scheme)
    report = lightx2v_config.patch_report(model, scheme, config)
    if args.json:
        print(json.dumps({"model": model.name, "scheme": scheme.name, "commit": patches.COMMIT, "patches": report}))
        return 0
    for entry in report:
        print(f"{'applies' if entry['applies'] else '-':<8} {entry['name']:<15} {entry['why']}")
        if entry["target_found"] != "yes":
            print(f"{'':<8} {'':<15} target: {entry['target_found']}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    if args.clips < 1:
        raise UserError("--clips: at least 1")
    bench.print_table(bench.bench(settings(), _draft(args), args.clips))
    return 0


def _follow(pipeline, job_id: str, quiet: bool):
    """Wait for a job behind a progress bar."""
    expected = progress.reference(pipeline.history(), pipeline.job(job_id).request)
    bar = tqdm(total=100, disable=quiet, bar_format="{desc} |{bar}| {n:3.0f}%{postfix}", leave=False)

    def show(job) -> None:
        left = progress.eta(job, expected)
        bar.n = 100 * progress.fraction(job, expected)
        bar.set_description_str(describe(job.progress) if job.state == "running" else job.state, refresh=False)
        bar.set_postfix_str(f"about {left:.0f} s left" if left is not None else "", refresh=False)
        bar.refresh()

    try:
        return pipeline.wait(job_id, on_change=show)
    finally:
        bar.close()


if __name__ == "__main__":
    sys.exit(main())
