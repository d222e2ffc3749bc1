"""python -m wan_ui doctor: machine, versions, patches, probes, stages and last errors, fit for a bug report."""

import argparse
import json
from pathlib import Path

from wan_ui.reports import doctor
from wan_ui.settings import settings


def add(commands) -> None:
    parser = commands.add_parser("doctor", help="collect what a bug report needs; nothing personal is in it")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where report.md and report.json go")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, the last line of output")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 when something is wrong."""
    config = settings()
    report = doctor.collect(config)
    paths = doctor.write(report, args.out or doctor.folder(config))
    wrong = doctor.summary(report)
    if not args.json:
        print(doctor.markdown(report))
    for line in wrong or ["nothing wrong was found" if report["stages"] else "nothing wrong is known"]:
        print(line)
    print(f"written: {', '.join(map(str, paths))}")
    if args.json:
        print(json.dumps(report))
    return 1 if wrong else 0
