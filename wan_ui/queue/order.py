"""The order of an owner's own waiting jobs: moved, paused, changed where they stand.

Whose turn it is among owners stays as it is (see wan_ui.queue.jobs): the places in line that an owner's jobs have are
theirs, and a move only says which of their jobs stands in which of them.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from wan_ui.request import Request

HELD = 3600.0  # seconds after which what a visitor has paused runs: it takes room in the queue from others
OWN = "SELECT rowid, id, owner, place, held FROM jobs WHERE state = 'queued' AND owner = ? ORDER BY turn, rowid"


class Table(Protocol):
    """The job table."""

    def connect(self) -> AbstractContextManager[sqlite3.Connection]: ...


def arranged(rows: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    """`rows` in turn; each owner's own jobs in the order that they were given."""
    mine: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        mine.setdefault(row["owner"], []).append(row)
    ordered = {owner: iter(sorted(own, key=_place)) for owner, own in mine.items()}
    return [next(ordered[row["owner"]]) for row in rows]


def _place(row: sqlite3.Row) -> tuple[float, int]:
    """New jobs come after those that were moved."""
    place = row["place"]
    return (float(place) if isinstance(place, int | float) else float("inf"), row["rowid"])


def is_held(row: sqlite3.Row, now: float) -> bool:
    held = row["held"]
    if not isinstance(held, int | float):
        return False
    return row["owner"] == "local" or 0 <= now - held < HELD


def waiting(jobs: Table, owner: str) -> list[str]:
    """Ids of all that wait, those that are paused too, in their order."""
    with jobs.connect() as db:
        return [row["id"] for row in arranged(db.execute(OWN, (owner,)).fetchall())]


def move(jobs: Table, job_id: str, owner: str, to: int) -> None:
    """To this place among the owner's waiting jobs, 0 being the first; one that does not wait any more stays."""
    with jobs.connect() as db:
        db.execute("BEGIN IMMEDIATE")
        ids = [row["id"] for row in arranged(db.execute(OWN, (owner,)).fetchall())]
        if job_id in ids:
            ids.remove(job_id)
            ids.insert(max(0, to), job_id)
            places = [(place, name, owner) for place, name in enumerate(ids)]
            db.executemany("UPDATE jobs SET place = ? WHERE id = ? AND owner = ?", places)
        db.execute("COMMIT")


def pause(jobs: Table, owner: str, on: bool) -> None:
    """What waits begins no more, until it is taken back; what runs goes on."""
    with jobs.connect() as db:
        held = time.time() if on else None
        db.execute("UPDATE jobs SET held = ? WHERE state = 'queued' AND owner = ?", (held, owner))


def put_in_place(jobs: Table, job_id: str, owner: str, new_id: str, request: Request) -> bool:
    """Another job where this one waits; whether it still did."""
    with jobs.connect() as db:
        return bool(
            db.execute(
                "UPDATE jobs SET id = ?, request = ?, created = ? WHERE id = ? AND owner = ? AND state = 'queued'",
                (new_id, json.dumps(request.to_dict()), time.time(), job_id, owner),
            ).rowcount
        )
