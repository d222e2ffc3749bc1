"""An owner's past clips: searched, page by page, and deleted with a while in which that can be taken back."""

import sqlite3
import time
from collections.abc import Sequence

from wan_ui import stored
from wan_ui.queue.jobs import Job, Jobs, read_rows
from wan_ui.queue.order import Table

UNDO = 10.0  # seconds in which a deletion can be taken back


def says(request: str, words: str) -> bool:
    """Whether a stored request has every one of these words in its prompts, its model's name or its LoRAs."""
    values = stored.parse(request) or {}
    parts = [values.get(name) for name in ("prompt", "model", "scheme", "understood")]
    for name, inner in (("segments", "prompt"), ("loras", "file")):
        entries = values.get(name)
        parts += [entry.get(inner) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    text = " ".join(part for part in parts if isinstance(part, str)).casefold()
    return all(word in text for word in words.casefold().split())


def page(table: Jobs, owner: str, words: str, starred: bool, first: int, number: int) -> tuple[list[Job], int]:
    """So many of an owner's clips from the one at `first`, the newest being 0; and how many there are in all."""
    with table.connect() as db:
        chosen, values = "owner = ? AND removed IS NULL", [owner]
        if starred:
            chosen += " AND star"
        if words.strip():
            db.create_function("wan_ui_says", 2, says, deterministic=True)
            chosen, values = chosen + " AND wan_ui_says(request, ?)", [*values, words]
        rows = db.execute(f"SELECT rowid FROM jobs WHERE {chosen} ORDER BY rowid DESC", values).fetchall()
        ids = [row["rowid"] for row in rows[first : first + number]]
        marks = ", ".join("?" for _ in ids)
        found = db.execute(f"SELECT * FROM jobs WHERE rowid IN ({marks}) ORDER BY rowid DESC", ids).fetchall()
    return read_rows(found), len(rows)


def remove(table: Table, ids: Sequence[str], owner: str) -> list[str]:
    """Those of these that are the owner's and have ended are gone for everybody; the ids of those that are."""
    with table.connect() as db:
        return _each(
            db,
            ids,
            "UPDATE jobs SET removed = ? WHERE id = ? AND owner = ? AND removed IS NULL "
            "AND state NOT IN ('queued', 'running') RETURNING id",
            (time.time(),),
            owner,
        )


def take_back(table: Table, ids: Sequence[str], owner: str) -> list[str]:
    """What was removed is there again, as far as it was not too late."""
    with table.connect() as db:
        back = "UPDATE jobs SET removed = NULL WHERE id = ? AND owner = ? AND removed IS NOT NULL RETURNING id"
        return _each(db, ids, back, (), owner)


def _each(db: sqlite3.Connection, ids: Sequence[str], write: str, before: tuple[float, ...], owner: str) -> list[str]:
    db.execute("BEGIN IMMEDIATE")
    rows = [db.execute(write, (*before, name, owner)).fetchone() for name in ids]
    db.execute("COMMIT")
    return [row["id"] for row in rows if row is not None]


def overdue(table: Table) -> list[str]:
    """What was removed longer ago than it can be taken back; a clock that was set back does not keep it for ever."""
    with table.connect() as db:
        now = time.time()
        late = "SELECT id FROM jobs WHERE removed IS NOT NULL AND (removed < ? OR removed > ?)"
        return [row["id"] for row in db.execute(late, (now - UNDO - 1.0, now + 1.0)).fetchall()]
