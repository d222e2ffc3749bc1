"""A job may end badly; the queue, the history and the next job never do.

The worker is the real spawned process and the faults are real: SIGSEGV, SIGKILL, a hang.
"""

import os
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from wan_ui.errors import UserError
from wan_ui.intake import Draft
from wan_ui.pipeline import Pipeline
from wan_ui.request import STAGES

FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture
def pipeline(scripted_settings):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    yield pipeline
    pipeline.close()


def run(pipeline, picture, prompt="calm", **fields):
    return pipeline.wait(pipeline.submit(Draft(image=str(picture), prompt=prompt, **fields)))


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_job_runs_and_its_clip_carries_the_settings(pipeline, picture):
    from wan_ui import muxer

    job = run(pipeline, picture, seed=7, frames=9)
    assert job.state == "done" and job.error == ""
    frames, fps = muxer.read_frames(pipeline.clip(job))
    assert frames.shape == (9, 64, 96, 3) and fps == 16  # 160 x 120 is nearest to 96 x 64
    settings = muxer.read_metadata(pipeline.clip(job))
    assert settings["seed"] == 7 and settings["prompt"] == "calm" and settings["facts"]["engine"] == "scripted (auto)"
    assert set(job.result["seconds"]) == {"text", "image", "denoise", "decode", "encode"}


def test_the_model_is_loaded_once(pipeline, picture):
    assert {run(pipeline, picture).result["facts"]["loads"] for _ in range(3)} == {"1"}


@pytest.mark.parametrize(
    "prompt, words",
    [
        ("denoise:3=segfault", "SIGSEGV during denoise step 3/4, low-noise expert"),
        ("decode:2=kill", "SIGKILL .* during decode step 2/2"),
        ("text=exit:3", "exit code 3 during text"),
    ],
)
def test_a_dead_worker_fails_its_job_by_stage_and_signal_and_the_next_job_runs(pipeline, picture, prompt, words):
    job = run(pipeline, picture, prompt)
    assert job.state == "failed"
    assert re.search(words, job.error), job.error
    assert run(pipeline, picture, seed=1).state == "done"


def test_a_worker_killed_from_outside_while_idle_is_replaced(pipeline, picture):
    until(lambda: pipeline.model.state == "ready")
    os.kill(pipeline._worker.process.pid, signal.SIGKILL)
    until(lambda: pipeline._worker.alive() and pipeline.model.state == "ready")
    assert run(pipeline, picture).state == "done"


def test_a_hang_is_ended_after_the_deadline(scripted_settings, picture):
    pipeline = Pipeline().open(replace(scripted_settings, stage_timeout=8), engine_factory=FACTORY)
    try:
        job = run(pipeline, picture, "image=hang")
        assert job.state == "failed" and "image made no progress for 8 s" in job.error
        assert run(pipeline, picture).state == "done"
    finally:
        pipeline.close()


def test_errors_for_people_are_shown_and_bugs_are_logged(pipeline, picture, caplog):
    assert run(pipeline, picture, "text=refuse").error == "prompt: the scripted engine refuses this"
    job = run(pipeline, picture, "denoise:1=bug")
    assert job.error.startswith("Unexpected error: ZeroDivisionError: a bug in the engine")
    assert "Traceback" in caplog.text and 'act(script.get(f"{stage}:{step}", ""))' in caplog.text


def test_a_failed_load_is_reported_and_the_next_scheme_loads(pipeline, picture):
    job = run(pipeline, picture, scheme="fp8")
    assert job.state == "failed" and job.error.startswith("scheme: the fp8 file is damaged")
    assert run(pipeline, picture).state == "done"
    assert pipeline.model.state == "ready"


@pytest.mark.parametrize("stage", ["text", "image", "denoise:2", "decode:1"])
def test_cancel_stops_within_one_step_and_leaves_no_clip(pipeline, picture, stage):
    name, _, step = stage.partition(":")
    job_id = pipeline.submit(Draft(image=str(picture), prompt=f"{stage}=sleep:0.7"))
    until(lambda: pipeline.job(job_id).progress.stage == name and pipeline.job(job_id).progress.step == int(step or 0))
    pipeline.cancel(job_id)
    job = pipeline.wait(job_id)
    assert job.state == "cancelled" and pipeline.clip(job) is None
    assert not list((pipeline.clips / job_id).glob("*.mp4"))
    following = STAGES[STAGES.index(name) + 1]
    within = (
        [(name, int(step or 0)), (name, int(step or 0) + 1)] if step else [(name, 0), (following, 0), (following, 1)]
    )
    assert (job.progress.stage, job.progress.step) in within
    assert run(pipeline, picture).state == "done"


