"""Several workers behind one queue: who runs what, and what a crash costs. The workers are real processes."""

import json
import os
import signal
import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from tests.scripted_engine import go_on
from wan_ui.__main__ import main
from wan_ui.errors import UserError
from wan_ui.machine import gpus as gpus_module
from wan_ui.machine.nvml import Gpu
from wan_ui.queue import local, quota, roster
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.local import chosen_gpus, make_worker, places_here
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import Settings

FACTORY = "tests.scripted_engine:create_engine"
TWO = [Gpu("GPU-a", "H100", 80.0), Gpu("GPU-b", "RTX 3060", 12.0)]


@pytest.fixture
def pool_of(scripted_settings):
    opened = []

    def open_pool(workers, **options):
        pipeline = Pipeline().open(replace(scripted_settings, workers=workers), engine_factory=FACTORY, **options)
        opened.append(pipeline)
        return pipeline

    yield open_pool
    for pipeline in opened:
        pipeline.close()


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def submit(pipeline, picture, prompt="calm", **fields):
    return pipeline.submit(Draft({"image": str(picture), "prompt": prompt}, **fields))


def test_three_workers_run_three_jobs_at_once_and_a_killed_one_costs_its_job_alone(pool_of, picture, monkeypatch):
    tidied = threading.Event()
    monkeypatch.setattr(quota, "prune", lambda *_: tidied.wait(60))  # no job waits for it
    pipeline = pool_of(3)
    ids = [submit(pipeline, picture, "denoise:2=hold", seed=seed) for seed in range(3)]
    running = lambda: [pipeline.job(job_id) for job_id in ids]  # noqa: E731
    until(lambda: all((job.progress.stage, job.progress.step) == ("denoise", 2) for job in running()))
    assert {job.worker for job in running()} == {"cpu0", "cpu1", "cpu2"}
    more = submit(pipeline, picture, seed=7)
    rows = {row.name: row for row in pipeline.pool.rows()}
    assert all(row.state == "working" and row.memory > 0.01 for row in rows.values())
    until(lambda: {row.job for row in roster.read(pipeline.settings.outputs)} == set(ids))

    killed = pipeline.job(ids[0])
    os.kill(pipeline.pool[killed.worker].worker.process.pid, signal.SIGKILL)
    ended = pipeline.wait(ids[0])
    assert ended.state == "failed" and "SIGKILL" in ended.error and "denoise step 2/4" in ended.error
    assert pipeline.wait(more).state == "done", "another job runs while two workers are busy"
    assert all(job.state == "running" for job in running()[1:])
    go_on(pipeline.clips / job_id for job_id in ids)
    assert [pipeline.wait(job_id).state for job_id in ids[1:]] == ["done", "done"]
    assert {name: runner.crashes for name, runner in pipeline.pool.runners.items()} == {
        name: int(name == killed.worker) for name in rows
    }
    assert pipeline.pool.line.tally.ended == {"failed": 1, "done": 3}
    tidied.set()


def test_a_loaded_model_is_given_its_jobs_and_one_worker_is_unloaded_and_restarted(pool_of, picture):
    pipeline = pool_of(2)
    both = pipeline.pool.runners
    until(lambda: all(runner.model.state == "ready" for runner in both.values()))
    before = both["cpu1"].worker.process.pid
    both["cpu0"].unload()
    pipeline.pool.restart_one("cpu1")
    until(lambda: both["cpu0"].model.state == "none" and not both["cpu0"].worker.alive())
    until(lambda: both["cpu1"].model.state == "ready" and both["cpu1"].worker.process.pid != before)
    pipeline.load("scripted", "bf16", "auto", "cpu0")
    until(lambda: both["cpu0"].model.state == "ready")
    with pytest.raises(UserError, match="there is none called 'gpu9'; there are cpu0, cpu1"):
        pipeline.load("scripted", "bf16", "auto", "gpu9")


def test_a_step_of_one_is_cancelled_while_the_other_goes_on(pool_of, picture):
    pipeline = pool_of(2)
    one, other = (submit(pipeline, picture, "denoise:2=hold", seed=seed) for seed in range(2))
    until(lambda: all(pipeline.job(job_id).progress.step == 2 for job_id in (one, other)))
    pipeline.cancel(one)
    assert pipeline.wait(one).state == "cancelled" and pipeline.job(other).state == "running"
    go_on([pipeline.clips / other])
    assert pipeline.wait(other).state == "done"


