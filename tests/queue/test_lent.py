"""A GPU that is lent for one job at a time: what it is asked for, and how a job ends. Here it is lent in a thread."""

import contextvars
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.job_requests import job_request
from tests.scripted_engine import go_on
from wan_ui.queue import lent
from wan_ui.queue.draft import Draft
from wan_ui.queue.messages import Examine, Generate
from wan_ui.queue.pipeline import Pipeline
from wan_ui.settings import Settings

FACTORY = "tests.scripted_engine:create_engine"
VISITOR: contextvars.ContextVar[str] = contextvars.ContextVar("visitor", default="nobody")


class Lender:
    """calls: (seconds, visitor) of each; error: raised in place of the next; ends: it takes the GPU away at once"""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []
        self.error: Exception | None = None
        self.ends = False

    def lend(self, letter: bytes, seconds: int, settings_json: str, engine_factory: str):
        self.calls.append((seconds, VISITOR.get()))
        if self.error is not None:
            raise self.error
        for answer in lent.answers(letter, settings_json, engine_factory):
            if self.ends:
                return
            yield answer


class GradioError(Exception):
    """As gradio.Error, which the queue does not know."""

    def __init__(self, title: str, message: str):
        super().__init__(message)
        self.title, self.message = title, message


@pytest.fixture
def lender():
    return Lender()


@pytest.fixture
def pipeline(scripted_settings, lender):
    lent._desk.cache_clear()
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY, lend=lender.lend)
    yield pipeline
    pipeline.close()


def until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def submit(pipeline, picture, prompt="calm", **fields) -> str:
    return pipeline.submit(Draft({"image": str(picture), "prompt": prompt}, **fields))


def test_a_job_is_done_on_it_for_the_one_who_asked_and_what_it_took_is_what_the_next_asks_for(
    pipeline, lender, picture
):
    until(lambda: pipeline.model.state == "ready")
    assert lender.calls == [], "nothing is loaded ahead: that would take somebody's seconds"
    assert "lent for each clip" in pipeline.model.words
    context = contextvars.copy_context()
    context.run(VISITOR.set, "a visitor")
    done = pipeline.wait(context.run(submit, pipeline, picture, seed=7))
    assert (done.state, done.error) == ("done", "") and pipeline.clip(done).is_file()
    assert lender.calls == [(lent.UNKNOWN, "a visitor")] and done.worker == "lent"
    slow = {**done.result.seconds, "denoise": 40.0, "encode": 0.0}
    assert pipeline.pool.line.expected(done.request) == pytest.approx(
        sum(done.result.seconds.values()) + done.result.load_seconds
    )
    with pipeline.jobs.connect() as db:
        stored = {**done.result.to_dict(), "seconds": slow, "load_seconds": 10.0}
        db.execute("UPDATE jobs SET result = ?", (json.dumps(stored),))
    expected = sum(slow.values()) + 10
    assert pipeline.wait(submit(pipeline, picture)).state == "done"
    assert lender.calls[-1] == (pytest.approx(lent.SPARE * expected, abs=1), "nobody")


@pytest.mark.parametrize("expected, seconds", [(None, 60), (0.2, 15), (100.0, 130), (100.1, 131)])
def test_the_seconds_that_it_is_asked_for(expected, seconds, scripted_settings):
    worker = lent.LentWorker(scripted_settings, lambda *_: iter(()), lambda request: expected)
    asked = worker.seconds(Generate(job_request(), Path("x")))
    assert asked == seconds and lent.duration(b"", asked, "", "") == seconds
    assert worker.seconds(Examine("m", "s", "auto", "", Path("x"))) == lent.UNKNOWN


def test_what_a_visitor_s_quota_does_not_cover_is_said_with_the_clip_and_the_next_one_runs(pipeline, lender, picture):
    words = "You have exceeded your ZeroGPU quota (60s requested vs. 12s left). Try again in 1:02:03."
    lender.error = GradioError("ZeroGPU quota exceeded", words)
    failed = pipeline.wait(submit(pipeline, picture))
    assert failed.state == "failed" and "Traceback" not in failed.error
    assert failed.error.startswith(f"ZeroGPU quota exceeded: {words} This clip asks for 60 s of a GPU; a smaller size")
    lender.error = GradioError("ZeroGPU worker error", "GPU task aborted")
    failed = pipeline.wait(submit(pipeline, picture))
    assert failed.error == "The GPU was taken away (GPU task aborted); it had been lent for 60 s."
    lender.error, lender.ends = None, True
    failed = pipeline.wait(submit(pipeline, picture))
    assert failed.error == "The GPU was taken away: it had been lent for 60 s."
    lender.ends = False
    assert pipeline.wait(submit(pipeline, picture, "denoise:2=refuse")).error == (
        "prompt: the scripted engine refuses this"
    )
    lender.error = ZeroDivisionError("a bug of the lender's")
    failed = pipeline.wait(submit(pipeline, picture))
    assert failed.error.startswith("Unexpected error: a bug of the lender's")
    lender.error = None
    assert pipeline.wait(submit(pipeline, picture)).state == "done"


def test_a_job_is_cancelled_at_its_next_step_and_what_was_lent_is_given_back(pipeline, lender, picture):
    job = submit(pipeline, picture, "denoise:2=hold")
    until(lambda: pipeline.job(job).progress.step == 2)
    pipeline.cancel(job)
    until(lambda: not pipeline.job(job).active)  # it holds until the cancel is heard
    assert pipeline.job(job).state == "cancelled" and pipeline.clip(pipeline.job(job)) is None
    assert pipeline.wait(submit(pipeline, picture)).state == "done"


def test_one_that_makes_no_progress_is_given_up(scripted_settings, lender, picture):
    lent._desk.cache_clear()
    settings: Settings = replace(scripted_settings, stage_timeout=1)
    pipeline = Pipeline().open(settings, engine_factory=FACTORY, lend=lender.lend)
    try:
        job = submit(pipeline, picture, "denoise:2=stay")
        ended = pipeline.wait(job)
        go_on([pipeline.clips / job])
        assert ended.state == "failed" and "WAN_UI_STAGE_TIMEOUT" in ended.error
    finally:
        pipeline.close()
