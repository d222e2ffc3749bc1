"""Past clips as a grid of posters; the jobs that made none are there too, with their state."""

from dataclasses import dataclass

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import UNKNOWN
from wan_ui.ui.markup import DRAFT, SPEAKS, STATE_WORDS, file_url, speaks, text, title

LIMIT = 60
SCRIPT = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-tile]');
  if (tile) trigger('select', { job: tile.dataset.tile });
});
"""


@dataclass(frozen=True)
class History:
    grid: gr.HTML
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
        grid = gr.HTML(history_html([], ""), elem_id="history", js_on_load=SCRIPT, apply_default_css=False)
    return History(grid, from_video, message)


def history_html(jobs: list[Job], selected: str, several: bool = False) -> str:
    """several: there is more than one worker, so that each tile says which one had the job."""
    if not jobs:
        return '<p class="w-quiet">Clips you make are kept here, with all their settings.</p>'
    tiles = "".join(_tile(job, job.id == selected, job.worker if several else "") for job in jobs)
    more = f'<p class="w-quiet">The newest {LIMIT} are shown.</p>' if len(jobs) >= LIMIT else ""
    return f'<ul class="w-grid">{tiles}</ul>{more}'


def _tile(job: Job, selected: bool, worker: str) -> str:
    picture = PIPELINE.poster(job) or PIPELINE.picture(job)
    still = f'<img src="{text(file_url(picture))}" alt="" loading="lazy">' if picture else ""
    state = f'<span class="w-state {job.state}">{STATE_WORDS[job.state]}</span>'
    if job.state == "done":
        state = (SPEAKS if speaks(job) else "") + (DRAFT if (job.request.made_with or UNKNOWN).draft else "")
    by = f'<span class="w-quiet w-tile-worker">{text(worker)}</span>' if worker else ""
    pressed = "true" if selected else "false"
    return (
        f'<li><button type="button" class="w-tile {job.state}" data-tile="{job.id}" aria-pressed="{pressed}">'
        f'<span class="w-tile-picture">{still}{state}</span>'
        f'<span class="w-tile-prompt">{text(title(job.request))}</span>{by}</button></li>'
    )
