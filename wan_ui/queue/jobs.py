"""The job table: queue and history are the same rows of one SQLite file (WAL).

A job is queued, then running, then done, failed, cancelled or interrupted (the app went away). Any
process may add, cancel and look; only the process that owns the worker claims. Every call is a
short transaction of its own, so threads and processes need no lock of their own; its connection is
kept for the next call. What a power cut must not undo is on the disk when the call returns; progress
need not be.

Whose turn it is: each owner with waiting jobs stands in line once, and goes to its end when a job of
theirs has ended (round-robin; `turn` is the place); who has jobs running comes after those who have fewer. The order
of rows is that of their insertion (`rowid`), not of `created`: clocks are set back. `began`, `stage_started` and
`step_started` are seconds of the monotonic clock, which all processes of a machine share; they mean something while
the job runs.

Its columns are those of wan_ui.queue.schema. Rows of other versions, and damaged ones, are read as far as possible: see
wan_ui.stored.
"""

import json
import logging
import re
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from wan_ui import stored
from wan_ui.errors import UserError
from wan_ui.queue import order, schema
from wan_ui.request import Progress, Request, Result
from wan_ui.valid_text import valid_text, valid_values

log = logging.getLogger(__name__)

ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "interrupted")
PATIENCE = 10.0  # seconds that a call waits for a table that another program has locked
SHORT = 0.2  # the same, for calls that come again anyway
KEPT = 8  # connections that wait for the next call; more than that are at work at once only for moments

WORDS = ("owner", "stage", "detail", "preview", "error", "worker", "lost")
NEXT_TURN = "(SELECT COALESCE(MAX(turn), 0) + 1 FROM jobs)"
Files = tuple[tuple[int, int] | None, ...]  # which the table and its log are; None: not there
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")  # the name of a folder: never a path


NOT_STARTED = Progress("")
NOTHING = Result()


class TableError(UserError):
    """The job table cannot be read or written now; says why."""


class TableLocked(TableError):
    """Another program has locked the job table: the same call may succeed later."""


class QueueFull(UserError):
    """Too many jobs are waiting already, of all people or of this one."""

    def __init__(self, message: str):
        super().__init__(message, field="queue")


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since the epoch, but began, stage_started and step_started (see above).

    result   empty until the job is done
    worker   that runs it, or has run it; "" while it waits, and in entries of older versions
    lost     of a job that was put back in line: how the worker was lost that had it
    star     whether it is to stay, whatever the quota says
    held     since when its owner has paused it; None: it runs when it is its turn
    removed  when its owner has deleted it; it can be taken back for a while
    skipped  what of the row could not be read
    """

    id: str
    owner: str
    state: str
    request: Request
    created: float
    started: float | None = None
    finished: float | None = None
    progress: Progress = NOT_STARTED
    stage_started: float | None = None
    step_started: float | None = None
    cancel: bool = False
    error: str = ""
    result: Result = NOTHING
    began: float | None = None
    worker: str = ""
    lost: str = ""
    star: bool = False
    held: float | None = None
    removed: float | None = None
    skipped: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def unread(self) -> str:
        """What of this entry is not understood, in words; "" when all is."""
        words = [f"cannot be read: {', '.join(self.skipped)}"] if self.skipped else []
        words += [f"not known to this version: {', '.join(self.request.other)}"] if self.request.other else []
        return f"Of this entry {'; '.join(words)}." if words else ""


@dataclass(frozen=True)
class Brief:
    """What the folder of a job is kept by. since: seconds since the epoch when it ended, or was made."""

    id: str
    owner: str
    active: bool
    since: float
    star: bool = False


def new_job_id() -> str:
    """Sortable by time, and not to be guessed: it is the only key to the clip's address."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}"


