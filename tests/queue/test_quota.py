"""The outputs folder: each owner within the quota, the newest clip never, strays listed and collected, no leftovers."""

import logging
import os
import time
from dataclasses import replace

import pytest

from tests.job_requests import job_request
from wan_ui.queue import quota
from wan_ui.queue.jobs import Jobs
from wan_ui.request import Result
from wan_ui.settings import Settings

REQUEST = job_request()
KB = 1e-6  # in GB
UNLIMITED = replace(Settings(), max_outputs_gb=0)


@pytest.fixture
def table(tmp_path) -> Jobs:
    (tmp_path / "clips").mkdir()
    return Jobs(tmp_path / "wan_ui.sqlite")


def put(table: Jobs, job_id: str, owner: str = "ann", state: str = "done", kilobytes: int = 10) -> None:
    """One job in that state, with files of that size."""
    folder = table.path.parent / "clips" / job_id
    folder.mkdir()
    (folder / ("clip.mp4" if state == "done" else "input.png")).write_bytes(bytes(1000 * kilobytes))
    table.add(job_id, owner, REQUEST)
    if state != "queued":
        assert table.claim().id == job_id
    if state not in ("queued", "running"):
        table.finish(job_id, state, result=Result(clip="clip.mp4"))


def prune(table: Jobs, settings: Settings, **options) -> list[str]:
    gone = quota.prune(table.path.parent / "clips", table, settings, **options)
    assert not any((table.path.parent / "clips" / name).exists() or table.get(name) for name in gone)
    return gone


def test_zero_is_no_limit(table):
    for name in "abc":
        put(table, name)
    assert prune(table, UNLIMITED) == [] and len(table.of_owner("ann")) == 3


def test_a_star_keeps_a_clip_and_does_not_count(table):
    for name in "abcd":
        put(table, name)
    table.set_star("a", "ann", True)
    assert prune(table, replace(UNLIMITED, max_outputs_gb=25 * KB)) == ["b"]
    assert prune(table, replace(UNLIMITED, max_output_days=1e-9)) == ["c", "d"]
    assert [job.id for job in table.all()] == ["a"]


def test_what_goes_next_is_known_before_it_goes(table):
    for name in "abc":
        put(table, name)
    outlooks: dict = {}
    assert prune(table, replace(UNLIMITED, max_outputs_gb=35 * KB), outlooks=outlooks) == []
    assert outlooks["ann"].leaving == ("a",) and outlooks["ann"].bytes == 30_000
    table.set_star("a", "ann", True)
    assert prune(table, replace(UNLIMITED, max_outputs_gb=35 * KB), outlooks=outlooks) == []
    assert outlooks["ann"].leaving == () and outlooks["ann"].bytes == 20_000


@pytest.mark.hardening(26)
def test_the_newest_clip_and_active_jobs_stay_below_any_quota(table):
    put(table, "a")
    put(table, "b")
    put(table, "c", state="failed")
    put(table, "d", state="running", kilobytes=500)
    put(table, "e", state="queued", kilobytes=500)
    assert prune(table, replace(UNLIMITED, max_outputs_gb=1 * KB)) == ["a", "c"]
    assert [job.id for job in table.all()] == ["b", "d", "e"]


@pytest.mark.hardening(26)
@pytest.mark.limit("MAX_OUTPUTS_GB")
def test_one_visitor_does_not_push_out_another(table):
    put(table, "bobs-only", "bob")
    for number in range(5):
        put(table, f"a{number}")
    assert prune(table, replace(UNLIMITED, max_outputs_gb=25 * KB)) == ["a0", "a1", "a2"]


@pytest.mark.hardening(26)
@pytest.mark.limit("MAX_OUTPUT_DAYS")
def test_age_is_counted_from_the_end(table):
    put(table, "old")
    put(table, "new")
    week = 7 * 86400
    import sqlite3

    with sqlite3.connect(table.path) as db:
        db.execute("UPDATE jobs SET created = created - ?", (week,))
        db.execute("UPDATE jobs SET finished = finished - ? WHERE id = 'old'", (week,))
    assert prune(table, replace(UNLIMITED, max_output_days=3)) == ["old"]


def test_strays_count_against_nobody_are_listed_and_collected(table, caplog):
    clips = table.path.parent / "clips"
    put(table, "mine")
    big = 1000 * 500
    for name, files in (
        ("20260101-000000-0123456789abcdef", ["input.png"]),  # a submission that was cut short
        ("20260102-000000-0123456789abcdef", ["input.png", "clip.mp4"]),  # its row is lost
        ("20260103-000000-0123456789abcdef", ["clip.mp4"]),
        ("My favourites", ["notes.txt"]),  # not ours
    ):
        (clips / name).mkdir()
        for file in files:
            (clips / name / file).write_bytes(bytes(big))
        moment = time.mktime(time.strptime(name[:8] if name[0] == "2" else "20260104", "%Y%m%d"))
        os.utime(clips / name, (moment, moment))
    allowed = replace(UNLIMITED, max_outputs_gb=1200 * KB)
    with caplog.at_level(logging.WARNING):
        gone = prune(table, allowed, announce=True)
    assert gone == ["20260101-000000-0123456789abcdef", "20260102-000000-0123456789abcdef"], "the oldest ones"
    assert "2 folder(s)" in caplog.text and "belong to no job (1.0 MB)" in caplog.text
    assert "20260103-000000-0123456789abcdef, My favourites" in caplog.text
    assert table.get("mine") and (clips / "mine" / "clip.mp4").exists()
    assert prune(table, allowed) == []


def test_a_job_that_is_being_submitted_is_no_stray(table):
    folder = table.path.parent / "clips" / "20260101-000000-0123456789abcdef"
    quota.begin(folder)
    (folder / "input.png").write_bytes(bytes(100))
    assert prune(table, UNLIMITED) == [] and folder.exists()
    beginning = folder.with_name(".20260102-000000-0123456789abcdef.part")
    beginning.mkdir()
    assert prune(table, UNLIMITED) == [] and beginning.exists()
    past = time.time() - 2 * quota.ABANDONED
    for path in (folder, beginning):
        os.utime(path, (past, past))
    assert sorted(prune(table, UNLIMITED)) == [beginning.name, folder.name]


def test_what_has_not_changed_is_neither_read_nor_measured_again(table, monkeypatch):
    measured, looked = {}, []
    clips = table.path.parent / "clips"
    for name in ("a", "b", "c"):
        put(table, name)
        os.utime(clips / name, (1e9, 1e9))
    count = quota.folder_bytes
    monkeypatch.setattr(quota, "folder_bytes", lambda folder: looked.append(folder.name) or count(folder))
    monkeypatch.setattr(table, "all", None)  # what the jobs were is not asked
    assert prune(table, UNLIMITED, measured=measured) == [] and looked == ["a", "b", "c"]
    looked.clear()
    (clips / "b" / ".clip.part.mp4").touch()
    assert prune(table, UNLIMITED, measured=measured) == [] and looked == ["b"]
    assert not (clips / "b" / ".clip.part.mp4").exists()
    assert prune(table, replace(UNLIMITED, max_outputs_gb=25 * KB), measured=measured) == ["a"]
    assert "a" not in measured and "c" in measured


def test_half_written_files_of_ended_jobs_go_and_those_of_a_running_one_stay(table):
    put(table, "done")
    put(table, "running", state="running")
    parts = [table.path.parent / "clips" / name / ".clip.part.mp4" for name in ("done", "running")]
    for part in parts:
        part.touch()
    prune(table, UNLIMITED)
    assert [part.exists() for part in parts] == [False, True]
