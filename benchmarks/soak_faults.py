"""What is done to the app while people use it, and when."""

import itertools
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable

import psutil

from benchmarks.soak_app import App, Disk, Watch, until
from benchmarks.soak_users import World

STAGES = ("text", "image", "denoise", "decode", "encode")  # in which a worker is killed, and may not stand still
KILLS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


class Faults(threading.Thread):
    """plan: (part of the run, fault), in order; the next one waits until a clip was made after the last, or where none
    is for ten minutes. done: fault -> how often; unrecovered: after which none was."""

    def __init__(self, app: App, disk: Disk, world: World, watch: Watch, progress: Callable[[], float], hold: float):
        """progress: of the run, 0 to 1. hold: seconds for which the table is locked, and the disk full."""
        super().__init__(daemon=True)
        self.app, self.disk, self.world, self.watch, self.hold = app, disk, world, watch, hold
        self.progress = progress
        self.plan: list[tuple[float, Callable[[], str]]] = []
        self.late = float("inf")  # part of the run by which a kill of the worker may be late; later it is left out
        self.kills = itertools.cycle(KILLS)
        self.done: Counter = Counter()
        self.unrecovered: list[str] = []

    def each_minute(self, minutes: int) -> None:
        """The worker every minute; the app three times in the first half, the table twice, the disk once. Where a
        minute is not enough to make a clip, on a busy machine, the worker is killed once for every clip made."""
        self.late = 1 / minutes
        kills = [(minute / minutes, self.kill_worker) for minute in range(1, minutes)]
        app = [((number + 0.5) / minutes, self.kill_app) for number in (minutes // 8, minutes // 4, 3 * minutes // 8)]
        others = [(0.45, self.lock), (0.6, self.fill), (0.75, self.lock)]
        self.plan = sorted([*kills, *app, *others], key=lambda one: one[0])

    def one_of_each(self) -> None:
        faults = [*[self.kill_worker] * len(KILLS), self.lock, self.fill, self.kill_app, self.lock]
        self.plan = [((number + 1) / (len(faults) + 2), fault) for number, fault in enumerate(faults)]

    def run(self) -> None:
        try:
            for part, fault in self.plan:
                until(lambda part=part: self.progress() >= part, "the run does not go on", float("inf"))
                if fault == self.kill_worker and self.progress() > part + self.late:
                    continue
                name = fault()
                self.done[name] += 1
                began, made = time.monotonic(), self.watch.counts()["done"]
                try:
                    until(lambda made=made: self.watch.counts()["done"] > made, "no clip is made after it")
                except TimeoutError:
                    self.unrecovered.append(name)
                took = time.monotonic() - began
                print(f"  {self.progress():4.0%}  {name}; the next clip after {took:.0f} s; {self.says()}", flush=True)
        except Exception as error:
            self.world.fault(f"a fault could not be made: {error!r}")

    def says(self) -> str:
        return ", ".join(f"{number} {state}" for state, number in sorted(self.watch.counts().items()))

    # ------------------------------------------------------------ the faults: each says what it was

    def kill_worker(self) -> str:
        how = next(self.kills)
        self._at_work().send_signal(how)
        return f"the worker: {how.name}"

    def _at_work(self) -> psutil.Process:
        """The worker, in the middle of a job."""

        def found() -> list[psutil.Process]:
            running = self.watch.rows(f"SELECT id FROM jobs WHERE state = 'running' AND stage IN {STAGES}")
            return [one for one in self.app.workers() if one.status() != psutil.STATUS_STOPPED] if running else []

        return until(found, "no worker is at work")[0]

    def kill_app(self) -> str:
        self._at_work()
        self.app.end(signal.SIGKILL)
        self.app.start()
        return "the app: SIGKILL"

    def lock(self) -> str:
        self._at_work()
        with sqlite3.connect(self.app.outputs / "wan_ui.sqlite", timeout=60, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(self.hold)
            other.execute("ROLLBACK")
        other.close()
        return "the job table: locked"

    def fill(self) -> str:
        self._at_work()
        self.disk.fill(self.app)
        time.sleep(self.hold)
        self.disk.free(self.app)
        return "the disk: full"
