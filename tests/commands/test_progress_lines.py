"""Into a pipe or a log goes a line now and then, not a bar that is drawn five times a second."""

from types import SimpleNamespace

from tests.job_requests import job_request
from wan_ui.commands import progress
from wan_ui.commands.job import follow
from wan_ui.request import Progress

REQUEST = job_request(width=64, height=64)


class Pipeline:
    """A job whose every state is looked at twenty times, as a slow step is."""

    def __init__(self, states, outputs):
        self.settings = SimpleNamespace(outputs=outputs)
        self.states = [state for state in states for _ in range(20)]

    def history(self):
        return []

    def job(self, _):
        return self.states[0]

    def wait(self, _, on_change):
        for state in self.states:
            on_change(state)
        return self.states[-1]


def state(name: str, stage: str = "", step: int = 0):
    return SimpleNamespace(
        request=REQUEST,
        state=name,
        active=name in ("queued", "running"),
        progress=Progress(stage, step, 4 if step else 0),
        stage_started=None,
        step_started=None,
        started=None,
    )


DENOISE = [state("running", "denoise", step) for step in (1, 2, 3)]
STATES = [state("queued"), state("running", "text"), *DENOISE, state("done")]


def test_a_job_is_told_in_a_line_for_each_stage(capsys, tmp_path):
    follow(Pipeline(STATES, tmp_path), "job", quiet=False)
    told = capsys.readouterr().err
    assert told.splitlines() == ["queued", "text", "denoise step 1/4"] and "\r" not in told
    follow(Pipeline(STATES, tmp_path), "job", quiet=True)
    assert capsys.readouterr().err == ""


def test_a_long_stage_is_told_again_after_a_while(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    lines = progress.Lines()
    for second in range(26):
        now = float(second)
        lines.tell("high.safetensors", f"{second} of 26 GB")
        lines.tell("high.safetensors", f"{second} of 26 GB")
    assert capsys.readouterr().err.splitlines() == ["0 of 26 GB", "10 of 26 GB", "20 of 26 GB"]