def test_jobs_run_in_order_and_a_queued_one_can_be_cancelled(pipeline, picture):
    first, second, third = (
        pipeline.submit(Draft(image=str(picture), prompt="text=sleep:0.5", seed=seed)) for seed in (1, 2, 3)
    )
    until(lambda: pipeline.job(first).state == "running")
    assert [pipeline.position(pipeline.job(job)) for job in (first, second, third)] == [0, 1, 2]
    pipeline.cancel(second)
    assert pipeline.job(second).state == "cancelled"
    assert pipeline.wait(third).state == "done" and pipeline.job(first).state == "done"
    assert pipeline.job(first).finished <= pipeline.job(third).started


def test_another_owner_sees_and_cancels_nothing(pipeline, picture):
    job_id = pipeline.submit(Draft(image=str(picture), prompt="text=sleep:0.5"), owner="ann")
    assert pipeline.job(job_id, "bob") is None and pipeline.history("bob") == []
    pipeline.cancel(job_id, "bob")
    pipeline.delete(job_id, "bob")
    assert pipeline.wait(job_id, "ann").state == "done"


def test_the_queue_has_a_limit(scripted_settings, picture):
    pipeline = Pipeline().open(replace(scripted_settings, max_queue=2), engine_factory=FACTORY)
    try:
        pipeline.submit(Draft(image=str(picture), prompt="text=sleep:2"))
        until(lambda: not pipeline.jobs.in_state("queued"))
        for _ in range(2):
            pipeline.submit(Draft(image=str(picture), prompt="calm"))
        with pytest.raises(UserError, match="2 jobs are waiting"):
            pipeline.submit(Draft(image=str(picture), prompt="calm"))
    finally:
        pipeline.close()


def test_the_quota_removes_the_oldest_clips_first(scripted_settings, picture):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    try:
        first, second = run(pipeline, picture), run(pipeline, picture)
        size = sum(path.stat().st_size for path in pipeline.clips.rglob("*") if path.is_file())
        pipeline.settings = replace(scripted_settings, max_outputs_gb=size * 1.2 / 1e9)
        third = run(pipeline, picture)
        until(lambda: pipeline.job(first.id) is None)
        assert pipeline.clip(second) and pipeline.clip(third) and not (pipeline.clips / first.id).exists()
    finally:
        pipeline.close()


def test_a_full_disk_fails_the_job_and_nothing_half_written_stays(pipeline, picture):
    job = run(pipeline, picture, "decode:2=limit-files:600", frames=9)
    assert job.state == "failed" and re.search(r"File too large|ffmpeg failed|Errno", job.error), job.error
    assert sorted(path.name for path in (pipeline.clips / job.id).iterdir()) == ["input.png"]
    assert pipeline.history()[0].id == job.id, "the database still answers"


def test_a_failing_encoder_keeps_the_frames(pipeline, picture):
    job = run(pipeline, picture, "decode:2=break-ffmpeg", frames=9)
    assert job.state == "failed" and "encoder on strike" in job.error and "The frames were kept in" in job.error
    with np.load(pipeline.clips / job.id / f"{job.id}-frames.npz") as kept:
        assert kept["frames"].shape == (9, 64, 96, 3)


def test_a_job_is_refused_while_the_disk_is_nearly_full(pipeline, picture, monkeypatch):
    monkeypatch.setattr("wan_ui.pipeline.MIN_FREE_MB", 10**12)
    with pytest.raises(UserError, match=r"disk: only \d+ MB free in .*outputs; delete old clips first"):
        pipeline.submit(Draft(image=str(picture), prompt="calm"))
    assert pipeline.history() == [] and not list(pipeline.clips.iterdir())


def test_what_is_wrong_with_the_files_is_said_while_the_old_model_is_still_loaded(pipeline, picture):
    loads = int(run(pipeline, picture).result["facts"]["loads"])
    job = run(pipeline, picture, scheme="fp8-triton")
    assert job.state == "failed" and job.error == (
        "scheme: fp8-triton needs the package triton. scripted bf16 is still loaded."
    )
    assert run(pipeline, picture).result["facts"]["loads"] == str(loads), "it was loaded again"


def test_a_load_that_fails_later_says_that_no_model_is_loaded_now(pipeline, picture):
    first = run(pipeline, picture)
    job = run(pipeline, picture, scheme="fp8")
    assert job.state == "failed"
    assert re.search(r"the fp8 file is damaged\. .* bf16 was closed for it: no model is loaded now", job.error)
    again = run(pipeline, picture)
    assert again.state == "done" and int(again.result["facts"]["loads"]) == int(first.result["facts"]["loads"]) + 1
