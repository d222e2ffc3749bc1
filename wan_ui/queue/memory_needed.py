"""How much memory the next clip will take: by what earlier ones of this machine took, else by the sizes of the files.

A clip with as many pixels or more is a bound, not a guess: nothing is extrapolated. Of several the least counts, since
what a process took at most is also what the clips before it took.
"""

from collections.abc import Iterable

from wan_ui.catalog import Model, Scheme
from wan_ui.files import places
from wan_ui.queue.jobs import Job


def measured(jobs: Iterable[Job], model: str, scheme: str, pixels: int, gpu: bool) -> float | None:
    """GiB that a clip of `pixels` (width x height x frames) takes, of the GPU or of the host; None: none was made."""
    found = []
    for job in jobs:
        made, memory = job.request.made_with, job.result.memory
        if job.state != "done" or made is None or (made.model, made.scheme) != (model, scheme):
            continue
        taken = memory.get("gpu_peak", 0.0) + memory.get("gpu_context", 0.0) if gpu else memory.get("host_peak", 0.0)
        size = job.request.width * job.request.height * job.request.frames
        if taken > 0 and size >= pixels:
            found.append((size, taken))
    if not found:
        return None
    nearest = min(size for size, _ in found)
    return min(taken for size, taken in found if size == nearest)


def estimated(model: Model, scheme: Scheme, engine: str, size: tuple[int, int]) -> float | None:
    """GiB of GPU memory by the catalog, with all that can wait in host memory there; None for what needs no GPU."""
    return places.gpu_memory_wanted(model, scheme, engine, size)[1] if model.needs_gpu else None
