"""A clip that did not fit into memory: the size and length of one that does, by what this machine has measured.

A clip that was made here with as many pixels and frames, or more, shows that one fits. Where none was made, about
half the work is offered, which is a guess and said as one.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from wan_ui.catalog import Model
from wan_ui.queue.jobs import Job
from wan_ui.request import Request
from wan_ui.tasks import TASKS

ABOUT_HALF = 5 / 8  # 832x480 of 1280x720, 49 frames of 81, 17 of 33


@dataclass(frozen=True)
class Fit:
    """What a result stores of it: see wan_ui.request.Result. measured: GiB that a clip as large took; 0: none was made.
    of: GPU or machine, whose memory was not enough. offload: where the weights are to be instead, if that is the
    change."""

    of: str
    width: int
    height: int
    frames: int
    measured: float = 0.0
    offload: str = ""

    def stored(self) -> dict[str, Any]:
        return asdict(self)


def what_fits(request: Request, model: Model, jobs: Iterable[Job], of: str) -> Fit | None:
    """The best clip that is smaller than `request`; None where it is the model's smallest.

    jobs  that this machine has made or failed to make. A way that keeps the picture's shape goes before one that does
    not, then one as long as it was to be, then the largest, and of equals one that was made.
    """
    failed, made, sizes = [_work(request)], [], set()
    for job in jobs:
        asked = job.request.made_with
        if asked is None or (asked.model, asked.scheme) != (model.name, request.sampling.scheme):
            continue
        if job.result.fits and job.result.fits["of"] == of:
            failed.append(_work(job.request))
        taken = _taken(job, of)
        if job.state == "done" and taken and _work(job.request) < _work(request):
            made.append((job.request.width * job.request.height, job.request.frames, taken))
            sizes.add((job.request.width, job.request.height))
    task = TASKS[request.task]
    lengths = (request.frames,) if task.driven or task.performed else model.frames
    smaller = [
        (width, height, frames)
        for width, height in model.sizes
        for frames in lengths
        if frames <= request.frames and width * height * frames < min(failed)
    ]

    def order(size: tuple[int, int, int]) -> tuple[bool, bool, int, bool]:
        width, height, frames = size
        alike = abs(width * request.height / (height * request.width) - 1) < 0.15
        return alike, alike and frames == request.frames, width * height * frames, (width, height) in sizes

    shown = []
    for width, height, frames in smaller:
        bounds = [taken for area, length, taken in made if width * height <= area and frames <= length]
        if bounds:
            shown.append((order((width, height, frames)), Fit(of, width, height, frames, min(bounds))))
    if shown:
        return max(shown, key=lambda entry: entry[0])[1]
    half = [size for size in smaller if size[0] * size[1] * size[2] <= ABOUT_HALF * min(failed)]
    if half:
        return Fit(of, *max(half, key=order))
    return Fit(of, *min(smaller, key=lambda size: size[0] * size[1] * size[2])) if smaller else None


def weights_elsewhere(request: Request, of: str) -> Fit | None:
    """Of a clip whose weights were to be on the GPU in a way that was asked for: the way that its memory allows."""
    if of != "GPU" or request.sampling.offload in ("", "auto"):
        return None
    return Fit(of, request.width, request.height, request.frames, offload="auto")


def words(fit: Fit | None, request: Request) -> str:
    """For the message of the job that failed."""
    if fit is None:
        return "Free memory, or choose another model: this is its smallest clip."
    if fit.offload:
        return "Choose Auto for where the weights are: what the GPU cannot hold then waits in RAM."
    if fit.measured:
        return f"What fits: {change(fit, request)}; a clip as large took {fit.measured:.1f} GiB here."
    return f"Choose {change(fit, request)}; whether that fits has not been measured here."


def change(fit: Fit, request: Request) -> str:
    """ "192x320, 17 frames": what of it differs from what was asked for."""
    if fit.offload:
        return "with the weights where they fit"
    size = f"{fit.width}x{fit.height}" if (fit.width, fit.height) != (request.width, request.height) else ""
    frames = f"{fit.frames} frames" if fit.frames != request.frames else ""
    return ", ".join(filter(None, (size, frames)))


def _work(request: Request) -> int:
    return request.width * request.height * request.frames


def _taken(job: Job, of: str) -> float:
    memory = job.result.memory
    if of == "GPU":
        return memory.get("gpu_peak", 0.0) + memory.get("gpu_context", 0.0) if memory.get("gpu_peak") else 0.0
    return memory.get("host_peak", 0.0)
