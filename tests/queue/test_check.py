"""`python -m wan_ui check`: every kind of trouble is made, found by name, mended where it can be, nothing is lost."""

import io
import json
import shutil
import sqlite3
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.job_requests import job_request
from wan_ui import locks, settings
from wan_ui.__main__ import main
from wan_ui.commands import check as command
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.queue.check import KINDS, check
from wan_ui.queue.jobs import Jobs
from wan_ui.request import Result
from wan_ui.settings import Settings

A = "20261126-044722-aaaaaaaaaaaaaaaa"
REQUEST = job_request(width=64, height=48, frames=5)
FRAMES = np.random.default_rng(1).integers(0, 255, (5, 48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory) -> Path:
    """A clip and a job in line, all as it should be."""
    outputs = tmp_path_factory.mktemp("check") / "outputs"
    table = Jobs(outputs / "wan_ui.sqlite")
    for name in (A, "waits"):
        folder = outputs / "clips" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 48), "teal").save(folder / "input.png")
        request = replace(REQUEST, inputs={"image": str(folder / "input.png")})
        table.add(name, "ann", request)
        if name != "waits":
            metadata = {**request.public(), "facts": {"engine": "diffusers (auto)"}, "wan_ui": "0.1.0"}
            muxer.write_mp4(FRAMES, folder / "clip.mp4", 16, metadata)
            Image.fromarray(FRAMES[2]).save(folder / "poster.jpg")
            table.claim()
            result = Result(
                clip="clip.mp4", poster="poster.jpg", frames=5, fps=16.0, facts={"engine": "diffusers (auto)"}
            )
            table.finish(name, "done", result=result)
    table.close()
    return outputs


@pytest.fixture
def outputs(sound_folder, tmp_path, monkeypatch) -> Path:
    shutil.copytree(sound_folder, tmp_path / "outputs")
    monkeypatch.setattr(settings, "_current", replace(Settings(), outputs=tmp_path / "outputs"))
    return tmp_path / "outputs"


def change(outputs: Path, statement: str, *values) -> None:
    with sqlite3.connect(outputs / "wan_ui.sqlite") as db:
        db.execute(statement, values)
    db.close()


def everything(outputs: Path) -> list[bytes]:
    """Content of all files but the table's and what is made anew."""
    left = [
        path for path in outputs.rglob("*") if path.is_file() and not path.name.startswith(("wan_ui.sqlite", ".lock"))
    ]
    return sorted(path.read_bytes() for path in left if path.name != "entries.jsonl")


def bits_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(len(content) - 900, len(content) - 500, 50):
        content[place] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def edit(outputs: Path, name: str, **values) -> None:
    result = json.loads(rows(outputs)[name]["result"])
    change(outputs, "UPDATE jobs SET result = ? WHERE id = ?", json.dumps({**result, **values}), name)


def rows(outputs: Path) -> dict[str, sqlite3.Row]:
    db = sqlite3.connect(outputs / "wan_ui.sqlite")
    db.row_factory = sqlite3.Row
    found = {row["id"]: row for row in db.execute("SELECT * FROM jobs")}
    db.close()
    return found


def rename(outputs: Path, name: str, other: str) -> None:
    change(outputs, "UPDATE jobs SET id = ? WHERE id = ?", other, name)


def more(outputs: Path, count: int) -> list[str]:
    """So many jobs like the first one."""
    names = [f"20261126-0448{number:02}-{number:016x}" for number in range(count)]
    for name in names:
        shutil.copytree(outputs / "clips" / A, outputs / "clips" / name)
        columns = "owner, state, request, created, started, finished, result"
        change(outputs, f"INSERT INTO jobs (id, {columns}) SELECT ?, {columns} FROM jobs WHERE id = ?", name, A)
    return names


