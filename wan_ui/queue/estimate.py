"""How much longer? An estimate from the steps already done and from the last job of the same kind.

Inside a stage with steps, the steps done so far give the pace, the more so the more there are. Later
stages are taken from the seconds per stage that the last finished job stored, scaled by its pixels.
With neither, there is no estimate, and none is shown. A clip in segments goes through the stages of REPEATED once for
each; from the second on, those before it are a pace as well. All times are of the monotonic clock (see
wan_ui.queue.jobs).
"""

import time

from wan_ui.queue.jobs import Job
from wan_ui.request import Progress, Request
from wan_ui.tasks import TASKS

REPEATED = ("text", "image", "denoise", "decode", "encode")


def work(request: Request, stage: str) -> float:
    """A measure that a stage's time grows with."""
    if stage == "lipsync":
        return request.audio_seconds
    number = segments(request)
    pixels = request.width * request.height * request.frames * number
    steps = request.made_with.steps if request.made_with else 0
    alone = {"read": 1.0, "load": 1.0, "text": float(number), "before lipsync": 1.0, "denoise": float(pixels * steps)}
    return alone.get(stage, float(pixels))


def segments(request: Request) -> int:
    return 1 + len(request.made_with.segments) if request.made_with and TASKS[request.task].samples else 1


def reference(history: list[Job], request: Request) -> dict[str, float]:
    """Expected seconds of each stage, from the newest finished job of this kind with the same model and scheme, both
    drafts or neither.

    "before lipsync" is what speech takes before its first frame (loading, finding the face) however long the voice is;
    "lipsync" is then its frames alone.
    """
    done = [job for job in history if job.state == "done" and kind(job.request) == kind(request)]
    done = [job for job in done if not job.error or segments(job.request) == 1]  # else some may not have been made
    for job in sorted(done, key=lambda job: job.request.task != request.task)[:1]:
        seconds = dict(job.result.seconds)
        if "lipsync" in seconds and "lipsync" in request.stages():
            before = min(job.result.before_lipsync or 0.0, seconds["lipsync"])
            seconds |= {"lipsync": seconds["lipsync"] - before, "before lipsync": before}
        wanted = ("load", "before lipsync", *request.stages())
        known = [stage for stage in seconds if stage in wanted]
        known = [stage for stage in known if work(job.request, stage)]  # an entry that is read in part has zeros
        return {stage: seconds[stage] * work(request, stage) / work(job.request, stage) for stage in known}
    return {}


def kind(request: Request) -> tuple[str | bool, ...]:
    """What takes as long: one model's clips do, of pictures and those that go on. With guidance a step has two passes,
    with a step cache some have none, and of More motion a part has."""
    made, samples = request.made_with, TASKS[request.task].samples
    if request.changes is not None:
        changes = request.changes
        return (request.task, changes.times > 1, changes.upscale > 1, bool(changes.loop), changes.file)
    if made is None:
        return ("" if samples else request.task,)
    mixed = made.motion == "more"
    kind = (made.model, made.scheme, made.draft, made.guided, mixed, made.cache in ("magcache", "teacache"))
    return ("" if samples else request.task, *kind)


def eta(job: Job, expected: dict[str, float], now: float | None = None) -> float | None:
    """Seconds left of a running job; None when nothing is known to base it on."""
    now = time.monotonic() if now is None else now
    progress = job.progress
    stages = job.request.stages()
    if job.state != "running" or progress.stage not in stages or job.stage_started is None or job.step_started is None:
        return None
    number = max(segments(job.request), progress.segments)
    each = {stage: spent / (number if stage in REPEATED else 1) for stage, spent in expected.items()}
    in_stage = max(now - job.stage_started, 0.0)
    done = progress.step - 1
    later = stages[stages.index(progress.stage) + 1 :]
    if not expected and progress.segment > 1 and job.began is not None:
        made = progress.segment - 1 + _of_segment(progress)
        return max(now - job.began, 0.0) / made * (number - made)
    if progress.total and done > 0:
        # The step being entered began at step_started: only the time before that is finished steps.
        pace = (job.step_started - job.stage_started) / done
        left = pace * (progress.total - done) - (now - job.step_started)
        if progress.stage in each:
            # Steps are not all alike (the first decoded frame is one, the others four): trust the pace as it settles.
            settled = done / progress.total
            left = settled * left + (1 - settled) * max(each[progress.stage] - in_stage, 0.0)
    elif progress.stage in each:
        before = 0.0 if progress.total else each.get(f"before {progress.stage}", 0.0)
        left = before + each[progress.stage] - in_stage
    elif progress.stage in ("read", "load"):
        left = 0.0
    else:
        return None
    if not expected and (later or progress.segment < number > 1):
        return None
    left = max(left, 0.0) + sum(each.get(stage, 0.0) + each.get(f"before {stage}", 0.0) for stage in later)
    to_come = number - (progress.segment or (number if progress.stage == "lipsync" else 1))
    return left + to_come * sum(each.get(stage, 0.0) for stage in REPEATED if stage in stages)


def _of_segment(progress: Progress) -> float:
    """Part of a segment that is done when nothing is known but its steps: all of them, what follows is short."""
    if progress.stage == "denoise" and progress.total:
        return (progress.step - 1) / progress.total
    return 0.0 if progress.stage in ("text", "image") else 1.0


def fraction(job: Job, expected: dict[str, float], now: float | None = None) -> float:
    """Part of the job that is done, 0..1: by expected seconds where known, otherwise by stages."""
    if job.state == "done":
        return 1.0
    left = eta(job, expected, now)
    if left is not None and job.began is not None:
        spent = max((time.monotonic() if now is None else now) - job.began, 0.0)
        return min(spent / max(spent + left, 1e-6), 0.99)
    progress, stages = job.progress, job.request.stages()
    number = max(segments(job.request), progress.segments)
    if progress.stage not in stages:
        return 0.0
    within = (progress.step - 1) / progress.total if progress.total else 0.0
    if progress.stage == "lipsync":
        return (len(stages) - 1 + within) / len(stages)
    return (max(progress.segment - 1, 0) + (stages.index(progress.stage) + within) / len(stages)) / number
