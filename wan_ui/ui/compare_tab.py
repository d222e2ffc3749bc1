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
from wan_ui.ui.markup import Markup, file_url, marked_title, speaks, spent, title, wide_table
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


def _measuring(comparison: Comparison) -> Markup:
    words = "Waiting for another comparison" if comparison.state == "waiting" else "Measuring"
    words += f": {comparison.frames} frames" if comparison.frames else ""
    return Markup('<p class="w-note" role="status">{} …</p>').format(words)


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


def _progress(state: dict, owner: str) -> Markup:
    jobs = [PIPELINE.job(job_id, owner) for job_id in state["waiting"][1:]]
    ended = sum(job is None or not job.active for job in jobs)
    now = next((job for job in jobs if job and job.state == "running"), None)
    words = f"{ended} of {len(jobs)} clips made"
    words += f"; {now.request.sampling.scheme}: {now.progress.stage}" if now else ""
    return Markup('<p class="w-note" role="status">{}</p>').format(words)


@guard
def export(browser: dict, state: dict) -> Answer:
    """The message has links to the files, which lie in the first clip's own folder."""
    _, owner = identify(browser, PIPELINE.settings)
    state["wanted"] = "export"
    return _look(owner, state)


def _links(files: dict[str, str]) -> Markup:
    links = Markup().join(
        Markup('<a class="w-button" href="{address}" download="{name}">{name}</a>').format(
            address=file_url(Path(path)), name=name
        )
        for name, path in files.items()
    )
    return Markup('<div class="w-buttons">{}</div>').format(links) if links else Markup()


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


def picker_html(owner: str, picked: list[str]) -> Markup:
    jobs = [job for job in PIPELINE.history(owner, LIMIT) if PIPELINE.clip(job) is not None]
    if not jobs:
        return Markup('<h2>Compare</h2><p class="w-quiet">Make two clips first; then they can be compared here.</p>')
    tiles = []
    for job in jobs:
        poster = PIPELINE.poster(job)
        still = Markup('<img src="{}" alt="" loading="lazy">').format(file_url(poster)) if poster else Markup()
        on = "true" if job.id in picked else "false"
        order = picked.index(job.id) if job.id in picked else 0
        tiles.append(
            Markup(
                '<li><button type="button" class="w-tile" data-pick="{id}" data-order="{order}" aria-pressed="{on}">'
                '<span class="w-tile-picture">{still}<span class="w-cmp-place"></span></span>'
                '<span class="w-tile-prompt">{name}: {title}</span></button></li>'
            ).format(id=job.id, order=order, on=on, still=still, name=_name(job), title=marked_title(job.request))
        )
    settings = PIPELINE.settings
    model = found.models(settings).get((jobs[0].request.made_with or UNKNOWN).model)
    schemes = [s for s in model.schemes.values() if not places.availability(model, s, settings)] if model else []
    boxes = Markup().join(
        Markup('<label><input type="checkbox" value="{name}" checked> {name}</label>').format(name=scheme.name)
        for scheme in schemes
    )
    return Markup(
        "<h2>Compare</h2>"
        '<p class="w-quiet">Choose two or more clips; the first is what the others are measured against.</p>'
        '<ul class="w-grid w-cmp-tiles">{tiles}</ul>'
        '<div class="w-buttons"><button type="button" class="w-button strong" data-cmp="compare" data-needs="2">'
        "Compare</button></div>"
        '<details class="w-how"><summary>The first chosen clip under other schemes</summary>'
        '<div class="w-cmp-schemes">{boxes}</div>'
        '<button type="button" class="w-button" data-cmp="grid" data-needs="1">Make and compare them</button></details>'
    ).format(tiles=Markup().join(tiles), boxes=boxes)


