"""What the workers of one queue share: its rows, the folder of clips, who is there, and the choice of the next job."""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.queue import estimate, library, quota
from wan_ui.queue.base import AnyWorker
from wan_ui.queue.choice import Seat, Turns, Waiting
from wan_ui.queue.jobs import Job, Jobs, TableError
from wan_ui.queue.preparations import Preparations
from wan_ui.request import Request, Result
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS

log = logging.getLogger(__name__)

TRY_AGAIN = 1.0  # seconds between attempts at a write that must not be lost
LAST_TRIES = 4.0  # seconds for such writes once the app is to stop
REMEMBERED = 100  # clips, the newest ones, from which it is known at the start how long one takes
LOADED = 0.5  # seconds; what took less was not loaded
LOOK = 1.0  # seconds between looks at whether the outputs folder is to be tidied
REST = 20  # times as long as tidying took: as long it is not done again
AGED = 3600.0  # seconds after which it is, even when no job has ended: clips grow too old


@dataclass
class Tally:
    """Sums since the app has started. ended: state -> jobs; stages: stage -> (jobs, seconds)"""

    ended: dict[str, int] = field(default_factory=dict)
    stages: dict[str, tuple[int, float]] = field(default_factory=dict)

    def add(self, state: str, result: Result) -> None:
        self.ended[state] = self.ended.get(state, 0) + 1
        for stage, spent in result.seconds.items() if state == "done" else ():
            count, seconds = self.stages.get(stage, (0, 0.0))
            self.stages[stage] = (count + 1, seconds + spent)


def needs(request: Request) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """(model, scheme, engine) and LoRAs that a job is made with; () twice for one that needs no model."""
    made = request.made_with if TASKS[request.task].samples else None
    return ((made.model, made.scheme, made.engine), made.loras) if made else ((), ())