# What happens to a job's folder or entry, what that is, and how it is said.
TROUBLE = {
    "an id that is a path": (lambda it, job: rename(it, job, "../../etc"), "no-entry", "has a clip and no entry"),
    "a lost row": (lambda it, job: change(it, "DELETE FROM jobs WHERE id = ?", job), "no-entry", "no entry"),
    "an unknown state": (
        lambda it, job: change(it, "UPDATE jobs SET state = 'glad' WHERE id = ?", job),
        "unread",
        "cannot be read: state",
    ),
    "a lost clip": (lambda it, job: (it / "clips" / job / "clip.mp4").unlink(), "no-clip", "clip.mp4 is not there"),
    "a lost picture": (lambda it, job: (it / "clips" / job / "input.png").unlink(), "lost-input", "its image is gone"),
    "a clip that was cut off": (lambda it, job: cut(it / "clips" / job / "clip.mp4"), "damaged", "clip.mp4 is damaged"),
    "wrong bits": (lambda it, job: bits_flipped(it / "clips" / job / "clip.mp4"), "damaged", "clip.mp4 is damaged"),
    "an empty clip": (lambda it, job: (it / "clips" / job / "clip.mp4").write_bytes(b""), "damaged", "is damaged"),
    "no clip before speech": (lambda it, job: edit(it, job, silent="silent.mp4"), "silent", "silent.mp4 is damaged"),
    "a shorter clip": (
        lambda it, job: muxer.write_mp4(FRAMES[:3, :32], it / "clips" / job / "clip.mp4", 16, REQUEST.public()),
        "size",
        "64x32 where 64x48 was made, 3 frames where 5 were made",
    ),
    "no settings": (lambda it, job: muxer.write_metadata(it / "clips" / job / "clip.mp4", {}), "metadata", "prompt, "),
    "other settings": (
        lambda it, job: muxer.write_metadata(it / "clips" / job / "clip.mp4", {**REQUEST.public(), "seed": 99}),
        "metadata",
        "seed is not as in the entry",
    ),
    "half a poster": (
        lambda it, job: (it / "clips" / job / "poster.jpg").write_bytes(b"\xff\xd8\xff half"),
        "poster",
        "poster.jpg cannot be read",
    ),
    "a lost poster": (
        lambda it, job: (it / "clips" / job / "poster.jpg").unlink(),
        "poster",
        "poster.jpg is not there",
    ),
    "half a file": (
        lambda it, job: (it / "clips" / job / ".clip.part.mp4").write_bytes(b"half"),
        "leftover",
        "is no file of this job",
    ),
    "a link": (lambda it, job: (it / "clips" / job / "x").symlink_to("/etc/passwd"), "leftover", "is no file of this"),
}
BESIDE = {  # of no job
    "no id": (
        lambda it: change(it, "INSERT INTO jobs (id, state) VALUES (x'ff00', 'done')"),
        ("nameless", "19", "its id is"),
    ),
    "in line": (lambda it: (it / "clips" / "waits" / "input.png").unlink(), ("no-input", "waits", "its image is gone")),
    "a folder": (lambda it: (it / "clips" / "x").mkdir(), ("leftover", "clips/x", "holds no clip")),
    "a letter": (
        lambda it: (it / "clips" / "letter.txt").write_text("dear"),
        ("leftover", "clips/letter.txt", "lies beside"),
    ),
}


def test_each_trouble_is_found_and_mended_and_no_file_is_lost(outputs, capsys, monkeypatch):
    names = dict(zip(TROUBLE, more(outputs, len(TROUBLE)), strict=True))
    for trouble, name in names.items():
        TROUBLE[trouble][0](outputs, name)
    for make, _ in BESIDE.values():
        make(outputs)
    before, found = everything(outputs), check(outputs)
    places = {(it.kind, it.place.removeprefix("clips/").partition("/")[0]): it.words for it in found}
    for trouble, name in names.items():
        _, kind, words = TROUBLE[trouble]
        assert words in places.pop((kind, name)), trouble
    for _, (kind, place, words) in BESIDE.values():
        assert words in places.pop((kind, place.removeprefix("clips/")))
    (((kind, _), words),) = places.items()
    assert (kind, words) == ("nameless", "its id is '../../etc'")
    assert everything(outputs) == before, "to look changes nothing"

    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    monkeypatch.setattr(command, "check", lambda outputs, quick, report: found)
    assert main(["check", "--repair"]) == 1 and len(asked) == len(KINDS) - 2
    assert everything(outputs) == before, "nothing is done unasked"

    monkeypatch.setattr(command, "check", check)
    assert main(["check", "--repair", "--yes"]) == 1
    assert [it.kind for it in check(outputs)] == ["unread"], capsys.readouterr().out
    kept = everything(outputs)
    lost = [content for content in before if content not in kept]
    assert len(lost) == 3, "of the three clips that have other settings now"


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:6000]), "malformed"),
        (lambda path: path.write_bytes(b"hello" * 999), "file is not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(8192)), "cannot be used"),
    ],
)
def test_a_damaged_table_is_moved_aside_and_made_again(outputs, spoil, words, capsys):
    spoil(outputs / "wan_ui.sqlite")
    before = everything(outputs), (outputs / "wan_ui.sqlite").read_bytes()
    (found,) = check(outputs)
    assert (found.kind, found.place) == ("table", "wan_ui.sqlite") and words in found.words
    assert main(["check", "--yes"]) == 0
    (aside,) = (outputs / "set-aside").iterdir()
    assert everything(outputs) == before[0] and (aside / "wan_ui.sqlite").read_bytes() == before[1]
    assert list(rows(outputs)) == [A]


