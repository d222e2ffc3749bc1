"""More with this clip: what can be done with the clip on the stage, folded; it makes a new one.

The values live in the browser until "Make a new clip" sends them all (`make`); wan_ui.changes checks them. What was
chosen for a clip is kept over a redrawing, as when another clip has come that could be joined.
"""

import gradio as gr

from wan_ui.queue.afterwork_intake import words as made_by
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import Settings
from wan_ui.ui.handles import handles_html
from wan_ui.ui.markup import file_url, text, title

JOINABLE = 12  # the newest other clips are offered
SCRIPT = """
const kept = {};
const part = (name) => element.querySelector(`[name=${name}]`);
const joined = () => [...element.querySelectorAll('[data-next]')]
  .filter((tile) => tile.dataset.place).sort((a, b) => a.dataset.place - b.dataset.place);
const values = () => {
  const found = {};
  for (const field of element.querySelectorAll('[name]')) found[field.name] = field.value;
  return found;
};
const number = (tiles) => {
  for (const tile of element.querySelectorAll('[data-next]')) {
    const place = tiles.indexOf(tile) + 1;
    if (place) tile.dataset.place = place; else delete tile.dataset.place;
    tile.setAttribute('aria-pressed', place > 0);
    tile.querySelector('b').textContent = place || '';
  }
  const fade = element.querySelector('.w-after-fade');
  if (fade) fade.hidden = !tiles.length;
};
// The clip on the stage shows the frame that a handle is moved to.
const handles = window.wanUi.handles(element, (handle) => {
  const video = document.querySelector('#clip'), frame = Number(handle.value) - (handle.name === 'end' ? 1 : 0);
  if (video) { video.pause(); video.currentTime = (frame + 0.5) / Number(handle.dataset.rate); }
});
const keep = () => {
  const box = element.querySelector('details');
  if (!box) return;
  kept[box.dataset.job] = { values: values(), open: box.open, next: joined().map((tile) => tile.dataset.next) };
};
element.addEventListener('input', keep);
element.addEventListener('change', keep);
element.addEventListener('toggle', keep, true);
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-next]'), make = event.target.closest('[data-make]');
  if (tile) {
    const tiles = joined();
    number(tiles.includes(tile) ? tiles.filter((one) => one !== tile) : [...tiles, tile]);
    keep();
  }
  if (make) {
    const sent = values(), chosen = handles.seconds();
    if (chosen) Object.assign(sent, { start: chosen.start, end: chosen.end });
    trigger('make', { job: make.dataset.make, changes: sent, next: joined().map((one) => one.dataset.next) });
    delete kept[make.dataset.make];
  }
});
watch('value', () => {
  const box = element.querySelector('details'), before = box && kept[box.dataset.job];
  if (box) box.open = Boolean(before?.open);
  // Fields may be those of the clip before: a choice is not taken over from it.
  for (const field of element.querySelectorAll('[name]')) {
    if (field.options) field.value = [...field.options].find((option) => option.defaultSelected).value;
    else field.value = field.getAttribute('value');
  }
  number([]);
  if (before) {
    for (const [name, value] of Object.entries(before.values)) if (part(name)) part(name).value = value;
    const tiles = before.next.map((id) => element.querySelector(`[data-next="${CSS.escape(id)}"]`));
    number(tiles.filter(Boolean));
  }
  handles.show();
});
"""
SPEED = {
    "0.25": "A quarter",
    "0.5": "Half",
    "0.75": "Three quarters",
    "1": "As it is",
    "1.5": "1.5 times",
    "2": "Twice",
}
CHOICES = {
    "times": ("Frames", {"1": "As they are", "2": "Twice as many", "4": "Four times as many"}, "1"),
    "speed": ("Speed", {**SPEED, "2": "Twice", "4": "Four times"}, "1"),
    "loop": ("Loop", {"": "None", "ping-pong": "There and back", "seamless": "Seamless"}, ""),
    "upscale": ("Size", {"1": "As it is", "2": "Twice as large"}, "1"),
    "file": (
        "Also as",
        {"": "MP4 only", "gif": "GIF", "webp": "WebP", "webm": "WebM", "frames": "All frames", "last": "Last frame"},
        "",
    ),
    "sound": ("Sound", {"": "Its own", "voice": "The voice above, mouth as it is"}, ""),
    "quality": ("Quality", {"best": "Best", "good": "Good", "small": "Small file"}, "best"),
}


def build_after() -> gr.HTML:
    return gr.HTML("", elem_id="after", js_on_load=SCRIPT, apply_default_css=False)


def candidates(jobs: list[Job], selected: Job) -> list[Job]:
    """Other clips that could follow the one on the stage, the newest first."""
    others = [job for job in jobs if job.id != selected.id and PIPELINE.clip(job) is not None]
    return others[:JOINABLE]


def after_key(selected: Job | None, jobs: list[Job]) -> list[str]:
    """What it is drawn from; [] where there is no clip to change."""
    if selected is None or selected.active or PIPELINE.clip(selected) is None:
        return []
    return [selected.id, *(job.id for job in candidates(jobs, selected))]


def after_html(selected: Job | None, jobs: list[Job], settings: Settings) -> str:
    if selected is None or not after_key(selected, jobs):
        return ""
    chosen = "".join(_select(name, *CHOICES[name]) for name in CHOICES)
    by = made_by(settings)
    notes = f"Frames between: {by['times']}. Twice as large: {by['upscale']}."
    return (
        f'<details class="w-after" data-job="{selected.id}"><summary>More with this clip</summary>'
        f'<div class="w-after-body">{_trim(selected)}<div class="w-after-choices">{chosen}</div>'
        f"{_join(candidates(jobs, selected))}"
        f'<p class="w-quiet">{text(notes)}</p><div class="w-buttons"><button type="button" class="w-button strong" '
        f'data-make="{selected.id}">Make a new clip</button></div></div></details>'
    )


def _trim(job: Job) -> str:
    """Two handles on one line, which count frames."""
    if not job.result.frames or not job.result.fps:
        return ""
    handles = handles_html(job.result.frames, job.result.fps, 1, names=True)
    return f'<fieldset class="w-after-part"><legend>Part</legend>{handles}</fieldset>'


def _select(name: str, label: str, choices: dict[str, str], usual: str) -> str:
    options = "".join(
        f'<option value="{value}"{" selected" if value == usual else ""}>{text(words)}</option>'
        for value, words in choices.items()
    )
    return f'<label class="w-choice"><span>{label}</span><select name="{name}">{options}</select></label>'


def _join(others: list[Job]) -> str:
    """Pressed one after the other, clips follow in that order."""
    if not others:
        return ""
    tiles = "".join(
        f'<button type="button" class="w-next" data-next="{job.id}" aria-pressed="false" '
        f'title="{text(title(job.request))}" aria-label="{text(f"Then: {title(job.request)}")}">{_still(job)}<b></b>'
        "</button>"
        for job in others
    )
    return (
        f'<fieldset class="w-after-part"><legend>Then these clips</legend><div class="w-nexts">{tiles}</div>'
        '<label class="w-choice w-after-fade" hidden><span>Fade, seconds</span>'
        '<input name="fade" type="number" min="0" max="5" step="0.1" value="0.5"></label></fieldset>'
    )


def _still(job: Job) -> str:
    poster = PIPELINE.poster(job)
    return f'<img src="{text(file_url(poster))}" alt="" loading="lazy">' if poster else ""
