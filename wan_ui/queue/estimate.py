"""How much longer? An estimate from the steps already done and from the last job of the same kind.

Inside a stage with steps, the steps done so far give the pace, the more so the more there are. Later
stages are taken from the seconds per stage that the last finished job stored, scaled by its pixels.
With neither, there is no estimate, and none is shown. All times are of the monotonic clock (see wan_ui.queue.jobs).
"""

import time

from wan_ui.queue.jobs import Job
from wan_ui.request import Request


def work(request: Request, stage: str) -> float:
    """A measure that a stage's time grows with."""
    if stage == "lipsync":
        return request.audio_seconds
    pixels = request.width * request.height * request.frames
    steps = request.made_with.steps if request.made_with else 0
    return {"load": 1.0, "text": 1.0, "before lipsync": 1.0, "denoise": pixels * steps}.get(stage, float(pixels))


def reference(history: list[Job], request: Request) -> dict[str, float]:
    """Expected seconds of each stage, from the newest finished job of this kind with the same model and scheme, both
    drafts or neither.

    "before lipsync" is what speech takes before its first frame (loading, finding the face) however long the voice is;
    "lipsync" is then its frames alone.
    """
    for job in history:
        if job.state == "done" and _kind(job.request) == _kind(request):
            seconds = dict(job.result.seconds)
            if "lipsync" in seconds and "lipsync" in request.stages():
                before = min(job.result.before_lipsync or 0.0, seconds["lipsync"])
                seconds |= {"lipsync": seconds["lipsync"] - before, "before lipsync": before}
            wanted = ("load", "before lipsync", *request.stages())
            known = [stage for stage in seconds if stage in wanted]
            known = [stage for stage in known if work(job.request, stage)]  # an entry that is read in part has zeros
            return {stage: seconds[stage] * work(request, stage) / work(job.request, stage) for stage in known}
    return {}


def _kind(request: Request) -> tuple[str | bool, ...]:
    made = request.made_with
    return (request.task, made.model, made.scheme, made.draft) if made else (request.task,)


def eta(job: Job, expected: dict[str, float], now: float | None = None) -> float | None:
    """Seconds left of a running job; None when nothing is known to base it on."""
    now = time.monotonic() if now is None else now
    progress = job.progress
    stages = job.request.stages()
    if job.state != "running" or progress.stage not in stages or job.stage_started is None or job.step_started is None:
        return None
    in_stage = max(now - job.stage_started, 0.0)
    done = progress.step - 1
    if progress.total and done > 0:
        # The step being entered began at step_started: only the time before that is finished steps.
        pace = (job.step_started - job.stage_started) / done
        left = pace * (progress.total - done) - (now - job.step_started)
        if progress.stage in expected:
            # Steps are not all alike (the first decoded frame is one, the others four): trust the pace as it settles.
            settled = done / progress.total
            left = settled * left + (1 - settled) * max(expected[progress.stage] - in_stage, 0.0)
    elif progress.stage in expected:
        before = 0.0 if progress.total else expected.get(f"before {progress.stage}", 0.0)
        left = before + expected[progress.stage] - in_stage
    elif progress.stage == "load":
        left = 0.0
    else:
        return None
    later = stages[stages.index(progress.stage) + 1 :]
    if not expected and later:
        return None
    return max(left, 0.0) + sum(expected.get(stage, 0.0) + expected.get(f"before {stage}", 0.0) for stage in later)


def fraction(job: Job, expected: dict[str, float], now: float | None = None) -> float:
    """Part of the job that is done, 0..1: by expected seconds where known, otherwise by stages."""
    if job.state == "done":
        return 1.0
    left = eta(job, expected, now)
    if left is not None and job.began is not None:
        spent = max((time.monotonic() if now is None else now) - job.began, 0.0)
        return min(spent / max(spent + left, 1e-6), 0.99)
    progress, stages = job.progress, job.request.stages()
    if progress.stage not in stages:
        return 0.0
    within = (progress.step - 1) / progress.total if progress.total else 0.0
    return (stages.index(progress.stage) + within) / len(stages)
