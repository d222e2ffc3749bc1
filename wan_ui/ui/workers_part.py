"""The cards of the workers, in the Models tab: what each has loaded and does, with its memory. Only of
several workers; of a single one the models' list says all there is. What the settings asked for and is not here is
always said.
"""

from collections.abc import Sequence

from wan_ui.catalog import Model, Scheme
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings
from wan_ui.ui.markup import Markup, model_name
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
) -> Markup:
    """`own`: this person may load, unload and restart."""
    said = (
        Markup().join(Markup('<p class="w-note bad">{}</p>').format(words) for words in troubles) if own else Markup()
    )
    if len(rows) < 2:
        return said
    cards = Markup().join(_card(row, usable, catalog, settings, own) for row in rows)
    return Markup('{said}<h3>Workers</h3><ul class="w-workers">{cards}</ul>').format(said=said, cards=cards)


def _card(
    row: WorkerRow, usable: dict[str, list[Scheme]], catalog: dict[str, Model], settings: Settings, own: bool
) -> Markup:
    kind, words = STATES.get(row.state, ("idle", row.state))
    loaded = model_name(catalog, row.model, row.scheme) if row.model and row.state != "none" else ""
    figures = [f"{row.memory:.1f} GiB of memory" if row.memory >= 0.05 else ""]
    if row.gpu_total:
        figures.append(f"{row.gpu_used:.1f} of {row.gpu_total:.0f} GiB on the GPU")
    figures.append(f"{row.celsius} °C" if row.celsius is not None else "")
    figures.append(f"crashed {row.crashes} time{'s' * (row.crashes > 1)}" if row.crashes else "")
    trouble = for_visitor(row.words, settings) if row.state == "failed" else ""
    return (
        Markup(
            '<li class="w-worker" data-worker="{name}"><div class="w-card-top">'
            '<span class="w-dot {kind}"></span><b>{name}</b>'
            '<span class="w-timing">{device}</span></div>'
            '<p class="w-worker-state">{loaded}</p>'
            '<p class="w-quiet">{figures}</p>'
        ).format(
            name=row.name,
            kind=kind,
            device=row.device,
            loaded=f"{loaded}: {words}" if loaded else words,
            figures=" · ".join(filter(None, figures)),
        )
        + (Markup('<p class="w-note bad">{}</p>').format(trouble) if trouble else Markup())
        + (_controls(row, usable, catalog) if own else Markup())
        + Markup("</li>")
    )


def _controls(row: WorkerRow, usable: dict[str, list[Scheme]], catalog: dict[str, Model]) -> Markup:
    options = Markup().join(
        Markup('<option value="{name}"{selected}>{words}</option>').format(
            name=f"{name} {scheme.name}",
            selected=" selected" if (name, scheme.name) == here(row) else "",
            words=model_name(catalog, name, scheme.name),
        )
        for name, schemes in usable.items()
        for scheme in schemes
    )
    after = "; after the clip that it makes" if row.job else ""
    buttons = Markup().join(
        Markup(
            '<button type="button" class="w-button" data-do="{event}" data-worker="{name}" '
            'aria-label="{words} {name}" title="{title}{after}"{disabled}>{words}</button>'
        ).format(event=event, name=row.name, words=words, title=title, after=after, disabled=" disabled" if off else "")
        for event, words, title, off in (
            ("load_worker", "Load", "Load the model that is chosen beside it", not options),
            ("unload_worker", "Unload", "Give its memory back", row.state == "none"),
            ("restart_worker", "Restart", "End its process and load the model again", False),
        )
    )
    return Markup(
        '<div class="w-worker-do"><select aria-label="Model for {name}">{options}</select>{buttons}</div>'
    ).format(name=row.name, options=options, buttons=buttons)


def here(row: WorkerRow) -> tuple[str, str]:
    return row.model, row.scheme
