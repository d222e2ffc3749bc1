"""A finished clip is changed by a job of its own: from the history or a file, cancelled, another's."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.lipsync.conftest import tone
from tests.sounds import write_wav
from wan_ui import stored
from wan_ui.errors import UserError
from wan_ui.media import muxer, soundtrack
from wan_ui.queue import estimate
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS

FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture
def pipeline(scripted_settings):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY, warm=False)
    yield pipeline
    pipeline.close()


@pytest.fixture
def clip(tmp_path):
    """20 frames of 64x48 at 16 a second."""
    levels = np.arange(20)[:, None, None, None] * 10 + 20
    muxer.write_mp4(np.broadcast_to(levels, (20, 48, 64, 3)).astype(np.uint8), tmp_path / "given.mp4", 16)
    return tmp_path / "given.mp4"


def after(clip="", job="", jobs=None, **changes):
    return Draft({"video": str(clip)} if clip else {}, task="after-work", job=job, jobs=jobs or {}, changes=changes)


def test_a_clip_of_the_history_becomes_another_and_stays(pipeline, picture):
    first = pipeline.wait(pipeline.submit(Draft({"image": str(picture), "prompt": "x"}, seed=5)))
    original = pipeline.clip(first).read_bytes()
    changed = pipeline.wait(pipeline.submit(after(job=first.id, times="2x", loop="ping-pong", file="gif")))
    assert changed.state == "done", changed.error
    assert (changed.result.frames, changed.result.fps, changed.result.file) == (16, 32.0, "clip.gif")
    assert list(changed.result.seconds) == ["change", "file"] and list(changed.request.stages()) == ["change", "file"]
    assert pipeline.clip(first).read_bytes() == original
    tags = muxer.read_metadata(pipeline.clip(changed))
    assert tags["changes"]["original"] == first.id and tags["facts"]["changed_from"] == first.id
    assert (tags["seed"], tags["prompt"], tags["kind"]) == (5, "x", "after-work")
    assert pipeline.picture(changed) is not None, "what it was made of comes along, for Load settings"
    assert pipeline.poster(changed).is_file() and "Wan" not in changed.result.engine_ran
    again = pipeline.wait(pipeline.submit(after(job=changed.id, jobs={"next_1": first.id}, fade=0)))
    assert (again.state, again.result.frames) == ("done", 16 + 5 * 2), "5 frames of 16 a second at 32"
    assert estimate.reference(pipeline.history(), again.request).keys() == {"change"}
    assert stored.read_request(json.dumps(changed.request.to_dict())) == (changed.request, ())


def test_a_file_is_changed_without_any_model(pipeline, clip):
    job = pipeline.wait(pipeline.submit(after(clip, start=0.5, upscale=2)))
    assert (job.state, job.result.frames) == ("done", 12) and job.request.made_with is None
    assert muxer.probe(pipeline.clip(job)) == (128, 96, 16.0)
    assert job.request.changes.original == "given.mp4"
    assert pipeline.model.state == "none", "no model was loaded"


def test_a_sound_that_cannot_be_read_is_named_and_one_that_can_is_laid_under(pipeline, clip, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"no sound")
    draft = after(clip)
    with pytest.raises(UserError, match=r"sound: noise\.wav is not audio"):
        pipeline.submit(replace(draft, inputs={**draft.inputs, "sound": str(tmp_path / "noise.wav")}))
    voice = write_wav(tmp_path / "voice.wav", tone(0.5))
    job = pipeline.wait(pipeline.submit(replace(draft, inputs={**draft.inputs, "sound": str(voice)})))
    assert job.state == "done" and soundtrack.has_sound(pipeline.clip(job)), job.error
    assert "laid under" in job.result.facts["sound"]


def test_others_clips_are_not_there(pipeline, picture):
    theirs = pipeline.wait(pipeline.submit(Draft({"image": str(picture), "prompt": "x"}), "ada"), "ada")
    for draft, field in ((after(job=theirs.id), "video"), (after(job="20260101-000000-0000000000000000"), "video")):
        with pytest.raises(UserError, match="not there any more") as refused:
            pipeline.submit(draft, "bob")
        assert refused.value.field == field
    mine = pipeline.wait(pipeline.submit(Draft({"image": str(picture), "prompt": "x"}), "bob"), "bob")
    with pytest.raises(UserError, match="next_1: that clip is not there any more"):
        pipeline.submit(after(job=mine.id, jobs={"next_1": theirs.id}), "bob")
    assert pipeline.wait(pipeline.submit(after(job=theirs.id), "ada"), "ada").state == "done"


@pytest.mark.parametrize(
    "changes, field, words",
    [
        ({"start": 2}, "start", "the clip lasts 1.25 s, and 2 s is behind its end"),
        ({"end": 9}, "end", "lasts 1.25 s"),
        ({"speed": "fast"}, "speed", "from 0.25 to 4"),
        ({"times": "3x"}, "times", "2x or 4x"),
    ],
)
def test_wrong_values_are_refused_before_they_wait(pipeline, clip, changes, field, words):
    with pytest.raises(UserError, match=words) as refused:
        pipeline.submit(after(clip, **changes))
    assert refused.value.field == field and pipeline.history() == []


def test_what_is_no_clip_too_long_or_too_large_is_named(tmp_path, clip, picture):
    settings = Settings(max_clip_seconds=1, outputs=tmp_path)
    for draft, words in (
        (after(), "video: choose a clip to change"),
        (after(picture), "video: picture.png cannot be read as a video"),
        (after(tmp_path / "none.mp4"), "video: none.mp4 does not exist"),
        (Draft({"video": str(clip), "next_1": str(picture)}, task="after-work"), "next_1: picture.png cannot be read"),
        (Draft({"video": str(clip), "audio": str(picture)}, task="after-work"), "audio: a changed clip takes none"),
        (after(clip), "at most 1 s can be changed"),
    ):
        with pytest.raises(UserError, match=words):
            resolve(draft, settings, tmp_path / "job")
    big = np.zeros((2, 2400, 320, 3), np.uint8)
    muxer.write_mp4(big, tmp_path / "tall.mp4", 8)
    with pytest.raises(UserError, match="upscale: 320x2400 would become 640x4800"):
        resolve(after(tmp_path / "tall.mp4", upscale=2), Settings(outputs=tmp_path), tmp_path / "job")


def test_it_can_be_cancelled_while_it_runs(pipeline, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (60, 240, 320, 3), dtype=np.uint8)
    muxer.write_mp4(noise, tmp_path / "noise.mp4", 16)
    job_id, seen = pipeline.submit(after(tmp_path / "noise.mp4", times=4)), []

    def cancel(job):
        seen.append(job.progress)
        if job.progress.step > 2:
            pipeline.cancel(job_id)

    job = pipeline.wait(job_id, on_change=cancel)
    assert job.state == "cancelled" and pipeline.clip(job) is None
    assert any(progress.stage == "change" and progress.total == 240 for progress in seen)
    assert not list((pipeline.clips / job_id).glob(".*part*"))


def test_a_row_of_a_version_that_changes_more_is_read_in_part(tmp_path):
    text = json.dumps({"kind": "after-work", "video": "base.mp4", "changes": {"times": 8, "original": "x"}})
    request, skipped = stored.read_request(text)
    assert request.task == "after-work" and request.changes is None and "changes" in skipped
    assert TASKS["after-work"].done_by == "afterwork"