def test_the_command_lists_the_workers_of_the_app_and_those_that_one_would_have(
    pool_of, scripted_settings, monkeypatch, capsys
):
    monkeypatch.setattr("wan_ui.commands.workers.settings", lambda: replace(scripted_settings, workers=2))
    assert main(["workers", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert not said["running"] and [row["state"] for row in said["workers"]] == ["off", "off"]
    pipeline = pool_of(3)
    until(lambda: {row.state for row in roster.read(pipeline.settings.outputs)} == {"ready"})
    assert main(["workers", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["running"] and [row["name"] for row in said["workers"]] == ["cpu0", "cpu1", "cpu2"]
    assert {row["model"] for row in said["workers"]} == {"scripted"}


# ---------------------------------------------------------------- which GPUs


@pytest.mark.parametrize(
    "gpus, names, words",
    [
        ("all", ["H100", "RTX 3060"], []),
        ("1", ["RTX 3060"], []),
        ("0,7", ["H100"], ["WAN_UI_GPUS='0,7': there is no GPU 7; here are GPUs 0, 1"]),
        ("1, 1", ["RTX 3060"], ["WAN_UI_GPUS='1, 1': GPU 1 is named twice; it gets one worker"]),
        ("1,01", ["RTX 3060"], ["WAN_UI_GPUS='1,01': GPU 1 is named twice; it gets one worker"]),
        ("zero,-1,0", ["H100"], ["'zero' is no number of a GPU", "'-1' is no number of a GPU"]),
    ],
)
def test_what_the_setting_names_is_used_and_what_is_wrong_is_said(gpus, names, words):
    chosen, troubles = chosen_gpus(TWO, Settings(gpus=gpus))
    assert [gpu.name for gpu in chosen] == names and len(troubles) == len(words)
    assert all(part in trouble for part, trouble in zip(words, troubles, strict=True))


def test_auto_takes_those_that_hold_the_model_and_a_job_is_kept_from_those_that_do_not(monkeypatch):
    monkeypatch.setattr(local, "gpus", lambda: TWO)
    here, troubles = places_here(Settings(model="i2v-a14b"))
    assert [place.name for place in here] == ["gpu0"] and not troubles
    here, _ = places_here(Settings(model="wan-tiny", threads=8))
    assert [place.name for place in here] == ["gpu0", "gpu1"] and [place.threads for place in here] == [4, 4]
    worker = make_worker(here[1], Settings(), FACTORY)
    assert worker.environment == {"CUDA_VISIBLE_DEVICES": "GPU-b"} and worker.settings.threads == 4
    here, troubles = places_here(Settings(gpus="5", workers=2))
    assert [place.environment() for place in here] == [{"CUDA_VISIBLE_DEVICES": ""}] * 2, "no GPU that was not named"
    assert "there is no GPU 5" in troubles[0]


@pytest.mark.parametrize(
    "devices, uuids",
    [
        (None, ["GPU-a", "GPU-b"]),
        ("", []),
        ("1,0", ["GPU-b", "GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("0,-1,1", ["GPU-a"]),
        ("MIG-x", ["MIG-x"]),
    ],
)
def test_what_the_host_hides_is_not_used(devices, uuids):
    assert [gpu.uuid for gpu in gpus_module.visible(TWO, devices)] == uuids


# ---------------------------------------------------------------- rows


def test_a_table_without_the_column_is_completed_and_the_next_of_an_owner_waits_for_the_others(tmp_path):
    from tests.job_requests import job_request

    table = Jobs(tmp_path / "wan_ui.sqlite")
    with sqlite3.connect(table.path) as db:
        db.execute("ALTER TABLE jobs DROP COLUMN worker")
    table = Jobs(table.path)
    for name in ("a0", "a1", "b0"):
        table.add(name, name[0], job_request())
    assert [table.claim("gpu0").id, table.claim("gpu1").id, table.claim("gpu2").id] == ["a0", "b0", "a1"]
    assert table.get("b0").worker == "gpu1"
    table.requeue("b0")
    assert table.get("b0").worker == ""
