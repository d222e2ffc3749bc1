"""My waiting clips: in which order, with the time until each is done; moved, changed, doubled, cancelled, paused."""

from collections.abc import Mapping, Sequence

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.tasks import TASKS
from wan_ui.ui.markup import Markup, file_url, marked_title, seconds, title

# A row is dragged by the mouse, or moved by its buttons and by Alt with the arrow keys; the focus stays on its row.
SCRIPT = """
const events = ['move_job', 'edit_job', 'leave_job', 'double_job', 'stop_job', 'stop_all', 'pause_line'];
const rows = () => [...element.querySelectorAll('[data-row]')];
const move = (row, to) => {
  if (to >= 0 && to < rows().length) trigger('move_job', { job: row.dataset.row, to });
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  const row = button.closest('[data-row]');
  if (button.dataset.do === 'move_job') move(row, rows().indexOf(row) + Number(button.dataset.by));
  else trigger(button.dataset.do, { job: row ? row.dataset.row : '', on: button.dataset.on === 'true' });
});
element.addEventListener('keydown', (event) => {
  const row = event.target.closest('[data-row]');
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!row || !by || !event.altKey) return;
  event.preventDefault();
  move(row, rows().indexOf(row) + by);
});
let dragged = null;
element.addEventListener('dragstart', (event) => {
  dragged = event.target.closest('[data-row]');
  if (dragged) event.dataTransfer.effectAllowed = 'move';
});
element.addEventListener('dragover', (event) => { if (dragged) event.preventDefault(); });
element.addEventListener('drop', (event) => {
  const row = event.target.closest('[data-row]');
  if (!dragged || !row) return;
  event.preventDefault();
  move(dragged, rows().indexOf(row));
});
element.addEventListener('dragend', () => { dragged = null; });
let focused = '';
element.addEventListener('focusin', (event) => { focused = event.target.dataset.key || ''; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = ''; });
watch('value', () => {
  if (focused && document.activeElement?.dataset?.key !== focused) {
    element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
});
"""


def build_queue() -> gr.HTML:
    return gr.HTML("", elem_id="queue", js_on_load=SCRIPT, apply_default_css=False)


def queue_html(jobs: Sequence[Job], left: Mapping[str, float], editing: str, running: bool) -> Markup:
    """jobs: those that wait, in their order; left: seconds until each is done; running: another of theirs is made."""
    if not jobs:
        return Markup()
    paused = any(job.held is not None for job in jobs)
    rows = Markup().join(
        _row(place, job, left.get(job.id), len(jobs), job.id == editing) for place, job in enumerate(jobs)
    )
    stop_all = (
        Markup(
            '<button type="button" class="w-button" data-do="stop_all" data-key="all" '
            'title="Those that wait and the one that runs">Cancel all</button>'
        )
        if running or len(jobs) > 1
        else Markup()
    )
    words = "Go on" if paused else "Pause after this one" if running else "Pause"
    note = (
        Markup('<p class="w-quiet" role="status">Paused: none of these begins until you go on.</p>')
        if paused
        else Markup()
    )
    return Markup(
        '<section class="w-queue" aria-label="Waiting"><div class="w-queue-top"><h2>Waiting: {number}</h2>'
        '<span class="w-queue-do"><button type="button" class="w-button" data-do="pause_line" data-on="{on}" '
        'data-key="pause">{words}</button>{all}</span></div>{note}<ol>{rows}</ol></section>'
    ).format(number=len(jobs), on="false" if paused else "true", words=words, all=stop_all, note=note, rows=rows)


def _row(place: int, job: Job, left: float | None, number: int, editing: bool) -> Markup:
    name = title(job.request)
    picture = PIPELINE.picture(job)
    still = (
        Markup('<img src="{}" alt="" draggable="false">').format(file_url(picture))
        if picture
        else Markup("<span></span>")
    )
    when = f"done in about {seconds(round(left))}" if left is not None else "paused" if job.held is not None else ""
    words = "in the form now" if editing else when

    def button(act: str, sign: str, label: str, more: Markup = Markup()) -> Markup:
        said = f"{label}: {name[:80]}"
        return Markup(
            '<button type="button" class="w-button" data-do="{act}"{more} data-key="{sign} {id}" '
            'aria-label="{said}" title="{label}">{sign}</button>'
        ).format(act=act, more=more, sign=sign, id=job.id, said=said, label=label)

    up = button("move_job", "↑", "Move up", Markup(' data-by="-1"{}').format("" if place else " disabled"))
    down = button(
        "move_job", "↓", "Move down", Markup(' data-by="1"{}').format("" if place < number - 1 else " disabled")
    )
    edit = button("leave_job", "Leave it", "Leave it as it is") if editing else button("edit_job", "Edit", "Change")
    if not TASKS[job.request.task].samples:  # what changes a clip is not in the form
        edit = Markup()
    return Markup(
        '<li class="w-queue-row" data-row="{id}" draggable="true">{still}<span class="w-queue-words">'
        '<b>{marked}</b><span class="w-quiet">{words}</span></span><span class="w-queue-do">{up}{down}{edit}'
        "{double}"
        "{cancel}</span></li>"
    ).format(
        id=job.id,
        still=still,
        marked=marked_title(job.request),
        words=words,
        up=up,
        down=down,
        edit=edit,
        double=button("double_job", "Double", "The same once more, with another seed"),
        cancel=button("stop_job", "Cancel", "Cancel"),
    )
