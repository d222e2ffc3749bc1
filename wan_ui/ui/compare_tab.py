"""The Compare tab: clips of the history in step, their figures, and one clip again under other schemes.

Choosing and playing happen in the browser (compare.js). The server measures, lists what was set
differently, puts jobs for a grid into the queue and writes the files of an export. Wired here, since
nothing outside the tab takes part.
"""

from collections.abc import Callable
from pathlib import Path

import gradio as gr

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.qa import compare
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import UNKNOWN
from wan_ui.ui.answers import Answer, Options, connect
from wan_ui.ui.comparisons import COMPARISONS, Comparison
from wan_ui.ui.history import LIMIT
from wan_ui.ui.markup import file_url, speaks, spent, text, title, wide_table
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.session import asker, identify
from wan_ui.ui.values import texts_of_event

SCRIPT = (Path(__file__).parent / "compare.js").read_text(encoding="utf-8")
# It stands between the buttons that it is about; files and complaints come into view, progress leaves the page alone.
MESSAGE = """
watch('value', () => { if (element.querySelector('a, [role=alert]')) wanUi.bring(element); });
"""
COLOURS = ("#6b6be0", "#d9772b", "#1f8a54", "#c0408a", "#2a8fb8")
# Per page. shown: ids of the jobs that are compared; waiting: of the grid that is being made; wanted: "show" or
# "export" while the comparison is being made
NOTHING = {"shown": [], "waiting": [], "wanted": ""}
WAIT = 1.0  # seconds between looks at a grid's jobs or a comparison
AT_ONCE = 0.7  # seconds that a short comparison is waited for


def build_compare_tab(browser: gr.BrowserState) -> Callable[[gr.Tab, Options], None]:
    """Builds; what it gives connects: it takes the tab, and what every private event of the page is given."""
    state, timer = gr.State(NOTHING), gr.Timer(WAIT, active=False)
    with gr.Column(elem_id="compare", elem_classes="w-panel w-part"):
        picker = gr.HTML("", elem_id="compare-picker", js_on_load=SCRIPT, apply_default_css=False)
        message = gr.HTML("", elem_id="compare-message", js_on_load=MESSAGE, apply_default_css=False)
        player = gr.HTML("", elem_id="compare-player", js_on_load=SCRIPT, apply_default_css=False)

    def wire(tab: gr.Tab, plain: Options) -> None:
        shown = {"player": player, "message": message, "timer": timer, "state": state}
        choose = {"picker": picker, "timer": timer}
        once: Options = {**plain, "trigger_mode": "once"}
        connect(tab.select, choices, [browser, state], choose, **plain)
        connect(picker.compare, show, [browser, state], shown, **plain)
        connect(picker.picked, lambda: {"message": ""}, [], {"message": message}, **plain)
        connect(picker.grid, run_grid, [browser, state], shown, **plain)
        connect(timer.tick, observe_grid, [browser, state], {**shown, "picker": picker}, **once)
        connect(player.export, export, [browser, state], shown, **plain)

    return wire


@guard
def choices(browser: dict, state: dict) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    making = bool(state["waiting"] or state["wanted"])
    return {"picker": picker_html(owner, state["shown"]), "timer": gr.Timer(WAIT, active=making)}


@guard
def show(browser: dict, state: dict, event: gr.EventData) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    return _shown(texts_of_event(event, "jobs"), owner, state)


def _shown(jobs: list[str], owner: str, state: dict) -> Answer:
    state["shown"], state["waiting"], state["wanted"] = jobs[: limits.COMPARISON_CLIPS], [], "show"
    return _look(owner, state)


def _look(owner: str, state: dict) -> Answer:
    """Ask for what is wanted. While it is made the timer asks again."""
    export = state["wanted"] == "export"
    emptied = {} if export else {"player": ""}
    try:
        jobs = _finished(state["shown"], owner)
        folder = PIPELINE.clips / jobs[0].id / "compare" if export else None
        comparison = COMPARISONS.ask(owner, _clips(jobs), folder)
        comparison.ended.wait(AT_ONCE)
        if comparison.active:
            asking = gr.Timer(WAIT, active=True)
            return {**emptied, "message": _measuring(comparison), "timer": asking, "state": state}
        if comparison.state != "done":
            raise UserError(comparison.words or "compare: it was given up; press the button again")
    except UserError as error:
        state["wanted"] = ""
        return {**emptied, "message": complaint(error), "timer": gr.Timer(active=False), "state": state}
    state["wanted"] = ""
    player = {} if export else {"player": player_html(jobs, comparison.result)}
    return {**player, "message": _links(comparison.result["files"]), "timer": gr.Timer(active=False), "state": state}


