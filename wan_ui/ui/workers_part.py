"""The cards of the workers, in the Models part: what each has loaded and does, with its memory. Only of
several workers; of a single one the models' list says all there is. What the settings asked for and is not here is
always said.
"""

from collections.abc import Sequence

from wan_ui.catalog import Model, Scheme
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings
from wan_ui.ui.markup import model_name, text
from wan_ui.ui.session import for_visitor

STATES = {
    "none": ("idle", "nothing loaded"),
    "loading": ("work", "loading"),
    "ready": ("good", "ready"),
    "working": ("work", "makes a clip"),
    "failed": ("bad", "could not load its model"),
}


def workers_html(
    rows: Sequence[WorkerRow],
    troubles: Sequence[str],
    usable: dict[str, list[Scheme]],
    catalog: dict[str, Model],
    settings: Settings,
    *,
    own: bool,
) -> str:
    """`own`: this person may load, unload and restart."""
    said = "".join(f'<p class="w-note bad">{text(words)}</p>' for words in troubles) if own else ""
    if len(rows) < 2:
        return said
    cards = "".join(_card(row, usable, catalog, settings, own) for row in rows)
    return f'{said}<h3>Workers</h3><ul class="w-workers">{cards}</ul>'


def _card(
    row: WorkerRow, usable: dict[str, list[Scheme]], catalog: dict[str, Model], settings: Settings, own: bool
) -> str:
    kind, words = STATES.get(row.state, ("idle", row.state))
    loaded = model_name(catalog, row.model, row.scheme) if row.model and row.state != "none" else ""
    figures = [f"{row.memory:.1f} GiB of memory" if row.memory >= 0.05 else ""]
    if row.gpu_total:
        figures.append(f"{row.gpu_used:.1f} of {row.gpu_total:.0f} GiB on the GPU")
    figures.append(f"{row.celsius} °C" if row.celsius is not None else "")
    figures.append(f"crashed {row.crashes} time{'s' * (row.crashes > 1)}" if row.crashes else "")
    trouble = for_visitor(row.words, settings) if row.state == "failed" else ""
    return (
        f'<li class="w-worker" data-worker="{text(row.name)}"><div class="w-card-top">'
        f'<span class="w-dot {kind}"></span><b>{text(row.name)}</b>'
        f'<span class="w-timing">{text(row.device)}</span></div>'
        f'<p class="w-worker-state">{text(f"{loaded}: {words}" if loaded else words)}</p>'
        f'<p class="w-quiet">{text(" · ".join(filter(None, figures)))}</p>'
        + (f'<p class="w-note bad">{text(trouble)}</p>' if trouble else "")
        + (_controls(row, usable, catalog) if own else "")
        + "</li>"
    )


def _controls(row: WorkerRow, usable: dict[str, list[Scheme]], catalog: dict[str, Model]) -> str:
    options = "".join(
        f'<option value="{text(f"{name} {scheme.name}")}"{" selected" if (name, scheme.name) == here(row) else ""}>'
        f"{text(model_name(catalog, name, scheme.name))}</option>"
        for name, schemes in usable.items()
        for scheme in schemes
    )
    after = "; after the clip that it makes" if row.job else ""
    buttons = "".join(
        f'<button type="button" class="w-button" data-do="{event}" data-worker="{text(row.name)}" '
        f'aria-label="{words} {text(row.name)}" title="{title}{after}"{" disabled" if off else ""}>{words}</button>'
        for event, words, title, off in (
            ("load_worker", "Load", "Load the model that is chosen beside it", not options),
            ("unload_worker", "Unload", "Give its memory back", row.state == "none"),
            ("restart_worker", "Restart", "End its process and load the model again", False),
        )
    )
    return f'<div class="w-worker-do"><select aria-label="Model for {text(row.name)}">{options}</select>{buttons}</div>'


def here(row: WorkerRow) -> tuple[str, str]:
    return row.model, row.scheme
