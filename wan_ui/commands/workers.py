"""python -m wan_ui workers: who works for the app that runs here, on which model and which job."""

import argparse
import json
import sys
from dataclasses import asdict

from wan_ui import locks
from wan_ui.errors import UserError
from wan_ui.queue import roster
from wan_ui.queue.local import places_here
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings, settings


def add(commands) -> None:
    parser = commands.add_parser("workers", help="list the workers: their model, state and job")
    parser.add_argument("--json", action="store_true", help="all that is known of each, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = settings()
    running = _app_runs(config)
    planned, troubles = ([], []) if running else places_here(config)
    rows = roster.read(config.outputs) if running else [WorkerRow(it.name, it.device, "off") for it in planned]
    if args.json:
        print(json.dumps({"running": running, "troubles": troubles, "workers": [asdict(row) for row in rows]}))
        return 0
    for words in troubles:
        print(f"error: {words}", file=sys.stderr)
    if not running:
        print(f"no Wan UI runs on {config.outputs}; one that is started here has:")
    for row in rows:
        print("  ".join(filter(None, [f"{row.name:10}", f"{row.device:24}", f"{row.state:8}", *_about(row)])))
    return 0


def _about(row: WorkerRow) -> list[str]:
    memory = f"{row.gpu_used:.1f} of {row.gpu_total:.0f} GiB" if row.gpu_total else ""
    return [
        f"{row.model} {row.scheme}".strip(),
        f"job {row.job}" if row.job else "",
        memory or (f"{row.memory:.1f} GiB" if row.memory else ""),
        f"{row.celsius} °C" if row.celsius is not None else "",
        row.words if row.state == "failed" else "",
    ]


def _app_runs(config: Settings) -> bool:
    """Whether somebody holds the lock of the outputs folder."""
    if not config.outputs.is_dir():
        return False
    try:
        lock = locks.take(config.outputs / ".lock")
    except OSError as error:
        raise UserError(f"outputs: {config.outputs} cannot be looked at ({error})") from None
    if lock is None:
        return True
    lock.close()
    return False