def _measuring(comparison: Comparison) -> str:
    words = "Waiting for another comparison" if comparison.state == "waiting" else "Measuring"
    words += f": {comparison.frames} frames" if comparison.frames else ""
    return f'<p class="w-note" role="status">{words} …</p>'


@guard
def run_grid(browser: dict, state: dict, event: gr.EventData) -> Answer:
    """The first chosen clip again, with its seed, in every ticked scheme that it was not made in."""
    _, owner = identify(browser, PIPELINE.settings)
    jobs, schemes = texts_of_event(event, "jobs"), texts_of_event(event, "schemes")
    submitted = []
    try:
        first, *_ = _finished(jobs[:1], owner, least=1)
        made = first.request.made_with
        if made is None or not made.model:
            raise UserError("compare: no model made the first clip, it is a video that was given speech")
        for scheme in (scheme for scheme in schemes if scheme != made.scheme):
            submitted.append(PIPELINE.submit(_again(first, scheme), owner, asker(PIPELINE.settings)))
        if not submitted:
            raise UserError("compare: tick a scheme other than the clip's own")
    except UserError as error:
        for job in submitted:
            PIPELINE.cancel(job, owner)
        return {"message": complaint(error), "state": state}
    state["waiting"] = [first.id, *submitted]
    return {"message": _progress(state, owner), "timer": gr.Timer(WAIT, active=True), "state": state}


def _again(job: Job, scheme: str) -> Draft:
    request, made = job.request, job.request.sampling
    files = {name: str(path) for name, path in PIPELINE.input_files(job, "picture", "video").items()}
    segments = "\n".join(segment.prompt for segment in made.segments)
    return Draft(
        {**files, "prompt": made.prompt, "segments": segments},
        model=made.model,
        scheme=scheme,
        engine=made.engine,
        size=f"{request.width}x{request.height}",
        frames=request.frames,
        steps=made.steps,
        fps=made.fps or None,
        seed=made.seed,
        loras=made.loras,
    )


@guard
def observe_grid(browser: dict, state: dict) -> Answer:
    """When all jobs have ended, those that are done are compared."""
    _, owner = identify(browser, PIPELINE.settings)
    if not state["waiting"]:
        return _look(owner, state)
    jobs = [job for job in (PIPELINE.job(job_id, owner) for job_id in state["waiting"]) if job]
    if any(job.active for job in jobs):
        return {"message": _progress(state, owner), "state": state}
    failed = [f"{job.request.sampling.scheme}: {job.error or job.state}" for job in jobs if PIPELINE.clip(job) is None]
    answer = _shown([job.id for job in jobs if PIPELINE.clip(job) is not None], owner, state)
    if failed and not answer["message"]:
        answer["message"] = complaint(UserError("; ".join(failed)))
    return {**answer, "picker": picker_html(owner, state["shown"])}


def _progress(state: dict, owner: str) -> str:
    jobs = [PIPELINE.job(job_id, owner) for job_id in state["waiting"][1:]]
    ended = sum(job is None or not job.active for job in jobs)
    now = next((job for job in jobs if job and job.state == "running"), None)
    words = f"{ended} of {len(jobs)} clips made"
    words += f"; {now.request.sampling.scheme}: {now.progress.stage}" if now else ""
    return f'<p class="w-note" role="status">{text(words)}</p>'


@guard
def export(browser: dict, state: dict) -> Answer:
    """The message has links to the files, which lie in the first clip's own folder."""
    _, owner = identify(browser, PIPELINE.settings)
    state["wanted"] = "export"
    return _look(owner, state)


def _links(files: dict[str, str]) -> str:
    links = "".join(
        f'<a class="w-button" href="{text(file_url(Path(path)))}" download="{text(name)}">{text(name)}</a>'
        for name, path in files.items()
    )
    return f'<div class="w-buttons">{links}</div>' if links else ""


