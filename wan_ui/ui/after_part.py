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
from wan_ui.ui.markup import Markup, file_url, title

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
    if selected is not None and selected.active:
        return ["later"]
    if selected is None or PIPELINE.clip(selected) is None:
        return []
    return [selected.id, *(job.id for job in candidates(jobs, selected))]


def after_html(selected: Job | None, jobs: list[Job], settings: Settings) -> Markup:
    if selected is None or not after_key(selected, jobs):
        return Markup()
    if selected.active:  # what is below it stays where it is when the clip is there
        return Markup('<div class="w-after"><p class="w-later">More with this clip, when it is done</p></div>')
    chosen = Markup().join(_select(name, *CHOICES[name]) for name in CHOICES)
    by = made_by(settings)
    notes = f"Frames between: {by['times']}. Twice as large: {by['upscale']}."
    return Markup(
        '<details class="w-after" data-job="{id}"><summary>More with this clip</summary>'
        '<div class="w-after-body">{trim}<div class="w-after-choices">{chosen}</div>'
        "{join}"
        '<p class="w-quiet">{notes}</p><div class="w-buttons"><button type="button" class="w-button strong" '
        'data-make="{id}">Make a new clip</button></div></div></details>'
    ).format(id=selected.id, trim=_trim(selected), chosen=chosen, join=_join(candidates(jobs, selected)), notes=notes)


def _trim(job: Job) -> Markup:
    """Two handles on one line, which count frames."""
    if not job.result.frames or not job.result.fps:
        return Markup()
    handles = handles_html(job.result.frames, job.result.fps, 1, names=True)
    return Markup('<fieldset class="w-after-part"><legend>Part</legend>{}</fieldset>').format(handles)


def _select(name: str, label: str, choices: dict[str, str], usual: str) -> Markup:
    options = Markup().join(
        Markup('<option value="{value}"{selected}>{words}</option>').format(
            value=value, selected=" selected" if value == usual else "", words=words
        )
        for value, words in choices.items()
    )
    return Markup(
        '<label class="w-choice"><span>{label}</span><select name="{name}">{options}</select></label>'
    ).format(label=label, name=name, options=options)


def _join(others: list[Job]) -> Markup:
    """Pressed one after the other, clips follow in that order."""
    if not others:
        return Markup()
    tiles = Markup().join(
        Markup(
            '<button type="button" class="w-next" data-next="{id}" aria-pressed="false" '
            'title="{title}" aria-label="{then}">{still}<b></b>'
            "</button>"
        ).format(id=job.id, title=title(job.request), then=f"Then: {title(job.request)}", still=_still(job))
        for job in others
    )
    return Markup(
        '<fieldset class="w-after-part"><legend>Then these clips</legend><div class="w-nexts">{}</div>'
        '<label class="w-choice w-after-fade" hidden><span>Fade, seconds</span>'
        '<input name="fade" type="number" min="0" max="5" step="0.1" value="0.5"></label></fieldset>'
    ).format(tiles)


def _still(job: Job) -> Markup:
    poster = PIPELINE.poster(job)
    return Markup('<img src="{}" alt="" loading="lazy">').format(file_url(poster)) if poster else Markup()
