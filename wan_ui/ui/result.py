"""The stage: the clip that is shown, its settings, and what can be done with it."""

import re
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.changes import FILES
from wan_ui.machine.offload import WAYS, in_words
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.recipes import CACHES, MOTIONS, OFFICIAL_NEGATIVES, SOLVERS
from wan_ui.request import UNKNOWN, Sampling
from wan_ui.tasks import TASKS
from wan_ui.ui.markup import (
    STATE_WORDS,
    Markup,
    file_url,
    marked_title,
    model_name,
    problem,
    seconds,
    speaks,
    spent,
    title,
)
from wan_ui.ui.progress_card import fit_button, preview

# The quoted names are the events this part sends; each carries the id of the job.
SCRIPT = """
const events = [
  'reuse', 'restore', 'remove', 'stop', 'speak', 'extend', 'open', 'side_by_side', 'star', 'stop_batch', 'remove_rest',
  'fit',
];
// Whoever pauses, seeks or turns the sound on is watching.
for (const act of ['pointerdown', 'keydown']) {
  element.addEventListener(act, (event) => {
    if (event.target.id === 'clip') trigger('hold', { job: event.target.dataset.job });
  });
}
element.addEventListener('click', (event) => {
  const compared = event.target.closest('[data-compare]'), together = event.target.closest('[data-together]');
  if (compared) window.wanUi.compare(compared.dataset.compare.split(' '));
  if (together) window.wanUi.together(element, together);
  const button = event.target.closest('[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  if (button.dataset.confirm && !window.confirm(window.wanUiWords.say(button.dataset.confirm))) return;
  if (button.dataset.do === 'speak') window.wanUi.speechIsFor(button.dataset.job);
  trigger(button.dataset.do, { job: button.dataset.job });
});
// The element may be the one that played the clip before: its sound does not follow the attribute by itself.
watch('value', () => {
  const video = element.querySelector('#clip');
  if (video) video.muted = video.hasAttribute('muted');
});
"""
EMPTY = Markup(
    '<div class="w-stage empty"><svg viewBox="0 0 48 48" aria-hidden="true">'
    '<rect x="5" y="9" width="38" height="30" rx="6"/><path d="M20 18l10 6-10 6z"/></svg>'
    "<p>Your clip will play here.</p>"
    "<small>Choose a picture, say what should happen, and press Generate.</small></div>"
)


def build_result() -> tuple[gr.HTML, gr.HTML, gr.UploadButton]:
    """The stage, the place for what its buttons complain about, and the choice of a sound that "Add speech" opens where
    the form has none."""
    stage = gr.HTML(EMPTY, elem_id="result", js_on_load=SCRIPT, apply_default_css=False)
    with gr.Column(elem_id="speech-file"):
        sound = gr.UploadButton("A sound file with speech")
    return stage, gr.HTML("", elem_id="result-message", apply_default_css=False), sound


def result_html(job: Job | None, catalog: dict[str, Model], several: bool = False, siblings: int = 1) -> Markup:
    """several: there is more than one worker, so that it is said which one made the clip.
    siblings: clips that one press has asked for"""
    if job is None:
        return EMPTY
    about = _about(job, catalog, job.worker if several else "")
    return Markup("{stage}<div class='w-about'>{about}{buttons}</div>").format(
        stage=_stage(job), about=about, buttons=_buttons(job, siblings)
    )


def _stage(job: Job) -> Markup:
    request, clip = job.request, PIPELINE.clip(job)
    # Small clips are not blown up to the whole stage: beyond this they only look soft.
    ratio = f"aspect-ratio:{request.width}/{request.height};max-height:{round(1.6 * request.height)}px"
    ratio = ratio if request.width and request.height else ""  # a damaged entry
    if clip is not None:
        poster = PIPELINE.poster(job)
        still = Markup(' poster="{}"').format(file_url(poster)) if poster else Markup()
        # A clip that speaks is heard once; browsers let it start by itself only after a click on the page.
        manner = "autoplay" if speaks(job) else "autoplay loop muted"
        return Markup(
            '<div class="w-stage"><video id="clip" data-job="{id}" src="{clip}"{still} '
            'style="{ratio}" {manner} playsinline controls aria-label="{title}">'
            "</video></div>"
        ).format(
            id=job.id, clip=file_url(clip), still=still, ratio=ratio, manner=manner, title=f"Clip: {title(request)}"
        )
    if so_far := preview(job, ratio):
        return Markup('<div class="w-stage making">{}</div>').format(so_far)
    picture = PIPELINE.picture(job)
    still = (
        Markup('<img src="{picture}" alt="" style="{ratio}">').format(picture=file_url(picture), ratio=ratio)
        if picture
        else Markup()
    )
    words = "The file of this clip is gone." if job.state == "done" else problem(job) or STATE_WORDS[job.state]
    kind = " bad" if job.state in ("failed", "interrupted", "done") else ""
    return Markup('<div class="w-stage still">{still}<p class="w-note{kind}">{words}</p></div>').format(
        still=still, kind=kind, words=words
    )