def player_html(jobs: list[Job], result: dict) -> Markup:
    names = [clip["name"] for clip in result["clips"]]
    pairs = [compare.Pair(**values) for values in result["pairs"]]
    frames = min(len(pair.psnr) for pair in pairs)
    (width, height), fps = result["size"], result["fps"]
    clips = Markup().join(
        Markup(
            '<figure class="w-cmp-clip"><video src="{clip}" muted playsinline '
            'preload="auto" style="aspect-ratio:{width}/{height}" aria-label="{name}"></video>'
            "<figcaption>{name}</figcaption></figure>"
        ).format(clip=file_url(clip), width=width, height=height, name=name)
        for job, name in zip(jobs, names, strict=True)
        if (clip := PIPELINE.clip(job))
    )
    modes = Markup().join(
        Markup(
            '<button type="button" class="w-button" data-mode-is="{mode}" aria-pressed="false">{words}</button>'
        ).format(mode=mode, words=words)
        for mode, words in (("side", "Side by side"), ("wipe", "Wipe"), ("difference", "Difference"))
    )
    others = Markup().join(
        Markup('<button type="button" class="w-button" data-other="{k}" aria-pressed="false">{name}</button>').format(
            k=k, name=name
        )
        for k, name in enumerate(names[1:], start=1)
    )
    return Markup(
        '<div class="w-cmp" data-frames="{frames}" data-fps="{fps:g}" data-mode="side">'
        '<div class="w-buttons">{modes}<button type="button" class="w-button w-cmp-export" data-cmp="export">'
        "Export MP4, PNG and JSON</button></div>"
        '<div class="w-buttons w-cmp-others">{others}</div>'
        '<div class="w-cmp-stage">{clips}<canvas class="w-cmp-heat" role="img" aria-label="Where they differ" '
        'style="aspect-ratio:{width}/{height}"></canvas></div>'
        '<label class="w-cmp-wiper">Wipe <input type="range" class="w-cmp-wipe" min="0" max="100" value="50"></label>'
        '<div class="w-cmp-controls"><button type="button" class="w-button strong" data-play>Play</button>'
        '<button type="button" class="w-button" data-step="-1" aria-label="One frame back">‹</button>'
        '<button type="button" class="w-button" data-step="1" aria-label="One frame on">›</button>'
        '<input type="range" class="w-cmp-frame" min="0" max="{last}" value="0" aria-label="Frame">'
        '<span class="w-cmp-label">frame 1</span></div>'
        "{psnr}"
        "{ssim}{table}</div>"
    ).format(
        frames=frames,
        fps=fps,
        modes=modes,
        others=others,
        clips=clips,
        width=width,
        height=height,
        last=frames - 1,
        psnr=_plot("PSNR", "dB", [pair.psnr for pair in pairs], pairs),
        ssim=_plot("SSIM", "", [pair.ssim for pair in pairs], pairs),
        table=_table(result, pairs),
    )


def _plot(title: str, unit: str, series: list[list[float]], pairs) -> Markup:
    width, height, left, right, top, bottom = 720, 130, 44, 8, 10, 18
    values = [value for line in series for value in line]
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low or abs(high) or 1), high + 0.05 * (high - low or abs(high) or 1)

    def point(index: int, value: float, count: int) -> str:
        x = left + index / max(1, count - 1) * (width - left - right)
        return f"{x:.1f},{top + (high - value) / (high - low) * (height - top - bottom):.1f}"

    lines = Markup().join(
        Markup('<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>').format(
            colour=COLOURS[k % len(COLOURS)],
            points=" ".join((point(i, value, len(line)) for i, value in enumerate(line))),
        )
        for k, line in enumerate(series)
    )
    words = "; ".join(
        f"{pair.name}: {min(line):.3g} to {max(line):.3g}" for pair, line in zip(pairs, series, strict=True)
    )
    digits = 1 if unit else 3
    return Markup(
        '<svg class="w-cmp-plot" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="{title}">'
        '<text x="{left}" y="{top}" text-anchor="end">{high}</text>'
        '<text x="{left}" y="{foot}" text-anchor="end">{low}</text>'
        '<text x="{start}" y="{below}">{measure} {unit} per frame</text>{lines}'
        '<line class="w-cmp-cursor" data-left="{start}" data-width="{length}" x1="{start}" x2="{start}" '
        'y1="{top_edge}" y2="{foot}"/></svg>'
    ).format(
        width=width,
        height=height,
        title=f"{title} per frame; {words}",
        left=left - 6,
        top=top + 8,
        high=f"{high:.{digits}f}",
        foot=height - bottom,
        low=f"{low:.{digits}f}",
        start=left,
        below=height - 4,
        measure=title,
        unit=unit,
        lines=lines,
        length=width - left - right,
        top_edge=top,
    )


def _table(result: dict, pairs: list[compare.Pair]) -> Markup:
    rows = Markup().join(
        Markup(
            '<tr><td><span class="w-cmp-key" style="background:{colour}"></span>{name}</td>'
            "<td>{psnr_total:.2f} dB</td><td>{ssim_total:.4f}</td><td>{worst_frame}</td></tr>"
        ).format(
            colour=COLOURS[k % len(COLOURS)],
            name=pair.name,
            psnr_total=pair.psnr_total,
            ssim_total=pair.ssim_total,
            worst_frame=pair.worst_frame + 1,
        )
        for k, pair in enumerate(pairs)
    )
    different = Markup().join(
        Markup("<tr><td>{}</td>").format(key.replace("_", " "))
        + Markup().join(Markup("<td>{}</td>").format(value or "–") for value in values)
        + Markup("</tr>")
        for key, values in result["differences"].items()
    )
    figures = wide_table("Figures", (f"Against {result['reference']}", "PSNR", "SSIM", "Worst frame"), rows)
    return figures + wide_table("Settings", ("Different", *(clip["name"] for clip in result["clips"])), different)
