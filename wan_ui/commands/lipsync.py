"""python -m wan_ui lipsync: give an existing clip a voice, through the same queue as the page."""

import argparse
import json
import sys
from pathlib import Path

from wan_ui.commands.job import run_job
from wan_ui.lipsync.choice import shortcoming
from wan_ui.queue.speech_intake import SpeechDraft, look_for_face_in_clip, voice_trouble
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("lipsync", help="make the face in a clip speak")
    parser.add_argument("--video", required=True, metavar="FILE", help="a clip with a face; it plays forth and back")
    parser.add_argument(
        "--audio",
        required=True,
        metavar="FILE",
        help="the voice; the new clip lasts as long, or as the clip does if it is longer",
    )
    parser.add_argument("--out", required=True, metavar="FILE.mp4", type=Path)
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if words := shortcoming(settings()):
        print(f"speech: {words}", file=sys.stderr)
    if words := voice_trouble(args.audio, settings()):
        print(f"speech: {words}", file=sys.stderr)
    elif Path(args.video).is_file():
        print(f"speech: {look_for_face_in_clip(Path(args.video))[1]}", file=sys.stderr)
    job = run_job(SpeechDraft(audio=args.audio, video=args.video), args.out, quiet=args.json)
    result = job.result
    seconds = sum(result.seconds.values())
    print(f"{args.out}: {result.frames} frames at {result.fps:g} a second, {seconds:.1f} s")
    print(f"Speech: {result.facts['lipsync']}; {result.facts['lipsync_voice']}")
    if args.json:
        summary = {"out": str(args.out), "job": job.id, "audio_seconds": job.request.audio_seconds}
        made = {"frames": result.frames, "fps": result.fps, "seconds": result.seconds, "facts": result.facts}
        print(json.dumps(summary | made))
    return 0
