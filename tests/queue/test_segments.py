"""A clip in segments: what is asked for, made, joined and kept."""

import subprocess
import threading
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest

from tests.job_requests import job_request
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.queue.draft import Draft
from wan_ui.queue.estimate import eta, fraction, reference
from wan_ui.queue.intake import resolve
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.segments import Chain
from wan_ui.queue.segments_intake import read_prompts
from wan_ui.request import Progress, Result, Segment

FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture
def before(tmp_path):
    """Twelve frames of a bar that moves, 120 x 80, 24 a second."""
    frames = np.full((12, 80, 120, 3), 90, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:60, 8 * number : 8 * number + 12] = (200, 120, 40)
    muxer.write_mp4(frames, tmp_path / "before.mp4", 24)
    return tmp_path / "before.mp4"


# ---------------------------------------------------------------- asked for


def test_prompts_are_lines_or_parts_between_bars(scripted_settings):
    assert read_prompts("pan left\n\n  night falls \n", "zoom in", scripted_settings) == [
        "zoom in",
        "pan left",
        "night falls",
    ]
    assert read_prompts("a | b|c", "", scripted_settings) == ["a", "b", "c"]
    assert read_prompts("", "a | b", scripted_settings) == ["a | b"], "the prompt is one, whatever is in it"


@pytest.mark.parametrize(
    "given, field, words",
    [
        ({"segments": "a | | c"}, "segments", "prompt 2 of 3 is empty"),
        ({"segments": "a |"}, "segments", "prompt 2 of 2 is empty"),
        ({"segments": " | ".join("a" * 13)}, "segments", "14 prompts; one clip takes at most 12"),
        ({"segments": "b" * 3000}, "segments", "prompt 1 has 3,000 characters; the limit is 2,000"),
        ({"prompt": "", "segments": ""}, "prompt", "say what should happen"),
        ({"image": "x.png"}, "clip", "takes no picture; take the one or the other away"),
        ({"clip": "nowhere.mp4"}, "clip", "does not exist"),
        ({"clip": __file__}, "clip", "cannot be read as a video"),
    ],
)
def test_what_cannot_be_continued_is_said(before, scripted_settings, tmp_path, given, field, words):
    draft = Draft({"clip": str(before), "prompt": "calm", **given})
    with pytest.raises(UserError, match=words) as caught:
        resolve(draft, scripted_settings, tmp_path / "job")
    assert caught.value.field == field and str(caught.value).startswith(f"{field}: ")


def test_a_clip_that_is_too_long_is_refused_before_it_waits(before, scripted_settings, tmp_path):
    short = replace(scripted_settings, max_clip_seconds=1)
    long = tmp_path / "long.mp4"
    muxer.write_mp4(np.zeros((40, 64, 64, 3), np.uint8), long, 16)
    with pytest.raises(UserError, match=r"clip: long\.mp4 lasts 2 s; at most 1 s can be continued: cut it") as caught:
        resolve(Draft({"clip": str(long), "prompt": "calm"}), short, tmp_path / "job")
    assert caught.value.field == "clip"


def test_size_and_rate_follow_the_clip(before, scripted_settings, tmp_path):
    request = resolve(
        Draft({"clip": str(before), "segments": "a | b", "prompt": ""}), scripted_settings, tmp_path / "a"
    )
    assert (request.task, request.width, request.height, request.sampling.fps) == ("continue", 96, 64, 24)
    assert request.sampling.first == Segment("a") and request.sampling.segments == (Segment("b"),)
    chosen = Draft({"clip": str(before), "prompt": "a"}, size="64x64", fps=12)
    request = resolve(chosen, scripted_settings, tmp_path / "b")
    assert (request.width, request.height, request.sampling.fps) == (64, 64, 12)


def test_a_turned_clip_of_60_frames_a_second(scripted_settings, tmp_path):
    source, turned = tmp_path / "wide.mp4", tmp_path / "turned.mp4"
    muxer.write_mp4(np.zeros((60, 64, 96, 3), np.uint8), source, 60)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90", "-i", str(source)]
    subprocess.run([*command, "-c", "copy", str(turned)], check=True)
    request = resolve(Draft({"clip": str(turned), "prompt": "a"}), scripted_settings, tmp_path / "job")
    assert (request.width, request.height, request.sampling.fps) == (64, 96, 30)
    chain = Chain(request, tmp_path / "job")
    chain.read(scripted_settings, lambda progress: None)
    assert chain.frames == 30 and chain.last is not None and chain.last.shape == (96, 64, 3), "a second stays one"


