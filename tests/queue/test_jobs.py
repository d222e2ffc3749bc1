"""The job table: rows of other versions and damaged ones, whose turn it is, limits, a locked table, clocks set back."""

import json
import sqlite3
import threading
from dataclasses import replace

import pytest

from tests.job_requests import changed, job_request
from wan_ui.errors import UserError
from wan_ui.queue import jobs as jobs_module
from wan_ui.queue.estimate import eta, fraction, reference
from wan_ui.queue.jobs import Jobs, QueueFull, TableError, TableLocked
from wan_ui.queue.pipeline import Pipeline
from wan_ui.request import LoraMatch, LoraSpec, Progress, Request, Result
from wan_ui.settings import Settings

REQUEST = job_request()
NEEDED = ("image", "prompt", "model", "scheme", "engine", "width", "height", "frames", "steps", "seed")
# As the first release made it.
OLD = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL,
    created REAL NOT NULL, started REAL, finished REAL, stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0, detail TEXT NOT NULL DEFAULT '', preview TEXT NOT NULL DEFAULT '',
    stage_started REAL, step_started REAL, cancel INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT '{}')
"""


@pytest.fixture
def table(tmp_path) -> Jobs:
    return Jobs(tmp_path / "wan_ui.sqlite")


def change(table: Jobs, job_id: str, **values) -> None:
    with sqlite3.connect(table.path) as db:
        for name, value in values.items():
            db.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (value, job_id))


def done(table: Jobs, job_id: str, result: Result, request: Request = REQUEST) -> None:
    table.add(job_id, "ann", request)
    table.claim()
    table.finish(job_id, "done", result=result)


# ---------------------------------------------------------------- reading what others have stored


def test_a_table_of_an_older_version_is_completed_and_its_jobs_are_there(tmp_path):
    with sqlite3.connect(tmp_path / "old.sqlite") as db:
        db.execute(OLD)
        values = {name: value for name, value in REQUEST.to_dict().items() if name not in ("kind", "video", "audio")}
        row = ("a", "ann", "done", json.dumps(values), 1.0, json.dumps({"clip": "clip.mp4"}))
        db.execute("INSERT INTO jobs (id, owner, state, request, created, result) VALUES (?, ?, ?, ?, ?, ?)", row)
    table = Jobs(tmp_path / "old.sqlite")
    table.add("b", "ann", REQUEST)
    newer, older = table.of_owner("ann")
    assert older.request == REQUEST and older.result.clip == "clip.mp4" and older.skipped == ()
    assert newer.id == "b" and table.claim().id == "b"


# As the version before results had a version stored them: a clip that speaks, and speech for somebody's video.
SPEAKING = """{"clip": "clip.mp4", "poster": "poster.jpg", "frames": 20, "fps": 16,
    "seconds": {"text": 0.1, "denoise": 2.25, "lipsync": 3.0}, "step_seconds": [0.5, 0.75, 0.5, 0.5],
    "load_seconds": 0.0, "memory": {"host_peak": 0.84}, "facts": {"engine": "diffusers", "dtype": "bf16 (native)"},
    "loras": [{"file": "sepia.safetensors", "strength": 0.8, "target": "both",
               "matched": {"high_noise": "80/80", "low_noise": "79/80"}, "unmatched": ["a.lora_up"]}],
    "latents_sha256": "ab12", "before_lipsync": 1.5, "silent": "silent.mp4"}"""
VIDEO = """{"poster": "poster.jpg", "silent": "base.mov", "clip": "clip.mp4", "frames": 40, "fps": 25.0,
    "facts": {"lipsync": "MuseTalk 1.5"}, "seconds": {"lipsync": 3.0}, "before_lipsync": 0.0}"""


def test_results_of_the_version_before_are_read_and_it_reads_what_is_written_now(table):
    table.add("a", "ann", REQUEST)
    table.add("b", "ann", REQUEST)
    change(table, "a", state="done", result=SPEAKING)
    change(table, "b", state="done", result=VIDEO)
    video, speaking = table.of_owner("ann")
    match = LoraMatch("sepia.safetensors", 0.8, "both", {"high_noise": "80/80", "low_noise": "79/80"}, ("a.lora_up",))
    assert speaking.skipped == video.skipped == ()
    assert speaking.result == Result(
        clip="clip.mp4",
        poster="poster.jpg",
        silent="silent.mp4",
        frames=20,
        fps=16.0,
        engine_ran="diffusers",
        seconds={"text": 0.1, "denoise": 2.25, "lipsync": 3.0},
        step_seconds=(0.5, 0.75, 0.5, 0.5),
        load_seconds=0.0,
        before_lipsync=1.5,
        memory={"host_peak": 0.84},
        facts={"engine": "diffusers", "dtype": "bf16 (native)"},
        loras=(match,),
        latents_sha256="ab12",
        version=1,
    )
    assert (video.result.engine_ran, video.result.silent, video.result.before_lipsync) == ("", "base.mov", 0.0)
    # Nothing of what the version before wrote is called otherwise now, and nothing that it needs is left out.
    now = replace(speaking.result, engine_ran="diffusers", engine_why="asked for", version=2)
    assert json.loads(json.dumps(now.to_dict())) == {
        **json.loads(SPEAKING), "engine_ran": "diffusers", "engine_why": "asked for", "version": 2
    }  # fmt: skip
    assert {"seconds", "facts", "loras"} <= Result(clip="clip.mp4").to_dict().keys() and Result().to_dict() == {}


def test_a_result_of_a_newer_version_is_read_as_far_as_it_is_known(table):
    table.add("a", "ann", REQUEST)
    newer = {"version": 3, "clip": "clip.mp4", "poster": "poster.jpg", "frames": 33, "fps": "16 to 24",
             "engine_ran": "sglang", "engine_why": "auto: two GPUs", "seconds": {"denoise": 1.0, "refine": 2.0},
             "memory": 0.84, "step_seconds": [0.5, None],
             "facts": {"engine": "diffusers"}, "depth": {"clip": "depth.mp4"}}  # fmt: skip
    change(table, "a", state="done", result=json.dumps(newer))
    job = table.get("a")
    assert job.skipped == ("fps", "memory", "step_seconds")
    assert job.unread == "Of this entry cannot be read: fps, memory, step_seconds."
    assert job.result == Result(
        clip="clip.mp4",
        poster="poster.jpg",
        frames=33,
        engine_ran="sglang",
        engine_why="auto: two GPUs",
        seconds={"denoise": 1.0, "refine": 2.0},
        facts={"engine": "diffusers"},
        version=3,
        other={"depth": {"clip": "depth.mp4"}},
    )
    assert job.result.to_dict()["depth"] == {"clip": "depth.mp4"} and "depth" not in job.result.public()
    assert Result.from_dict(job.result.to_dict()) == job.result


@pytest.mark.hardening(35)
def test_what_another_version_has_added_is_kept_and_named(table):
    lora = {"file": "x.safetensors", "strength": 0.5, "target": "both", "schedule": [1, 2]}
    values = {**REQUEST.to_dict(), "hologram": "y.png", "mood": 24, "loras": [lora]}
    table.add("a", "ann", REQUEST)
    change(table, "a", request=json.dumps(values))
    (job,) = table.of_owner("ann")
    made = replace(REQUEST.sampling, loras=(LoraSpec(lora["file"], 0.5),))
    assert job.request == replace(REQUEST, other={"hologram": "y.png", "mood": 24}, made_with=made)
    assert job.skipped == () and job.unread == "Of this entry not known to this version: hologram, mood."
    assert job.request.to_dict()["hologram"] == "y.png" and "hologram" not in job.request.public()
    assert Request.from_dict(job.request.to_dict()) == job.request


@pytest.mark.hardening(35)
@pytest.mark.parametrize(
    "column, value, skipped",
    [
        ("request", "{", ("request",)),
        ("request", "[1, 2]", ("request",)),
        ("request", "null", ("request",)),
        ("request", b"\xff\xfe{", ("request",)),
        ("request", "[" * 5000, ("request",)),
        ("request", '{"seed": ' + "9" * 5000 + "}", ("request",)),
        (
            "request",
            "{}",
            ("image", "prompt", "model", "scheme", "engine", "width", "height", "frames", "steps", "seed"),
        ),
        ("result", "{", ("result",)),
        ("result", '"done"', ("result",)),
        ("result", json.dumps({"seconds": None, "facts": [], "loras": {}}), ("seconds", "facts", "loras")),
        ("result", json.dumps({"clip": "../../x.mp4", "fps": "16", "frames": -1}), ("clip", "fps", "frames")),
        ("state", "paused", ("state",)),
        ("created", "yesterday", ("created",)),
        ("owner", "ann", ()),
        ("step", "many", ()),
        ("started", b"\x00", ()),
        ("preview", None, ()),
    ],
)
def test_a_damaged_row_is_read_as_far_as_possible(table, column, value, skipped):
    done(table, "a", Result(clip="clip.mp4", seconds={"denoise": 1.5}, facts={"engine": "diffusers"}))
    with sqlite3.connect(table.path) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
    if value is None:
        value = ""
    change(table, "a", **{column: value})
    (job,) = table.of_owner("ann")
    assert job.skipped == skipped
    assert sum(job.result.seconds.values()) >= 0 and job.result.facts.get("engine", "diffusers") == "diffusers"
    assert job.state in jobs_module.ENDED and table.get("a") == job and job in table.all()
    assert bool(job.unread) == bool(skipped)
    # Whatever the page does with a row works with this one.
    assert reference([job], REQUEST) is not None and eta(job, {}) is None and 0 <= fraction(job, {}) <= 1


@pytest.mark.parametrize(
    "name, value", [("seed", True), ("seed", 1.5), ("width", "256"), ("frames", -3), ("steps", 1e40)]
)
def test_a_field_of_the_wrong_type_is_skipped_and_the_others_stay(table, name, value):
    table.add("a", "ann", REQUEST)
    change(table, "a", request=json.dumps({**REQUEST.to_dict(), name: value}))
    job = table.get("a")
    assert job.skipped == (name,) and job.request == changed(REQUEST, **{name: 0})


@pytest.mark.hardening(42)
def test_texts_that_are_no_unicode_come_out_as_unicode(table):
    table.add("a", "ann", changed(REQUEST, prompt="half \ud83d of a pair"))
    change(table, "a", detail=b"caf\xe9")
    with sqlite3.connect(table.path) as db:
        db.execute("UPDATE jobs SET error = CAST(x'ff41' AS TEXT)")
    job = table.get("a")
    assert (
        job.request.sampling.prompt == "half \N{REPLACEMENT CHARACTER} of a pair"
        and job.error == "\N{REPLACEMENT CHARACTER}A"
    )
    json.dumps(job.request.to_dict(), ensure_ascii=False).encode()
    table.mark("a", Progress("denoise", detail="half \udc80"))
    table.finish("a", "failed", error="half \udc80")
    assert table.get("a").error == "half \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("bad", ["../../etc", "", "a/b", b"\x00\x01", 7.5, None])
def test_a_row_whose_id_is_none_is_neither_shown_nor_in_the_way(table, bad):
    table.add("bad", "ann", REQUEST)
    table.add("good", "ann", REQUEST)
    change(table, "bad", id=bad)
    assert [job.id for job in table.of_owner("ann")] == ["good"]
    assert table.claim().id == "good" and table.claim() is None


@pytest.mark.hardening(34)
def test_a_damaged_table_is_named_with_what_to_do(tmp_path):
    (tmp_path / "wan_ui.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(TableError, match=r"wan_ui\.sqlite cannot be used .* moved away"):
        Jobs(tmp_path / "wan_ui.sqlite")


def test_a_visitor_sees_no_path_of_this_machine_in_an_entry(table):
    why = "auto: WAN_UI_LIGHTX2V_PATH=/home/ada/LightX2V is not a checkout of LightX2V"
    done(table, "a", Result(clip="clip.mp4", engine_ran="diffusers", engine_why=why))
    done(table, "b", Result(clip="clip.mp4", engine_ran="diffusers", engine_why=why))
    with sqlite3.connect(table.path) as db:
        db.execute("UPDATE jobs SET owner = 'local' WHERE id = 'b'")
    pipeline = Pipeline()
    pipeline.jobs, pipeline.settings = table, Settings()
    (visitors,) = pipeline.history("ann")
    assert "/home" not in visitors.result.engine_why and "is not a checkout" in visitors.result.engine_why
    assert visitors == pipeline.job("a", "ann") and pipeline.job("b").result.engine_why == why


# ---------------------------------------------------------------- turns and limits


def run_next(table: Jobs) -> str:
    job = table.claim()
    table.finish(job.id, "done")
    return job.id


@pytest.mark.hardening(23)
def test_people_take_turns_and_the_line_says_so_beforehand(table):
    for number in range(4):
        table.add(f"a{number}", "ann", REQUEST)
    assert table.claim().id == "a0"
    table.add("b0", "bob", REQUEST)
    table.add("c0", "cy", REQUEST)
    table.add("b1", "bob", REQUEST)
    table.finish("a0", "done")
    expected = ["b0", "c0", "a1", "b1", "a2", "a3"]
    assert table.line() == expected
    assert [run_next(table) for _ in expected] == expected and table.claim() is None


def test_who_comes_later_never_gets_before_one_who_waits_since_long(table):
    table.add("a0", "ann", REQUEST)
    run_next(table)
    table.add("a1", "ann", REQUEST)
    for number in range(5):
        table.add(f"new{number}", f"visitor {number}", REQUEST)
    assert run_next(table) == "a1"


def test_a_job_that_was_not_run_is_next_again(table):
    for name in ("a0", "a1"):
        table.add(name, "ann", REQUEST)
    table.claim()
    table.mark("a0", Progress("denoise", 2, 4, "x", "data:image/webp;base64,"))
    table.requeue("a0")
    job = table.get("a0")
    assert (job.state, job.progress, job.began) == ("queued", jobs_module.NOT_STARTED, None)
    assert table.claim().id == "a0"


@pytest.mark.hardening(41)
@pytest.mark.limit("MAX_QUEUE", "MAX_QUEUE_PER_VISITOR")
def test_limits_hold_when_all_ask_at_once(table):
    accepted, refused = [], []

    def ask(number: int) -> None:
        owner = "greedy" if number % 4 else f"visitor {number}"
        try:
            table.add(f"job{number}", owner, REQUEST, 12, 3)
            accepted.append(owner)
        except QueueFull:
            refused.append(owner)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 12 and accepted.count("greedy") == 3 and len(refused) == 36
    with pytest.raises(QueueFull, match="3 jobs of yours are waiting already"):
        table.check_room("greedy", 100, 3)
    with pytest.raises(QueueFull, match="12 jobs are waiting already"):
        table.check_room("new", 12, 3)


# ---------------------------------------------------------------- locks and clocks


@pytest.mark.hardening(34)
def test_a_locked_table_is_told_from_a_broken_one(table, monkeypatch):
    monkeypatch.setattr(jobs_module, "PATIENCE", 0.05)
    table.add("a", "ann", REQUEST)
    other = sqlite3.connect(table.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TableLocked, match="another program has locked the job table"):
        table.mark("a", Progress("text"), 0.05)
    assert table.of_owner("ann")[0].id == "a", "readers are not kept out"
    other.execute("ROLLBACK")
    table.mark("a", Progress("text"), 0.05)
    assert issubclass(TableLocked, UserError)
    other.close()


def test_a_step_is_marked_and_hears_of_a_cancel_at_once(table):
    table.add("a", "ann", REQUEST)
    table.claim()
    assert table.mark("a", Progress("denoise", 1, 4)) is False
    table.cancel("a")
    assert table.mark("a", Progress("denoise", 2, 4)) is True and table.get("a").progress.step == 2


def test_connections_are_kept_as_long_as_the_table_lies_there(table, monkeypatch):
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(
        jobs_module.sqlite3, "connect", lambda *args, **options: opened.append(1) or connect(*args, **options)
    )
    table.add("a", "ann", REQUEST)
    for step in range(4):
        table.mark("a", Progress("denoise", step, 4))
    threads = [threading.Thread(target=table.get, args=("a",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) <= 3
    with pytest.raises(QueueFull):
        table.add("b", "ann", REQUEST, most=1)
    table.add("b", "ann", REQUEST)  # what was refused holds no lock
    table.path.rename(table.path.with_name("moved.sqlite"))
    with pytest.raises(TableError, match="no such table"):
        table.line()
    assert Jobs(table.path).line() == [] == table.line()
    table.close()
    assert table.line() == []


def test_a_clock_that_is_set_back_changes_neither_order_nor_times(table, monkeypatch):
    wall = iter(range(2_000_000_000, 0, -3600))  # an hour less at every look
    monkeypatch.setattr(jobs_module.time, "time", lambda: float(next(wall)))
    for name in ("a", "b", "c"):
        table.add(name, "ann", REQUEST)
    assert [job.id for job in table.of_owner("ann")] == ["c", "b", "a"]
    assert [job.id for job in table.in_state("queued")] == table.line() == ["a", "b", "c"]
    job = table.claim()
    assert job.id == "a"
    table.mark("a", Progress("denoise", 1, 4))
    table.mark("a", Progress("denoise", 3, 4))
    job = table.get("a")
    assert 0 <= job.step_started - job.stage_started < 60 and 0 <= job.stage_started - job.began < 60
    assert 0 <= eta(job, {"denoise": 8.0, "decode": 1.0}, job.step_started) < 60


# ---------------------------------------------------------------- several at once


def test_what_one_press_asks_for_is_put_in_line_whole_or_not_at_all(table):
    three = {name: replace(REQUEST, batch="together") for name in "abc"}
    with pytest.raises(QueueFull, match="2 more clips can wait in line now, not 3"):
        table.add_all(three, "ann", most=5, each=2)
    assert table.all() == []
    table.add_all(three, "ann", most=5, each=3)
    table.add("d", "bob", replace(REQUEST, batch="together"))  # forged
    assert [job.id for job in table.of_batch("together", "ann")] == ["a", "b", "c"]
    assert table.get("a").request == three["a"] and table.get("a").request.public()["batch"] == "together"


def test_a_star_is_set_by_its_owner_alone(table):
    table.add("a", "ann", REQUEST)
    table.set_star("a", "bob", True)
    assert not table.get("a").star
    table.set_star("a", "ann", True)
    assert table.get("a").star
