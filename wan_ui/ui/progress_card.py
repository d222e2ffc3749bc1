"""The card that says what is happening: the model loading, the job's place in line, its stages, its end.

It is drawn anew at every look; Gradio then only touches the nodes that changed, so nothing flickers.
"""

import time

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.queue import estimate, memory_fit
from wan_ui.queue.jobs import Job
from wan_ui.queue.runner import ModelStatus
from wan_ui.tasks import STAGES
from wan_ui.ui.markup import Markup, model_name, problem, seconds, spent

STAGE_WORDS = {stage.name: (stage.title, stage.doing) for stage in STAGES}


SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-see], [data-again], [data-fit]');
  if (button?.dataset.see) trigger('select', { job: button.dataset.see });
  else if (button?.dataset.fit) trigger('fit', { job: button.dataset.fit });
  else if (button) trigger('again', { job: button.dataset.again });
});
"""


def build_progress_card() -> gr.HTML:
    return gr.HTML(_card("wait", "Connecting …"), elem_id="card", js_on_load=SCRIPT, apply_default_css=False)


def model_card(status: ModelStatus, catalog: dict[str, Model]) -> Markup:
    """Nothing is being made: how the model is doing."""
    name = model_name(catalog, status.model, status.scheme) if status.model else "No model"
    match status.state:
        case "loading":
            return _card("work", f"Loading {name}", body=_bar(None) + _note(status.progress.detail))
        case "ready":
            how = Markup('<details class="w-how"><summary>How it is made</summary>{}</details>').format(
                _note(status.words)
            )
            return _card("good", f"Ready: {name}", body=how)
        case "failed":
            return _card("bad", f"{name} could not be loaded", body=_note(status.words, bad=True))
    return _card("wait", "Ready; the model is loaded with the first clip")


def job_card(
    job: Job,
    position: int,
    status: ModelStatus,
    history: list[Job],
    catalog: dict[str, Model],
    queued: int = 0,
    last: Job | None = None,
    unseen: bool = False,
    several: bool = False,
) -> Markup:
    """`queued`: how many more jobs of this person wait behind the one shown. `last`: the one that ended before it.
    `unseen`: neither the clip nor its preview is on the stage, since another is. `several`: there is more than one
    worker."""
    if job.active:
        # A failure must not go unseen because the next job has begun already.
        mishap = _note(f"The clip before it failed. {problem(last)}", bad=True) if last and last.error else Markup()
        if job.state == "queued":
            return _waiting(job, position, status, catalog) + mishap
        return _running(job, history, queued, job.worker if several else "", unseen) + mishap
    if job.state == "done":
        parts = [f"{STAGE_WORDS[stage][0].lower()} {spent:.1f}" for stage, spent in job.result.seconds.items()]
        trouble = _note(problem(job), bad=True)
        kind = "bad" if trouble else "good"
        see = (
            Markup('<button type="button" class="w-button" data-see="{}">Show it</button>').format(job.id)
            if unseen
            else Markup()
        )
        title, note = (f"Done in {seconds(spent(job))}", " · ".join(parts) + " s") if parts else ("Done", "")
        title += f" on {job.worker}" if several and job.worker else ""
        return _card(kind, title, body=_note(note) + trouble, button=see)
    kind = "idle" if job.state == "cancelled" else "bad"
    title = {"failed": "This clip failed", "cancelled": "Cancelled", "interrupted": "Interrupted"}[job.state]
    again = Markup('<button type="button" class="w-button" data-again="{}">Run again</button>').format(job.id)
    fitting = fit_button(job, Markup("data-fit"))
    note = _note(problem(job), bad=kind == "bad")
    return _card(
        kind, title, body=note + fitting, button=Markup() if fitting else again
    )  # as it was it would fail again


def fit_button(job: Job, name: Markup) -> Markup:
    """Of a job that did not fit into memory: it once more, as it fits. name: the attribute that bears the job's id."""
    if not job.result.fits or job.state != "failed":
        return Markup()
    fit = memory_fit.Fit(**job.result.fits)
    change = memory_fit.change(fit, job.request)
    return Markup(
        '<button type="button" class="w-button strong w-fit" {name}="{id}" '
        'title="{words}">Run again {at}{change}'
        "</button>"
    ).format(
        name=name,
        id=job.id,
        words=memory_fit.words(fit, job.request),
        at="" if fit.offload else "at ",
        change=change,
    )


