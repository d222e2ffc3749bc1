"""Memory on the page: what is taken of this machine's, by all programs, and what the next clip will need of it."""

from collections.abc import Sequence

from wan_ui.catalog import Model, Scheme, parse_size
from wan_ui.errors import UserError
from wan_ui.machine import memory
from wan_ui.machine.gpus import FRESH, KEPT, Look, visible
from wan_ui.queue import memory_needed
from wan_ui.queue.jobs import Job
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings, visible_devices
from wan_ui.ui.markup import Markup
from wan_ui.ui.view import View


def memory_html(rows: Sequence[WorkerRow], looks: Sequence[Look]) -> Markup:
    """For the person at this machine: its memory and each GPU's, with what all programs took of them in the last
    minutes (`looks`, the newest last); of a single worker also what it takes, with a button that gives it back."""
    meters, trouble = Markup(), ""
    if looks and looks[-1].host[1]:
        meters += _meter("Memory", "", *looks[-1].host, [look.host[0] for look in looks])
    if looks:
        here = visible(list(looks[-1].gpus), visible_devices())
        for number, gpu in enumerate(gpu for gpu in here if gpu.total):
            earlier = [found.used for look in looks if (found := look.gpu(gpu.uuid))]
            meters += _meter(f"GPU {number}" if len(here) > 1 else "GPU", gpu.name, gpu.used, gpu.total, earlier)
        trouble = f"No GPU memory is shown: {looks[-1].trouble}." if looks[-1].trouble else ""
    line, button = "", Markup()
    if len(rows) == 1 and rows[0].state in ("ready", "working"):
        row = rows[0]
        line = f"The loaded model’s process takes {row.memory:.1f} GiB of memory." if row.memory >= 0.05 else ""
        after = " after the clip that is being made" if row.job else ""
        button = Markup(
            '<button type="button" class="w-button" data-do="unload_worker" data-worker="{name}" '
            'title="Give the model’s memory back{after}; the next clip loads it again">Unload</button>'
        ).format(name=row.name, after=after)
    foot = Markup().join(Markup('<p class="w-quiet">{}</p>').format(words) for words in (line, trouble) if words)
    foot = (
        Markup('<div class="w-memory-foot"><div>{foot}</div>{button}</div>').format(foot=foot, button=button)
        if foot or button
        else Markup()
    )
    if not meters and not foot:
        return Markup()
    return Markup(
        '<div class="w-memory" id="memory"><h3>Taken on this machine, by all programs</h3><ul>{meters}</ul>{foot}</div>'
    ).format(meters=meters, foot=foot)


def _meter(name: str, of: str, used: float, total: float, earlier: Sequence[float]) -> Markup:
    share = min(100.0, 100 * used / total)
    full = " full" if share >= 90 else ""
    return Markup(
        '<li><b>{name}</b><span class="w-quiet">{of}</span>{curve}'
        '<span class="w-level{full}" role="meter" aria-label="{label}" aria-valuemin="0" '
        'aria-valuemax="{total:.1f}" aria-valuenow="{used:.1f}"><i style="width:{share:.0f}%"></i></span>'
        "<span>{used:.1f} of {total:.1f} GiB</span></li>"
    ).format(
        name=name,
        of=of,
        curve=_curve(earlier, total),
        full=full,
        label=f"{name} taken".strip(),
        total=total,
        used=used,
        share=share,
    )


def _curve(earlier: Sequence[float], total: float) -> Markup:
    """The last minutes as a line from 0 to all there is, now at the right."""
    if len(earlier) < 2:
        return Markup("<i></i>")
    right = len(earlier) - 1
    points = " ".join(
        f"{KEPT - 1 - right + place},{20 - 20 * min(1.0, value / total):.1f}" for place, value in enumerate(earlier)
    )
    minutes = f"{max(1, round(right * FRESH / 60))} min"
    return Markup(
        '<svg class="w-curve" viewBox="0 -1 {width} 22" preserveAspectRatio="none" role="img" '
        'aria-label="The last {minutes}: {low:.1f} to {high:.1f} GiB">'
        '<polyline points="{points}"/></svg>'
    ).format(width=KEPT - 1, minutes=minutes, low=min(earlier), high=max(earlier), points=points)


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
