"""A job table of every earlier version is brought up to this one with its jobs; one of a newer version is used where it
can be, and else refused by name.
"""

import json
import logging
import sqlite3
import subprocess
import sys
import threading

import pytest

from tests.job_requests import job_request
from wan_ui.queue import schema
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.schema import NewerTable
from wan_ui.request import Progress, Result
from wan_ui.settings import ROOT

# As the versions before made their tables, word by word.
FIRST = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL,
    stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '', {preview}stage_started REAL, step_started REAL,
    cancel INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '{{}}'
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, created);
"""
THIRD = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT '',
    request TEXT NOT NULL DEFAULT '{{}}', created REAL NOT NULL DEFAULT 0, started REAL, finished REAL,
    stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '', preview TEXT NOT NULL DEFAULT '', stage_started REAL, step_started REAL,
    cancel INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT '{{}}',
    turn INTEGER NOT NULL DEFAULT 0, began REAL{more});
CREATE INDEX IF NOT EXISTS jobs_in_line ON jobs (state, turn);
CREATE INDEX IF NOT EXISTS jobs_of_owner ON jobs (owner);
"""
SEGMENTS = ", segment INTEGER NOT NULL DEFAULT 0, segments INTEGER NOT NULL DEFAULT 0"
WORKER = ", worker TEXT NOT NULL DEFAULT ''"
LOST = ", lost TEXT NOT NULL DEFAULT ''"
STAR = ", batch TEXT NOT NULL DEFAULT '', star INTEGER NOT NULL DEFAULT 0"
EARLIER = {
    1: FIRST.format(preview=""),
    2: FIRST.format(preview="preview TEXT NOT NULL DEFAULT '', "),
    3: THIRD.format(more=""),
    4: THIRD.format(more=SEGMENTS),
    5: THIRD.format(more=SEGMENTS + WORKER),
    6: THIRD.format(more=SEGMENTS + WORKER + LOST),
    7: THIRD.format(more=SEGMENTS + WORKER + LOST + STAR)
    + "CREATE INDEX IF NOT EXISTS jobs_of_batch ON jobs (batch); PRAGMA user_version = 7;",
    8: THIRD.format(more=SEGMENTS + WORKER + LOST + STAR + ", place REAL, held REAL")
    + "CREATE INDEX IF NOT EXISTS jobs_of_batch ON jobs (batch); PRAGMA user_version = 8;",
}
NEWEST = EARLIER[max(EARLIER)]
REQUEST = job_request(prompt="a wave")
INSERT = "INSERT INTO jobs (id, owner, state, request, created, result) VALUES (?, ?, ?, ?, ?, ?)"


@pytest.fixture(params=EARLIER)
def version(request) -> int:
    return request.param


@pytest.fixture
def earlier(tmp_path, version):
    """A table of that version with a clip that is made and a job that waits."""
    path = tmp_path / "wan_ui.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(EARLIER[version])
        assert schema.version_of(db) == version
        request = json.dumps(REQUEST.to_dict())
        db.execute(INSERT, ("made", "ann", "done", request, 1.5, json.dumps({"clip": "clip.mp4", "frames": 17})))
        db.execute(INSERT, ("waits", "ann", "queued", request, 2.5, "{}"))
    db.close()
    return path


def layout(path) -> tuple[int, set[str], set[str]]:
    db = sqlite3.connect(path)
    columns = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
    indexes = {row[1] for row in db.execute("PRAGMA index_list(jobs)") if not row[1].startswith("sqlite_")}
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return version, columns, indexes


def test_every_version_that_was_is_tried():
    assert sorted(EARLIER) == list(schema.ADDED)[: len(EARLIER)] and schema.VERSION - len(EARLIER) <= 1, (
        "a version that is out needs its table here"
    )


