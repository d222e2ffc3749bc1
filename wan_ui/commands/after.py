"""python -m wan_ui after: change a finished clip, through the same queue as the page. The original stays."""

import argparse
import json
import os
from pathlib import Path

from wan_ui.changes import ASKED, FILES, LOOPS, MAX_FADE, MAX_JOINED, QUALITIES, SPEEDS
from wan_ui.commands.job import run_job
from wan_ui.commands.options import add_speaking_options, by, speaking
from wan_ui.errors import UserError
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import ID
from wan_ui.rules import number, one_of
from wan_ui.tasks import CHANGED, NEXT, SOUND

OF_SUFFIX = {suffix: kind for kind, (suffix, _) in FILES.items()}
times, twice = by(one_of("2x", "4x")), by(one_of("2x"))
seconds = by(number(0, 1e6))
fade, speed = by(number(0, MAX_FADE)), by(number(*SPEEDS))


def add(commands) -> None:
    parser = commands.add_parser("after", help="change a finished clip: part, frames, size, speed, loop, other files")
    parser.add_argument("clip", metavar="CLIP", help="a video, or the job of a clip that was made here")
    parser.add_argument("--start", type=seconds, metavar="S", help="keep what comes after this second")
    parser.add_argument("--end", type=seconds, metavar="S", help="and before this one")
    parser.add_argument(
        "--join", action="append", default=[], metavar="CLIP", help=f"a clip that follows; {MAX_JOINED} at most"
    )
    parser.add_argument("--fade", type=fade, metavar="S", help="seconds in which one fades into the next (default 0.5)")
    parser.add_argument("--frames", type=times, dest="times", metavar="2x|4x", help="frames between its frames")
    parser.add_argument("--upscale", type=twice, metavar="2x", help="twice as wide and high")
    parser.add_argument("--speed", type=speed, metavar="X", help="0.5: half as fast, 2: twice")
    parser.add_argument(
        "--loop", choices=tuple(LOOPS), help="; ".join(f"{name}: {words}" for name, words in LOOPS.items())
    )
    parser.add_argument("--sound", default="", metavar="FILE", help=SOUND.help)
    add_speaking_options(parser, lips=False)
    parser.add_argument("--quality", choices=tuple(QUALITIES), help="best (default), good or small, of the file")
    kinds = ", ".join(f"{suffix} ({words})" for suffix, words in FILES.values())
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help=f".mp4, {kinds}")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if len(args.join) > MAX_JOINED:
        raise UserError(f"--join: {len(args.join)} clips; at most {MAX_JOINED} can follow")
    changes = {name: getattr(args, name, None) for name in ASKED}
    changes["file"] = OF_SUFFIX.get(args.out.suffix.lower(), "")
    clips = dict(zip([entry.name for entry in (CHANGED, *NEXT)], [args.clip, *args.join], strict=False))
    jobs = {name: clip for name, clip in clips.items() if not os.path.exists(clip) and ID.fullmatch(clip)}
    files = {name: clip for name, clip in clips.items() if name not in jobs}
    files |= {SOUND.name: args.sound} if args.sound else {}
    draft = Draft(
        files, task="after-work", job=jobs.pop(CHANGED.name, ""), jobs=jobs, changes=changes, speaking=speaking(args)
    )
    job = run_job(draft, args.out, quiet=args.json)
    result = job.result
    spent = sum(result.seconds.values())
    print(f"{args.out}: {result.frames} frames at {result.fps:g} a second, {spent:.1f} s")
    for name in ("between", "upscale", "sound"):
        if name in result.facts:
            print(f"{name.capitalize()}: {result.facts[name]}")
    if args.json:
        made = {"frames": result.frames, "fps": result.fps, "seconds": result.seconds, "facts": result.facts}
        print(json.dumps({"out": str(args.out), "job": job.id, **made}))
    return 0
