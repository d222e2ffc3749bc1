"""The columns of the job table, version by version: what each has added, and how an older table gets it.

A table says its version itself (`PRAGMA user_version`). Those up to 6 have not said it: they are told by their columns.
Every column has a default, so that an older Wan UI can still use a table that a newer one has completed, and this one a
newer one's as long as that is so. A new version is an entry here, and one in tests/queue/test_schema.py.
"""

import logging
import sqlite3
from pathlib import Path

from wan_ui.errors import UserError

log = logging.getLogger(__name__)

ADDED: dict[int, dict[str, str]] = {
    1: {
        "id": "TEXT PRIMARY KEY",
        "owner": "TEXT NOT NULL DEFAULT ''",
        "state": "TEXT NOT NULL DEFAULT ''",
        "request": "TEXT NOT NULL DEFAULT '{}'",
        "created": "REAL NOT NULL DEFAULT 0",
        "started": "REAL",
        "finished": "REAL",
        "stage": "TEXT NOT NULL DEFAULT ''",
        "step": "INTEGER NOT NULL DEFAULT 0",
        "total": "INTEGER NOT NULL DEFAULT 0",
        "detail": "TEXT NOT NULL DEFAULT ''",
        "stage_started": "REAL",
        "step_started": "REAL",
        "cancel": "INTEGER NOT NULL DEFAULT 0",
        "error": "TEXT NOT NULL DEFAULT ''",
        "result": "TEXT NOT NULL DEFAULT '{}'",
    },
    2: {"preview": "TEXT NOT NULL DEFAULT ''"},
    3: {"turn": "INTEGER NOT NULL DEFAULT 0", "began": "REAL"},
    4: {"segment": "INTEGER NOT NULL DEFAULT 0", "segments": "INTEGER NOT NULL DEFAULT 0"},
    5: {"worker": "TEXT NOT NULL DEFAULT ''"},
    6: {"lost": "TEXT NOT NULL DEFAULT ''"},
    7: {"batch": "TEXT NOT NULL DEFAULT ''", "star": "INTEGER NOT NULL DEFAULT 0"},
    8: {"place": "REAL", "held": "REAL"},
    9: {"removed": "REAL"},
}
VERSION = max(ADDED)
COLUMNS = {name: kind for version in ADDED for name, kind in ADDED[version].items()}
INDEXES = {
    "jobs_in_line": "jobs (state, turn)",
    "jobs_of_owner": "jobs (owner)",
    "jobs_of_batch": "jobs (batch)",
    "jobs_removed": "jobs (removed)",
}
FORMER_INDEXES = ("jobs_by_state", "jobs_by_owner")  # of versions 1 and 2: nothing asks in their order any more


class NewerTable(UserError):
    """The job table is of a newer Wan UI, whose table this one cannot use."""


def version_of(db: sqlite3.Connection) -> int:
    """Of the table as it lies there; 0 when there is none."""
    there = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
    said: int = db.execute("PRAGMA user_version").fetchone()[0]
    if said and there:
        return said
    version = 0
    while version < VERSION and there >= ADDED[version + 1].keys():
        version += 1
    return version or (1 if there else 0)


def bring_up(db: sqlite3.Connection, path: Path) -> None:
    """Make the table of this version, or of an older one: all of it, or nothing. Raises NewerTable."""
    if _is_right(db, path):
        return
    db.execute("BEGIN IMMEDIATE")  # several processes may start at the same moment
    if _is_right(db, path):
        db.execute("COMMIT")
        return
    before = version_of(db)
    db.execute(f"CREATE TABLE IF NOT EXISTS jobs ({', '.join(map(' '.join, COLUMNS.items()))})")
    there = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
    for name in (name for name in COLUMNS if name not in there):
        db.execute(f"ALTER TABLE jobs ADD COLUMN {name} {COLUMNS[name]}")
    for name in FORMER_INDEXES:
        db.execute(f"DROP INDEX IF EXISTS {name}")
    for name, columns in INDEXES.items():
        db.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")
    if before:
        log.info("the job table %s was of version %d; it is of version %d now", path, before, VERSION)


def _is_right(db: sqlite3.Connection, path: Path) -> bool:
    said: int = db.execute("PRAGMA user_version").fetchone()[0]
    columns = db.execute("PRAGMA table_info(jobs)").fetchall()
    there = {column[1] for column in columns}
    if said <= VERSION:
        return said == VERSION and there >= COLUMNS.keys()
    # Of the columns that are not ours each must have a value by itself, or none.
    needed = [f"{name} is needed" for _, name, _, must, default, _ in columns if must and default is None]
    needed = [words for words in needed if words.split()[0] not in COLUMNS]
    missing = [f"{name} is not there" for name in COLUMNS if name not in there]
    if needed or missing:
        raise NewerTable(
            f"outputs: the job table {path} is of a newer Wan UI (its version {said}, this one knows {VERSION}: "
            f"{', '.join([*missing, *needed][:3])}); update Wan UI, or set WAN_UI_OUTPUTS to another folder"
        )
    log.warning("the job table %s is of a newer Wan UI (version %d, this one knows %d)", path, said, VERSION)
    return True
