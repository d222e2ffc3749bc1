"""Many people at once while things go wrong: python -m benchmarks.soak [--minutes 30] [--programs 20] [--browsers 2]

Programs (gradio_client) and real browsers use the app on this machine: random pictures, LoRAs, voices, several clips
per press, cancels, reloads, bad uploads. Meanwhile the worker is killed every minute (SIGKILL, SIGSEGV, SIGSTOP by
turns), the app itself three times (SIGKILL), the job table is locked twice and the disk is full once. Then everything
is held against the table, the files and what each user was told (soak_verdict.py).

With --jobs each of these things happens once (the table is locked twice), at so many jobs, and it ends after that many:
nothing then depends on how fast the machine is. It prints a table, the last line JSON; exit code 1 where something does
not hold.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak_app import PATIENCE, App, Disk, Watch, until
from benchmarks.soak_faults import STAGES, Faults
from benchmarks.soak_users import Person, Program, World
from benchmarks.soak_verdict import Check, verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=0, help="end after so many instead")
    parser.add_argument("--programs", type=int, default=20)
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--no-speech", action="store_true")
    parser.add_argument("--words", default="", help="of every prompt, instead of random motions")
    parser.add_argument("--app", default="", metavar="MODULE", help="started instead of app.py")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two acts of a user")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds of a locked table, and of a full disk")
    parser.add_argument(
        "--timeout", type=int, default=60, help="seconds of a stage without progress: a stopped worker is ended then"
    )
    parser.add_argument("--folder", type=Path, help="an empty one, in which all stays as it was at the end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the processes are ended then, too
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
        checks = soak(arguments.folder, arguments)
    else:
        with tempfile.TemporaryDirectory(prefix="wan-ui-soak-") as folder:
            checks = soak(Path(folder), arguments)
    return any(check.holds is False for check in checks)


def soak(folder: Path, arguments: argparse.Namespace) -> list[Check]:
    disk = Disk(folder, 600)
    deadlines = ",".join(f"{stage}={arguments.timeout}" for stage in STAGES)
    app = App(folder, disk.folder, arguments.port, arguments.app, {"WAN_UI_STAGE_TIMEOUTS": deadlines})
    world = World(app, folder, not arguments.no_speech, arguments.words, arguments.pause)
    watch = Watch(app, 0.25 if arguments.jobs else 1.0)
    users = [Program(world, f"program{number:02}", number) for number in range(arguments.programs)]
    users += [Person(world, f"person{number}", 100 + number) for number in range(arguments.browsers)]
    began = time.monotonic()

    def progress() -> float:
        return watch.ended() / arguments.jobs if arguments.jobs else (time.monotonic() - began) / arguments.minutes / 60

    faults = Faults(app, disk, world, watch, progress, arguments.hold)
    if arguments.jobs:
        faults.one_of_each()
    else:
        faults.each_minute(arguments.minutes)
    print(f"{arguments.programs} programs, {arguments.browsers} browsers; a full disk is {disk.how}", flush=True)
    try:
        app.start()
        began = time.monotonic()
        for one in (watch, *users, faults):
            one.start()
        while progress() < 1 or faults.is_alive():
            time.sleep(0.2)
        world.over.set()
        for user in users:
            user.join(PATIENCE)
        until(lambda: not (watch.counts()["queued"] or watch.counts()["running"]), "the queue does not empty")
        watch.over.set()
        watch.join()
        watch.look()
        minutes = (time.monotonic() - began) / 60
        code = app.end(signal.SIGTERM)
        if code:
            world.fault(f"stopped with SIGTERM the app ended with {code}")
        checks = verdict(app, world, watch, faults, judge=not arguments.jobs)
        report(checks, world, watch, faults, disk, minutes)
        return checks
    finally:
        world.over.set()
        disk.free(app)
        for process in app.all_processes():
            os.kill(process.pid, signal.SIGKILL)
        if not arguments.folder:
            disk.close()


def report(checks: list[Check], world: World, watch: Watch, faults: Faults, disk: Disk, minutes: float) -> None:
    states = {state: watch.counts()[state] for state in sorted(watch.counts())}
    for title, counts in (("jobs", states), ("users", world.counts), ("faults", faults.done)):
        print(f"\n{title}")
        for name in sorted(counts):
            print(f"  {name:50} {counts[name]:6}")
    print("\nverdict")
    for check in checks:
        print(f"  {({True: 'holds', False: 'FAILS', None: '-'})[check.holds]:6} {check.name:62} {check.words}")
    fine = all(check.holds is not False for check in checks)
    failed = [check.name for check in checks if check.holds is False]
    record = {"minutes": round(minutes, 1), "jobs": states, "users": dict(world.counts), "faults": dict(faults.done)}
    print(json.dumps({**record, "disk": disk.how, "failed": failed, "holds": fine}))


if __name__ == "__main__":
    sys.exit(main())
