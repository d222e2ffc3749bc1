"""Memory on the page: what is taken of this machine's, by all programs, and what the next clip will need of it."""

from collections.abc import Sequence

from wan_ui.catalog import Model, Scheme, parse_size
from wan_ui.errors import UserError
from wan_ui.machine import memory
from wan_ui.queue import memory_needed
from wan_ui.queue.jobs import Job
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings
from wan_ui.ui.markup import text
from wan_ui.ui.view import View


def memory_html(rows: Sequence[WorkerRow]) -> str:
    """For the person at this machine; of a single worker also what it takes, with a button that gives it back."""
    used, total = memory.host()
    words = [f"{used:.1f} of {total:.1f} GiB of memory"] if total else []
    if gpus := [row for row in rows if row.gpu_total]:
        used, total = sum(row.gpu_used for row in gpus), sum(row.gpu_total for row in gpus)
        words.append(f"{used:.1f} of {total:.1f} GiB on the GPU{'s' * (len(gpus) > 1)}")
    line = f"Taken on this machine, by all programs: {', '.join(words)}." if words else ""
    button = ""
    if len(rows) == 1 and rows[0].state in ("ready", "working"):
        row = rows[0]
        line += f" The loaded model’s process takes {row.memory:.1f} GiB of memory." if row.memory >= 0.05 else ""
        after = " after the clip that is being made" if row.job else ""
        button = (
            f'<button type="button" class="w-button" data-do="unload_worker" data-worker="{text(row.name)}" '
            f'title="Give the model’s memory back{after}; the next clip loads it again">Unload</button>'
        )
    return f'<div class="w-memory" id="memory"><p class="w-quiet">{text(line)}</p>{button}</div>' if line else ""


def needs(
    view: View, model: Model, scheme: Scheme, jobs: list[Job], rows: Sequence[WorkerRow], settings: Settings
) -> str:
    """ "needs about 1.2 of 24 GiB of memory" for the line above Generate; "" where nothing is known."""
    held = view.form
    try:
        size = parse_size(held["size"])
    except (KeyError, TypeError, UserError):  # what fits the picture: the largest is a bound
        size = max(model.sizes, key=lambda size: size[0] * size[1])
    frames = held.get("frames") or model.default_frames
    gpu = max((row.gpu_total for row in rows), default=0.0)
    there = min(gpu, settings.gpu_gib or gpu) or memory.host()[1]
    wanted = memory_needed.measured(jobs, model.name, scheme.name, int(size[0] * size[1] * frames), bool(gpu))
    if wanted is None and gpu:
        wanted = memory_needed.estimated(model, scheme, "lightx2v", size)
    if wanted is None or not there:
        return ""
    kind = "on the GPU" if gpu else "of memory"
    return f"needs about {wanted:.1f} of {there:.0f} GiB {kind}" + ("; it may not fit" if wanted > there else "")
