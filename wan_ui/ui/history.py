"""Past clips as a grid of posters, page by page; the jobs that made none are there too, with their state."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.quota import Outlook
from wan_ui.request import UNKNOWN
from wan_ui.ui.markup import DRAFT, SPEAKS, STATE_WORDS, Markup, file_url, marked_title, speaks
from wan_ui.ui.tile_menu import build_tile_menu, more_html

LIMIT = 60  # of the newest, of which the page knows whatever is shown
PAGE = 24  # clips
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in any locale
SCRIPT = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-tile]'), turn = event.target.closest('[data-page]');
  if (turn) trigger('turn_page', { page: Number(turn.dataset.page) });
  if (!tile) return;
  if (document.querySelector('#history-bar .choosing')) window.wanUi.choose(tile);
  else trigger('select', { job: tile.dataset.tile });
});
// The cancelled ones stay unfolded when the list is drawn anew.
let unfolded = false;
element.addEventListener('toggle', (event) => {
  if (event.target.matches('.w-cancelled')) unfolded = event.target.open;
}, true);
watch('value', () => {
  const fold = element.querySelector('.w-cancelled');
  if (fold) fold.open = unfolded;
  window.wanUi.choosing();
  window.wanUi.markMore?.();
});
"""
# Never drawn anew: what is written and chosen in it stays.
BAR = """
const bar = element.querySelector('.w-history-bar'), words = element.querySelector('input[type=search]');
const starred = element.querySelector('[data-starred]');
let resting = 0;
const ask = () => trigger('search', { words: words.value, starred: starred.getAttribute('aria-pressed') === 'true' });
words.addEventListener('input', () => { clearTimeout(resting); resting = setTimeout(ask, 300); });
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button === starred) {
    button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true');
    ask();
  }
  if (button.dataset.choose_many !== undefined) {
    const on = bar.classList.toggle('choosing');
    button.setAttribute('aria-pressed', on);
    if (!on) window.wanUi.chosenTiles.clear();
    window.wanUi.choosing();
  }
  const jobs = [...window.wanUi.chosenTiles];
  if (button.dataset.many === 'pack') trigger('pack', { jobs });
  if (button.dataset.many === 'star_many') trigger('star_many', { jobs });
  if (button.dataset.many === 'make') trigger('make', { job: jobs[0], changes: {}, next: jobs.slice(1) });
  if (button.dataset.many === 'remove_many') trigger('remove_many', { jobs });
  if (['make', 'remove_many'].includes(button.dataset.many)) {
    window.wanUi.chosenTiles.clear();
    window.wanUi.choosing();
  }
});
"""
BAR_HTML = Markup(
    '<div class="w-history-bar"><input type="search" aria-label="Search your clips" '
    'placeholder="Search: prompt, model, LoRA" maxlength="200">'
    '<button type="button" class="w-button" data-starred aria-pressed="false">★ Kept</button>'
    '<button type="button" class="w-button" data-choose_many aria-pressed="false">Select</button>'
    '<span class="w-many"><span class="w-quiet" role="status">0 chosen</span>'
    '<button type="button" class="w-button" data-many="pack" disabled>Download as ZIP</button>'
    '<button type="button" class="w-button" data-many="star_many" disabled>★ Keep</button>'
    '<button type="button" class="w-button" data-many="make" disabled '
    'title="One clip of them all, in the order in which they were chosen">Join</button>'
    '<button type="button" class="w-button" data-many="remove_many" disabled>Delete</button></span></div>'
)
UNDO = "element.addEventListener('click', (e) => { if (e.target.closest('[data-undo]')) trigger('undo', {}); });"
ARCHIVE = "watch('value', () => element.querySelector('a[download]')?.click());"


@dataclass(frozen=True)
class History:
    grid: gr.HTML
    menu: gr.HTML
    bar: gr.HTML
    archive: gr.HTML
    undo: gr.HTML
    from_video: gr.UploadButton
    message: gr.HTML


def build_history() -> History:
    with gr.Column(elem_id="history-part", elem_classes="w-part"):
        with gr.Row(elem_classes="w-part-top"):
            gr.HTML(Markup("<h2>Your clips</h2>"), apply_default_css=False)
            from_video = gr.UploadButton(
                "Load settings from a video",
                size="sm",
                scale=0,
                min_width=200,
                elem_id="from-video",
            )
        message = gr.HTML("", elem_id="from-video-message", apply_default_css=False)
        bar = gr.HTML(BAR_HTML, elem_id="history-bar", js_on_load=BAR, apply_default_css=False)
        archive = gr.HTML("", elem_id="archive", js_on_load=ARCHIVE, apply_default_css=False)
        grid = gr.HTML(history_html([], ""), elem_id="history", js_on_load=SCRIPT, apply_default_css=False)
        menu = build_tile_menu()
        undo = gr.HTML("", elem_id="undo", js_on_load=UNDO, apply_default_css=False)
    return History(grid, menu, bar, archive, undo, from_video, message)


