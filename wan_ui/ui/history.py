"""Past clips as a grid of posters, page by page; the jobs that made none are there too, with their state."""

from dataclasses import dataclass

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.quota import Outlook
from wan_ui.request import UNKNOWN
from wan_ui.ui.markup import DRAFT, SPEAKS, STATE_WORDS, file_url, speaks, text, title

LIMIT = 60  # of the newest, of which the page knows whatever is shown
PAGE = 24  # clips
SCRIPT = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-tile]'), turn = event.target.closest('[data-page]');
  if (turn) trigger('turn_page', { page: Number(turn.dataset.page) });
  if (!tile) return;
  if (document.querySelector('#history-bar .choosing')) window.wanUi.choose(tile);
  else trigger('select', { job: tile.dataset.tile });
});
watch('value', () => window.wanUi.choosing());
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
  if (button.dataset.many === 'remove_many') {
    trigger('remove_many', { jobs });
    window.wanUi.chosenTiles.clear();
    window.wanUi.choosing();
  }
});
"""
BAR_HTML = (
    '<div class="w-history-bar"><input type="search" aria-label="Search your clips" '
    'placeholder="Search: prompt, model, LoRA" maxlength="200">'
    '<button type="button" class="w-button" data-starred aria-pressed="false">★ Kept</button>'
    '<button type="button" class="w-button" data-choose_many aria-pressed="false">Select</button>'
    '<span class="w-many"><span class="w-quiet" role="status">0 chosen</span>'
    '<button type="button" class="w-button" data-many="pack" disabled>Download as ZIP</button>'
    '<button type="button" class="w-button" data-many="star_many" disabled>★ Keep</button>'
    '<button type="button" class="w-button" data-many="remove_many" disabled>Delete</button></span></div>'
)
UNDO = "element.addEventListener('click', (e) => { if (e.target.closest('[data-undo]')) trigger('undo', {}); });"
ARCHIVE = "watch('value', () => element.querySelector('a[download]')?.click());"


@dataclass(frozen=True)
class History:
    grid: gr.HTML
    bar: gr.HTML
    archive: gr.HTML
    undo: gr.HTML
    from_video: gr.UploadButton
    message: gr.HTML


def build_history() -> History:
    with gr.Column(elem_id="history-part", elem_classes="w-part"):
        with gr.Row(elem_classes="w-part-top"):
            gr.HTML("<h2>Your clips</h2>", apply_default_css=False)
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
        undo = gr.HTML("", elem_id="undo", js_on_load=UNDO, apply_default_css=False)
    return History(grid, bar, archive, undo, from_video, message)


def history_html(
    jobs: list[Job],
    selected: str,
    several: bool = False,
    page: int = 0,
    total: int = 0,
    sought: bool = False,
    outlook: Outlook | None = None,
) -> str:
    """jobs: of this page; total: of all. several: there is more than one worker, so that each tile says which one had
    the job. sought: not all clips are asked for. outlook: what the quota deletes next"""
    if not jobs and sought:
        return '<p class="w-quiet" role="status">No clip of yours is so.</p>'
    if not jobs:
        return '<p class="w-quiet">Clips you make are kept here, with all their settings.</p>'
    leaving = set(outlook.leaving) if outlook else set()
    tiles = "".join(_tile(job, job.id == selected, job.worker if several else "", job.id in leaving) for job in jobs)
    return f'{leaving_html(outlook)}<ul class="w-grid">{tiles}</ul>{_pages(page, total)}'


def _pages(page: int, total: int) -> str:
    last = max(0, (total - 1) // PAGE)
    if not last:
        return ""

    def button(words: str, to: int, off: bool) -> str:
        return f'<button type="button" class="w-button" data-page="{to}"{" disabled" if off else ""}>{words}</button>'

    return (
        f'<nav class="w-pages" aria-label="Pages of your clips">{button("Newer", page - 1, page == 0)}'
        f'<span class="w-quiet">{page * PAGE + 1} to {min(total, (page + 1) * PAGE)} of {total}</span>'
        f"{button('Older', page + 1, page >= last)}</nav>"
    )


def leaving_html(outlook: Outlook | None) -> str:
    """What the quota deletes next: said before it does."""
    if outlook is None or not outlook.leaving:
        return ""
    number = len(outlook.leaving)
    clips = "the oldest goes" if number == 1 else f"the {number} oldest go"
    of = f"Your clips take {outlook.bytes / 1e9:.2f} of {outlook.most / 1e9:g} GB: " if outlook.most else ""
    words = f"{of}{clips} with the next clip or within a day. A star keeps a clip."
    return f'<p class="w-note w-leaving">{words[:1].upper()}{words[1:]}</p>'


def undo_html(number: int) -> str:
    words = f"{number} {'clip' if number == 1 else 'clips'} deleted."
    return f'<p class="w-undo" role="status">{words} <button type="button" class="w-button" data-undo>Undo</button></p>'


def _tile(job: Job, selected: bool, worker: str, leaving: bool) -> str:
    picture = PIPELINE.poster(job) or PIPELINE.picture(job)
    still = f'<img src="{text(file_url(picture))}" alt="" loading="lazy">' if picture else ""
    state = f'<span class="w-state {job.state}">{STATE_WORDS[job.state]}</span>'
    if job.state == "done":
        state = (SPEAKS if speaks(job) else "") + (DRAFT if (job.request.made_with or UNKNOWN).draft else "")
    state += '<span class="w-state star" title="With a star it stays">★</span>' if job.star else ""
    state += '<span class="w-state leaving">goes next</span>' if leaving else ""
    by = f'<span class="w-quiet w-tile-worker">{text(worker)}</span>' if worker else ""
    pressed = "true" if selected else "false"
    return (
        f'<li><button type="button" class="w-tile {job.state}" data-tile="{job.id}" aria-pressed="{pressed}">'
        f'<span class="w-tile-picture">{still}{state}</span>'
        f'<span class="w-tile-prompt">{text(title(job.request))}</span>{by}</button></li>'
    )
