"""python -m wan_ui lipsync: give an existing clip a voice, through the same queue as the page."""

import argparse
import json
import os
import sys
from pathlib import Path

from wan_ui.commands.job import run_job
from wan_ui.commands.options import add_inputs, add_speaking_options, speaking
from wan_ui.lipsync.choice import shortcoming
from wan_ui.queue.draft import Draft
from wan_ui.queue.speech_intake import look_for_face_in_clip, no_voice, voice_trouble
from wan_ui.settings import settings
from wan_ui.speaking import read_speaking
from wan_ui.tasks import TASKS

TASK = TASKS["lip-sync"]


def add(commands) -> None:
    parser = commands.add_parser("lipsync", help="make the face in a clip speak")
    add_inputs(parser, TASK.inputs)
    add_speaking_options(parser)
    parser.add_argument("--out", required=True, metavar="FILE.mp4", type=Path)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if words := shortcoming(settings()):
        print(f"speech: {words}", file=sys.stderr)
    spoken = read_speaking(speaking(args))
    if words := voice_trouble(args.audio, settings(), spoken) or no_voice(args.audio, spoken):
        print(f"speech: {words}", file=sys.stderr)
    elif os.path.isfile(args.video):
        print(f"speech: {look_for_face_in_clip(Path(args.video), spoken.face)[1]}", file=sys.stderr)
    inputs = {entry.name: getattr(args, entry.name) for entry in TASK.inputs}
    draft = Draft(inputs, task=TASK.name, speaking=speaking(args))
    job = run_job(draft, args.out, quiet=args.json)
    result = job.result
    seconds = sum(result.seconds.values())
    print(f"{args.out}: {result.frames} frames at {result.fps:g} a second, {seconds:.1f} s")
    print(f"Speech: {result.facts['lipsync']}; {result.facts['lipsync_voice']}")
    if args.json:
        summary = {"out": str(args.out), "job": job.id, "audio_seconds": job.request.audio_seconds}
        made = {"frames": result.frames, "fps": result.fps, "seconds": result.seconds, "facts": result.facts}
        print(json.dumps(summary | made))
    return 0