# ---------------------------------------------------------------- what is compared


def _finished(ids: list[str], owner: str, least: int = 2) -> list[Job]:
    jobs = [job for job in (PIPELINE.job(job_id, owner) for job_id in ids) if job and PIPELINE.clip(job) is not None]
    if len(jobs) < least:
        raise UserError("compare: choose two or more finished clips" if least > 1 else "compare: choose a clip first")
    return jobs


def _clips(jobs: list[Job]) -> list[dict]:
    """Path, name and settings of each, as the child is given them."""
    names = [_name(job) for job in jobs]
    return [
        {
            "path": str(PIPELINE.clip(job)),
            "name": f"{name} ({k + 1})" if names.count(name) > 1 else name,
            "settings": {
                **job.request.public(),
                "facts": job.result.facts,
                "seconds": round(spent(job), 2),
            },
        }
        for k, (job, name) in enumerate(zip(jobs, names, strict=True))
    ]


def _name(job: Job) -> str:
    """ "fp8, diffusers, seed 5, speaks" """
    made, engine = job.request.made_with or UNKNOWN, job.result.engine_ran
    seed = f"seed {made.seed}" if made.model else ""
    known = [made.scheme, engine, seed, "speaks" if speaks(job) else ""]
    return ", ".join(filter(None, known)) or title(job.request)


# ---------------------------------------------------------------- markup


def picker_html(owner: str, picked: list[str]) -> str:
    jobs = [job for job in PIPELINE.history(owner, LIMIT) if PIPELINE.clip(job) is not None]
    if not jobs:
        return '<h2>Compare</h2><p class="w-quiet">Make two clips first; then they can be compared here.</p>'
    tiles = []
    for job in jobs:
        poster = PIPELINE.poster(job)
        still = f'<img src="{text(file_url(poster))}" alt="" loading="lazy">' if poster else ""
        on = "true" if job.id in picked else "false"
        order = picked.index(job.id) if job.id in picked else 0
        tiles.append(
            f'<li><button type="button" class="w-tile" data-pick="{job.id}" data-order="{order}" aria-pressed="{on}">'
            f'<span class="w-tile-picture">{still}<span class="w-cmp-place"></span></span>'
            f'<span class="w-tile-prompt">{text(_name(job))}: {text(title(job.request))}</span></button></li>'
        )
    settings = PIPELINE.settings
    model = found.models(settings).get((jobs[0].request.made_with or UNKNOWN).model)
    schemes = [s for s in model.schemes.values() if not places.availability(model, s, settings)] if model else []
    boxes = "".join(
        f'<label><input type="checkbox" value="{text(scheme.name)}" checked> {text(scheme.name)}</label>'
        for scheme in schemes
    )
    return (
        "<h2>Compare</h2>"
        '<p class="w-quiet">Choose two or more clips; the first is what the others are measured against.</p>'
        f'<ul class="w-grid w-cmp-tiles">{"".join(tiles)}</ul>'
        '<div class="w-buttons"><button type="button" class="w-button strong" data-cmp="compare" data-needs="2">'
        "Compare</button></div>"
        '<details class="w-how"><summary>The first chosen clip under other schemes</summary>'
        f'<div class="w-cmp-schemes">{boxes}</div>'
        '<button type="button" class="w-button" data-cmp="grid" data-needs="1">Make and compare them</button></details>'
    )


