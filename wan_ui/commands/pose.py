"""python -m wan_ui pose: skeleton and face of a performance as videos, to look at before a run and to give to it.

python -m wan_ui pose dance.mp4 --out pose.mp4 --face face.mp4
python -m wan_ui generate --task animate --image a.jpg --pose-video pose.mp4 --face-video face.mp4 --out clip.mp4
"""

import argparse
import tempfile
from pathlib import Path

from wan_ui.commands.options import positive
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.media import muxer
from wan_ui.performance import preview, watch
from wan_ui.request import Progress
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("pose", help="the skeleton and the face of a performance, as videos or a picture")
    parser.add_argument("video", metavar="VIDEO", help="of one person, without cuts")
    parser.add_argument("--out", metavar="FILE.mp4", type=Path, help="the skeleton, as --pose-video takes it")
    parser.add_argument("--face", metavar="FILE.mp4", type=Path, help="the face, as --face-video takes it")
    parser.add_argument("--sheet", metavar="FILE.png", type=Path, help="some frames beside skeleton and face; quick")
    parser.add_argument("--fps", type=positive, default=FAMILIES["animate-14b"].fps, metavar="N", help="default: 30")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not (args.out or args.face or args.sheet):
        raise UserError("--out: name a file for the skeleton (--out), the face (--face) or a picture of both (--sheet)")
    for option, path in (("--out", args.out), ("--face", args.face), ("--sheet", args.sheet)):
        if path and not path.parent.is_dir():
            raise UserError(f"{option}: the folder {path.parent} does not exist")
    config = settings()
    if args.sheet:
        picture, words = preview.sheet(Path(args.video), config)
        picture.save(args.sheet)
        print(f"{args.sheet}: {words}")
    if not (args.out or args.face):
        return 0
    found = watch.look_at({"performance": args.video}, args.fps, config)["performance"]

    def report(progress: Progress) -> None:
        if progress.step % args.fps == 1:
            print(f"frame {progress.step} of about {progress.total}", flush=True)

    with tempfile.TemporaryDirectory(prefix="wan-ui-pose-") as folder:
        size = (found.width, found.height)
        tracks = watch.watch({"performance": args.video}, size, args.fps, config, report, Path(folder))
        for path, frames in ((args.out, tracks.pose), (args.face, tracks.face)):
            if path and frames is not None:
                count = muxer.write_mp4(iter(frames), path, args.fps)
                print(f"{path}: {count} frames at {args.fps} a second")
    return 0
