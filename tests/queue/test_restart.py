"""kill -9 of the whole app: history intact, the running jobs marked, queued jobs run after the restart."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from wan_ui.errors import UserError
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import ROOT

FACTORY = "tests.scripted_engine:create_engine"

APP = """
import sys, time
from pathlib import Path
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import load_settings

if __name__ == "__main__":
    outputs, catalog, picture, workers = sys.argv[1:]
    settings = load_settings({"WAN_UI_OUTPUTS": outputs, "WAN_UI_CATALOG": catalog, "WAN_UI_MODEL": "scripted",
                              "WAN_UI_WORKERS": workers})
    PIPELINE.open(settings, engine_factory="tests.scripted_engine:create_engine")
    done = PIPELINE.submit(Draft({"image": picture, "prompt": "first"}, seed=1))
    PIPELINE.wait(done)
    for number in range(int(workers)):
        PIPELINE.submit(Draft({"image": picture, "prompt": "denoise:2=hang"}, seed=2 + number))
    PIPELINE.submit(Draft({"image": picture, "prompt": "third"}))
    time.sleep(600)
"""


@pytest.fixture
def app(request, scripted_settings, picture, tmp_path):
    """With one worker, or with `request.param` of them; each is in the middle of a job."""
    workers = getattr(request, "param", 1)
    script = tmp_path / "an_app.py"
    script.write_text(APP)
    command = [sys.executable, script, scripted_settings.outputs, scripted_settings.catalog, picture, str(workers)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    jobs = Jobs(scripted_settings.outputs / "wan_ui.sqlite")
    end = time.monotonic() + 120
    while not (
        len(jobs.of_owner("local")) == 2 + workers
        and sum(job.progress.step == 2 for job in jobs.in_state("running")) == workers
    ):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    yield process, jobs
    process.kill()
    process.wait()


def children(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in text.split()]


# Keeps a list of every end of a job, whoever writes it.
WATCH = """
CREATE TABLE ends (id TEXT, state TEXT);
CREATE TRIGGER an_end AFTER UPDATE OF state ON jobs WHEN new.state NOT IN ('queued', 'running')
    BEGIN INSERT INTO ends VALUES (new.id, new.state); END;
"""


@pytest.mark.hardening(24)
@pytest.mark.parametrize("app", [2], indirect=True)
def test_kill_9_in_the_middle_of_two_jobs_loses_nothing_and_ends_each_once(app, scripted_settings):
    process, jobs = app
    with sqlite3.connect(jobs.path) as db:
        db.executescript(WATCH)
    running = jobs.in_state("running")
    assert {job.worker for job in running} == {"cpu0", "cpu1"}
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [job.state for job in reversed(jobs.of_owner("local"))] == ["done", "running", "running", "queued"]

    pipeline = Pipeline().open(replace(scripted_settings, workers=2), engine_factory=FACTORY)
    try:
        first, *both, third = reversed(pipeline.history())
        assert [job.id for job in both] == [job.id for job in running]
        assert all(job.state == "interrupted" and "generate it again" in job.error for job in both)
        assert pipeline.wait(third.id).state == "done"
        assert pipeline.clip(first).stat().st_size > 1000
        with sqlite3.connect(jobs.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            ends = db.execute("SELECT id, state FROM ends ORDER BY id").fetchall()
        assert ends == sorted([*((job.id, "interrupted") for job in both), (third.id, "done")])
    finally:
        pipeline.close()
    # The old workers saw their pipes close and ended by themselves, although they were in the middle of a hang.
    stats = [Path(f"/proc/{pid}/stat") for pid in workers]
    end = time.monotonic() + 60
    while any(stat.exists() and " Z " not in stat.read_text() for stat in stats):
        assert time.monotonic() < end, "an orphan"
        time.sleep(0.1)


@pytest.mark.hardening(30)
def test_two_apps_on_one_outputs_folder(app, scripted_settings, picture):
    with pytest.raises(UserError, match="another Wan UI is using"):
        Pipeline().open(scripted_settings, engine_factory=FACTORY)
    client = Pipeline().open(scripted_settings, client_ok=True)
    job_id = client.submit(Draft({"image": str(picture), "prompt": "from the command line"}))
    for job in client.jobs.in_state("running"):
        client.cancel(job.id)
        assert client.job(job_id).state == "queued"
    client.cancel(job_id)
    assert client.job(job_id).state == "cancelled"
    client.close()


@pytest.mark.hardening(38)
def test_a_client_that_waits_takes_over_the_queue_of_an_app_that_is_gone(app, scripted_settings, picture):
    process, _ = app
    client = Pipeline().open(scripted_settings, client_ok=True, engine_factory=FACTORY)
    job_id = client.submit(Draft({"image": str(picture), "prompt": "from the command line"}))
    process.kill()
    process.wait()
    try:
        assert client.wait(job_id).state == "done"
        states = {job.request.sampling.prompt: job.state for job in client.history()}
        assert states["denoise:2=hang"] == "interrupted" and states["third"] == "done", "it was in line before"
    finally:
        client.close()


COMMAND = """
import sys
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import load_settings

if __name__ == "__main__":
    outputs, catalog, picture, prompt = sys.argv[1:]
    settings = load_settings({"WAN_UI_OUTPUTS": outputs, "WAN_UI_CATALOG": catalog, "WAN_UI_MODEL": "scripted"})
    PIPELINE.open(settings, client_ok=True, warm=False, engine_factory="tests.scripted_engine:create_engine")
    job = PIPELINE.wait(PIPELINE.submit(Draft({"image": picture, "prompt": prompt})))
    PIPELINE.close()
    print(job.state, job.request.sampling.prompt, PIPELINE.clip(job).is_file())
"""


@pytest.mark.hardening(38)
def test_three_commands_at_once_all_get_their_clips(scripted_settings, picture, tmp_path):
    script = tmp_path / "a_command.py"
    script.write_text(COMMAND)
    command = [sys.executable, script, scripted_settings.outputs, scripted_settings.catalog, picture]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    prompts = [f"number {number}, text=sleep:0.5" for number in range(3)]
    processes = [
        subprocess.Popen([*command, prompt], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        for prompt in prompts
    ]
    answers = [process.communicate(timeout=180)[0] for process in processes]
    assert answers == [f"done {prompt} True\n" for prompt in prompts]
    assert [job.state for job in Jobs(scripted_settings.outputs / "wan_ui.sqlite").all()] == ["done"] * 3


def test_a_command_runs_only_what_is_in_line_up_to_its_own_job(scripted_settings, picture):
    first, second = (
        Pipeline().open(scripted_settings, client_ok=True, warm=False, engine_factory=FACTORY) for _ in range(2)
    )
    try:
        assert first.owns_queue and not second.owns_queue
        mine = first.submit(Draft({"image": str(picture), "prompt": "mine"}))
        theirs = second.submit(Draft({"image": str(picture), "prompt": "theirs, text=hang"}))
        assert first.wait(mine).state == "done"
        time.sleep(1)
        assert second.job(theirs).state == "queued", "it was claimed by one that is about to end"
        # An older job of somebody else is run on the way; when the owner is stopped meanwhile, it is not lost.
        first.submit(Draft({"image": str(picture), "prompt": "mine again"}))
        while second.job(theirs).progress.stage != "text":
            time.sleep(0.05)
        first.close()
        assert second.job(theirs).state == "queued" and second.job(theirs).progress.stage == ""
    finally:
        first.close()
        second.close()
