"""The Doctor tab: stages, patches, kernels and the report, for whoever asks if this machine gives the right picture.

Nothing here computes: stages are examined by the worker between two jobs, kernels are probed and the report
is collected by child processes of their own, since both import torch. On an address that others can reach
the tab shows what is known and starts nothing.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.machine import probe_results
from wan_ui.machine.engine_choice import lightx2v_missing
from wan_ui.patches import PATCHES
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.reports import doctor
from wan_ui.scrub import scrub
from wan_ui.settings import ROOT, Settings, child_environment, split_names
from wan_ui.ui.answers import Answer, Options, connect
from wan_ui.ui.markup import Markup, data_url, wide_table
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.session import for_visitor, identify
from wan_ui.ui.values import text_of_event, texts_of_event

LOOK = 1.0  # seconds between looks while something runs
SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-doctor]');
  if (!button || button.disabled) return;
  const boxes = [...element.querySelectorAll('[data-patch]')].filter((box) => !box.checked);
  const off = boxes.map((box) => box.dataset.patch);
  trigger('ask', { what: button.dataset.doctor, off });
});
"""
MARKS = {"ok": "good", "applied": "good", "failed": "bad", "wrong": "bad", "crashed": "bad", "off": "work"}


class Child:
    """One run of `python -m wan_ui <command>` at a time. words is its last line on standard error."""

    def __init__(self, *command: str):
        self.command = command
        self.process: subprocess.Popen | None = None
        self.lock = threading.Lock()

    def start(self, settings: Settings) -> None:
        with self.lock:
            if self.running:
                return
            environ = child_environment(
                {
                    "WAN_UI_OUTPUTS": str(settings.outputs),
                    "WAN_UI_CACHE": str(settings.cache),
                    "WAN_UI_LIGHTX2V_PATCHES_OFF": settings.lightx2v_patches_off,
                    "PYTHONIOENCODING": "utf-8",  # whatever the terminal's is
                    "WAN_UI_LANG": "en",  # the page translates what it shows
                }
            )
            self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - read while the child writes
            command = [sys.executable, "-m", "wan_ui", *self.command]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def words(self) -> str:
        if self.process is None:
            return ""
        self.errors.seek(0)
        lines = [line for line in self.errors.read().splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


PROBING, REPORTING = Child("probe"), Child("doctor")


def build_doctor_tab(browser: gr.BrowserState) -> Callable[[gr.Tab, Options], None]:
    """Builds; what it gives connects: it takes the tab, and what every private event of the page is given."""
    timer = gr.Timer(LOOK, active=False)
    with gr.Column(elem_classes="w-panel w-part"):
        board = gr.HTML("", elem_id="doctor", js_on_load=SCRIPT, apply_default_css=False)

    def wire(tab: gr.Tab, plain: Options) -> None:
        shown = {"board": board, "timer": timer}
        once: Options = {**plain, "trigger_mode": "once"}
        connect(tab.select, look, [browser], shown, **plain)
        connect(timer.tick, look, [browser], shown, **once)
        connect(board.ask, ask, [browser], shown, **plain)

    return wire


@guard
def look(browser: dict) -> Answer:
    _, owner = identify(browser, PIPELINE.settings)
    active = busy()  # asked first: what ends while the board is drawn is drawn by another look
    return {"board": board_html(owner == "local"), "timer": gr.Timer(LOOK, active=active)}


def busy() -> bool:
    state = PIPELINE.examination.state
    return PROBING.running or REPORTING.running or state in ("waiting", "running") or PIPELINE.model.state == "loading"


@guard
def ask(browser: dict, event: gr.EventData) -> Answer:
    """A button of the tab. Only the person at this machine may start anything."""
    _, owner = identify(browser, PIPELINE.settings)
    if owner != "local":
        words = complaint(UserError("doctor: only the person at this machine may start this"))
        return {"board": words + board_html(False)}
    match text_of_event(event, "what"):
        case "stages" if PIPELINE.examination.state not in ("waiting", "running"):
            PIPELINE.examine()
        case "probe":
            PROBING.start(PIPELINE.settings)
        case "report":
            REPORTING.start(PIPELINE.settings)
        case "patches":
            known = [patch.name for patch in PATCHES]
            PIPELINE.leave_out(",".join(name for name in texts_of_event(event, "off") if name in known))
    return {"board": board_html(True), "timer": gr.Timer(LOOK, active=True)}


# ---------------------------------------------------------------- markup


def board_html(allowed: bool) -> Markup:
    settings = PIPELINE.settings
    stages = doctor.last_stages(settings)
    stages = stages if allowed else scrub(stages, settings)
    parts = [_head(stages, allowed), _stages(stages, allowed), _patches(stages, settings, allowed), _probes(allowed)]
    return Markup().join(parts)


def _button(what: str, words: str, allowed: bool, running: bool = False) -> Markup:
    disabled = "" if allowed and not running else " disabled"
    return Markup('<button type="button" class="w-button" data-doctor="{what}"{disabled}>{words}</button>').format(
        what=what, disabled=disabled, words=words
    )


def _status(words: str) -> Markup:
    if not words:
        return Markup()
    return Markup('<p class="w-note" role="status">{}</p>').format(for_visitor(words, PIPELINE.settings))


def _head(stages: dict | None, allowed: bool) -> Markup:
    failing = stages["first_failing"] if stages else ""
    if not stages:
        dot, words = "idle", "Not examined yet on this machine"
    elif failing:
        dot, words = "bad", f"The first stage that is wrong: {failing}"
    else:
        dot, words = "good", "Every stage is right"
    about = (
        f"{stages['model']}, {stages['scheme']}, {stages['engine'].get('engine', '')}; {stages['when']}"
        if stages
        else ""
    )
    running = REPORTING.running
    links, folder = Markup(), doctor.folder(PIPELINE.settings)
    if (folder / "report.json").is_file() and not running and allowed:
        links = Markup().join(
            Markup('<a class="w-button" download="wan-ui-{name}" href="{address}">{name}</a>').format(
                name=name, address=data_url((folder / name).read_bytes(), kind)
            )
            for name, kind in (("report.md", "text/markdown"), ("report.json", "application/json"))
        )
    note = "Collecting the report …" if running else ""
    if REPORTING.process is not None and not running and REPORTING.process.returncode:
        note = f"The report ended with exit code {REPORTING.process.returncode}: {REPORTING.words}"
    return Markup(
        '<h2>Doctor</h2><p class="w-doctor-verdict"><span class="w-dot {dot}"></span> <b>{words}</b> '
        '<span class="w-quiet">{about}</span></p>'
        '<div class="w-buttons">{button}{links}</div>{status}'
    ).format(
        dot=dot,
        words=words,
        about=about,
        button=_button("report", "Make a report", allowed, running),
        links=links,
        status=_status(note),
    )


def _stages(report: dict | None, allowed: bool) -> Markup:
    state = PIPELINE.examination
    running = state.state in ("waiting", "running")
    words = {"waiting": "Waiting for the running job …", "running": f"Examining: {state.words or 'starting'} …"}
    note = words.get(state.state, state.words if state.state == "failed" else "")
    body = Markup('<p class="w-quiet">Each stage of the loaded model is held against a float32 reference.</p>')
    if report:
        rows = Markup().join(_stage_row(stage) for stage in report["stages"])
        heads = ("Stage", "Result", "Seconds", "MiB", "NaN, Inf", "Mean, std", "Cosine", "Error", "Why")
        body += Markup('<p class="w-quiet">Reference: {reference}</p>{wide_table}').format(
            reference=report["reference"], wide_table=wide_table("Stages", heads, rows)
        )
        body += Markup().join(
            Markup('<p class="w-note bad">{stage}: {verdict}</p>').format(stage=b["stage"], verdict=b["verdict"])
            for b in report["blocks"]
        )
        body += _pictures(report["pictures"])
    button = _button("stages", "Examine the stages", allowed, running)
    return Markup('<h3>Stages</h3>{body}<div class="w-buttons">{button}</div>{status}').format(
        body=body, button=button, status=_status(note)
    )


def _stage_row(stage: dict) -> Markup:
    compared = stage["error"] >= 0
    cells = ["", "", "", "", ""]
    if stage["shape"]:
        cells = [
            f"{stage['seconds']:.3f}",
            f"{stage['peak_bytes'] / 2**20:.0f}",
            f"{stage['nan']}, {stage['inf']}",
            f"{stage['mean']:.3f}, {stage['std']:.3f}",
            f"{stage['cosine']:.5f}" if compared else "–",
        ]
    cells.append(f"{stage['error']:.2g}" if compared else "")
    mark = "good" if stage["passed"] else "bad"
    words = "right" if stage["passed"] else "wrong"
    return (
        Markup('<tr><th scope="row">{name}</th><td><span class="w-dot {mark}"></span> {words}</td>').format(
            name=stage["name"], mark=mark, words=words
        )
        + Markup().join(Markup("<td>{}</td>").format(cell) for cell in cells)
        + Markup("<td>{why}<br>{dtype} {device}</td></tr>").format(
            why=stage["why"], dtype=stage["dtype"], device=stage["device"]
        )
    )


def _pictures(pictures: dict[str, str]) -> Markup:
    shown = []
    for name, file in pictures.items():
        path = doctor.folder(PIPELINE.settings) / file
        if path.is_file():
            kind = "image/svg+xml" if path.suffix == ".svg" else "image/png"
            address = data_url(path.read_bytes(), kind)
            shown.append(
                Markup('<figure><img src="{address}" alt="{name}"><figcaption>{name}</figcaption></figure>').format(
                    address=address, name=name
                )
            )
    if not shown:
        return Markup()
    opened = " open" if any(name.endswith("blocks") for name in pictures) else ""
    return Markup(
        '<details class="w-how"{opened}><summary>Intermediate results: latent channels (orange positive, blue '
        'negative, magenta NaN or Inf) and frames</summary><div class="w-doctor-pictures">{shown}</div>'
        "</details>"
    ).format(opened=opened, shown=Markup().join(shown))


def _patches(report: dict | None, settings: Settings, allowed: bool) -> Markup:
    seen = {entry["name"]: entry for entry in _last_report(settings).get("patches", [])}
    seen |= {entry["name"]: entry for entry in (report or {}).get("patches", [])}
    off = split_names(settings.lightx2v_patches_off)
    rows = []
    for patch in PATCHES:
        entry = seen.get(patch.name, {"state": "not known", "why": "LightX2V has not been loaded", "figures": ""})
        state, why = entry["state"], entry["why"]
        if PIPELINE.model.state == "failed" and PIPELINE.model.field == f"patch {patch.name}":
            state, why = "failed", PIPELINE.model.words
        why = for_visitor(why, settings)
        checked = "" if patch.name in off else " checked"
        disabled = "" if allowed else " disabled"
        rows.append(
            Markup(
                '<tr><th scope="row"><label><input type="checkbox" data-patch="{name}"{checked}{disabled}> '
                '{name}</label></th><td><span class="w-dot {mark}"></span> {state}</td>'
                "<td>{why}</td><td>{figures}</td><td>{symptom}</td></tr>"
            ).format(
                name=patch.name,
                checked=checked,
                disabled=disabled,
                mark=MARKS.get(state, "idle"),
                state=state,
                why=why,
                figures=entry["figures"],
                symptom=patch.paragraph("Symptom"),
            )
        )
    table = wide_table("Patches", ("Patch", "State", "Why", "Verified", "Without it"), Markup().join(rows))
    if lightx2v_missing(settings) and not off and PIPELINE.model.state != "failed":
        words = f"The {len(PATCHES)} patches: LightX2V cannot be used here, so none is needed"
        table = Markup('<details class="w-how"><summary>{words}</summary>{table}</details>').format(
            words=words, table=table
        )
    loading = PIPELINE.model.state == "loading"
    return Markup(
        '<h3>Patches of LightX2V</h3><p class="w-quiet">Take the tick away from a patch and reload, to see what it '
        "is there for. The worker is started again; a running clip ends first.</p>"
        "{table}"
        '<div class="w-buttons">{button}</div>'
        "{status}"
    ).format(
        table=table,
        button=_button("patches", "Reload with the ticked patches only", allowed, loading),
        status=_status("Reloading …" if loading else ""),
    )


def _last_report(settings: Settings) -> dict:
    try:
        return json.loads((doctor.folder(settings) / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _probes(allowed: bool) -> Markup:
    results = probe_results.remembered(PIPELINE.settings)
    running = PROBING.running
    body = Markup('<p class="w-quiet">Each kernel is tried in a process of its own and held against float32.</p>')
    if results:
        rows = Markup().join(
            Markup(
                '<tr><th scope="row">{name}</th><td>{kind}</td><td>{shape}</td>'
                '<td><span class="w-dot {mark}"></span> {status}</td>'
            ).format(
                name=result.name,
                kind=result.kind,
                shape=result.shape,
                mark=MARKS.get(result.status, "idle"),
                status=result.status,
            )
            + (
                Markup("<td>{seconds:.3f} ms</td><td>{error:.2g}</td>").format(
                    seconds=1000 * result.seconds, error=result.error
                )
                if result.seconds >= 0
                else Markup("<td></td><td></td>")
            )
            + Markup("<td>{}</td></tr>").format(for_visitor(result.why, PIPELINE.settings))
            for result in results
        )
        body += wide_table("Kernels", ("Kernel", "Kind", "Shape", "Result", "Time", "Error", "Why"), rows)
    note = PROBING.words or "starting" if running else ""
    if PROBING.process is not None and not running and PROBING.process.returncode not in (0, 1):
        note = f"The probe ended with exit code {PROBING.process.returncode}: {PROBING.words}"
    button = _button("probe", "Probe the kernels", allowed, running)
    return Markup('<h3>Kernels</h3>{body}<div class="w-buttons">{button}</div>{status}').format(
        body=body, button=button, status=_status(note)
    )
