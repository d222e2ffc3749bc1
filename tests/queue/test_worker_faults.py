"""A job may end badly; the queue, the history and the next job never do.

The worker is the real spawned process and the faults are real: SIGSEGV, SIGKILL, a hang.
"""

import errno
import fcntl
import json
import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.scripted_engine import go_on
from wan_ui import locks
from wan_ui.errors import UserError
from wan_ui.queue import messages
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import TableError, TableLocked
from wan_ui.queue.messages import Letter, Loaded
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.worker import Worker
from wan_ui.tasks import DUBBED

FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture
def pipeline(scripted_settings):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    yield pipeline
    pipeline.close()


def run(pipeline, picture, prompt="calm", **fields):
    return pipeline.wait(pipeline.submit(Draft({"image": str(picture), "prompt": prompt}, **fields)))


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_job_runs_and_its_clip_carries_the_settings(pipeline, picture):
    from wan_ui.media import muxer

    job = run(pipeline, picture, seed=7, frames=9)
    assert job.state == "done" and job.error == ""
    frames, fps = muxer.read_frames(pipeline.clip(job))
    assert frames.shape == (9, 64, 96, 3) and fps == 16  # 160 x 120 is nearest to 96 x 64
    settings = muxer.read_metadata(pipeline.clip(job))
    assert settings["seed"] == 7 and settings["prompt"] == "calm" and settings["facts"]["engine"] == "scripted (auto)"
    assert set(job.result.seconds) == {"text", "image", "denoise", "decode", "encode"}


def test_the_model_is_loaded_once(pipeline, picture):
    assert {run(pipeline, picture).result.facts["loads"] for _ in range(3)} == {"1"}


def test_one_that_gave_no_clip_runs_again_as_it_was(pipeline, picture):
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "denoise:2=hold"}, seed=7, frames=9))
    with pytest.raises(UserError, match="only a clip that failed, was cancelled or interrupted"):
        pipeline.again(job_id)
    until(lambda: pipeline.job(job_id).progress.step == 2)
    pipeline.cancel(job_id)
    stopped = pipeline.wait(job_id)
    (pipeline.clips / job_id / "clip.mp4").write_text("half of it")
    again = pipeline.again(job_id)
    folder = pipeline.clips / again
    go_on([folder])
    done = pipeline.wait(again)
    assert (stopped.state, done.state, done.error) == ("cancelled", "done", "")
    assert done.request.made_with == stopped.request.made_with and done.request.frames == 9
    assert str(folder) in done.request.inputs["image"]
    another = pipeline.again(again)  # a clip that is there: with another seed
    go_on([pipeline.clips / another])
    made = pipeline.wait(another).request
    assert made.made_with.prompt == "denoise:2=hold" and made.frames == 9 and made.made_with.seed != 7
    with pytest.raises(UserError, match="only a clip that failed"):
        pipeline.again(job_id, owner="another")
    for path in (pipeline.clips / job_id).iterdir():
        path.unlink()
    (pipeline.clips / job_id).rmdir()
    with pytest.raises(UserError, match="its files are not kept any more"):
        pipeline.again(job_id)


@pytest.mark.hardening(19)
@pytest.mark.parametrize(
    "prompt, words",
    [
        ("denoise:3=segfault", "SIGSEGV during denoise step 3/4, low-noise expert"),
        ("decode:2=kill", "SIGKILL .* during decode step 2/2"),
        ("text=exit:3", "exit code 3 during text"),
        ("image=kill", "SIGKILL .* during image"),
    ],
)
def test_a_dead_worker_fails_its_job_by_stage_and_signal_and_the_next_job_runs(pipeline, picture, prompt, words):
    job = run(pipeline, picture, prompt)
    assert job.state == "failed"
    assert re.search(words, job.error), job.error
    assert run(pipeline, picture, seed=1).state == "done"


