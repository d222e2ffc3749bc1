"""python -m wan_ui backup and restore: a copy of all jobs and clips while the app runs, and the way back."""

import argparse
import sys
from pathlib import Path

from wan_ui.commands.progress import Lines
from wan_ui.place import COMMAND
from wan_ui.queue import backup
from wan_ui.settings import settings

SHOWN = 20  # damaged files that are named


def add(commands) -> None:
    parser = commands.add_parser("backup", help="copy all jobs and clips into a folder, while the app runs")
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="new or empty, or an earlier backup, which is brought up to date"
    )
    parser.set_defaults(run=run)
    parser = commands.add_parser("restore", help="copy a backup into the outputs folder")
    parser.add_argument("folder", metavar="DIR", type=Path, help="that backup has written")
    parser.add_argument("--aside", action="store_true", help="move jobs that are there into outputs/set-aside first")
    parser.set_defaults(run=run_restore)


def run(args: argparse.Namespace) -> int:
    config, folder = settings(), args.folder.absolute()
    lines = Lines()
    done = backup.backup(config.outputs, folder, lambda words: lines.tell("jobs", words))
    print(f"{done.jobs} jobs and {done.files} files of {config.outputs} are in {folder}: {_written(done)}")
    return 0


def run_restore(args: argparse.Namespace) -> int:
    config, folder = settings(), args.folder.absolute()
    lines = Lines()
    done = backup.restore(folder, config.outputs, args.aside, lambda words: lines.tell("files", words))
    print(f"{done.jobs} jobs and {done.files} files of {folder} are in {config.outputs}")
    for words in done.bad[:SHOWN]:
        print(f"error: {words}", file=sys.stderr)
    if done.bad:
        print(f"{len(done.bad)} files were not restored; `{COMMAND} check` shows what lacks", file=sys.stderr)
    return 1 if done.bad else 0


def _written(done: backup.Done) -> str:
    return f"{done.copied / 1e6:.1f} MB were written" if done.copied else "no clip is newer"