def player_html(jobs: list[Job], result: dict) -> str:
    names = [clip["name"] for clip in result["clips"]]
    pairs = [compare.Pair(**values) for values in result["pairs"]]
    frames = min(len(pair.psnr) for pair in pairs)
    (width, height), fps = result["size"], result["fps"]
    clips = "".join(
        f'<figure class="w-cmp-clip"><video src="{text(file_url(clip))}" muted playsinline '
        f'preload="auto" style="aspect-ratio:{width}/{height}" aria-label="{text(name)}"></video>'
        f"<figcaption>{text(name)}</figcaption></figure>"
        for job, name in zip(jobs, names, strict=True)
        if (clip := PIPELINE.clip(job))
    )
    modes = "".join(
        f'<button type="button" class="w-button" data-mode-is="{mode}" aria-pressed="false">{words}</button>'
        for mode, words in (("side", "Side by side"), ("wipe", "Wipe"), ("difference", "Difference"))
    )
    others = "".join(
        f'<button type="button" class="w-button" data-other="{k}" aria-pressed="false">{text(name)}</button>'
        for k, name in enumerate(names[1:], start=1)
    )
    return (
        f'<div class="w-cmp" data-frames="{frames}" data-fps="{fps:g}" data-mode="side">'
        f'<div class="w-buttons">{modes}<button type="button" class="w-button w-cmp-export" data-cmp="export">'
        "Export MP4, PNG and JSON</button></div>"
        f'<div class="w-buttons w-cmp-others">{others}</div>'
        f'<div class="w-cmp-stage">{clips}<canvas class="w-cmp-heat" role="img" aria-label="Where they differ" '
        f'style="aspect-ratio:{width}/{height}"></canvas></div>'
        '<label class="w-cmp-wiper">Wipe <input type="range" class="w-cmp-wipe" min="0" max="100" value="50"></label>'
        '<div class="w-cmp-controls"><button type="button" class="w-button strong" data-play>Play</button>'
        '<button type="button" class="w-button" data-step="-1" aria-label="One frame back">‹</button>'
        '<button type="button" class="w-button" data-step="1" aria-label="One frame on">›</button>'
        f'<input type="range" class="w-cmp-frame" min="0" max="{frames - 1}" value="0" aria-label="Frame">'
        '<span class="w-cmp-label">frame 1</span></div>'
        f"{_plot('PSNR', 'dB', [pair.psnr for pair in pairs], pairs)}"
        f"{_plot('SSIM', '', [pair.ssim for pair in pairs], pairs)}{_table(result, pairs)}</div>"
    )


def _plot(title: str, unit: str, series: list[list[float]], pairs) -> str:
    width, height, left, right, top, bottom = 720, 130, 44, 8, 10, 18
    values = [value for line in series for value in line]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low or abs(high) or 1), high + 0.05 * (high - low or abs(high) or 1)

    def point(index: int, value: float, count: int) -> str:
        x = left + index / max(1, count - 1) * (width - left - right)
        return f"{x:.1f},{top + (high - value) / (high - low) * (height - top - bottom):.1f}"

    lines = "".join(
        f'<polyline fill="none" stroke="{COLOURS[k % len(COLOURS)]}" stroke-width="2" '
        f'points="{" ".join(point(i, value, len(line)) for i, value in enumerate(line))}"/>'
        for k, line in enumerate(series)
    )
    words = "; ".join(
        f"{pair.name}: {min(line):.3g} to {max(line):.3g}" for pair, line in zip(pairs, series, strict=True)
    )
    digits = 1 if unit else 3
    return (
        f'<svg class="w-cmp-plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text(f"{title} per frame; {words}")}">'
        f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">{high:.{digits}f}</text>'
        f'<text x="{left - 6}" y="{height - bottom}" text-anchor="end">{low:.{digits}f}</text>'
        f'<text x="{left}" y="{height - 4}">{title} {unit} per frame</text>{lines}'
        f'<line class="w-cmp-cursor" data-left="{left}" data-width="{width - left - right}" x1="{left}" x2="{left}" '
        f'y1="{top}" y2="{height - bottom}"/></svg>'
    )


def _table(result: dict, pairs: list[compare.Pair]) -> str:
    rows = "".join(
        f'<tr><td><span class="w-cmp-key" style="background:{COLOURS[k % len(COLOURS)]}"></span>{text(pair.name)}</td>'
        f"<td>{pair.psnr_total:.2f} dB</td><td>{pair.ssim_total:.4f}</td><td>{pair.worst_frame + 1}</td></tr>"
        for k, pair in enumerate(pairs)
    )
    different = "".join(
        f"<tr><td>{text(key.replace('_', ' '))}</td>"
        + "".join(f"<td>{text(value or '–')}</td>" for value in values)
        + "</tr>"
        for key, values in result["differences"].items()
    )
    figures = wide_table("Figures", (f"Against {result['reference']}", "PSNR", "SSIM", "Worst frame"), rows)
    return figures + wide_table("Settings", ("Different", *(clip["name"] for clip in result["clips"])), different)