def history_html(
    jobs: list[Job],
    selected: str,
    several: bool = False,
    page: int = 0,
    total: int = 0,
    sought: bool = False,
    outlook: Outlook | None = None,
    zone: int | None = None,
) -> Markup:
    """jobs: of this page; total: of all. several: there is more than one worker, so that each tile says which one had
    the job. sought: not all clips are asked for. outlook: what the quota deletes next. zone: see `day`"""
    if not jobs and sought:
        return Markup('<p class="w-quiet" role="status">No clip of yours is so.</p>')
    if not jobs:
        return Markup('<p class="w-quiet">Clips you make are kept here, with all their settings.</p>')
    leaving = set(outlook.leaving) if outlook else set()

    def grid(jobs: Iterable[Job]) -> Markup:
        tiles = [_tile(job, job.id == selected, job.worker if several else "", job.id in leaving) for job in jobs]
        return Markup('<ul class="w-grid">{}</ul>').format(Markup().join(tiles))

    cancelled = [job for job in jobs if job.state == "cancelled"]
    others = itertools.groupby((job for job in jobs if job.state != "cancelled"), lambda job: day(job.created, zone))
    groups = [Markup('<h3 class="w-day">{}</h3>{}').format(name, grid(of_day)) for name, of_day in others]
    if cancelled:
        groups.append(
            Markup('<details class="w-cancelled"><summary>{} cancelled</summary>{}</details>').format(
                len(cancelled), grid(cancelled)
            )
        )
    return Markup("{leaving}{groups}{pages}").format(
        leaving=leaving_html(outlook), groups=Markup().join(groups), pages=_pages(page, total)
    )


def read_zone(browser: Any) -> int | None:
    """Minutes by which a browser's clock is ahead of UTC, as page.js sends it."""
    minutes = browser.get("zone") if isinstance(browser, dict) else None
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not abs(minutes) < 24 * 60:
        return None
    return round(minutes)


def day(created: float, zone: int | None) -> str:
    """ "Today", "Yesterday", "24 Nov", of another year "24 Nov 2025". zone: minutes by which the clock where it is read
    is ahead of UTC; None: as this machine's."""
    there = None if zone is None else timezone(timedelta(minutes=zone))
    try:
        then = datetime.fromtimestamp(created, there).date()
    except (OverflowError, ValueError, OSError):  # a damaged entry
        return "Once"
    now = datetime.now(there).date()
    if 0 <= (now - then).days <= 1:
        return "Yesterday" if then < now else "Today"
    return f"{then.day} {MONTHS[then.month - 1]}" + (f" {then.year}" if then.year != now.year else "")


def days(jobs: list[Job], zone: int | None) -> list[str]:
    return [day(job.created, zone) for job in jobs]


def _pages(page: int, total: int) -> Markup:
    last = max(0, (total - 1) // PAGE)
    if not last:
        return Markup()

    def button(words: str, to: int, off: bool) -> Markup:
        return Markup('<button type="button" class="w-button" data-page="{to}"{disabled}>{words}</button>').format(
            to=to, disabled=" disabled" if off else "", words=words
        )

    return Markup(
        '<nav class="w-pages" aria-label="Pages of your clips">{newer}'
        '<span class="w-quiet">{first} to {last} of {total}</span>'
        "{older}</nav>"
    ).format(
        newer=button("Newer", page - 1, page == 0),
        first=page * PAGE + 1,
        last=min(total, (page + 1) * PAGE),
        total=total,
        older=button("Older", page + 1, page >= last),
    )


def leaving_html(outlook: Outlook | None) -> Markup:
    """What the quota deletes next: said before it does."""
    if outlook is None or not outlook.leaving:
        return Markup()
    number = len(outlook.leaving)
    clips = "the oldest goes" if number == 1 else f"the {number} oldest go"
    of = f"Your clips take {outlook.bytes / 1e9:.2f} of {outlook.most / 1e9:g} GB: " if outlook.most else ""
    words = f"{of}{clips} with the next clip or within a day. A star keeps a clip."
    return Markup('<p class="w-note w-leaving">{}</p>').format(words[:1].upper() + words[1:])


def undo_html(number: int) -> Markup:
    words = f"{number} {'clip' if number == 1 else 'clips'} deleted."
    return Markup(
        '<p class="w-undo" role="status">{} <button type="button" class="w-button" data-undo>Undo</button></p>'
    ).format(words)


def _tile(job: Job, selected: bool, worker: str, leaving: bool) -> Markup:
    picture = PIPELINE.poster(job) or PIPELINE.picture(job)
    still = Markup('<img src="{}" alt="" loading="lazy">').format(file_url(picture)) if picture else Markup()
    state = Markup('<span class="w-state {state}">{words}</span>').format(state=job.state, words=STATE_WORDS[job.state])
    if job.state == "done":
        state = (SPEAKS if speaks(job) else Markup()) + (
            DRAFT if (job.request.made_with or UNKNOWN).draft else Markup()
        )
    state += Markup('<span class="w-state star" title="With a star it stays">★</span>') if job.star else Markup()
    state += Markup('<span class="w-state leaving">goes next</span>') if leaving else Markup()
    by = Markup('<span class="w-quiet w-tile-worker">{}</span>').format(worker) if worker else Markup()
    pressed = "true" if selected else "false"
    return Markup(
        '<li><button type="button" class="w-tile {state}" data-tile="{id}" aria-pressed="{pressed}">'
        '<span class="w-tile-picture">{still}{marks}</span>'
        '<span class="w-tile-prompt">{title}</span>{by}</button>{more}</li>'
    ).format(
        state=job.state,
        id=job.id,
        pressed=pressed,
        still=still,
        marks=state,
        title=marked_title(job.request),
        by=by,
        more=more_html(job),
    )
