"""python -m wan_ui generate: one clip, through the same queue as the page.

If an app is running on the same outputs folder, its warm model does the work.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from wan_ui import progress
from wan_ui.commands.options import add_lora_option, add_model_options, draft
from wan_ui.errors import UserError
from wan_ui.pipeline import PIPELINE
from wan_ui.settings import settings
from wan_ui.worker import describe


def add(commands) -> None:
    parser = commands.add_parser("generate", help="make one clip")
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture to start from")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what should happen")
    parser.add_argument("--out", required=True, metavar="FILE.mp4", type=Path)
    add_model_options(parser)
    add_lora_option(parser)
    parser.add_argument("--seed", type=int, default=-1, metavar="N", help="default: a random one, which is printed")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.out.suffix.lower() != ".mp4":
        raise UserError(f"--out: {args.out} must end in .mp4")
    if not args.out.parent.is_dir():
        raise UserError(f"--out: the folder {args.out.parent} does not exist")
    pipeline = PIPELINE.open(settings(), client_ok=True, warm=False)
    try:
        job_id = pipeline.submit(draft(args, seed=args.seed))
        try:
            job = follow(pipeline, job_id, quiet=args.json and not sys.stderr.isatty())
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
        **job.request.public(),
        **{key: job.result[key] for key in ("fps", "seconds", "facts", "loras", "latents_sha256")},
    }
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items())
    print(f"{args.out}: {job.request.frames} frames, seed {job.request.seed}, {sum(seconds.values()):.1f} s ({stages})")
    if job.result["loras"]:
        print(f"LoRA: {job.result['facts']['loras']}")
    if args.json:
        print(json.dumps(summary))
    return 0


def follow(pipeline, job_id: str, quiet: bool):
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
