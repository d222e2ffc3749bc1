"""python -m wan_ui check: whether job table and files agree, and repairs of what does not. Nothing is deleted."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from wan_ui.commands.progress import Lines
from wan_ui.queue import repair
from wan_ui.queue.check import KINDS, Finding, check
from wan_ui.settings import settings

SHOWN = 20  # of one kind


def add(commands) -> None:
    parser = commands.add_parser("check", help="hold the job table against the files, and offer repairs")
    parser.add_argument("--quick", action="store_true", help="clips are not decoded: a damaged frame is not found")
    parser.add_argument("--repair", action="store_true", help="ask for each kind of trouble whether it is to be mended")
    parser.add_argument("--yes", action="store_true", help="with --repair: mend all without asking")
    parser.add_argument("--json", action="store_true", help="what was found, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    outputs, lines = settings().outputs, Lines()
    look = lambda: check(outputs, args.quick, lambda words: lines.tell("jobs", words))  # noqa: E731
    found = look()
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    elif not found:
        print(f"{outputs}: table and files agree")
    else:
        _show(found)
    if found and (args.repair or args.yes):
        found = _mend(outputs, found, look, args.yes)
    elif found and not args.json:
        print("`--repair` asks for each whether it is to be mended; nothing is deleted")
    return 1 if found else 0


def _show(found: list[Finding]) -> None:
    for kind, (title, _) in KINDS.items():
        these = [finding for finding in found if finding.kind == kind]
        if these:
            print(f"{len(these)}  {title}:")
        for finding in these[:SHOWN]:
            print(f"    {finding.place}: {finding.words}")
        if len(these) > SHOWN:
            print(f"    and {len(these) - SHOWN} more (--json names all)")


def _mend(outputs: Path, found: list[Finding], look, yes: bool) -> list[Finding]:
    """Kind by kind; what is left."""
    with repair.alone(outputs):
        aside = repair.Aside(outputs)
        for kind, (title, words) in KINDS.items():
            these = [finding for finding in found if finding.kind == kind]
            if not these or not words:
                continue
            if not yes and not _asked(f"{title} ({len(these)}): {words}?"):
                continue
            for finding in these:
                print(f"    {finding.place}: {repair.repair(outputs, finding, aside) or 'it is gone'}")
            if kind == "table":
                found = look()  # without one nothing else was seen
        found = look()
    if aside.folder:
        print(f"moved aside: {aside.folder}; delete it when you miss nothing")
    print("all is mended" if not found else f"{len(found)} left")
    return found


def _asked(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # nobody is there to answer
        print()
        return False
