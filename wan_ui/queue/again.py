"""A job of the history as a draft: what was asked for, to be asked for once more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Job
from wan_ui.tasks import PROMPT, SEGMENTS, TASKS


def draft_of(job: Job, files: Mapping[str, Path], **changes: Any) -> Draft:
    """Of a job that a model was to make. files: its inputs that are still there, by name; changes: fields of the draft
    that are to be others."""
    request, made = job.request, job.request.sampling
    task = TASKS[request.task]
    texts = {PROMPT.name: made.prompt, SEGMENTS.name: "\n".join(segment.prompt for segment in made.segments)}
    inputs = {name: str(path) for name, path in files.items() if task.input(name)}
    inputs |= {name: text for name, text in texts.items() if text and task.input(name)}
    length = {} if task.driven or task.performed else {"frames": request.frames}
    values: dict[str, Any] = {
        "task": request.task,
        "model": made.model,
        "scheme": made.scheme,
        "engine": made.engine,
        "size": f"{request.width}x{request.height}",
        **length,
        "steps": made.steps or None,
        "fps": made.fps or None,
        "seed": made.seed,
        "draft": made.draft,
        "loras": made.loras,
        "motion": made.motion,
        "negative": made.negative or None,
        "guidance": made.guidance or None,
        "shift": made.shift or None,
        "solver": made.solver,
        "cache": made.cache,
        "overlap": made.overlap or None,
        "offload": made.offload,
    }
    return Draft(inputs, **{**values, **changes})