@pytest.mark.hardening(19)
def test_a_worker_killed_from_outside_while_idle_is_replaced(pipeline, picture):
    until(lambda: pipeline.model.state == "ready")
    before = pipeline.pool["cpu0"].worker.process.pid
    os.kill(before, signal.SIGKILL)
    worker = pipeline.pool["cpu0"].worker
    until(lambda: worker.alive() and worker.process.pid != before and pipeline.model.state == "ready")
    assert run(pipeline, picture).state == "done"


@pytest.mark.hardening(20)
def test_a_hang_is_ended_after_the_deadline(scripted_settings, picture):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    try:
        until(lambda: pipeline.model.state == "ready")
        pipeline.pool["cpu0"].worker.settings = replace(scripted_settings, stage_timeouts="image=2")
        job = run(pipeline, picture, "image=hang")
        assert job.state == "failed" and "image made no progress for 2 s" in job.error
        pipeline.pool["cpu0"].worker.settings = scripted_settings
        assert run(pipeline, picture).state == "done"
    finally:
        pipeline.close()


def test_errors_for_people_are_shown_and_bugs_are_logged(pipeline, picture, caplog):
    assert run(pipeline, picture, "text=refuse").error == "prompt: the scripted engine refuses this"
    job = run(pipeline, picture, "denoise:1=bug")
    assert job.error.startswith("Unexpected error: ZeroDivisionError: a bug in the engine")
    assert "Traceback" in caplog.text and "act(command)" in caplog.text


def test_a_failed_load_is_reported_and_the_next_scheme_loads(pipeline, picture):
    job = run(pipeline, picture, scheme="fp8")
    assert job.state == "failed" and job.error.startswith("scheme: the fp8 file is damaged")
    assert (pipeline.model.state, pipeline.model.field) == ("failed", "scheme")
    assert run(pipeline, picture).state == "done"
    assert pipeline.model.state == "ready"


@pytest.mark.hardening(22)
@pytest.mark.parametrize("stage", ["text", "image", "denoise:2", "decode:1"])
def test_cancel_stops_within_one_step_and_leaves_no_clip(pipeline, picture, stage):
    name, _, step = stage.partition(":")
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": f"{stage}=hold"}))
    until(lambda: pipeline.job(job_id).progress.stage == name and pipeline.job(job_id).progress.step == int(step or 0))
    pipeline.cancel(job_id)
    job = pipeline.wait(job_id)
    assert job.state == "cancelled" and pipeline.clip(job) is None
    assert not list((pipeline.clips / job_id).glob("*.mp4"))
    names = [stage.name for stage in DUBBED]
    following = names[names.index(name) + 1]
    within = (
        [(name, int(step or 0)), (name, int(step or 0) + 1)] if step else [(name, 0), (following, 0), (following, 1)]
    )
    assert (job.progress.stage, job.progress.step) in within
    assert run(pipeline, picture).state == "done"


def test_jobs_run_in_order_and_a_queued_one_can_be_cancelled(pipeline, picture):
    first, second, third = (
        pipeline.submit(Draft({"image": str(picture), "prompt": "text=hold"}, seed=seed)) for seed in (1, 2, 3)
    )
    until(lambda: pipeline.job(first).state == "running")
    assert [pipeline.position(pipeline.job(job)) for job in (first, second, third)] == [0, 1, 2]
    pipeline.cancel(second)
    assert pipeline.job(second).state == "cancelled"
    go_on(pipeline.clips.iterdir())
    assert pipeline.wait(third).state == "done" and pipeline.job(first).state == "done"
    assert pipeline.job(first).finished <= pipeline.job(third).started


def test_another_owner_sees_and_cancels_nothing(pipeline, picture):
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "text=hold"}), owner="ann")
    assert pipeline.job(job_id, "bob") is None and pipeline.history("bob") == []
    pipeline.cancel(job_id, "bob")
    pipeline.delete(job_id, "bob")
    go_on(pipeline.clips.iterdir())
    assert pipeline.wait(job_id, "ann").state == "done"