class Jobs:
    """Every method raises TableLocked while another program has locked the table, TableError when it is damaged."""

    def __init__(self, path: Path):
        self.path = path
        self._kept: list[tuple[Files, sqlite3.Connection]] = []  # with the files that each is of
        self._keeping = threading.Lock()
        self._log_ahead = False  # with it a commit that does not wait for the disk cannot damage the table
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.connect() as db:
            try:
                self._log_ahead = db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
            except sqlite3.OperationalError as error:
                if _locked(error):
                    raise
                log.info("the job table is kept without a write-ahead log (%s)", error)  # some network file systems
            schema.bring_up(db, path)

    @contextmanager
    def connect(self, patience: float = PATIENCE, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """durable: what is committed outlives a power cut, for which it waits for the disk."""
        try:
            files, db = self._take_connection()
            try:
                db.execute(f"PRAGMA busy_timeout = {round(1000 * patience)}")
                db.execute(f"PRAGMA synchronous = {'FULL' if durable or not self._log_ahead else 'NORMAL'}")
                yield db
            except BaseException:
                db.close()  # what is not committed is rolled back
                raise
            self._keep_connection(files, db)
        except sqlite3.Error as error:
            if _locked(error):
                raise TableLocked(
                    f"outputs: another program has locked the job table {self.path.name}; try again when it is done"
                ) from None
            raise TableError(
                f"outputs: the job table {self.path} cannot be used ({error}). With a full disk make room; a damaged "
                "table can be moved away: a new one is made at the next start, the clips stay where they are"
            ) from None

    def _take_connection(self) -> tuple[Files, sqlite3.Connection]:
        """One that is kept, or a new one; and of which files."""
        files = self._files()
        while True:
            with self._keeping:
                kept = self._kept.pop() if self._kept else None
            if kept is None:
                break
            if kept[0] == files:
                return kept
            kept[1].close()  # the table was moved away, or another one put there
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)  # one thread at a time has it
        db.row_factory = sqlite3.Row
        db.text_factory = lambda content: content.decode("utf-8", "replace")
        return files, db

    def _keep_connection(self, before: Files, db: sqlite3.Connection) -> None:
        files = self._files()  # its log may be there since
        with self._keeping:
            if files[0] is not None and files[0] == before[0] and len(self._kept) < KEPT:
                self._kept.append((files, db))
                return
        db.close()

    def _files(self) -> Files:
        return _which(self.path), _which(self.path.with_name(f"{self.path.name}-wal"))

    def put(self, job: Job) -> None:
        """Store an entry as it is given: in place of the one with its id, or as the newest."""
        with self.connect() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, state, request, created, started, finished, error, result) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state, "
                "request = excluded.request, error = excluded.error, result = excluded.result",
                (
                    *(job.id, job.owner, job.state, json.dumps(job.request.to_dict())),
                    *(job.created, job.started, job.finished, job.error, json.dumps(job.result.to_dict())),
                ),
            )

    def nameless(self) -> dict[int, dict[str, object]]:
        """Entries whose id is none, as they are stored, by their number in the table."""
        return {number: row for number, row in self.rows().items() if not _is_id(row["id"])}

    def rows(self, job_id: str | None = None) -> dict[int, dict[str, object]]:
        """All entries as they are stored, or that one, by their number in the table."""
        with self.connect() as db:
            rows = db.execute("SELECT rowid AS number, * FROM jobs WHERE ? IS NULL OR id = ?", (job_id, job_id))
            return {row["number"]: dict(row) for row in rows}

    def take_out(self, number: int) -> None:
        """Remove an entry, in whatever state, by its number in the table."""
        with self.connect() as db:
            db.execute("DELETE FROM jobs WHERE rowid = ?", (number,))

    def trouble(self) -> str:
        """What SQLite finds wrong with the table's file; "" when nothing."""
        with self.connect() as db:
            words = "; ".join(str(row[0]) for row in db.execute("PRAGMA integrity_check(3)"))
        return "" if words == "ok" else words

    def copy_to(self, path: Path) -> None:
        """The table as it is at one moment, into a new file; nobody has to wait for it."""
        with self.connect() as db, closing(sqlite3.connect(path)) as copy:
            db.backup(copy)

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._keeping:
            kept, self._kept = self._kept, []
        for _, db in kept:
            db.close()

    def add(self, job_id: str, owner: str, request: Request, most: int | None = None, each: int | None = None) -> None:
        """Put a job in line. Raises QueueFull when `most` jobs are waiting, or `each` of this owner."""
        self.add_all({job_id: request}, owner, most, each)

    def add_all(
        self,
        requests: Mapping[str, Request],
        owner: str,
        most: int | None = None,
        each: int | None = None,
        paused: bool = True,
    ) -> None:
        """Put several in line, all of them or none. requests: by the ids of their jobs. paused: whether they wait as
        well where this owner has paused. Raises as `add`."""
        with self.connect() as db:
            db.execute("BEGIN IMMEDIATE")  # counted and added in one: many may ask at the same moment
            self._check_room(db, owner, most, each, len(requests))
            mine = db.execute("SELECT MAX(turn) FROM jobs WHERE state = 'queued' AND owner = ?", (owner,)).fetchone()[0]
            turn = db.execute(f"SELECT {NEXT_TURN}").fetchone()[0] if mine is None else mine
            since = "SELECT MIN(held) FROM jobs WHERE state = 'queued' AND owner = ?"
            held = db.execute(since, (owner,)).fetchone()[0] if paused else None
            db.executemany(
                "INSERT INTO jobs (id, owner, state, request, created, turn, batch, held) "
                "VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)",
                [
                    (job_id, owner, json.dumps(request.to_dict()), time.time(), turn, request.batch, held)
                    for job_id, request in requests.items()
                ],
            )
            db.execute("COMMIT")

    def check_room(self, owner: str, most: int, each: int, new: int = 1) -> None:
        """As `add_all` will with `new` jobs: before anything is stored for them."""
        with self.connect() as db:
            self._check_room(db, owner, most, each, new)

    def _check_room(self, db: sqlite3.Connection, owner: str, most: int | None, each: int | None, new: int = 1) -> None:
        total, mine = db.execute(
            "SELECT COUNT(*), COALESCE(SUM(owner = ?), 0) FROM jobs WHERE state = 'queued'", (owner,)
        ).fetchone()
        if most is not None and total >= most:
            raise QueueFull(f"{total} jobs are waiting already; try again when some have finished")
        if each is not None and mine >= each:
            jobs = "job of yours is" if mine == 1 else "jobs of yours are"
            raise QueueFull(f"{mine} {jobs} waiting already; try again when one has finished")
        rooms = [most - total] if most is not None else []
        rooms += [each - mine] if each is not None else []
        if rooms and new > min(rooms):
            left = min(rooms)
            words = f"{left} more {'clip' if left == 1 else 'clips'} can wait in line now, not {new}"
            raise QueueFull(f"{words}; ask for fewer, or try again when some have finished")

    def get(self, job_id: str, patience: float = PATIENCE) -> Job | None:
        with self.connect(patience) as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def of_owner(self, owner: str, limit: int = 50) -> list[Job]:
        """Newest first."""
        with self.connect() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE owner = ? AND removed IS NULL ORDER BY rowid DESC LIMIT ?", (owner, limit)
            ).fetchall()
        return read_rows(rows)

    def of_batch(self, batch: str, owner: str) -> list[Job]:
        """What one press has asked for, in the order in which it was put in line."""
        with self.connect() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE batch = ? AND owner = ? AND removed IS NULL ORDER BY rowid", (batch, owner)
            ).fetchall()
        return read_rows(rows)

    def set_star(self, job_id: str, owner: str, star: bool) -> None:
        """Whether it is to stay, whatever the quota says."""
        with self.connect() as db:
            db.execute("UPDATE jobs SET star = ? WHERE id = ? AND owner = ?", (star, job_id, owner))

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self.connect() as db:
            rows = db.execute("SELECT state, COUNT(*) AS count FROM jobs GROUP BY state").fetchall()
        return dict.fromkeys((*ACTIVE, *ENDED), 0) | {row["state"]: row["count"] for row in rows if row["state"]}

    def newest_done(self, limit: int) -> list[Job]:
        """Newest first, of every owner."""
        with self.connect() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE state = 'done' ORDER BY rowid DESC LIMIT ?", (limit,)
            ).fetchall()
        return read_rows(rows)

    def in_state(self, *states: str) -> list[Job]:
        """Oldest first."""
        marks = ", ".join("?" for _ in states)
        with self.connect() as db:
            rows = db.execute(f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY rowid", states).fetchall()
        return read_rows(rows)

    def all(self) -> list[Job]:
        """Oldest first, of every owner and in every state."""
        with self.connect() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY rowid").fetchall()
        return read_rows(rows)

    def briefs(self) -> list[Brief]:
        """Of every job that has an id, oldest first, without reading what it is."""
        with self.connect() as db:
            rows = db.execute("SELECT id, owner, state, created, finished, star FROM jobs ORDER BY rowid").fetchall()
        return [
            Brief(
                row["id"],
                valid_text(str(row["owner"] or "")),
                row["state"] in ACTIVE,
                stored.number(row["finished"]) or stored.number(row["created"]) or 0.0,
                bool(row["star"]),
            )
            for row in rows
            if _is_id(row["id"])
        ]

    def line(self, patience: float = PATIENCE) -> list[str]:
        """Ids of the waiting jobs in the order in which they will run, if nobody comes or goes. An entry whose id is
        none has failed."""
        with self.connect(patience) as db:
            rows = db.execute(
                "SELECT rowid, id, owner, turn, place, held FROM jobs WHERE state = 'queued' ORDER BY turn, rowid"
            ).fetchall()
            rows = order.arranged([row for row in rows if not order.is_held(row, time.time())])
            for row in rows:
                if not _is_id(row["id"]):
                    db.execute("UPDATE jobs SET state = 'failed' WHERE rowid = ?", (row["rowid"],))
            running = db.execute("SELECT owner FROM jobs WHERE state = 'running'").fetchall()
        before = Counter(row["owner"] for row in running)
        places = []
        for place, row in enumerate(row for row in rows if _is_id(row["id"])):
            places.append((before[row["owner"]], place, row["id"]))
            before[row["owner"]] += 1
        return [job_id for *_, job_id in sorted(places)]

    def claim(self, worker: str = "", patience: float = PATIENCE) -> Job | None:
        """The job whose turn it is, now running; None when nobody waits."""
        for job_id in self.line(patience):
            if (job := self.take(job_id, worker, patience)) is not None:
                return job
        return None

    def take(self, job_id: str, worker: str = "", patience: float = PATIENCE) -> Job | None:
        """That job, now running; None when it does not wait any more."""
        with self.connect(patience, durable=False) as db:
            row = db.execute(
                "UPDATE jobs SET state = 'running', started = ?, began = ?, worker = ? "
                "WHERE id = ? AND state = 'queued' RETURNING *",
                (time.time(), time.monotonic(), worker, job_id),
            ).fetchone()
        return _job(row) if row else None

    def requeue(self, job_id: str, lost: str = "") -> None:
        """A claimed job that was not run goes back to its place in line. lost: or whose worker was lost, and how."""
        with self.connect() as db:
            db.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, began = NULL, stage = '', step = 0, total = 0, "
                "detail = '', preview = '', segment = 0, segments = 0, stage_started = NULL, step_started = NULL, "
                "worker = '', lost = COALESCE(NULLIF(?, ''), lost) "
                "WHERE id = ? AND state = 'running'",
                (valid_text(lost), job_id),
            )

    def mark(self, job_id: str, progress: Progress, patience: float = PATIENCE) -> bool:
        """Record the step that is being entered; whether the job has been asked to stop. The last preview stays until
        there is a newer one.

        `stage_started` begins anew with a stage's first step: what was before it (loading, preparing) says nothing of
        how long a step takes.
        """
        now, values = time.monotonic(), valid_values(astuple(progress))
        with self.connect(patience, durable=False) as db:
            row = db.execute(
                "UPDATE jobs SET step_started = ?, stage_started = "
                "CASE WHEN stage = ? AND segment = ? AND (total > 0) = ? THEN stage_started ELSE ? END, "
                "stage = ?, step = ?, total = ?, detail = ?, preview = COALESCE(NULLIF(?, ''), preview), "
                "segment = ?, segments = ? WHERE id = ? RETURNING cancel",
                (now, progress.stage, progress.segment, progress.total > 0, now, *values, job_id),
            ).fetchone()
        return bool(row and row["cancel"])

    def cancel(self, job_id: str) -> None:
        """A queued job is cancelled at once; a running one is asked to stop."""
        with self.connect() as db:
            db.execute(
                "UPDATE jobs SET cancel = 1, finished = CASE WHEN state = 'queued' THEN ? ELSE finished END, "
                "state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END "
                "WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), job_id),
            )

    def cancelled(self, job_id: str, patience: float = PATIENCE) -> bool:
        """Whether a running job has been asked to stop."""
        with self.connect(patience) as db:
            row = db.execute("SELECT cancel FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return bool(row and row["cancel"])

    def finish(self, job_id: str, state: str, *, error: str = "", result: Result = NOTHING) -> None:
        """End a job; the others of its owner go to the end of the line."""
        with self.connect() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ?, result = ?, preview = '' WHERE id = ?",
                (state, time.time(), valid_text(error), json.dumps(result.to_dict()), job_id),
            )
            db.execute(
                f"UPDATE jobs SET turn = {NEXT_TURN} "
                "WHERE state = 'queued' AND owner = (SELECT owner FROM jobs WHERE id = ?)",
                (job_id,),
            )
            db.execute("COMMIT")

    def interrupt_running(self) -> int:
        """At start: whatever still says running belonged to an app that is gone."""
        with self.connect() as db:
            return db.execute(
                "UPDATE jobs SET state = 'interrupted', finished = ?, "
                "error = 'The app ended while this job was running; generate it again.' WHERE state = 'running'",
                (time.time(),),
            ).rowcount

    def delete(self, job_id: str) -> None:
        with self.connect() as db:
            db.execute("DELETE FROM jobs WHERE id = ? AND state NOT IN ('queued', 'running')", (job_id,))