def test_a_table_of_each_version_is_brought_up_with_its_jobs(earlier, version, tmp_path):
    table = Jobs(earlier)
    Jobs(tmp_path / "new.sqlite").close()
    assert layout(earlier) == layout(tmp_path / "new.sqlite")
    assert layout(earlier)[0] == schema.VERSION
    waits, made = table.of_owner("ann")
    assert (made.state, made.created, made.request) == ("done", 1.5, REQUEST)
    assert (made.result.clip, made.result.frames, made.skipped, made.unread) == ("clip.mp4", 17, (), "")
    assert (waits.id, waits.state, waits.request) == ("waits", "queued", REQUEST)

    job = table.claim("cpu0")
    assert job.id == "waits" and job.worker == "cpu0"
    table.mark(job.id, Progress("denoise", 1, 4, segment=1, segments=2))
    assert (table.get("waits").progress.segments, table.get("waits").progress.stage) == (2, "denoise")
    table.finish(job.id, "done", result=Result(clip="clip.mp4"))
    assert table.counts()["done"] == 2


def test_a_version_before_can_still_use_a_table_that_was_brought_up(earlier, version):
    Jobs(earlier).close()
    with sqlite3.connect(earlier) as db:
        db.executescript(EARLIER[version])  # its own start
        db.execute(INSERT, ("theirs", "ann", "queued", json.dumps(REQUEST.to_dict()), 3.5, "{}"))
    db.close()
    assert [job.id for job in Jobs(earlier).of_owner("ann")] == ["theirs", "waits", "made"]
    assert layout(earlier)[0] == schema.VERSION


def test_a_change_that_is_cut_short_changes_nothing(earlier, version, monkeypatch):
    monkeypatch.setattr(schema, "INDEXES", {**schema.INDEXES, "bad": "jobs (nothing)"})
    before = layout(earlier)
    with pytest.raises(Exception, match="nothing"):
        Jobs(earlier)
    assert layout(earlier) == before
    monkeypatch.undo()
    assert len(Jobs(earlier).all()) == 2


def test_several_may_bring_it_up_at_once(earlier):
    failed = []

    def start() -> None:
        try:
            Jobs(earlier)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and layout(earlier)[0] == schema.VERSION


def newer(path, change: str) -> None:
    Jobs(path).close()
    with sqlite3.connect(path) as db:
        db.executescript(f"{change}; PRAGMA user_version = {schema.VERSION + 3}")
    db.close()


def test_a_newer_table_that_has_only_more_is_used_and_stays_newer(tmp_path, caplog):
    path = tmp_path / "wan_ui.sqlite"
    newer(path, "ALTER TABLE jobs ADD COLUMN mood TEXT NOT NULL DEFAULT 'glad'; ALTER TABLE jobs ADD COLUMN moon REAL")
    with caplog.at_level(logging.WARNING):
        table = Jobs(path)
    assert f"of a newer Wan UI (version {schema.VERSION + 3}" in caplog.text
    table.add("a", "ann", REQUEST)
    assert table.claim().request == REQUEST and layout(path)[0] == schema.VERSION + 3


@pytest.mark.parametrize(
    "change, words",
    [
        ("ALTER TABLE jobs RENAME COLUMN result TO outcome", "result is not there"),
        ("DROP TABLE jobs; CREATE TABLE clips (id TEXT)", "id is not there"),
        (
            "DROP TABLE jobs; " + NEWEST.replace("began REAL", "began REAL, kind TEXT NOT NULL"),
            "kind is needed",
        ),
    ],
)
def test_a_newer_table_that_cannot_be_used_is_refused_and_left_as_it_is(tmp_path, change, words):
    path = tmp_path / "wan_ui.sqlite"
    newer(path, change)
    before = layout(path)
    with pytest.raises(NewerTable, match=f"is of a newer Wan UI.*{words}.*update Wan UI, or set WAN_UI_OUTPUTS"):
        Jobs(path)
    assert layout(path) == before


def test_the_command_line_says_so_in_one_line(tmp_path):
    newer(tmp_path / "wan_ui.sqlite", "ALTER TABLE jobs RENAME COLUMN result TO outcome")
    code = "import sys; from wan_ui.__main__ import main; sys.exit(main(['generate', '--image', 'x', '--prompt', 'x']))"
    command = [sys.executable, "-c", code.replace("'x']", f"'x', '--out', '{tmp_path}/x.mp4']")]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "WAN_UI_OUTPUTS": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: outputs: the job table") and "newer Wan UI" in done.stderr