def test_the_queue_has_a_limit(scripted_settings, picture):
    pipeline = Pipeline().open(replace(scripted_settings, max_queue=2), engine_factory=FACTORY)
    try:
        pipeline.submit(Draft({"image": str(picture), "prompt": "text=hold"}))
        until(lambda: not pipeline.jobs.in_state("queued"))
        for _ in range(2):
            pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
        with pytest.raises(UserError, match="2 jobs are waiting"):
            pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    finally:
        pipeline.close()


@pytest.mark.hardening(26)
def test_the_quota_removes_the_oldest_clips_first_and_never_the_newest(scripted_settings, picture):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    try:
        first, second = run(pipeline, picture), run(pipeline, picture)
        size = sum(path.stat().st_size for path in pipeline.clips.rglob("*") if path.is_file())
        pipeline.pool.line.settings = replace(scripted_settings, max_outputs_gb=size * 1.2 / 1e9)
        third = run(pipeline, picture)
        until(lambda: pipeline.job(first.id) is None)
        assert pipeline.clip(second) and pipeline.clip(third) and not (pipeline.clips / first.id).exists()
        pipeline.pool.line.settings = replace(scripted_settings, max_outputs_gb=1e-9)  # less than any clip
        last = run(pipeline, picture)
        until(lambda: [job.id for job in pipeline.history()] == [last.id])
        pipeline.pool.line.settings = replace(scripted_settings, max_outputs_gb=0)  # no limit
        run(pipeline, picture)
        time.sleep(0.3)
        assert pipeline.clip(last) and len(pipeline.history()) == 2
    finally:
        pipeline.close()


@pytest.mark.hardening(19)
def test_a_kill_while_encoding_leaves_no_part_of_a_file(pipeline, picture):
    done = run(pipeline, picture)
    part = pipeline.clips / done.id / ".clip.part.mp4"
    part.write_bytes(b"left by one that was killed")
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "decode:2=slow-ffmpeg"}, frames=9))
    until(lambda: list((pipeline.clips / job_id).glob(".*.part.mp4")))
    os.kill(pipeline.pool["cpu0"].worker.process.pid, signal.SIGKILL)
    job = pipeline.wait(job_id)
    assert job.state == "failed" and "SIGKILL" in job.error and "during encode" in job.error
    assert [path.name for path in (pipeline.clips / job_id).iterdir()] == ["input.png"]
    until(lambda: not part.exists())


@pytest.mark.hardening(25)
def test_a_full_disk_fails_the_job_and_nothing_half_written_stays(pipeline, picture):
    job = run(pipeline, picture, "decode:2=limit-files:600", frames=9)
    assert job.state == "failed" and re.search(r"File too large|ffmpeg failed|Errno", job.error), job.error
    assert sorted(path.name for path in (pipeline.clips / job.id).iterdir()) == ["input.png"]
    assert pipeline.history()[0].id == job.id, "the database still answers"


@pytest.mark.hardening(25)
def test_a_file_of_the_workers_own_for_which_there_is_no_room(pipeline, picture, caplog):
    job = run(pipeline, picture, "decode:2=full")
    assert job.state == "failed" and job.error.startswith(
        "disk: there is no room for the job's files ([Errno 28] No sp"
    )
    assert "Traceback" not in caplog.text
    assert run(pipeline, picture, seed=1).state == "done"


@pytest.mark.hardening(29)
def test_a_failing_encoder_keeps_the_frames(pipeline, picture):
    job = run(pipeline, picture, "decode:2=break-ffmpeg", frames=9)
    assert job.state == "failed" and "encoder on strike" in job.error and "The frames were kept in" in job.error
    with np.load(pipeline.clips / job.id / f"{job.id}-frames.npz") as kept:
        assert kept["frames"].shape == (9, 64, 96, 3)


