"""The clips of one press, side by side on the stage: playing together, kept, deleted, compared, cancelled."""

from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui.markup import STATE_WORDS, file_url, problem, text, title


def key(jobs: list[Job]) -> list:
    """Whatever is shown of them: they are drawn again when this differs."""
    return [(job.id, job.state, job.cancel, job.star, PIPELINE.clip(job) is not None) for job in jobs]


def batch_html(jobs: list[Job]) -> str:
    cells = "".join(_cell(number, job) for number, job in enumerate(jobs, start=1))
    prompts = list(dict.fromkeys(title(job.request) for job in jobs))
    words = prompts[0] if len(prompts) == 1 else f"{prompts[0]} … and {len(prompts) - 1} more"
    made = sum(PIPELINE.clip(job) is not None for job in jobs)
    shape = "w-batch few" if len(jobs) in (2, 4) else "w-batch"
    return (
        f'<ul class="{shape}" data-batch="{jobs[0].request.batch}">{cells}</ul><div class="w-about">'
        f'<p class="w-prompt">{text(words)}</p><p class="w-quiet" role="status">{made} of {len(jobs)} clips are there. '
        f"Those that you keep get a star and stay.</p>{_buttons(jobs)}</div>"
    )


def _cell(number: int, job: Job) -> str:
    clip, request = PIPELINE.clip(job), job.request
    ratio = f"aspect-ratio:{request.width}/{request.height}" if request.width and request.height else ""
    name = f"clip {number}, seed {request.seed}"
    if clip is not None:
        poster = PIPELINE.poster(job)
        still = f' poster="{text(file_url(poster))}"' if poster else ""
        inside = (
            f'<video src="{text(file_url(clip))}"{still} style="{ratio}" autoplay loop muted playsinline '
            f'preload="auto" tabindex="-1" aria-hidden="true"></video>'
        )
    else:
        picture = PIPELINE.picture(job)
        still = f'<img src="{text(file_url(picture))}" alt="" style="{ratio}">' if picture else ""
        words = "Cancelling" if job.active and job.cancel else STATE_WORDS[job.state]
        words = "The file is gone" if job.state == "done" else words
        inside = f'{still}<span class="w-state {job.state}" title="{text(problem(job))}">{words}</span>'
    star = "true" if job.star else "false"
    if job.active:
        buttons = _button("stop", "Cancel", job.id, f"Cancel {name}")
    else:
        kept = "Kept" if job.star else "Keep"
        buttons = _button("star", f"★ {kept}", job.id, f"Keep {name}", f' aria-pressed="{star}"') if clip else ""
        buttons += _button("remove", "Delete", job.id, f"Delete {name}")
    return (
        f'<li class="w-batch-cell {job.state}{" kept" if job.star else ""}">'
        f'<button type="button" class="w-batch-open" data-do="open" data-job="{job.id}" aria-label="Open {name}">'
        f'{inside}</button><div class="w-batch-line"><span class="w-quiet">{request.seed}</span>{buttons}</div></li>'
    )


def _button(act: str, words: str, of: str, label: str = "", more: str = "") -> str:
    label = f' aria-label="{text(label)}"' if label else ""
    return f'<button type="button" class="w-button" data-do="{act}" data-job="{of}"{label}{more}>{words}</button>'


def _buttons(jobs: list[Job]) -> str:
    batch, ended = jobs[0].request.batch, [job for job in jobs if not job.active]
    there = [job for job in jobs if PIPELINE.clip(job) is not None]
    kept = [job for job in there if job.star]
    buttons = []
    if there:
        buttons.append('<button type="button" class="w-button" data-together aria-pressed="true">Pause all</button>')
    if len(there) > 1:
        chosen = " ".join(job.id for job in (kept if len(kept) > 1 else there))
        buttons.append(f'<button type="button" class="w-button" data-compare="{chosen}">Compare</button>')
    if len(ended) < len(jobs):
        buttons.append(_button("stop_batch", "Cancel all", batch))
    others = len(ended) - len(kept)
    if kept and others:
        sure = f' data-confirm="Delete {others} {"clip" if others == 1 else "clips"} that you did not keep?"'
        buttons.append(_button("remove_rest", "Delete the others", batch, more=sure))
    if ended and not kept:
        sure = f' data-confirm="Delete {len(ended)} {"clip" if len(ended) == 1 else "clips"} and their settings?"'
        buttons.append(_button("remove_rest", "Delete all", batch, more=sure))
    return f'<div class="w-buttons">{"".join(buttons)}</div>'
