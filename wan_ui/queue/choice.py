"""Which waiting job a free worker takes.

The line is in turn (wan_ui.queue.jobs: `line`). A worker may take a job from further back when that is better: its
model is loaded here, then its LoRAs, then the longest, since a long job that is begun last leaves the other workers
idle at the end. And a job may be left for a busy worker that has its model and will be free before it were loaded here.

Nobody starves. A job's fair share is what it would wait strictly in turn: the work that was ahead of it when it was
first seen, that of running jobs included, shared between all workers; a usual job at least. No more than 0.75 of that
work may pass it over, and it is left for a busy worker only while it then begins within 1.75 fair shares, or before
its model were loaded if that had begun when it came. So it begins within twice its fair share, as far as the estimates
are right and loading models takes little of the time.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PASSING = 0.75  # of the work ahead of a job: as much more may pass it over. The rest is for models that are loaded


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
        """Seconds until it is free. Estimates err: what takes longer by a minute is given another one."""
        return abs(self.free_at - now) if self.free_at else 0.0


class Turns:
    """What is remembered of each waiting job: how much work may pass it over, how much has, and when it was first
    seen; and how many jobs there were, and how long they are in all. In seconds."""

    def __init__(self) -> None:
        self.allowed: dict[str, float] = {}
        self.passed: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.jobs, self.seconds = 0, 0.0

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
        self._see(line, cost, now, sum(seat.left(now) for seat in seats if seat is not me), len(seats))
        mine = [job for job in line if able(me, job) or not any(able(seat, job) for seat in seats)]
        busy: dict[tuple[str, ...], list[tuple[float, int]]] = {}  # model -> seconds until a seat that has it is free
        for number, seat in enumerate(seats):
            if seat is not me and seat.free_at:
                heapq.heappush(busy.setdefault(seat.loaded, []), (seat.left(now), number))
        best, best_key, room = None, None, float("inf")
        passing: list[str] = []  # those before `job` that it would pass over
        passed = 0
        for place, job in enumerate(mine):
            warm = me.has(job)
            left = self.allowed[job.id] - self.passed[job.id]
            sooner = busy.get(job.model, []) if not warm else []
            share = self.allowed[job.id] / PASSING / len(seats)
            patience = max(job.load, (1 + PASSING) * share) - (now - self.seen[job.id])
            if sooner and sooner[0][0] < min(job.load, patience) and able(seats[sooner[0][1]], job):
                waits, number = sooner[0]
                heapq.heapreplace(sooner, (waits + cost[job.id], number))
                passing.append(job.id)
                continue  # left for that one: what this one does meanwhile does not keep it waiting
            fits = cost[job.id] + (0.0 if warm else job.load) <= room
            key = (not warm, job.loras != me.loras, -cost[job.id], place)
            if fits and (best_key is None or key < best_key):
                best, best_key, passed = job, key, len(passing)
            passing.append(job.id)
            room = min(room, left)
        if best is not None:
            spends = cost[best.id] + (0.0 if me.has(best) else best.load)
            for job_id in passing[:passed]:
                self.passed[job_id] += spends
        return best

    def _see(self, line: Sequence[Waiting], cost: dict[str, float], now: float, running: float, workers: int) -> None:
        """Who is new is given what is ahead of it, and no less than a usual job on each worker, of all that there
        were; who is gone is forgotten."""
        ahead = running
        for job in line:
            if job.id not in self.seen:
                self.jobs, self.seconds = self.jobs + 1, self.seconds + cost[job.id]
        least = self.seconds / max(self.jobs, 1) * workers
        for job in line:
            self.allowed.setdefault(job.id, PASSING * max(ahead, least))
            self.passed.setdefault(job.id, 0.0)
            self.seen.setdefault(job.id, now)
            ahead += cost[job.id]
        for table in (self.allowed, self.passed, self.seen):
            for gone in table.keys() - cost.keys():
                del table[gone]