@pytest.mark.hardening(29)
def test_without_ffmpeg_the_frames_are_kept_and_what_is_missing_is_said(pipeline, picture):
    job = run(pipeline, picture, "decode:2=remove-ffmpeg", frames=9)
    assert job.state == "failed" and "/nowhere/ffmpeg" in job.error and "The frames were kept in" in job.error
    assert (pipeline.clips / job.id / f"{job.id}-frames.npz").is_file()


@pytest.mark.hardening(19)
def test_a_worker_killed_while_it_loads_fails_that_job_and_loads_for_the_next(pipeline, picture):
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}, scheme="slow"))
    until(lambda: pipeline.job(job_id).progress.stage == "load" and pipeline.job(job_id).progress.step == 2)
    os.kill(pipeline.pool["cpu0"].worker.process.pid, signal.SIGKILL)
    job = pipeline.wait(job_id)
    assert job.state == "failed" and "SIGKILL" in job.error and "during load" in job.error
    assert run(pipeline, picture).state == "done"


@pytest.mark.hardening(25)
@pytest.mark.limit("MIN_FREE_MB")
def test_a_job_is_refused_while_the_disk_is_nearly_full(pipeline, picture, monkeypatch):
    monkeypatch.setattr("wan_ui.limits.MIN_FREE_MB", 10**12)
    with pytest.raises(UserError, match=r"disk: only \d+ MB free in .*outputs; delete old clips first"):
        pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    assert pipeline.history() == [] and not list(pipeline.clips.iterdir())


def test_what_is_wrong_with_the_files_is_said_while_the_old_model_is_still_loaded(pipeline, picture):
    loads = int(run(pipeline, picture).result.facts["loads"])
    job = run(pipeline, picture, scheme="fp8-triton")
    assert job.state == "failed" and job.error == (
        "scheme: fp8-triton needs the package triton. scripted bf16 is still loaded."
    )
    assert run(pipeline, picture).result.facts["loads"] == str(loads), "it was loaded again"


def test_a_load_that_fails_later_says_that_no_model_is_loaded_now(pipeline, picture):
    first = run(pipeline, picture)
    job = run(pipeline, picture, scheme="fp8")
    assert job.state == "failed"
    assert re.search(r"the fp8 file is damaged\. .* bf16 was closed for it: no model is loaded now", job.error)
    again = run(pipeline, picture)
    assert again.state == "done" and int(again.result.facts["loads"]) == int(first.result.facts["loads"]) + 1


# ---------------------------------------------------------------- a job's result is its own


def shade(pipeline, job) -> int:
    """The frames are the picture, tinted by the seed."""
    from wan_ui.media import muxer

    return round(float(muxer.read_frames(pipeline.clip(job))[0].mean()))


@pytest.mark.hardening(25, 34)
@pytest.mark.parametrize(
    "trouble, words",
    [
        (TableError("outputs: the job table cannot be used (database or disk is full)"), "database or disk is full"),
        (OSError(24, "Too many open files"), "Unexpected error: [Errno 24] Too many open files"),
        (EOFError("not the pipe's"), "Unexpected error: not the pipe's"),
    ],
)
def test_when_marking_fails_the_job_does_and_the_next_gets_its_own_clip(pipeline, picture, monkeypatch, trouble, words):
    expected = [shade(pipeline, run(pipeline, picture, seed=seed)) for seed in (1, 30)]
    mark, broken = pipeline.jobs.mark, [trouble]

    def failing(job_id, progress, patience=0.0):
        if progress.stage == "denoise" and broken:
            raise broken.pop()
        mark(job_id, progress, patience)

    monkeypatch.setattr(pipeline.jobs, "mark", failing)
    jobs = [pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}, seed=seed)) for seed in (7, 1, 30)]
    failed, second, third = map(pipeline.wait, jobs)
    assert failed.state == "failed" and words in failed.error and pipeline.clip(failed) is None
    assert [job.state for job in (second, third)] == ["done", "done"]
    assert [shade(pipeline, job) for job in (second, third)] == expected


