"""What is being entered is encoded by a worker that has nothing else to do, and never in a job's way."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.queue.test_worker_faults import FACTORY, run, until
from wan_ui import temporary
from wan_ui.engines.base import READY
from wan_ui.media import muxer
from wan_ui.queue import preparations
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline


@pytest.fixture
def pipeline(scripted_settings):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    until(lambda: pipeline.model.state == "ready" and pipeline.pool["cpu0"].worker.loaded)
    yield pipeline
    pipeline.close()


def entered(picture, prompt="calm", **fields):
    return Draft({"image": str(picture), "prompt": prompt}, **fields)


def waiting(pipeline):
    return pipeline.pool.line.preparations._waiting


def test_a_job_finds_it_and_its_clip_is_the_same(pipeline, picture, tmp_path):
    mark = tmp_path / "prepared"
    prompt = f"prepare=mark:{mark}"
    plain = run(pipeline, picture, prompt, seed=3)
    assert pipeline.prepare(entered(picture, prompt))
    until(mark.exists)
    folder = Path(waiting(pipeline)["local"].folder.name)
    assert [path.name for path in folder.iterdir()] == ["input.png"] and folder.stat().st_mode & 0o077 == 0
    assert len(pipeline.history()) == 1, "it is no job"
    job = run(pipeline, picture, prompt, seed=3)
    assert job.result.facts["text"] == READY and "text" not in plain.result.facts
    assert job.result.latents_sha256 == plain.result.latents_sha256
    assert pipeline.clip(job).read_bytes() == pipeline.clip(plain).read_bytes()
    assert "text" not in muxer.read_metadata(pipeline.clip(job))["facts"]
    assert not waiting(pipeline) and not folder.exists(), "its files go when the job is sent"


def test_a_job_interrupts_it_at_once(pipeline, picture):
    assert pipeline.prepare(entered(picture, "prepare=hold"))
    (preparation,) = waiting(pipeline).values()
    until(lambda: preparation.done)
    before = pipeline.pool["cpu0"].worker.process.pid
    job = run(pipeline, picture, "prepare=hold")
    assert (job.state, job.result.facts["loads"]) == ("done", "1")
    assert pipeline.pool["cpu0"].worker.process.pid == before


@pytest.mark.parametrize("end", ["refuse", "bug", "segfault"])
def test_what_goes_wrong_with_it_costs_no_job(pipeline, picture, end):
    assert pipeline.prepare(entered(picture, f"prepare={end}"))
    (preparation,) = waiting(pipeline).values()
    until(lambda: preparation.done)
    assert run(pipeline, picture).state == "done"


def test_one_for_each_person_and_few_in_all(pipeline, picture, monkeypatch):
    pipeline.pool.load("scripted", "fp8", "auto")  # which fails: nothing is prepared any more
    until(lambda: pipeline.model.state == "failed")
    monkeypatch.setattr(pipeline.pool["cpu0"].worker, "loaded", ("scripted", "another", "auto"))
    folders = []
    for owner in ("anna", "ben", "anna"):
        assert pipeline.prepare(entered(picture), owner)
        folders.append(Path(waiting(pipeline)[owner].folder.name))
    assert set(waiting(pipeline)) == {"anna", "ben"}
    assert [folder.exists() for folder in folders] == [False, True, True]
    for number in range(preparations.MOST):
        assert pipeline.prepare(entered(picture), f"visitor {number}")
    assert set(waiting(pipeline)) == {f"visitor {number}" for number in range(preparations.MOST)}
    monkeypatch.setattr(preparations, "TIMELY", 0)
    time.sleep(0.01)
    assert pipeline.pool.line.preparations.next("cpu0", ()) is None and not waiting(pipeline)
    assert not any(folder.exists() for folder in folders)


def test_what_is_not_prepared(pipeline, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    text = tmp_path / "no-picture.png"
    text.write_text("no picture")
    cases = {
        "no prompt": Draft({"image": str(picture)}),
        "too long": entered(picture, "x" * 5000),
        "no picture": entered(text),
        "steps": entered(picture, steps=900),
        "a clip goes on": Draft({"clip": str(tmp_path / "a.mp4"), "prompt": "calm"}),
        "another model": entered(picture, model="another"),
    }
    assert {name for name, draft in cases.items() if pipeline.prepare(draft)} == set()
    pipeline.settings = replace(pipeline.settings, prepare=0)
    assert not pipeline.prepare(entered(picture)), "it is switched off"
    pipeline.settings = replace(pipeline.settings, prepare=1, max_queue_per_visitor=1)
    assert pipeline.prepare(entered(picture), "anna")
    assert len(list(temporary.folder().iterdir())) == 1, "the others' files are gone"


def test_a_voice_that_comes_later_is_left_out(pipeline, picture, tmp_path):
    assert pipeline.prepare(Draft({"image": str(picture), "prompt": "calm", "audio": str(tmp_path / "no.wav")}))
    (preparation,) = waiting(pipeline).values()
    assert set(preparation.request.inputs) == {"image"}
    assert np.isclose(preparation.request.audio_seconds, 0)
