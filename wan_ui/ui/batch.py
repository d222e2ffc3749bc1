"""The clips of one press, side by side on the stage: playing together, kept, deleted, compared, cancelled."""

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui.markup import STATE_WORDS, Markup, file_url, marked_title, problem, title
from wan_ui.ui.progress_card import preview


def key(jobs: list[Job]) -> list:
    """Whatever is shown of them: they are drawn again when this differs."""
    return [(job.id, job.state, job.cancel, job.star, PIPELINE.clip(job) is not None, preview(job)) for job in jobs]


def batch_html(jobs: list[Job]) -> Markup:
    cells = Markup().join(_cell(number, job) for number, job in enumerate(jobs, start=1))
    prompts = {title(job.request) for job in jobs}
    words = marked_title(jobs[0].request)
    if len(prompts) > 1:
        words += Markup(" <span>… and {} more</span>").format(len(prompts) - 1)
    made = sum(PIPELINE.clip(job) is not None for job in jobs)
    shape = "w-batch few" if len(jobs) in (2, 4) else "w-batch"
    return Markup(
        '<ul class="{shape}" data-batch="{batch}">{cells}</ul><div class="w-about">'
        '<p class="w-prompt">{words}</p><p class="w-quiet" role="status">{made} of {number} clips are there. '
        "Those that you keep get a star and stay.</p>{buttons}</div>"
    ).format(
        shape=shape,
        batch=jobs[0].request.batch,
        cells=cells,
        words=words,
        made=made,
        number=len(jobs),
        buttons=_buttons(jobs),
    )


def _cell(number: int, job: Job) -> Markup:
    clip, request = PIPELINE.clip(job), job.request
    ratio = f"aspect-ratio:{request.width}/{request.height}" if request.width and request.height else ""
    name = f"clip {number}, seed {request.seed}"
    if clip is not None:
        poster = PIPELINE.poster(job)
        still = Markup(' poster="{}"').format(file_url(poster)) if poster else Markup()
        inside = Markup(
            '<video src="{clip}"{still} style="{ratio}" autoplay loop muted playsinline '
            'preload="auto" tabindex="-1" aria-hidden="true"></video>'
        ).format(clip=file_url(clip), still=still, ratio=ratio)
    else:
        picture = PIPELINE.picture(job)
        still = (
            Markup('<img src="{picture}" alt="" style="{ratio}">').format(picture=file_url(picture), ratio=ratio)
            if picture
            else Markup()
        )
        still = preview(job) or still
        words = "Cancelling" if job.active and job.cancel else STATE_WORDS[job.state]
        words = "The file is gone" if job.state == "done" else words
        inside = Markup('{still}<span class="w-state {state}" title="{problem}">{words}</span>').format(
            still=still, state=job.state, problem=problem(job), words=words
        )
    star = "true" if job.star else "false"
    if job.active:
        buttons = _button("stop", "Cancel", job.id, f"Cancel {name}")
    else:
        kept = "Kept" if job.star else "Keep"
        buttons = (
            _button("star", f"★ {kept}", job.id, f"Keep {name}", Markup(' aria-pressed="{}"').format(star))
            if clip
            else Markup()
        )
        buttons += _button("remove", "Delete", job.id, f"Delete {name}")
    return Markup(
        '<li class="w-batch-cell {state}{kept}">'
        '<button type="button" class="w-batch-open" data-do="open" data-job="{id}" aria-label="Open {name}">'
        '{inside}</button><div class="w-batch-line"><span class="w-quiet">{seed}</span>{buttons}</div></li>'
    ).format(
        state=job.state,
        kept=" kept" if job.star else "",
        id=job.id,
        name=name,
        inside=inside,
        seed=request.seed,
        buttons=buttons,
    )


def _button(act: str, words: str, of: str, label: str = "", more: Markup = Markup()) -> Markup:
    named = Markup(' aria-label="{}"').format(label) if label else Markup()
    return Markup(
        '<button type="button" class="w-button" data-do="{act}" data-job="{of}"{named}{more}>{words}</button>'
    ).format(act=act, of=of, named=named, more=more, words=words)


def _buttons(jobs: list[Job]) -> Markup:
    batch, ended = jobs[0].request.batch, [job for job in jobs if not job.active]
    there = [job for job in jobs if PIPELINE.clip(job) is not None]
    kept = [job for job in there if job.star]
    buttons = []
    if there:
        buttons.append(
            Markup('<button type="button" class="w-button" data-together aria-pressed="true">Pause all</button>')
        )
    if len(there) > 1:
        chosen = " ".join(job.id for job in (kept if len(kept) > 1 else there))
        buttons.append(
            Markup('<button type="button" class="w-button" data-compare="{}">Compare</button>').format(chosen)
        )
    if len(ended) < len(jobs):
        buttons.append(_button("stop_batch", "Cancel all", batch))
    others = len(ended) - len(kept)
    if kept and others:
        sure = Markup(' data-confirm="Delete {others} {clip} that you did not keep?"').format(
            others=others, clip="clip" if others == 1 else "clips"
        )
        buttons.append(_button("remove_rest", "Delete the others", batch, more=sure))
    if ended and not kept:
        sure = Markup(' data-confirm="Delete {ended} {clip} and their settings?"').format(
            ended=len(ended), clip="clip" if len(ended) == 1 else "clips"
        )
        buttons.append(_button("remove_rest", "Delete all", batch, more=sure))
    return Markup('<div class="w-buttons">{}</div>').format(Markup().join(buttons))