def _about(job: Job, catalog: dict[str, Model], worker: str) -> Markup:
    request, result, made = job.request, job.result, job.request.made_with or UNKNOWN
    frames = request.frames if result.frames is None else result.frames
    length = f"{frames} frames" + (f", {frames / result.fps:.1f} s at {result.fps:g} fps" if result.fps else "")
    facts = {
        "Seed": f"{made.seed}" if made.model else "",
        "Model": model_name(catalog, made.model, made.scheme) if made.model else "",
        "Size": f"{request.width} × {request.height}" if request.width and request.height else "",
        "Length": length if frames else "",
        "Steps": _steps(made),
        "Negative": _typed(made.negative) if made.negative not in OFFICIAL_NEGATIVES else "the official text",
        "Changes": request.changes.words if request.changes else "",
        "Quality": "Draft" if made.draft else "",
        "Weights": WAYS[made.offload][0] if made.offload in WAYS else "",
        "LoRAs": _loras(job),
        "Speech": f"{request.audio_seconds:.1f} s" if "audio" in request.inputs and not job.error else "",
        "Time": seconds(spent(job)) if result.seconds else "",
        "Worker": worker,
    }
    said = dict(result.facts)
    if "offload" in said:
        said["offload"] = in_words(said["offload"])
    if result.engine_why:
        said["engine"] = f"{result.engine_ran} ({result.engine_why})"
    choices = {key.replace("_", " ").capitalize(): value for key, value in said.items()}
    choices.pop("Loras", None)  # said above
    how = (
        Markup('<details class="w-how"><summary>How it was made</summary>{}</details>').format(_list(choices))
        if choices
        else Markup()
    )
    trouble = (
        Markup('<p class="w-note bad">{}</p>').format(job.error) if job.state == "done" and job.error else Markup()
    )
    trouble += Markup('<p class="w-note">{}</p>').format(job.unread) if job.unread else Markup()
    read = [made.understood, *(segment.understood.removeprefix("understood: ") for segment in made.segments)]
    understood = (
        Markup('<p class="w-quiet">{}</p>').format(_sentence(" | ".join(read))) if made.understood else Markup()
    )
    return Markup('<p class="w-prompt">{title}</p>{understood}{trouble}{facts}{how}').format(
        title=marked_title(request), understood=understood, trouble=trouble, facts=_list(facts), how=how
    )


def _steps(made: Sampling) -> str:
    """ "40, Full, guidance 3.5, UniPC" """
    if not made.steps:
        return ""
    scales = dict.fromkeys(f"{scale:g}" for scale in made.guidance)
    more = [MOTIONS[made.motion].title] if made.motion in ("more", "full") else []
    more += [f"guidance {', '.join(scales)}"] if made.guided else []
    more += [SOLVERS[made.solver]] if made.solver in SOLVERS and made.motion == "full" else []
    more += [CACHES[made.cache]] if made.cache in CACHES and made.cache != "off" else []
    return ", ".join([f"{made.steps}", *more])


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _loras(job: Job) -> str:
    """What each became once the job is done, before that what was asked for."""
    if job.result.loras:
        return "; ".join(match.words for match in job.result.loras)
    return "; ".join(
        f"{spec.file} x{spec.strength:g}, {spec.target.replace('_', ' ')}"
        for spec in (job.request.made_with or UNKNOWN).loras
    )


def _typed(words: str) -> Markup:
    """What a person wrote, which is not translated."""
    return Markup('<span translate="no">{}</span>').format(words) if words else Markup()


def _list(facts: dict) -> Markup:
    items = [
        Markup("<div><dt>{key}</dt><dd>{value}</dd></div>").format(key=key, value=value)
        for key, value in facts.items()
        if value
    ]
    return Markup('<dl class="w-facts">{}</dl>').format(Markup().join(items))


def _buttons(job: Job, siblings: int) -> Markup:
    def button(event: str, words: str, extra: Markup = Markup()) -> Markup:
        return Markup(
            '<button type="button" class="w-button" data-do="{event}" data-job="{id}"{extra}>{words}</button>'
        ).format(event=event, id=job.id, extra=extra, words=words)

    clip = PIPELINE.clip(job)
    buttons = [button("side_by_side", f"All {siblings} clips")] if siblings > 1 else []
    buttons.append(fit_button(job, Markup('data-do="fit" data-job')))
    if clip is not None:
        buttons.append(
            Markup('<a class="w-button strong" href="{clip}" download="{file_name}">Download</a>').format(
                clip=file_url(clip), file_name=file_name(job)
            )
        )
        if (file := PIPELINE.file(job)) is not None:
            name = f"{Path(file_name(job)).stem}{file.suffix}"
            kind = FILES[job.request.changes.file][1] if job.request.changes and job.request.changes.file else "file"
            buttons.append(
                Markup('<a class="w-button strong" href="{file}" download="{name}">Download {kind}</a>').format(
                    file=file_url(file), name=name, kind=kind
                )
            )
        star = Markup(' aria-pressed="{}" title="With a star it stays, whatever the quota says"').format(
            "true" if job.star else "false"
        )
        buttons.append(button("star", "★ Kept" if job.star else "★ Keep", star))
        link = Markup('<button type="button" class="w-button" data-link="{}">Copy link</button>').format(job.id)
        buttons.append(link)
        buttons.append(button("extend", "Continue", Markup(' title="Goes on from the last frame"')))
        buttons.append(button("speak", "Add speech"))
    if (job.request.made_with or UNKNOWN).model:  # speech for somebody's video has no settings of ours
        buttons += [button("restore", "Load settings"), button("reuse", "Reuse seed")]
    if job.active:
        buttons.append(button("stop", "Cancel"))
    else:
        buttons.append(button("remove", "Delete", Markup(' data-confirm="Delete this clip and its settings?"')))
    return Markup('<div class="w-buttons">{}</div>').format(Markup().join(buttons))


def file_name(job: Job) -> str:
    made, stem = job.request.made_with, TASKS[job.request.task].stem
    if made is None:
        return f"wan-{stem}.mp4"
    words = re.sub(r"[^a-z0-9]+", "-", made.prompt.lower()).strip("-")[:40].strip("-")
    return f"wan-{words or stem}-{made.seed}.mp4"
