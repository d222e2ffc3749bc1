"""The estimate: from the steps done, from the last job of the kind, or none at all."""

from dataclasses import replace

import pytest

from tests.job_requests import changed, job_request
from wan_ui.queue.estimate import eta, fraction, reference
from wan_ui.queue.jobs import Job, Jobs
from wan_ui.request import Progress, Result

REQUEST = job_request(model="m", scheme="s", width=100, height=100, frames=10, steps=4)
EXPECTED = {"text": 1.0, "image": 2.0, "denoise": 8.0, "decode": 5.0, "encode": 1.0}


def job(state="running", request=REQUEST, **fields) -> Job:
    return Job("id", "local", state, request, created=0.0, began=0.0, **fields)


def test_the_pace_of_the_steps_done_and_the_expected_later_stages():
    at_step_3 = job(progress=Progress("denoise", 3, 4), stage_started=10.0, step_started=16.0)
    by_pace, as_last_time = 3.0 * 2 - 1, 8.0 - 7.0
    assert eta(at_step_3, EXPECTED, now=17.0) == pytest.approx((by_pace + as_last_time) / 2 + 5 + 1)
    # Nothing is known of this stage from last time: the pace alone.
    at_step_4 = job(progress=Progress("decode", 4, 4), stage_started=10.0, step_started=16.0)
    assert eta(at_step_4, {"encode": 1.0}, now=16.0) == pytest.approx(2.0 + 1)


def test_in_the_first_step_the_last_job_is_the_measure():
    assert (
        eta(job(progress=Progress("denoise", 1, 4), stage_started=10.0, step_started=10.0), EXPECTED, now=12.0) == 12.0
    )


def test_without_anything_to_go_by_there_is_no_estimate():
    assert eta(job(progress=Progress("denoise", 1, 4), stage_started=0.0, step_started=0.0), {}, now=1.0) is None
    assert eta(job(state="queued"), EXPECTED, now=1.0) is None


def test_the_reference_is_scaled_by_the_work():
    done = job(state="done", result=Result(seconds=EXPECTED))
    twice = job_request(model="m", scheme="s", width=100, height=100, frames=20, steps=2)
    assert reference([done], twice) == {"text": 1.0, "image": 4.0, "denoise": 8.0, "decode": 10.0, "encode": 2.0}
    assert reference([done], job_request(model="other", scheme="s", width=100, height=100, frames=20, steps=2)) == {}


def test_the_fraction_grows_and_ends_at_one():
    marks = [
        fraction(
            job(progress=Progress("denoise", step, 4), stage_started=3.0, step_started=1.0 + 2 * step),
            EXPECTED,
            3.0 + 2 * (step - 1),
        )
        for step in (1, 2, 3, 4)
    ]
    assert marks == sorted(marks) and 0 < marks[0] < marks[-1] < 1
    assert fraction(job(state="done"), {}) == 1.0


def test_what_speech_takes_before_its_first_frame_is_not_scaled_by_the_voice():
    """1 s of voice took 2 s of loading and 1 s of frames; 10 s of voice take 12 s, not 30."""
    spoken = changed(REQUEST, audio="a.wav", audio_seconds=1.0, kind="lipsync")
    done = job(state="done", request=spoken, result=Result(seconds={"lipsync": 3.0}, before_lipsync=2.0))
    longer = replace(spoken, audio_seconds=10.0)
    expected = reference([done], longer)
    assert expected == {"lipsync": 10.0, "before lipsync": 2.0}
    loading = job(request=longer, progress=Progress("lipsync"), stage_started=0.0, step_started=0.0)
    assert eta(loading, expected, now=0.5) == 11.5
    drawing = job(request=longer, progress=Progress("lipsync", 1, 160), stage_started=2.0, step_started=2.0)
    assert eta(drawing, expected, now=3.0) == 9.0


def test_a_stage_begins_anew_with_its_first_step(tmp_path, monkeypatch):
    jobs, now = Jobs(tmp_path / "jobs.sqlite"), iter((1.0, 5.0, 7.0, 9.0))
    monkeypatch.setattr("wan_ui.queue.jobs.time.monotonic", lambda: next(now))
    jobs.add("a", "local", REQUEST)
    began = []
    for progress in (
        Progress("lipsync"),
        Progress("lipsync", 1, 8),
        Progress("lipsync", 4, 8),
        Progress("lipsync", 8, 8),
    ):
        jobs.mark("a", progress)
        began.append(jobs.get("a").stage_started)
    assert began == [1.0, 5.0, 5.0, 5.0]
