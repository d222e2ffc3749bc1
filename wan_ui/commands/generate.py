"""python -m wan_ui generate: one clip or several, through the same queue as the page.

If an app is running on the same outputs folder, its warm model does the work.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wan_ui.catalog import find_model
from wan_ui.commands.job import names_of, run_jobs
from wan_ui.commands.options import (
    add_inputs,
    add_lora_option,
    add_model_options,
    add_speaking_options,
    clips,
    draft,
    seed,
    speaking,
    task,
)
from wan_ui.files import found
from wan_ui.lipsync.choice import shortcoming
from wan_ui.queue.draft import MOST_CLIPS
from wan_ui.queue.jobs import ID, Job
from wan_ui.queue.speech_intake import look_for_face, no_voice, voice_trouble
from wan_ui.settings import settings
from wan_ui.speaking import read_speaking
from wan_ui.tasks import FORM, TASKS


def add(commands) -> None:
    parser = commands.add_parser("generate", help="make one clip")
    add_inputs(parser, FORM)
    kinds = ", ".join(f"{kind.short}: {kind.title}" for kind in TASKS.values() if kind.short)
    parser.add_argument(
        "--task", type=task, default="", help=f"{kinds} (default: what fits the model and what is given)"
    )
    parser.add_argument("--out", required=True, metavar="FILE.mp4", type=Path)
    add_model_options(parser)
    add_lora_option(parser)
    add_speaking_options(parser)
    parser.add_argument("--seed", type=seed, default=-1, metavar="N", help="default: a random one, which is printed")
    parser.add_argument(
        "--clips",
        type=clips,
        default=1,
        metavar="N",
        help=f"so many at once, up to {MOST_CLIPS}, each with a seed of its own: FILE-1.mp4, FILE-2.mp4 ...",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 when the clip was made but could not be given speech."""
    config = settings()
    model = find_model(found.models(config), args.model or config.model)
    if args.audio and not any(TASKS[name].driven for name in model.tasks):
        if words := shortcoming(config):
            print(f"speech: {words}", file=sys.stderr)
        spoken = read_speaking(speaking(args))
        if words := voice_trouble(args.audio, config, spoken) or no_voice(args.audio, spoken):
            print(f"speech: {words}", file=sys.stderr)
        elif args.image:
            usable, words = look_for_face(args.image, args.size, model, spoken.face)
            print(f"speech: {words}{'' if usable else '; the clip may stay silent'}", file=sys.stderr)
    job_id = ""
    if args.clip and not os.path.exists(args.clip) and ID.fullmatch(args.clip):
        job_id, args.clip = args.clip, ""
    jobs = run_jobs(draft(args, seed=args.seed, task=args.task, job=job_id), args.out, args.json, args.clips)
    made = list(zip(jobs, names_of(args.out, args.clips), strict=True))
    for job, out in made:
        _tell(job, out)
    if args.json:
        summaries = [_summary(job, out) for job, out in made]
        print(json.dumps(summaries[0] if args.clips == 1 else summaries))
    return 1 if any(job.error for job in jobs) else 0


def _summary(job: Job, out: Path) -> dict[str, Any]:
    result = job.result
    return {
        "out": str(out),
        "job": job.id,
        "worker": job.worker,
        "error": job.error,
        **job.request.public(),
        "frames": result.frames,
        "fps": result.fps,
        "seconds": result.seconds,
        "facts": result.facts,
        "loras": [asdict(match) for match in result.loras],
        "latents_sha256": result.latents_sha256,
    }


def _tell(job: Job, out: Path) -> None:
    result = job.result
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in result.seconds.items())
    made = f"{result.frames} frames, seed {job.request.sampling.seed}, {sum(result.seconds.values()):.1f} s"
    print(f"{out}: {made} ({stages})")
    if result.loras:
        print(f"LoRA: {result.facts['loras']}")
    if "lipsync_voice" in result.facts:
        print(f"Speech: {result.facts['lipsync']}; {result.facts['lipsync_voice']}")
    if job.error:
        print(f"error: {job.error}", file=sys.stderr)
