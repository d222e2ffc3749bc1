"""Backups of an outputs folder that an app works in, and what is restored from them: whole, or not there at all."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.job_requests import job_request
from tests.scripted_engine import go_on
from wan_ui import locks
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.queue import backup as backup_module
from wan_ui.queue.backup import backup, restore
from wan_ui.queue.intake import Draft
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.pipeline import Pipeline
from wan_ui.request import Result
from wan_ui.settings import ROOT

FACTORY = "tests.scripted_engine:create_engine"


def wan_ui(*arguments, outputs: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "wan_ui", *map(str, arguments)]
    environ = {**os.environ, "WAN_UI_OUTPUTS": str(outputs)}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_app_that_works_is_copied_and_the_copy_goes_on(scripted_settings, picture, tmp_path):
    outputs, target, moved = scripted_settings.outputs, tmp_path / "backups" / "one", tmp_path / "moved"
    pipeline = Pipeline().open(scripted_settings, warm=False, engine_factory=FACTORY)
    try:
        made = pipeline.wait(pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}, seed=5)))
        runs = pipeline.submit(Draft({"image": str(picture), "prompt": "denoise:2=hold"}, seed=6))
        waits = pipeline.submit(Draft({"image": str(picture), "prompt": "second"}, seed=7))
        while pipeline.job(runs).progress.step != 2:
            time.sleep(0.05)
        done = wan_ui("backup", target, outputs=outputs)
        assert done.returncode == 0 and f"3 jobs and 5 files of {outputs} are in {target}" in done.stdout, done.stderr
        go_on([outputs / "clips" / runs])
        assert pipeline.wait(waits).state == "done", "the app goes on"
        clip = pipeline.clip(made).read_bytes()
    finally:
        pipeline.close()
    assert sorted(path.name for path in target.iterdir()) == ["clips", "wan_ui.sqlite"]
    shutil.rmtree(outputs)  # the disk is gone

    done = wan_ui("restore", target, outputs=moved)
    assert done.returncode == 0 and "3 jobs and 5 files" in done.stdout, done.stderr
    pipeline = Pipeline().open(replace(scripted_settings, outputs=moved), warm=False, engine_factory=FACTORY)
    try:
        assert pipeline.wait(waits).state == "done", "what was in line is made, in another folder than before"
        again, interrupted, first = pipeline.history()
        assert (again.id, interrupted.id, first.id) == (waits, runs, made.id)
        assert interrupted.state == "interrupted" and pipeline.input_files(interrupted)["image"].is_file()
        assert first == made and pipeline.clip(first).read_bytes() == clip
        assert muxer.read_metadata(pipeline.clip(first))["seed"] == 5
        assert muxer.read_frames(pipeline.clip(first))[0].shape == (5, 64, 96, 3)
        assert pipeline.poster(first).is_file()
    finally:
        pipeline.close()
    with sqlite3.connect(moved / "wan_ui.sqlite") as db:
        assert not db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'backup%'").fetchall()


@pytest.fixture
def table(tmp_path) -> Jobs:
    """An outputs folder with three clips."""
    table = Jobs(tmp_path / "outputs" / "wan_ui.sqlite")
    for name in "abc":
        add(table, name)
    return table


def add(table: Jobs, name: str, size: int = 1000) -> None:
    folder = table.path.parent / "clips" / name
    folder.mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(name.encode() * size)
    (folder / ".clip.part.mp4").write_bytes(b"half")
    table.add(name, "ann", job_request())
    table.claim()
    table.finish(name, "done", result=Result(clip="clip.mp4"))


def kept(target: Path) -> dict[str, bytes]:
    """What a restore of it gives."""
    outputs = target.with_name(f"{target.name}-restored")
    shutil.rmtree(outputs, ignore_errors=True)
    assert restore(target, outputs).bad == ()
    jobs = Jobs(outputs / "wan_ui.sqlite")
    return {job.id: (outputs / "clips" / job.id / "clip.mp4").read_bytes() for job in jobs.all()}


def test_a_second_backup_writes_what_is_new_and_takes_away_what_is_gone(table, tmp_path):
    outputs, target = tmp_path / "outputs", tmp_path / "copy"
    assert backup(outputs, target).copied == 3000
    inode = (target / "clips" / "a" / "clip.mp4").stat().st_ino
    assert backup(outputs, target).copied == 0
    add(table, "d", 500)
    (outputs / "clips" / "b" / "clip.mp4").write_bytes(b"other")
    table.delete("c")
    shutil.rmtree(outputs / "clips" / "c")
    done = backup(outputs, target)
    assert (done.jobs, done.files, done.copied) == (3, 3, 505)
    assert (target / "clips" / "a" / "clip.mp4").stat().st_ino == inode and not (target / "clips" / "c").exists()
    assert kept(target) == {"a": b"a" * 1000, "b": b"other", "d": b"d" * 500}
    assert not [name for name in files(target) if ".part" in name]


class PowerCut(BaseException):
    """As kill -9: nothing is tidied up."""


def test_wherever_it_is_cut_short_there_is_the_backup_of_before_or_the_new_one(table, tmp_path, monkeypatch):
    """A first backup, then one that brings a change, an addition and a deletion: cut before every call that writes."""
    outputs, target, count = tmp_path / "outputs", tmp_path / "copy", 0
    names = [(os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "rmdir"), (Path, "write_text"), (Path, "mkdir")]
    real = {(place, name): getattr(place, name) for place, name in names}

    def cut_at(number: int) -> bool:
        """Whether it came that far."""
        nonlocal count
        count = 0

        def counted(place, name):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == number:
                    raise PowerCut
                return real[place, name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for place, name in names:
                patch.setattr(place, name, counted(place, name))
            try:
                backup(outputs, target)
            except PowerCut:
                return True
        return False

    number = 1
    while cut_at(number):
        number += 1
        if (target / "wan_ui.sqlite").exists():  # the last steps: tidying
            assert set(kept(target)) == set("abc")
        else:
            with pytest.raises(UserError, match=r"no backup|not finished"):
                restore(target, tmp_path / "nowhere")
    before = {name: name.encode() * 1000 for name in "abc"}
    assert number > 8 and kept(target) == before

    shutil.copytree(target, tmp_path / "first")
    (outputs / "clips" / "b" / "clip.mp4").write_bytes(b"B" * 1000)
    add(table, "d")
    table.delete("c")
    shutil.rmtree(outputs / "clips" / "c")
    after = {"a": b"a" * 1000, "b": b"B" * 1000, "d": b"d" * 1000}
    number, seen = 1, []
    while True:
        shutil.rmtree(target)
        shutil.copytree(tmp_path / "first", target)
        if not cut_at(number):
            break
        number += 1
        seen.append(kept(target))
        assert seen[-1] in (before, after)
        assert backup(outputs, target).jobs == 3 and kept(target) == after, "the same command again finishes it"
    assert before in seen and after in seen and seen == sorted(seen, key=lambda one: one == after)


def test_what_is_deleted_meanwhile_is_left_out(table, tmp_path, monkeypatch):
    outputs, target = tmp_path / "outputs", tmp_path / "copy"
    copy_to = Jobs.copy_to

    def deleted_then(jobs, path):
        copy_to(jobs, path)
        table.delete("b")
        (outputs / "clips" / "b" / "clip.mp4").unlink()
        add(table, "later")

    monkeypatch.setattr(Jobs, "copy_to", deleted_then)
    assert backup(outputs, target).jobs == 2
    assert set(kept(target)) == {"a", "c"}


def test_a_damaged_backup_gives_what_is_whole_and_names_the_rest(table, tmp_path):
    outputs, target, restored = tmp_path / "outputs", tmp_path / "copy", tmp_path / "restored"
    backup(outputs, target)
    (target / "clips" / "a" / "clip.mp4").write_bytes(b"a" * 999 + b"b")
    (target / "clips" / "b" / "clip.mp4").unlink()
    done = wan_ui("restore", target, outputs=restored)
    assert done.returncode == 1 and "clips/a/clip.mp4: is not what was stored" in done.stderr
    assert "clips/b/clip.mp4: is missing" in done.stderr and "2 files were not restored" in done.stderr
    assert files(restored / "clips") == {"c/clip.mp4": b"c" * 1000} and len(Jobs(restored / "wan_ui.sqlite").all()) == 3


def forged(table: Jobs, target: Path, path: str) -> None:
    backup(table.path.parent, target)
    with sqlite3.connect(target / "wan_ui.sqlite") as db:
        db.execute("UPDATE backup_files SET path = ? WHERE path LIKE '%/a/%'", (path,))
    db.close()


@pytest.mark.parametrize(
    "path", ["clips/a/../../../x", "/etc/passwd", "clips/../x", "clips/a/..", "clips/a/", "clips/a/b/c", "x"]
)
def test_a_path_out_of_the_folder_is_refused(table, tmp_path, path):
    forged(table, tmp_path / "copy", path)
    with pytest.raises(UserError, match="which is no file of a job"):
        restore(tmp_path / "copy", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_places_where_no_backup_can_be_are_refused_and_left_alone(table, tmp_path):
    outputs = tmp_path / "outputs"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    Jobs(tmp_path / "other" / "wan_ui.sqlite").close()
    for target, words in [
        (outputs, "lies outside"), (outputs / "clips", "lies outside"), (tmp_path, "lies outside"),
        (tmp_path / "full", "is not empty and holds no backup"), (tmp_path / "other", "is an outputs folder"),
        (tmp_path / "full" / "letter.txt", "File exists"),
    ]:  # fmt: skip
        before = files(tmp_path)
        with pytest.raises(UserError, match=words):
            backup(outputs, target)
        assert files(tmp_path) == before
    backup(outputs, tmp_path / "copy")
    (tmp_path / "copy" / ".lock").touch()
    with pytest.raises(UserError, match="a Wan UI was started on this folder"):
        backup(outputs, tmp_path / "copy")
    with locks.take(tmp_path / "second.lock"), pytest.raises(UserError, match="no job table"):
        backup(tmp_path / "nothing", tmp_path / "new")


def test_two_backups_into_one_place_at_once(table, tmp_path):
    (tmp_path / "copy").mkdir()
    with locks.take(tmp_path / "copy" / ".backup.lock"), pytest.raises(UserError, match="another backup is being"):
        backup(tmp_path / "outputs", tmp_path / "copy")


def test_a_restore_waits_for_no_app_and_covers_nothing(table, tmp_path):
    outputs, target = tmp_path / "outputs", tmp_path / "copy"
    backup(outputs, target)
    with locks.take(outputs / ".lock"), pytest.raises(UserError, match=r"a Wan UI is using .*; stop it first"):
        restore(target, outputs)
    with pytest.raises(UserError, match="holds 3 jobs already; --aside moves them"):
        restore(target, outputs)
    add(table, "later")
    restore(target, outputs, aside=True)
    assert {job.id for job in Jobs(outputs / "wan_ui.sqlite").all()} == set("abc")
    (aside,) = (outputs / "set-aside").iterdir()
    assert {job.id for job in Jobs(aside / "wan_ui.sqlite").all()} == {*"abc", "later"}
    assert (aside / "clips" / "later" / "clip.mp4").is_file()


def test_a_full_disk_is_said_and_the_backup_before_stays(table, tmp_path, monkeypatch):
    outputs, target = tmp_path / "outputs", tmp_path / "copy"
    backup(outputs, target)
    add(table, "d")

    def full(source, part):
        raise OSError(28, "No space left on device", str(part))

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_copy", full)
        with pytest.raises(UserError, match=r"disk: .*d/clip.mp4: No space left on device"):
            backup(outputs, target)
    assert set(kept(target)) == set("abc")
    backup(outputs, target)
    assert set(kept(target)) == set("abcd")