def test_a_lost_table_is_made_again_from_the_clips(outputs):
    (before,) = Jobs(outputs / "wan_ui.sqlite").in_state("done")
    for path in outputs.glob("wan_ui.sqlite*"):
        path.unlink()
    assert [(it.kind, it.words) for it in check(outputs)] == [("table", "is not there")]
    assert main(["check", "--yes"]) == 0
    (after,) = Jobs(outputs / "wan_ui.sqlite").all()
    assert after.request == before.request.in_folder(outputs / "clips" / A)
    assert (after.id, after.owner, after.state, after.unread) == (A, "local", "done", "")
    assert after.result == replace(before.result, engine_ran="diffusers", fps=None)
    assert list(outputs.glob("set-aside/*/clips/waits/input.png")), "the job in line had no clip: its folder is kept"


def test_what_was_repaired_says_so(outputs):
    damaged, lost, other = more(outputs, 3)
    cut(outputs / "clips" / damaged / "clip.mp4")
    (outputs / "clips" / lost / "clip.mp4").unlink()
    (outputs / "clips" / "waits" / "input.png").unlink()
    muxer.write_metadata(outputs / "clips" / other / "clip.mp4", {"seed": 99})
    frames = muxer.read_frames(outputs / "clips" / other / "clip.mp4")[0]
    assert main(["check", "--yes"]) == 0
    jobs = {job.id: job for job in Jobs(outputs / "wan_ui.sqlite").all()}
    assert jobs[damaged].state == "failed" and "moved aside" in jobs[damaged].error and lost not in jobs
    assert jobs["waits"].state == "failed" and "its image is gone" in jobs["waits"].error
    assert muxer.read_metadata(outputs / "clips" / other / "clip.mp4")["prompt"] == "a wave"
    assert np.array_equal(muxer.read_frames(outputs / "clips" / other / "clip.mp4")[0], frames)
    (aside,) = (outputs / "set-aside").iterdir()
    kept = [json.loads(line) for line in (aside / "entries.jsonl").read_text().splitlines()]
    assert [one["id"] for one in kept] == [lost, other] and kept[1]["settings of the clip"] == {"seed": 99}
    assert (aside / "clips" / lost / "poster.jpg").is_file() and (aside / "clips" / damaged / "clip.mp4").is_file()


def test_each_kind_is_asked_for(outputs, monkeypatch):
    (outputs / "clips" / A / "poster.jpg").unlink()
    (outputs / "clips" / "letter.txt").write_text("dear")
    monkeypatch.setattr("builtins.input", lambda question: "y" if "preview" in question else "")
    assert main(["check", "--repair"]) == 1
    assert [it.kind for it in check(outputs)] == ["leftover"]


def test_nothing_is_repaired_while_an_app_runs_and_what_it_works_on_is_no_trouble(outputs, capsys):
    Jobs(outputs / "wan_ui.sqlite").claim()
    (outputs / "clips" / "waits" / ".clip.part.mp4").touch()
    (outputs / "clips" / ".next.part").mkdir()
    assert check(outputs) == []
    (outputs / "clips" / A / "poster.jpg").unlink()
    with locks.take(outputs / ".lock"):
        assert main(["check", "--yes"]) == 1
    assert "a Wan UI is using" in capsys.readouterr().err and not (outputs / "clips" / A / "poster.jpg").exists()


def test_quick_finds_what_was_cut_off_and_json_names_all(outputs):
    short, wrong = more(outputs, 2)
    cut(outputs / "clips" / short / "clip.mp4")
    bits_flipped(outputs / "clips" / wrong / "clip.mp4")
    with redirect_stdout(io.StringIO()) as out:
        assert main(["check", "--quick", "--json"]) == 1
    assert [(it["kind"], it["place"]) for it in json.loads(out.getvalue())] == [("damaged", short)]


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match="there are no jobs in"):
        check(tmp_path)


def test_every_kind_is_made_here():
    made = {kind for _, kind, _ in TROUBLE.values()} | {kind for _, (kind, *_) in BESIDE.values()}
    assert made == set(KINDS) - {"table"}
