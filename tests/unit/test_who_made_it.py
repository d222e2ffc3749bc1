"""The worker that made a clip is named on its tile and among its settings, where there is more than one."""

import pytest

from tests.job_requests import job_request
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import Result
from wan_ui.ui.history import history_html
from wan_ui.ui.result import result_html


@pytest.mark.parametrize("worker", ["gpu1", "rack<2>/0"])
def test_the_worker_is_named_where_there_are_several(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(PIPELINE, "clips", tmp_path, raising=False)
    job = Job("a", "local", "done", job_request(), 1.0, result=Result(clip="clip.mp4"), worker=worker)
    escaped = worker.replace("<", "&lt;").replace(">", "&gt;")
    assert f"<dt>Worker</dt><dd>{escaped}</dd>" in result_html(job, {}, True)
    assert f'w-tile-worker">{escaped}</span>' in history_html([job], "a", True)
    older = Job("b", "local", "done", job_request(), 1.0, result=Result(clip="clip.mp4"))
    for words in (result_html(job, {}), history_html([job], "a"), result_html(older, {}, True)):
        assert escaped not in words and "<dt>Worker</dt>" not in words
    assert "w-tile-worker" not in history_html([older], "a", True)
