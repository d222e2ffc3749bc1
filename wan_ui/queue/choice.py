"""Which waiting job a free worker takes.

The line is in turn (wan_ui.queue.jobs: `line`). A worker may take a job from further back when that is better: its
model is loaded here, then its LoRAs, then the longest, since a long job that is begun last leaves the other workers
idle at the end. And a job may be left for a busy worker that has its model and will be free before it were loaded here.

Nobody starves: a job is passed over by no more work than was ahead of it when it was first seen, that of running jobs
included. Strictly in turn it would have waited that long, shared between all workers: it waits twice as long at most.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A job in line.

    model    (model, scheme, engine); () when it needs none
    seconds  that it is expected to take, without loading; None when nothing is known
    load     that its model takes to load where it is not loaded; 0 when nothing is known
    """

    id: str
    model: tuple[str, ...] = ()
    loras: tuple[object, ...] = ()
    seconds: float | None = None
    load: float = 0.0


@dataclass
class Seat:
    """A worker as the line sees it: what is loaded, and at which second it is expected to be free (0: it is)."""

    name: str
    loaded: tuple[str, ...] = ()
    loras: tuple[object, ...] = ()
    free_at: float = 0.0

    def has(self, job: Waiting) -> bool:
        return not job.model or self.loaded == job.model

    def left(self, now: float) -> float:
        return max(self.free_at - now, 0.0) if self.free_at else 0.0


class Turns:
    """What is remembered of each waiting job: work that may pass it over and has, and since when it was left."""

    def __init__(self) -> None:
        self.allowed: dict[str, float] = {}
        self.passed: dict[str, float] = {}
        self.left_since: dict[str, float] = {}

    def choose(
        self,
        line: Sequence[Waiting],
        me: Seat,
        seats: Sequence[Seat],
        now: float,
        able: Callable[[Seat, Waiting], bool] = lambda seat, job: True,
    ) -> Waiting | None:
        """The job that `me` takes now; None when there is none for it. now: seconds of any clock that all share."""
        known = [job.seconds for job in line if job.seconds is not None]
        usual = sum(known) / len(known) if known else 1.0
        cost = {job.id: usual if job.seconds is None else job.seconds for job in line}
        self._see(line, cost, sum(seat.left(now) for seat in seats if seat is not me))
        mine = [job for job in line if able(me, job) or not any(able(seat, job) for seat in seats)]
        best, best_key, room = None, None, float("inf")
        promised: dict[str, float] = {}  # seat -> seconds of jobs that are left for it
        for place, job in enumerate(mine):
            warm = me.has(job)
            spends = cost[job.id] + (0.0 if warm else job.load)
            fits = spends <= room
            room = min(room, self.allowed[job.id] - self.passed[job.id])
            if not warm and (seat := self._sooner(job, me, seats, now, promised, able)):
                promised[seat.name] = promised.get(seat.name, 0.0) + cost[job.id]
                continue
            key = (not warm, job.loras != me.loras, -cost[job.id], place)
            if fits and (best_key is None or key < best_key):
                best, best_key = job, key
        if best is not None:
            spends = cost[best.id] + (0.0 if me.has(best) else best.load)
            for job in mine[: mine.index(best)]:
                self.passed[job.id] += spends
        return best

    def _see(self, line: Sequence[Waiting], cost: dict[str, float], running: float) -> None:
        """Who is new is given what is ahead of it; who is gone is forgotten."""
        ahead = running
        for job in line:
            self.allowed.setdefault(job.id, ahead)
            self.passed.setdefault(job.id, 0.0)
            ahead += cost[job.id]
        for table in (self.allowed, self.passed, self.left_since):
            for gone in table.keys() - cost.keys():
                del table[gone]

    def _sooner(
        self,
        job: Waiting,
        me: Seat,
        seats: Sequence[Seat],
        now: float,
        promised: dict[str, float],
        able: Callable[[Seat, Waiting], bool],
    ) -> Seat | None:
        """A busy worker that has the model and is free before it were loaded here. Estimates err: a job is left for
        no longer than that load would take."""
        if now - self.left_since.get(job.id, now) > job.load:
            return None
        for seat in seats:
            waits = seat.left(now) + promised.get(seat.name, 0.0)
            if seat is not me and seat.free_at and seat.has(job) and able(seat, job) and waits < job.load:
                self.left_since.setdefault(job.id, now)
                return seat
        return None