def _waiting(job: Job, position: int, status: ModelStatus, catalog: dict[str, Model]) -> Markup:
    since = f"waiting {seconds(max(time.time() - job.created, 0.0))}"  # a clock may have been set back
    if job.held is not None:
        return _card("idle", "Paused", since, _note("None of your waiting clips begins until you go on."))
    if position:
        ahead = "1 clip is" if position == 1 else f"{position} clips are"
        return _card("work", f"In line: {ahead} ahead of yours", since, _bar(None))
    if status.state == "loading":
        note = f"{model_name(catalog, status.model, status.scheme)} is loading. {status.progress.detail}"
        return _card("work", "Yours is next", since, _bar(None) + _note(note))
    return _card("work", "Starting", since, _bar(None))


def _running(job: Job, history: list[Job], queued: int, worker: str, unseen: bool) -> Markup:
    now = time.monotonic()
    expected = estimate.reference(history, job.request)
    left = estimate.eta(job, expected, now)
    timing = seconds(max(now - (job.began or now), 0.0))
    if left is not None:
        timing += f" · about {seconds(left) if left >= 1 else 'a moment'} left"
    step = job.progress
    title = STAGE_WORDS[step.stage][1] if step.stage in STAGE_WORDS else "Starting"
    if step.segments > 1:
        title = f"Segment {step.segment} of {step.segments}: {title[:1].lower()}{title[1:]}"
    detail = []
    if step.total and step.stage != "lipsync":  # its detail says which frame
        detail.append(f"{step.stage} step {step.step} of {step.total}")
    if step.detail:
        detail.append(step.detail)
    if worker:
        detail.append(f"on {worker}")
    if queued:
        detail.append(f"{queued} more of yours in line")
    if job.cancel:
        title, detail = "Cancelling", ["stops after this step"]
    line = Markup('<div class="w-card-line">{stages}<p class="w-note" title="{words}">{words}</p></div>').format(
        stages=_stages(job), words=", ".join(detail)
    )
    so_far = preview(job) if unseen else Markup()
    return _card("work", title, timing, so_far + _bar(estimate.fraction(job, expected, now)) + line)


def preview(job: Job, style: str = "") -> Markup:
    """The clip so far, a few pixels wide and moving; nothing before the first step. style: its shape, if another."""
    if not job.active or not job.progress.preview.startswith("data:image/"):
        return Markup()
    style = style or f"aspect-ratio:{job.request.width}/{job.request.height}"
    return Markup('<img class="w-preview" src="{preview}" style="{style}" alt="The clip so far">').format(
        preview=job.progress.preview, style=style
    )


def _stages(job: Job) -> Markup:
    stages = job.request.stages()
    here = stages.index(job.progress.stage) if job.progress.stage in stages else -1
    items = []
    for index, stage in enumerate(stages):
        state = "done" if index < here else "now" if index == here else "next"
        count = f" {job.progress.step}/{job.progress.total}" if state == "now" and job.progress.total else ""
        current = Markup(' aria-current="step"') if state == "now" else Markup()
        items.append(
            Markup('<li class="{state}"{current}>{words}<b>{count}</b></li>').format(
                state=state, current=current, words=STAGE_WORDS[stage][0], count=count
            )
        )
    return Markup('<ol class="w-stages">{}</ol>').format(Markup().join(items))


def _bar(fraction: float | None) -> Markup:
    """None: something is going on, but nobody knows how far it is."""
    if fraction is None:
        return Markup('<div class="w-bar open" role="progressbar" aria-label="Working"><i></i></div>')
    percent = round(100 * fraction)
    return Markup(
        '<div class="w-bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        'aria-valuenow="{percent}"><i style="width:{fraction:.1f}%"></i></div>'
    ).format(percent=percent, fraction=100 * fraction)


def _note(words: str, bad: bool = False) -> Markup:
    if not words:
        return Markup()
    return Markup('<p class="w-note{bad}">{words}</p>').format(bad=" bad" if bad else "", words=words)


def _card(kind: str, title: str, timing: str = "", body: Markup = Markup(), button: Markup = Markup()) -> Markup:
    """At the right stands `timing`, or a button; body and button are markup."""
    return Markup(
        '<div class="w-card-top"><span class="w-dot {kind}"></span>'
        '<h2 class="w-card-title" role="status">{title}</h2>'
        '<span class="w-timing">{button}</span></div>{body}'
    ).format(kind=kind, title=title, button=button or timing, body=body)