class Line:
    """
    preparations  for workers that have nothing to do
    own       of a command: ids of the jobs that it has submitted; when all have ended nothing more is claimed.
              None: an app
    stopping  the app ends
    seats     of every worker, by its name
    outlooks  of each owner: which of their clips go next, as of the last tidying
    untidy    a job has ended since the outputs folder was tidied
    """

    def __init__(self, jobs: Jobs, clips: Path, settings: Settings, own: set[str] | None):
        self.jobs, self.clips, self.settings, self.own = jobs, clips, settings, own
        self.stopping = threading.Event()
        self.preparations = Preparations()
        self.seats: dict[str, Seat] = {}
        self._workers: dict[str, AnyWorker] = {}
        self._choosing = threading.Lock()
        self.untidy = threading.Event()
        self._measured: quota.Measured = {}
        self.outlooks: dict[str, quota.Outlook] = {}
        self._turns = Turns()
        self._waiting: dict[str, tuple[Waiting, Request]] = {}
        self._made: dict[tuple[object, ...], Job] | None = None  # the newest clip of each kind
        self._loads: dict[tuple[str, ...], float] = {}  # (model, scheme, engine) -> seconds
        self.tally = Tally()
        self._said = ""  # the last trouble with the table, so that it is logged once

    def sit(self, name: str, worker: AnyWorker) -> Seat:
        """A worker comes; where it says what it has loaded and until when it is busy."""
        with self._choosing:
            self._workers[name] = worker
            return self.seats.setdefault(name, Seat(name))

    def leave(self, name: str) -> None:
        with self._choosing:
            self.seats.pop(name, None)
            self._workers.pop(name, None)

    def say(self, error: TableError) -> None:
        """Log it, once while it lasts."""
        if str(error) != self._said:
            self._said = str(error)
            log.error("%s; trying again", error)

    # ------------------------------------------------------------ the next job

    def claim(self, name: str) -> Job | None:
        """The job that this worker takes, now running; None when there is none for it."""
        if self.own is not None and not any(map(self._active, list(self.own))):
            return None
        with self._choosing:
            me = self.seats[name]
            if len(self.seats) == 1:  # there is nothing to choose
                job = self.jobs.claim(name)
            else:
                job = self._choose(me)
            if job is not None:
                model, me.loras = needs(job.request)
                me.loaded = model or me.loaded
                me.free_at = time.monotonic() + (self._seconds(job.request) or 1.0)
        self._said = ""
        return job

    def _choose(self, me: Seat) -> Job | None:
        line = self.jobs.line()
        for job_id in line:
            if job_id not in self._waiting and (job := self.jobs.get(job_id)) is not None:
                self._waiting[job_id] = (self._as_waiting(job), job.request)
        for gone in self._waiting.keys() - set(line):
            del self._waiting[gone]
        waiting = [self._waiting[job_id][0] for job_id in line if job_id in self._waiting]
        asked: dict[tuple[object, ...], bool] = {}
        able = lambda seat, job: self._able(seat, job, asked)  # noqa: E731
        while waiting:
            chosen = self._turns.choose(waiting, me, list(self.seats.values()), time.monotonic(), able)
            if chosen is None:
                return None
            if (job := self.jobs.take(chosen.id, me.name)) is not None:
                return job
            waiting.remove(chosen)  # it was cancelled in this moment
        return None

    def _able(self, seat: Seat, job: Waiting, asked: dict[tuple[object, ...], bool]) -> bool:
        """asked: what is known already; jobs of one model and size are alike, and there may be many."""
        request = self._waiting[job.id][1]
        kind = (seat.name, job.model, job.loras, request.task, request.width, request.height)
        if kind not in asked:
            asked[kind] = not self._workers[seat.name].lacks(request)
        return asked[kind]

    def _as_waiting(self, job: Job) -> Waiting:
        model, loras = needs(job.request)
        return Waiting(job.id, model, loras, self._seconds(job.request), self._loads.get(model, 0.0))

    def _seconds(self, request: Request) -> float | None:
        """That a job is expected to take without loading; None when none of its kind was made yet."""
        if self._made is None:
            self._made = {}
            for job in reversed(self.jobs.newest_done(REMEMBERED)):
                self._learn(job.request, job.result, job)
        expected = estimate.reference(list(self._made.values())[::-1], request)
        return sum(spent for stage, spent in expected.items() if stage != "load") or None

    def expected(self, request: Request) -> float | None:
        """Seconds that a job takes, its model's loading with it; None when none of its kind was made yet."""
        made = self.jobs.newest_done(REMEMBERED)
        spent = sum(estimate.reference(made, request).values())
        model = needs(request)[0]
        loads = [job.result.load_seconds or 0.0 for job in made if model and needs(job.request)[0] == model]
        return spent + max(loads, default=0.0) if spent else None

    def _learn(self, request: Request, result: Result, job: Job) -> None:
        assert self._made is not None
        kind = (request.task, *estimate.kind(request))
        self._made.pop(kind, None)
        self._made[kind] = job
        if (made := request.made_with) and (result.load_seconds or 0.0) > LOADED:
            self._loads[made.model, made.scheme, made.engine] = result.load_seconds or 0.0

    def _active(self, job_id: str) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and job.active

    def is_waiting(self) -> bool:
        """Whether there is a job that nobody runs."""
        try:
            return bool(self.jobs.line())
        except TableError:
            return False  # asked again a moment later

    # ------------------------------------------------------------ its end

    def finish(self, job: Job, state: str, error: str, result: Result) -> None:
        quota.sweep(self.clips / job.id)
        self.settle(lambda: self.jobs.finish(job.id, state, error=error, result=result))
        self.untidy.set()
        with self._choosing:
            self.tally.add(state, result)
        if state == "done" and len(self.seats) > 1 and self._made is not None:
            with self._choosing:
                if (ended := self._get(job.id)) is not None:
                    self._learn(job.request, result, ended)

    def _get(self, job_id: str) -> Job | None:
        try:
            return self.jobs.get(job_id)
        except TableError as error:
            self.say(error)
            return None

    def settle(self, write: Callable[[], None]) -> None:
        """Do a write without which a job would be "running" for ever: tried until it is done."""
        end = None
        while True:
            try:
                return write()
            except TableError as error:
                self.say(error)
            if self.stopping.wait(TRY_AGAIN):
                end = end or time.monotonic() + LAST_TRIES
                time.sleep(TRY_AGAIN / 5)
                if time.monotonic() > end:
                    return  # the next start will find it running, and say so

    def keep_tidy(self) -> None:
        """A thread's work until the app ends: no job waits for it."""
        self.collect(announce=True)
        last, took = time.monotonic(), 0.0
        while not self.stopping.wait(LOOK):
            started = time.monotonic()
            self._delete_removed()
            if started - last > (REST * took if self.untidy.is_set() else AGED):
                self.collect()
                last = time.monotonic()
                took = last - started

    def _delete_removed(self) -> None:
        """What its owner has deleted and not taken back."""
        try:
            for job_id in library.overdue(self.jobs):
                self.jobs.delete(job_id)
                shutil.rmtree(self.clips / job_id, ignore_errors=True)
        except TableError as error:
            self.say(error)

    def collect(self, announce: bool = False) -> None:
        """Tidy the outputs folder."""
        self.untidy.clear()
        try:
            found: dict[str, quota.Outlook] = {}
            quota.prune(self.clips, self.jobs, self.settings, announce, self._measured, found)
            self.outlooks = found
            if announce:
                quota.prune_cache(self.settings.cache, self.settings.max_cache_gb)
        except (OSError, TableError, UserError) as error:
            log.error("the outputs folder was not tidied: %s", error)
        except Exception:
            log.exception("the outputs folder was not tidied")