# ---------------------------------------------------------------- made and kept


def test_segments_are_joined_without_a_doubled_frame_and_what_is_finished_is_kept(scripted_settings, picture):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY)
    try:
        draft = Draft({"image": str(picture), "prompt": "calm", "segments": "calm | calm"}, seed=5, frames=5)
        job = pipeline.wait(pipeline.submit(draft))
        assert (job.state, job.error, job.result.frames) == ("done", "", 5 + 4 + 4)
        frames, fps = muxer.read_frames(pipeline.clip(job))
        assert len(frames) == 13 and fps == 16
        jumps = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3))
        assert jumps.min() > 1.5, "every frame moves on: none is shown twice"
        assert jumps.max() < 8, "and none jumps, at a seam neither"
        stored = muxer.read_metadata(pipeline.clip(job))
        assert [segment["prompt"] for segment in stored["segments"]] == ["calm", "calm"] and stored["frames"] == 5
        assert stored["facts"]["segments"] == "3 of 3, seeds 5, 6, 7"

        longer = pipeline.wait(pipeline.submit(Draft({"prompt": "calm"}, job=job.id, seed=5, frames=5)))
        assert (longer.request.task, longer.result.frames, longer.error) == ("continue", 13 + 4, "")
        assert np.abs(muxer.read_frames(pipeline.clip(longer))[0][:13].astype(int) - frames).mean() < 3
        folder = pipeline.clips / longer.id
        assert sorted(path.name for path in folder.iterdir()) == ["before.mp4", "clip.mp4", "poster.jpg"]

        failing = replace(draft, inputs={**draft.inputs, "segments": "calm | denoise:1=refuse"})
        job = pipeline.wait(pipeline.submit(failing))
        assert job.state == "done" and job.result.frames == 9 and len(muxer.read_frames(pipeline.clip(job))[0]) == 9
        assert job.error.startswith("The clip is made, but only 2 of its 3 segments. prompt: the scripted engine")

        held = replace(draft, inputs={**draft.inputs, "segments": "denoise:1=hold"})
        job_id = pipeline.submit(held)
        reached = threading.Event()
        waiter = threading.Thread(target=pipeline.wait, args=(job_id,), kwargs={"on_change": seen(reached)})
        waiter.start()
        assert reached.wait(90)
        pipeline.cancel(job_id)
        waiter.join(90)
        job = pipeline.job(job_id)
        assert (job.state, job.error, job.result.frames) == ("cancelled", "Kept: the first of 2 segments.", 5)
        assert pipeline.clip(job) and not list((pipeline.clips / job_id).glob(".*.part*"))
    finally:
        pipeline.close()


def seen(reached: threading.Event):
    def look(job: Job) -> None:
        if (job.progress.segment, job.progress.stage) == (2, "denoise"):
            reached.set()

    return look


# ---------------------------------------------------------------- how long


def test_the_time_left_is_that_of_all_segments():
    made = job_request(kind="continue", segments=[{"prompt": "b"}, {"prompt": "c"}])
    seconds = {"text": 1.0, "image": 1.0, "denoise": 4.0, "decode": 3.0, "encode": 1.0}
    done = Job("a", "local", "done", job_request(), 0.0, result=Result(seconds=seconds))
    expected = reference([done], made)
    assert expected == {stage: 3 * spent for stage, spent in seconds.items()}, "a picture's clip took as long"
    at = Progress("denoise", 1, 4, segment=2, segments=3)
    job = Job("b", "local", "running", made, 0.0, progress=at, stage_started=12.0, step_started=12.0, began=0.0)
    assert eta(job, expected, now=13.0) == pytest.approx(3 + 3 + 1 + 10), "the rest of this one, and one more"
    assert eta(job, {}, now=13.0) == pytest.approx(13 * 2), "by the pace of the first"
    assert 0.3 < fraction(job, {}, now=13.0) < 0.5
