"""The Models part: what can run here, what is missing and how large it is, loading and downloading.

The list is drawn anew only when something in it has changed; a download's progress has an element of its
own, so that an opened list of files stays open while bytes arrive.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model, Scheme
from wan_ui.files import found, places
from wan_ui.files.parts import weights_size
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.place import COMMAND
from wan_ui.queue.background_download import DownloadStatus
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.queue.runner import ModelStatus
from wan_ui.settings import Settings
from wan_ui.ui.markup import model_name, seconds, text
from wan_ui.ui.session import for_visitor

SCRIPT = """
const events = ['load_model', 'download_model', 'stop_download', 'load_worker', 'unload_worker', 'restart_worker'];
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
  const [model, scheme] = button.parentElement.querySelector('select')?.value.split(' ') ?? [];
  trigger(button.dataset.do, {
    model: button.dataset.model ?? model, scheme: button.dataset.scheme ?? scheme, worker: button.dataset.worker,
  });
});
// A list of files that was opened stays open when the table is drawn anew.
const opened = new Set();
element.addEventListener('click', (event) => {
  const list = event.target.closest('summary')?.closest('[data-scheme]');
  if (list) opened[opened.has(list.dataset.scheme) ? 'delete' : 'add'](list.dataset.scheme);
});
watch('value', () => {
  for (const row of element.querySelectorAll('[data-scheme]')) {
    const list = row.querySelector('details');
    if (list) list.open = opened.has(row.dataset.scheme);
  }
});
"""
FRESH = 2.0  # seconds for which a look at the disk serves all tabs


@dataclass(frozen=True)
class Offer:
    """One scheme of one model: `reason` is empty when it can run here; `files` is ref -> place or None."""

    model: Model
    scheme: Scheme
    reason: str
    lacks_gpu: bool
    files: dict[str, Path | None]

    @property
    def missing(self) -> list[str]:
        return [ref for ref, path in self.files.items() if path is None]


@dataclass(frozen=True)
class ModelsPanel:
    download: gr.HTML
    workers: gr.HTML
    table: gr.HTML


def offers(settings: Settings) -> list[Offer]:
    """All models and schemes as they are on this machine, not older than two seconds."""
    return _offers(settings, int(time.monotonic() / FRESH))


def _engine(model: Model, settings: Settings) -> str:
    """Which would run the model."""
    able = model.family.engines
    return choose_engine(settings.engine if settings.engine in able else "auto", settings, family=model.family).name


@functools.lru_cache(maxsize=1)
def _offers(settings: Settings, _: int) -> list[Offer]:
    return [
        Offer(
            model,
            scheme,
            ""
            if PIPELINE.elsewhere(model.name, scheme.name, settings.engine)
            else places.availability(model, scheme, settings, settings.engine),
            places.lacks_gpu(model),
            places.files(model, scheme, settings, _engine(model, settings)),
        )
        for model in found.models(settings).values()
        for scheme in model.schemes.values()
    ]


def usable(settings: Settings) -> dict[str, list[Scheme]]:
    """Models that can run here with the schemes that can."""
    schemes: dict[str, list[Scheme]] = {}
    for offer in offers(settings):
        if not offer.reason:
            schemes.setdefault(offer.model.name, []).append(offer.scheme)
    return schemes


def build_models_panel() -> ModelsPanel:
    with gr.Accordion("Models", open=False, elem_id="models", elem_classes="w-part"):
        download = gr.HTML("", elem_id="download", js_on_load=SCRIPT, apply_default_css=False)
        workers = gr.HTML("", elem_id="workers", js_on_load=SCRIPT, apply_default_css=False)
        table = gr.HTML("", elem_id="models-table", js_on_load=SCRIPT, apply_default_css=False)
    return ModelsPanel(download, workers, table)


def models_key(status: ModelStatus, download: DownloadStatus, settings: Settings) -> list:
    """Whatever the table shows: it is drawn again when this differs."""
    here = [[offer.scheme.title, offer.reason, len(offer.missing)] for offer in offers(settings)]
    loaded = [status.model, status.scheme, status.state, status.kept, status.progress]
    return [*loaded, download.active, download.scheme, here, found.problems(settings)]


def models_html(status: ModelStatus, download: DownloadStatus, settings: Settings, *, own: bool, fetch: bool) -> str:
    """`own`: this person may load models; `fetch`: and start downloads."""
    parts = []
    if not own:
        parts.append(
            '<p class="w-quiet">Several people use this app: a model is loaded with the clip that asks for it.'
        )
        if not fetch:
            parts.append(f" Downloads are started where it runs: <code>{COMMAND} download MODEL SCHEME</code>.")
        parts.append("</p>")
    shown = ""
    for offer in offers(settings):
        if offer.model.name != shown:
            parts.append(f"{'</ul>' if shown else ''}<h3>{text(offer.model.title)}</h3><ul class='w-schemes'>")
            shown = offer.model.name
        parts.append(_row(offer, status, download, settings, own, fetch))
    parts.append("</ul>")
    if own and (troubles := found.problems(settings)):
        lines = "".join(f'<li class="w-note">{text(trouble)}</li>' for trouble in troubles)
        parts.append(f'<h3>Found, but of no use as it is</h3><ul class="w-schemes w-troubles">{lines}</ul>')
    return "".join(parts)


def _row(
    offer: Offer, status: ModelStatus, download: DownloadStatus, settings: Settings, own: bool, fetch: bool
) -> str:
    model, scheme = offer.model, offer.scheme
    here = (status.model, status.scheme) == (model.name, scheme.name)
    kind, words = ("idle", for_visitor(offer.reason, settings)) if offer.reason else ("good", "can run here")
    trouble = ""
    buttons = [] if offer.reason or not own else [_button("load_model", "Load", model, scheme)]
    if (here and status.state == "ready") or (model.name, scheme.name) == status.kept[:2]:
        kind, words, buttons = "good", "loaded", []
    elif here and status.state == "loading":
        kind, words, buttons = "work", _loading(status), []
    elif here and status.state == "failed":
        kind, words, trouble = "bad", "could not be loaded", status.words
    if (download.model, download.scheme) == (model.name, scheme.name) and download.active:
        kind, words = "work", "is being downloaded"
    elif offer.missing and not model.embedded and fetch:
        size = places.gigabytes(model, offer.missing)
        question = f"Download {size} into {settings.models if own else 'the models folder'}?"
        if offer.lacks_gpu:
            question = f"This machine has no CUDA GPU that could run it. {question}"
        buttons.append(_button("download_model", f"Download {size}", model, scheme, question, download.active))
    about = [_about(model, scheme, settings)]
    if trouble:
        about.append(f'<span class="w-note bad">{text(trouble)}</span>')
    return (
        f'<li class="w-scheme" data-scheme="{text(f"{model.name} {scheme.name}")}">'
        f'<div class="w-scheme-name"><b>{text(scheme.title)}</b>{"".join(about)}</div>'
        f'<div class="w-scheme-state"><span class="w-dot {kind}"></span><span>{text(words)}</span></div>'
        f'<div class="w-scheme-do">{"".join(buttons)}</div>{_files(offer, settings, own)}</li>'
    )


def _loading(status: ModelStatus) -> str:
    step = status.progress
    return (
        f"loading: {step.detail}" + (f", {step.step} of {step.total}" if step.total else "")
        if step.detail
        else ("loading")
    )


def _about(model: Model, scheme: Scheme, settings: Settings) -> str:
    words = []
    if not scheme.distilled and not scheme.distill_loras:
        words.append("base model, sampled in full")
    elif not scheme.distilled:
        pair = "LoRA attached" if model.family.single else "LoRA pair attached, one LoRA on each expert"
        words.append(f"base model with the distill {pair}")
    elif not model.embedded:
        words.append("distilled")
    if not model.embedded:
        words.append(_memory(model, scheme, settings))
    return f'<span class="w-quiet">{text("; ".join(words))}</span>' if words else ""


def _memory(model: Model, scheme: Scheme, settings: Settings) -> str:
    """For the smallest and the largest size that a model offers: all on the GPU, and with offload."""
    sizes = sorted(model.sizes, key=lambda size: size[0] * size[1])
    ends, engine = [sizes[0], sizes[-1]], _engine(model, settings)
    everything, least = zip(*(places.gpu_memory_wanted(model, scheme, engine, size) for size in ends), strict=True)
    (low, high), (few, many) = everything, least
    first, last = (f"{width} × {height}" for width, height in ends)
    offload = f"; with offload {few:.0f} and {many:.0f}"
    return f"{low:.0f} GiB of GPU memory at {first}, {high:.0f} at {last}{offload}"


def _files(offer: Offer, settings: Settings, own: bool) -> str:
    model, scheme = offer.model, offer.scheme
    experts = zip(scheme.distill_loras, model.family.experts, strict=True) if scheme.distill_loras else ()
    roles = {ref: f"distill LoRA for the {expert.title}" for ref, expert in experts}
    items = []
    for ref, path in offer.files.items():
        repo, file = places.split(ref)
        if path is not None:
            state, size, place = "here", _size(weights_size(path)), str(path) if own else ""
        else:
            known = model.known(repo, file)
            state, size = "missing", ("" if known.size else "about ") + _size(known.shown) if known.shown else "small"
            place = "ships with Wan UI" if model.embedded else f"from {places.address(model, ref, settings)}"
        role = f" ({roles[ref]})" if ref in roles else ""
        items.append(
            f'<li class="{state}"><b>{text(Path(file).name)}{text(role)}</b>'
            f"<span>{size}, {state}</span><small>{text(place)}</small></li>"
        )
    there = len(offer.files) - len(offer.missing)
    return (
        f'<details class="w-files"><summary>{there} of {len(offer.files)} files are here</summary>'
        f"<ul>{''.join(items)}</ul></details>"
    )


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _button(event: str, words: str, model: Model, scheme: Scheme, confirm: str = "", disabled: bool = False) -> str:
    extra = f' data-confirm="{text(confirm)}"' if confirm else ""
    title = f"{words}: {model.title}, {scheme.title}"
    return (
        f'<button type="button" class="w-button" data-do="{event}" data-model="{text(model.name)}" '
        f'data-scheme="{text(scheme.name)}" aria-label="{text(title)}"{extra}{" disabled" if disabled else ""}>'
        f"{text(words)}</button>"
    )


def still_true(status: DownloadStatus, settings: Settings) -> DownloadStatus:
    """Without an end that is history: what could not be downloaded is there now."""
    if status.state not in ("failed", "cancelled"):
        return status
    for offer in offers(settings):
        if (offer.model.name, offer.scheme.name) == (status.model, status.scheme) and offer.missing:
            return status
    return DownloadStatus()


def download_html(status: DownloadStatus, catalog: dict[str, Model], *, fetch: bool) -> str:
    """The download that runs, or how the last one ended; "" when there was none."""
    if status.state == "none":
        return ""
    name = model_name(catalog, status.model, status.scheme)
    found = "".join(f'<p class="w-quiet">{text(words)}</p>' for words in status.found)
    if status.state == "asking":
        return _download("work", f"Downloading {name}", "asking for sizes", '<div class="w-bar open"><i></i></div>')
    if status.state == "running":
        timing = f"{status.done / 1e9:.2f} of {status.total / 1e9:.2f} GB"
        if status.pace and status.left is not None:
            timing += f" · {_size(int(status.pace))}/s · about {seconds(status.left)} left"
        percent = 100 * status.done / max(status.total, 1)
        bar = (
            '<div class="w-bar" role="progressbar" aria-label="Download" aria-valuemin="0" aria-valuemax="100" '
            f'aria-valuenow="{percent:.0f}"><i style="width:{percent:.2f}%"></i></div>'
        )
        stop = '<button type="button" class="w-button" data-do="stop_download">Cancel the download</button>'
        note = f'<p class="w-quiet">{text(status.words)}</p>'
        return _download("work", f"Downloading {name}", timing, bar + found + note + (stop if fetch else ""))
    if status.state == "done":
        return _download("good", f"{name} is downloaded", f"{status.total / 1e9:.2f} GB, checked", found)
    if status.state == "cancelled":
        kept = "What has arrived is kept; the next download goes on from there."
        return _download("idle", f"Download of {name} cancelled", "", f'<p class="w-quiet">{kept}</p>')
    first, _, rest = status.words.partition("\n")
    words = f'<p class="w-note bad">{text(first)}</p>' + (f'<p class="w-note">{text(rest)}</p>' if rest else "")
    return _download("bad", f"{name} could not be downloaded", "", words)


def _download(kind: str, title: str, timing: str, body: str = "") -> str:
    return (
        f'<div class="w-download"><div class="w-card-top"><span class="w-dot {kind}"></span>'
        f'<h3 role="status">{text(title)}</h3><span class="w-timing">{text(timing)}</span></div>{body}</div>'
    )