def _which(path: Path) -> tuple[int, int] | None:
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


def _locked(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # None: raised by Python's module, not by SQLite
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def read_rows(rows: list[sqlite3.Row]) -> list[Job]:
    return [job for job in map(_job, rows) if job is not None]


def _job(row: sqlite3.Row) -> Job | None:
    """A row as far as it can be read; None when not even its id can."""
    if not _is_id(row["id"]):
        log.warning("an entry of the job table is skipped: its id %r is none", row["id"])
        return None
    request, unread = stored.read_request(row["request"])
    result, lost = stored.read_result(row["result"])
    skipped, state = [*unread, *lost], row["state"]
    if state not in (*ACTIVE, *ENDED):
        skipped.append("state")
        state = "interrupted"
    created, started, finished, began, stage_started, step_started = (
        stored.number(row[name])
        for name in ("created", "started", "finished", "began", "stage_started", "step_started")
    )
    if created is None:
        skipped.append("created")
    if state == "running" and (started is None or began is None):
        started, began = started or time.time(), began or time.monotonic()
    if state == "done":  # the clip may well be there, under the names that the worker gives
        result = replace(result, clip=result.clip or "clip.mp4", poster=result.poster or "poster.jpg")
    words = {name: valid_text(str(row[name] or "")) for name in WORDS}
    step, total, *segment = (int(stored.number(row[name]) or 0) for name in ("step", "total", "segment", "segments"))
    return Job(
        id=row["id"],
        owner=words["owner"],
        state=state,
        request=request,
        created=created or 0.0,
        started=started,
        finished=finished,
        progress=Progress(words["stage"], step, total, words["detail"], words["preview"], *segment),
        stage_started=stage_started,
        step_started=step_started,
        cancel=bool(row["cancel"]),
        error=words["error"],
        result=result,
        began=began,
        worker=words["worker"],
        lost=words["lost"],
        star=bool(row["star"]),
        held=stored.number(row["held"]),
        removed=stored.number(row["removed"]),
        skipped=tuple(skipped),
    )
