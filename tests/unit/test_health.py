"""Who is told how page, queue and workers are, and in which words."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from wan_ui.queue.jobs import Jobs, TableError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.pool import Pool
from wan_ui.request import Result
from wan_ui.ui import health
from wan_ui.ui.pace import Pace


@pytest.fixture
def pool(tmp_path, scripted_settings, monkeypatch):
    jobs = Jobs(tmp_path / "wan_ui.sqlite")
    pool = Pool(jobs, tmp_path, replace(scripted_settings, workers=2), "tests.scripted_engine:create_engine", None)
    pool.open()
    monkeypatch.setattr(PIPELINE, "jobs", jobs, raising=False)
    monkeypatch.setattr(PIPELINE, "pool", pool, raising=False)
    pool.start()
    yield pool
    pool.close()


def ask(path, settings, peer="127.0.0.1", **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "client": (peer, 5), "headers": [(b"host", b"localhost:7860"), *pairs]}
    with ThreadPoolExecutor(1) as thread:  # Playwright leaves a loop running in this one
        answer = thread.submit(asyncio.run, health.answer(path, scope, settings, "ok", Pace(100, 1.0))).result()
    return answer.status_code, answer.body.decode()


def test_a_probe_from_anywhere_hears_whether_it_is_well_this_machine_hears_all(pool, scripted_settings, monkeypatch):
    assert ask("/healthz", scripted_settings, "10.0.0.9") == (200, '{"status":"ok"}')
    assert ask("/healthz", scripted_settings, x_forwarded_for="10.0.0.9")[1] == '{"status":"ok"}'
    status, body = ask("/healthz", scripted_settings)
    found = json.loads(body)
    assert status == 200 and found["queue"] == {"status": "ok", "waiting": 0, "running": 0}
    assert [worker["name"] for worker in found["workers"]] == ["cpu0", "cpu1"]

    def damaged():
        raise TableError("outputs: the job table cannot be used")

    monkeypatch.setattr(PIPELINE.jobs, "counts", damaged)
    assert ask("/healthz", scripted_settings, "10.0.0.9") == (503, '{"status":"failing"}')
    assert "the job table cannot be used" in ask("/healthz", scripted_settings)[1]


def test_a_page_whose_workers_have_gone_is_not_well(pool, scripted_settings):
    pool.close()
    assert ask("/healthz", scripted_settings)[0] == 503


def test_figures_are_for_this_machine_and_for_who_signs_in(pool, scripted_settings):
    pool.line.tally.add("done", Result(seconds={"denoise": 2.0, "decode": 1.0}))
    pool.line.tally.add("done", Result(seconds={"denoise": 3.0}))
    pool["cpu1"].crashes = 4
    status, body = ask("/metrics", scripted_settings)
    lines = body.splitlines()
    assert status == 200 and 'wan_ui_stage_seconds_sum{stage="denoise"} 5.0' in lines
    assert 'wan_ui_stage_seconds_count{stage="denoise"} 2.0' in lines and "wan_ui_queue_length 0.0" in lines
    assert 'wan_ui_jobs_ended_total{state="done"} 2.0' in lines
    assert 'wan_ui_worker_crashes_total{worker="cpu1"} 4.0' in lines
    closed = replace(scripted_settings, auth="ada:secret")
    given = {word: "Basic " + base64.b64encode(word.encode()).decode() for word in ("ada:secret", "ada:guess")}
    for outside in (scripted_settings, closed):
        assert ask("/metrics", outside, "10.0.0.9")[0] == 401
        assert ask("/metrics", outside, x_forwarded_for="10.0.0.9")[0] == 401
    assert ask("/metrics", closed, "10.0.0.9", authorization=given["ada:secret"])[0] == 200
    assert ask("/metrics", closed, "10.0.0.9", authorization=given["ada:guess"])[0] == 401
    assert ask("/metrics", scripted_settings, "10.0.0.9", authorization="Basic =")[0] == 401