@pytest.mark.hardening(34)
def test_a_locked_table_delays_what_is_written_and_nothing_else(pipeline, picture):
    """Another program holds it from the first step on, until long after the clip is made."""
    until(lambda: pipeline.model.state == "ready")
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "denoise:1=hold"}))
    until(lambda: pipeline.job(job_id).progress.step == 1)
    with sqlite3.connect(pipeline.jobs.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        go_on(pipeline.clips.iterdir())
        until(lambda: (pipeline.clips / job_id / "poster.jpg").exists())
        time.sleep(2)
        assert pipeline.history()[0].state == "running"
        other.execute("ROLLBACK")
    assert pipeline.wait(job_id).state == "done"
    assert run(pipeline, picture).state == "done"


@pytest.mark.hardening(34)
def test_a_write_that_must_not_be_lost_is_tried_again(pipeline, picture, monkeypatch):
    finish, locked = pipeline.jobs.finish, [TableLocked("locked"), TableError("no descriptors left"), TableLocked("")]

    def stubborn(*args, **values):
        if locked:
            raise locked.pop()
        finish(*args, **values)

    monkeypatch.setattr(pipeline.jobs, "finish", stubborn)
    assert run(pipeline, picture).state == "done" and not locked


def test_answers_to_another_message_are_dropped(scripted_settings):
    """As an older child, or one that answers twice, would give them."""

    class Pipe:
        def __init__(self):
            self.answers = []

        def send_bytes(self, content):
            own = messages.from_json(content).id
            for stranger in (own - 1, None, own + 1):
                self.answers.append(Letter(stranger, Loaded("a stranger's", "", 0.0)))
            self.answers.append(Letter(own, Loaded("its own", "", 0.0), ("m", "s", "e")))

        def poll(self, seconds):
            return True

        def recv_bytes(self):
            return messages.to_json(self.answers.pop(0))

    worker = Worker(scripted_settings)
    worker.pipe, worker.alive = Pipe(), lambda: True
    assert worker.load("m", "s", "e", print).engine == "its own" and worker.loaded == ("m", "s", "e")
    assert worker.pipe.answers == []


# ---------------------------------------------------------------- stop


@pytest.mark.hardening(36)
@pytest.mark.parametrize("prompt, scheme", [("denoise:2=sleep:3000", "bf16"), ("calm", "slow")])
def test_stop_ends_a_long_step_and_a_long_load_at_once(scripted_settings, picture, prompt, scheme, caplog):
    pipeline = Pipeline().open(scripted_settings, warm=False, engine_factory=FACTORY)
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": prompt}, scheme=scheme))
    waiting = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    place = ("denoise", 2) if scheme == "bf16" else ("load", 2)
    until(lambda: (pipeline.job(job_id).progress.stage, pipeline.job(job_id).progress.step) == place)
    with ThreadPoolExecutor() as threads:
        waiter = threads.submit(pipeline.wait, waiting)
        pipeline.close()
        with pytest.raises(UserError, match="Wan UI was stopped; a job that waits in line runs"):
            waiter.result()
    assert not pipeline.pool["cpu0"].thread.is_alive(), "the thread was given up on"
    job = pipeline.job(job_id)
    assert (job.state, job.error) == ("interrupted", "The app was stopped.")
    assert pipeline.job(waiting).state == "queued"
    assert "Traceback" not in caplog.text and not [r for r in caplog.records if r.exc_info]


@pytest.mark.hardening(36)
def test_stop_during_the_load_at_start_is_quiet(scripted_settings, caplog):
    pipeline = Pipeline().open(replace(scripted_settings, scheme="slow"), engine_factory=FACTORY)
    until(lambda: pipeline.model.progress.step == 2)
    pipeline.close()
    assert not pipeline.pool["cpu0"].thread.is_alive() and not [r for r in caplog.records if r.exc_info]


def test_an_owner_that_is_closing_claims_nothing(pipeline, picture, monkeypatch):
    until(lambda: pipeline.model.state == "ready")
    claim = pipeline.jobs.claim

    def late(*names):
        job = claim(*names)
        if job:
            pipeline.pool["cpu0"].stopping.set()
        return job

    monkeypatch.setattr(pipeline.jobs, "claim", late)
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    pipeline.pool["cpu0"].thread.join(60)
    assert pipeline.job(job_id).state == "queued"


# ---------------------------------------------------------------- rows of others, clocks, file systems


@pytest.mark.hardening(35)
def test_a_damaged_job_in_line_is_refused_and_a_damaged_row_costs_nothing_else(pipeline, picture):
    """Two jobs behind a slow one are spoilt while they wait."""
    done = run(pipeline, picture)
    pipeline.submit(Draft({"image": str(picture), "prompt": "text=hold"}))
    spoilt = [pipeline.submit(Draft({"image": str(picture), "prompt": "calm"})) for _ in range(2)]
    last = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    with sqlite3.connect(pipeline.jobs.path) as db:
        values = json.loads(db.execute("SELECT request FROM jobs WHERE id = ?", spoilt[:1]).fetchone()[0])
        row = (json.dumps(values | {"seed": "many"}), spoilt[0])
        db.execute("UPDATE jobs SET request = ? WHERE id = ?", row)
        db.execute("UPDATE jobs SET request = '{' WHERE id = ?", spoilt[1:])
        db.execute("UPDATE jobs SET result = '[' WHERE id = ?", (done.id,))
    go_on(pipeline.clips.iterdir())
    first, second = map(pipeline.wait, spoilt)
    assert first.error == "Of this entry cannot be read: seed. It was not run; generate it again."
    assert second.state == "failed" and "cannot be read: request" in second.error
    assert pipeline.wait(last).state == "done"
    assert len(pipeline.history()) == 5 and pipeline.job(done.id).skipped == ("result",)


@pytest.mark.hardening(34)
def test_without_a_readable_table_the_history_is_empty_and_a_new_job_is_told_why(pipeline, picture, monkeypatch):
    run(pipeline, picture)
    pipeline.jobs.path.write_bytes(b"spoilt" * 4096)
    for suffix in ("-wal", "-shm"):
        pipeline.jobs.path.with_name(pipeline.jobs.path.name + suffix).unlink(missing_ok=True)
    assert pipeline.history() == []
    with pytest.raises(UserError, match=r"the job table .* cannot be used"):
        pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    assert len(list(pipeline.clips.iterdir())) == 1


def test_a_job_that_is_deleted_while_somebody_waits(pipeline, picture):
    pipeline.submit(Draft({"image": str(picture), "prompt": "text=hold"}))
    job_id = pipeline.submit(Draft({"image": str(picture), "prompt": "calm"}))
    pipeline.cancel(job_id)
    pipeline.delete(job_id)
    with pytest.raises(UserError, match="not there any more"):
        pipeline.wait(job_id)


@pytest.mark.hardening(30)
def test_a_file_system_without_locks(scripted_settings, picture, tmp_path, monkeypatch):
    """The outputs folder's has none, that of the temporary folder has."""
    flock = fcntl.flock

    def partly(file, how):
        if str(scripted_settings.outputs) in os.readlink(f"/proc/self/fd/{file.fileno()}"):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", partly)
    first = Pipeline().open(scripted_settings, warm=False, engine_factory=FACTORY)
    try:
        with pytest.raises(UserError, match="another Wan UI is using"):
            Pipeline().open(scripted_settings, engine_factory=FACTORY)
        assert run(first, picture).state == "done"
    finally:
        first.close()
    Pipeline().open(scripted_settings, warm=False, engine_factory=FACTORY).close()
    monkeypatch.setattr(locks, "_take", lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSYS, "no locks")))
    with pytest.raises(UserError, match=r"cannot be locked .*set WAN_UI_OUTPUTS to a folder on a local disk"):
        Pipeline().open(scripted_settings, engine_factory=FACTORY)
