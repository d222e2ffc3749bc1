"""The job table: queue and history are the same rows of one SQLite file (WAL).

A job is queued, then running, then done, failed, cancelled or interrupted (the app went away). Any
process may add, cancel and look; only the process that owns the worker claims. Every call opens its
own short transaction, so threads and processes need no lock of their own.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path

from wan_ui.request import Progress, Request
from wan_ui.valid_text import valid_text, valid_values

ACTIVE = ("queued", "running")
ENDED = ("done", "failed", "cancelled", "interrupted")

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL,
    stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '', preview TEXT NOT NULL DEFAULT '', stage_started REAL, step_started REAL,
    cancel INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, created);
"""


NOT_STARTED = Progress("")


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since the epoch.

    result  what the worker found out: clip and poster (file names in the job's folder), seconds per
            stage, engine facts, sha256 of the latents; empty until the job is done
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
    result: dict = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def new_job_id() -> str:
    """Sortable by time, and not to be guessed: it is the only key to the clip's address."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}"


class Jobs:
    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connect() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            yield db
        finally:
            db.close()

    def add(self, job_id: str, owner: str, request: Request) -> None:
        with self._connect() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, state, request, created) VALUES (?, ?, 'queued', ?, ?)",
                (job_id, owner, json.dumps(request.to_dict()), time.time()),
            )

    def get(self, job_id: str) -> Job | None:
        with self._connect() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def of_owner(self, owner: str, limit: int = 50) -> list[Job]:
        """Newest first."""
        with self._connect() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE owner = ? ORDER BY created DESC, rowid DESC LIMIT ?", (owner, limit)
            ).fetchall()
        return [_job(row) for row in rows]

    def in_state(self, *states: str) -> list[Job]:
        """Oldest first."""
        marks = ", ".join("?" for _ in states)
        with self._connect() as db:
            rows = db.execute(f"SELECT * FROM jobs WHERE state IN ({marks}) ORDER BY created, rowid", states).fetchall()
        return [_job(row) for row in rows]

    def claim(self) -> Job | None:
        """The oldest queued job, now running; None when the queue is empty."""
        with self._connect() as db:
            row = db.execute(
                "UPDATE jobs SET state = 'running', started = ? WHERE id = "
                "(SELECT id FROM jobs WHERE state = 'queued' ORDER BY created, rowid LIMIT 1) RETURNING *",
                (time.time(),),
            ).fetchone()
        return _job(row) if row else None

    def mark(self, job_id: str, progress: Progress) -> None:
        """Record the step that is being entered. The last preview stays until there is a newer one."""
        now = time.time()
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET stage_started = CASE WHEN stage = ? THEN stage_started ELSE ? END, step_started = ?, "
                "stage = ?, step = ?, total = ?, detail = ?, preview = COALESCE(NULLIF(?, ''), preview) WHERE id = ?",
                (progress.stage, now, now, *valid_values(astuple(progress)), job_id),
            )

    def cancel(self, job_id: str) -> None:
        """A queued job is cancelled at once; a running one is asked to stop."""
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET cancel = 1, finished = CASE WHEN state = 'queued' THEN ? ELSE finished END, "
                "state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END "
                "WHERE id = ? AND state IN ('queued', 'running')",
                (time.time(), job_id),
            )

    def finish(self, job_id: str, state: str, *, error: str = "", result: dict | None = None) -> None:
        with self._connect() as db:
            db.execute(
                "UPDATE jobs SET state = ?, finished = ?, error = ?, result = ?, preview = '' WHERE id = ?",
                (state, time.time(), valid_text(error), json.dumps(result or {}), job_id),
            )

    def interrupt_running(self) -> int:
        """At start: whatever still says running belonged to an app that is gone."""
        with self._connect() as db:
            return db.execute(
                "UPDATE jobs SET state = 'interrupted', finished = ?, "
                "error = 'The app ended while this job was running; generate it again.' WHERE state = 'running'",
                (time.time(),),
            ).rowcount

    def delete(self, job_id: str) -> None:
        with self._connect() as db:
            db.execute("DELETE FROM jobs WHERE id = ? AND state NOT IN ('queued', 'running')", (job_id,))


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        owner=row["owner"],
        state=row["state"],
        request=Request.from_dict(valid_values(json.loads(row["request"]))),
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        progress=Progress(row["stage"], row["step"], row["total"], row["detail"], row["preview"]),
        stage_started=row["stage_started"],
        step_started=row["step_started"],
        cancel=bool(row["cancel"]),
        error=row["error"],
        result=valid_values(json.loads(row["result"])),
    )
