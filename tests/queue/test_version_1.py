"""An outputs folder that the first version of the job table has made: every job, its settings and its clip are there.

version_1/ was made with that version and the scripted engine; of its files the clips alone are kept. `{outputs}` stands
for the folder in rows.sql.
"""

import json
import shutil
import sqlite3
from dataclasses import replace

import pytest
from PIL import Image

from wan_ui.media import muxer
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import ROOT
from wan_ui.ui.markup import speaks, title

SILENT, SPOKEN, CHANGED, THEIRS, FAILED, HELD, WAITS = (
    "20261126-044722-bea760a10a5d564f",
    "20261126-044722-4d57c456732e9f0a",
    "20261126-044800-83df3c97c080c0aa",
    "20261126-044800-f5b1f67bb2cff1f2",
    "20261126-044802-014fa9adb216c74f",
    "20261126-044808-ff299e339520d9f9",
    "20261126-044808-175a9cba546b0b22",
)


@pytest.fixture
def settings(scripted_settings):
    outputs = scripted_settings.outputs
    shutil.copytree(ROOT / "tests" / "queue" / "version_1" / "clips", outputs / "clips")
    rows = (ROOT / "tests" / "queue" / "version_1" / "rows.sql").read_text(encoding="utf-8")
    with sqlite3.connect(outputs / "wan_ui.sqlite") as db:
        db.executescript(rows.replace("{outputs}", str(outputs)))
        db.execute("PRAGMA journal_mode = WAL")
    for job in (SILENT, SPOKEN, CHANGED, FAILED, HELD, WAITS):
        (outputs / "clips" / job).mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "teal").save(outputs / "clips" / job / "input.png")
    for job in (CHANGED, THEIRS):
        shutil.copyfile(outputs / "clips" / SPOKEN / "silent.mp4", outputs / "clips" / job / "base.mp4")
    for job in (SPOKEN, CHANGED, THEIRS):
        (outputs / "clips" / job / "voice.wav").touch()
    return scripted_settings


@pytest.fixture
def stored(settings):
    """What the rows say."""
    with sqlite3.connect(settings.outputs / "wan_ui.sqlite") as db:
        return {job: json.loads(request) for job, request in db.execute("SELECT id, request FROM jobs")}


@pytest.mark.hardening(35)
def test_every_job_its_settings_and_its_clip_are_there(settings, stored):
    pipeline = Pipeline().open(settings, warm=False, engine_factory="tests.scripted_engine:create_engine")
    try:
        done = pipeline.wait(WAITS)
        jobs = {job.id: job for job in pipeline.history()}
    finally:
        pipeline.close()
    assert done.state == "done" and pipeline.clip(done), "what was in line is made by this version"
    states = {name: job.state for name, job in jobs.items()}
    assert states == {
        SILENT: "done", SPOKEN: "done", CHANGED: "done", THEIRS: "done",
        FAILED: "failed", HELD: "interrupted", WAITS: "done",
    }  # fmt: skip
    for name, job in jobs.items():
        assert job.unread == "" and json.loads(json.dumps(job.request.to_dict())) == stored[name]

    silent, spoken, changed, theirs = (jobs[name] for name in (SILENT, SPOKEN, CHANGED, THEIRS))
    made = silent.request.sampling
    assert (made.prompt, made.model, made.scheme, made.engine) == ("calm", "scripted", "bf16", "auto")
    assert (made.steps, made.seed, made.fps, silent.request.frames) == (2, 3, 24, 9)
    assert [job.request.task for job in (silent, spoken, changed, theirs)] == [
        "image-to-video", "image-to-video", "lip-sync", "lip-sync",
    ]  # fmt: skip
    assert silent.request.stages() == ("load", "text", "image", "denoise", "decode", "encode")
    assert spoken.request.stages() == (*silent.request.stages(), "lipsync")
    assert changed.request.stages() == theirs.request.stages() == ("lipsync",)
    assert replace(changed.request.sampling, steps=4) == spoken.request.sampling and theirs.request.made_with is None
    assert [title(job.request) for job in (silent, changed, theirs)] == ["calm", "calm", "Speech for a video"]
    assert [speaks(job) for job in (silent, spoken, changed, theirs)] == [False, True, True, True]
    assert [sorted(pipeline.input_files(job)) for job in (silent, spoken, changed, theirs)] == [
        ["image"], ["audio", "image"], ["audio", "image"], ["audio"],
    ]  # fmt: skip
    assert pipeline.silent_clip(spoken).name == "silent.mp4" and pipeline.silent_clip(theirs).name == "base.mp4"


def test_the_settings_in_its_clips_are_those_of_the_jobs(settings, stored):
    clips = settings.outputs / "clips"
    for job in (SILENT, SPOKEN, CHANGED, THEIRS):
        values = muxer.read_metadata(clips / job / "clip.mp4")
        assert {name: values[name] for name in stored[job] if name in values} == {
            name: value for name, value in stored[job].items() if name not in ("image", "audio", "video")
        }
        assert muxer.read_frames(clips / job / "clip.mp4")[0].any()
