"""The Models tab: what can run here, what is missing and how large it is, loading and downloading.

The list is drawn anew only when something in it has changed; a download's progress has an element of its
own, so that an opened list of files stays open while bytes arrive.
"""

import functools
import itertools
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
from wan_ui.ui.markup import Markup, model_name, seconds
from wan_ui.ui.session import for_visitor

SCRIPT = """
const events = ['load_model', 'download_model', 'stop_download', 'load_worker', 'unload_worker', 'restart_worker'];
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || !events.includes(button.dataset.do)) return;
  if (button.dataset.confirm && !window.confirm(window.wanUiWords.say(button.dataset.confirm))) return;
  const [model, scheme] = button.parentElement.querySelector('select')?.value.split(' ') ?? [];
  trigger(button.dataset.do, {
    model: button.dataset.model ?? model, scheme: button.dataset.scheme ?? scheme, worker: button.dataset.worker,
  });
});
// A list of files that was opened stays open when the table is drawn anew; so do the models that cannot run here.
let unfolded = false;
element.addEventListener('toggle', (event) => {
  if (event.target.matches('.w-cannot')) unfolded = event.target.open;
}, true);
const opened = new Set();
element.addEventListener('click', (event) => {
  const list = event.target.closest('summary')?.closest('[data-scheme]');
  if (list) opened[opened.has(list.dataset.scheme) ? 'delete' : 'add'](list.dataset.scheme);
});
watch('value', () => {
  const fold = element.querySelector('.w-cannot');
  if (fold) fold.open = unfolded;
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


def engine_of(model: Model, settings: Settings) -> str:
    """Which would run the model."""
    able = model.family.engines
    return choose_engine(settings.engine if settings.engine in able else "auto", settings, family=model.family).name


@functools.lru_cache(maxsize=1)
def _offers(settings: Settings, _: int) -> list[Offer]:
    known: places.Known = {}  # the schemes of a model share most files: a look at each took a twentieth of a core
    return [
        Offer(
            model,
            scheme,
            ""
            if PIPELINE.elsewhere(model.name, scheme.name, settings.engine)
            else places.availability(model, scheme, settings, settings.engine, known),
            places.lacks_gpu(model),
            places.files(model, scheme, settings, engine_of(model, settings), known=known),
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


def able_html(schemes: dict[str, list[Scheme]]) -> Markup:
    """What can run here, unseen: when it changes, the lists of the form follow. The table may not be drawn yet: Gradio
    draws a tab when it is first opened."""
    names = Markup(" ").join(f"{model}/{scheme.name}" for model, offered in schemes.items() for scheme in offered)
    return Markup("<span>{}</span>").format(names)


def build_models_panel() -> ModelsPanel:
    with gr.Column(elem_id="models", elem_classes="w-part"):
        download = gr.HTML("", elem_id="download", js_on_load=SCRIPT, apply_default_css=False)
        workers = gr.HTML("", elem_id="workers", js_on_load=SCRIPT, apply_default_css=False)
        table = gr.HTML("", elem_id="models-table", js_on_load=SCRIPT, apply_default_css=False)
    return ModelsPanel(download, workers, table)


def models_key(status: ModelStatus, download: DownloadStatus, settings: Settings) -> list:
    """Whatever the table shows: it is drawn again when this differs."""
    here = [[offer.scheme.title, offer.reason, len(offer.missing)] for offer in offers(settings)]
    loaded = [status.model, status.scheme, status.state, status.kept, status.progress]
    return [*loaded, download.active, download.scheme, here, found.problems(settings)]


def models_html(status: ModelStatus, download: DownloadStatus, settings: Settings, *, own: bool, fetch: bool) -> Markup:
    """`own`: this person may load models; `fetch`: and start downloads."""
    parts = []
    if not own:
        parts.append(
            Markup('<p class="w-quiet">Several people use this app: a model is loaded with the clip that asks for it.')
        )
        if not fetch:
            parts.append(
                Markup(" Downloads are started where it runs: <code>{} download MODEL SCHEME</code>.").format(COMMAND)
            )
        parts.append(Markup("</p>"))
    able: list[Markup] = []
    unable: list[Markup] = []
    for _, schemes in itertools.groupby(offers(settings), lambda offer: offer.model.name):
        of_model = list(schemes)
        rows = Markup().join(_row(offer, status, download, settings, own, fetch) for offer in of_model)
        html = Markup("<h3>{title}</h3><ul class='w-schemes'>{rows}</ul>").format(
            title=of_model[0].model.title, rows=rows
        )
        cannot = of_model[0].lacks_gpu and all(offer.reason for offer in of_model)
        (unable if cannot else able).append(html)
    parts += able
    if unable:
        parts.append(
            Markup(
                '<details class="w-cannot"><summary>Needs a CUDA GPU, which is not here: {number} {models}</summary>'
                "{rows}</details>"
            ).format(number=len(unable), models="model" if len(unable) == 1 else "models", rows=Markup().join(unable))
        )
    if own and (troubles := found.problems(settings)):
        lines = Markup().join(Markup('<li class="w-note">{}</li>').format(trouble) for trouble in troubles)
        parts.append(
            Markup('<h3>Found, but of no use as it is</h3><ul class="w-schemes w-troubles">{}</ul>').format(lines)
        )
    return Markup().join(parts)


def _row(
    offer: Offer, status: ModelStatus, download: DownloadStatus, settings: Settings, own: bool, fetch: bool
) -> Markup:
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
        buttons.append(download_button(offer, download, settings, own=own))
    about = [_about(model, scheme, settings)]
    if trouble:
        about.append(Markup('<span class="w-note bad">{}</span>').format(trouble))
    return Markup(
        '<li class="w-scheme" data-scheme="{name}">'
        '<div class="w-scheme-name"><b>{title}</b>{about}</div>'
        '<div class="w-scheme-state"><span class="w-dot {kind}"></span><span>{words}</span></div>'
        '<div class="w-scheme-do">{buttons}</div>{files}</li>'
    ).format(
        name=f"{model.name} {scheme.name}",
        title=scheme.title,
        about=Markup().join(about),
        kind=kind,
        words=words,
        buttons=Markup().join(buttons),
        files=_files(offer, settings, own),
    )


def download_button(
    offer: Offer, download: DownloadStatus, settings: Settings, *, own: bool, label: str = "Download"
) -> Markup:
    """It says how much, and asks before it begins."""
    size = places.gigabytes(offer.model, offer.missing)
    question = f"Download {size} into {settings.models if own else 'the models folder'}?"
    if offer.lacks_gpu:
        question = f"This machine has no CUDA GPU that could run it. {question}"
    return _button("download_model", f"{label} {size}", offer.model, offer.scheme, question, download.active)


def _loading(status: ModelStatus) -> str:
    step = status.progress
    return (
        f"loading: {step.detail}" + (f", {step.step} of {step.total}" if step.total else "")
        if step.detail
        else ("loading")
    )


def _about(model: Model, scheme: Scheme, settings: Settings) -> Markup:
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
    return Markup('<span class="w-quiet">{}</span>').format("; ".join(words)) if words else Markup()


def _memory(model: Model, scheme: Scheme, settings: Settings) -> str:
    """For the smallest and the largest size that a model offers: all on the GPU, and with offload."""
    sizes = sorted(model.sizes, key=lambda size: size[0] * size[1])
    ends, engine = [sizes[0], sizes[-1]], engine_of(model, settings)
    everything, least = zip(*(places.gpu_memory_wanted(model, scheme, engine, size) for size in ends), strict=True)
    (low, high), (few, many) = everything, least
    first, last = (f"{width} × {height}" for width, height in ends)
    offload = f"; with offload {few:.0f} and {many:.0f}"
    return f"{low:.0f} GiB of GPU memory at {first}, {high:.0f} at {last}{offload}"


def _files(offer: Offer, settings: Settings, own: bool) -> Markup:
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
            Markup(
                '<li class="{state}"><b>{name}{role}</b><span>{size}, {state}</span><small>{place}</small></li>'
            ).format(state=state, name=Path(file).name, role=role, size=size, place=place)
        )
    there = len(offer.files) - len(offer.missing)
    return Markup(
        '<details class="w-files"><summary>{there} of {files} files are here</summary><ul>{items}</ul></details>'
    ).format(there=there, files=len(offer.files), items=Markup().join(items))


def _size(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _button(event: str, words: str, model: Model, scheme: Scheme, confirm: str = "", disabled: bool = False) -> Markup:
    extra = Markup(' data-confirm="{}"').format(confirm) if confirm else Markup()
    title = f"{words}: {model.title}, {scheme.title}"
    return Markup(
        '<button type="button" class="w-button" data-do="{event}" data-model="{name}" '
        'data-scheme="{scheme}" aria-label="{title}"{extra}{disabled}>'
        "{words}</button>"
    ).format(
        event=event,
        name=model.name,
        scheme=scheme.name,
        title=title,
        extra=extra,
        disabled=" disabled" if disabled else "",
        words=words,
    )


def still_true(status: DownloadStatus, settings: Settings) -> DownloadStatus:
    """Without an end that is history: what could not be downloaded is there now."""
    if status.state not in ("failed", "cancelled"):
        return status
    for offer in offers(settings):
        if (offer.model.name, offer.scheme.name) == (status.model, status.scheme) and offer.missing:
            return status
    return DownloadStatus()


def download_html(status: DownloadStatus, catalog: dict[str, Model], *, fetch: bool) -> Markup:
    """The download that runs, or how the last one ended; "" when there was none."""
    if status.state == "none":
        return Markup()
    name = model_name(catalog, status.model, status.scheme)
    found = Markup().join(Markup('<p class="w-quiet">{}</p>').format(words) for words in status.found)
    if status.state == "asking":
        return _download(
            "work", f"Downloading {name}", "asking for sizes", Markup('<div class="w-bar open"><i></i></div>')
        )
    if status.state == "running":
        timing = f"{status.done / 1e9:.2f} of {status.total / 1e9:.2f} GB"
        if status.pace and status.left is not None:
            timing += f" · {_size(int(status.pace))}/s · about {seconds(status.left)} left"
        percent = 100 * status.done / max(status.total, 1)
        bar = Markup(
            '<div class="w-bar" role="progressbar" aria-label="Download" aria-valuemin="0" aria-valuemax="100" '
            'aria-valuenow="{percent:.0f}"><i style="width:{percent:.2f}%"></i></div>'
        ).format(percent=percent)
        stop = Markup('<button type="button" class="w-button" data-do="stop_download">Cancel the download</button>')
        note = Markup('<p class="w-quiet">{}</p>').format(status.words)
        return _download("work", f"Downloading {name}", timing, bar + found + note + (stop if fetch else ""))
    if status.state == "done":
        return _download("good", f"{name} is downloaded", f"{status.total / 1e9:.2f} GB, checked", found)
    if status.state == "cancelled":
        kept = "What has arrived is kept; the next download goes on from there."
        return _download("idle", f"Download of {name} cancelled", "", Markup('<p class="w-quiet">{}</p>').format(kept))
    first, _, rest = status.words.partition("\n")
    words = Markup('<p class="w-note bad">{}</p>').format(first) + (
        Markup('<p class="w-note">{}</p>').format(rest) if rest else Markup()
    )
    return _download("bad", f"{name} could not be downloaded", "", words)


def _download(kind: str, title: str, timing: str, body: Markup = Markup()) -> Markup:
    return Markup(
        '<div class="w-download"><div class="w-card-top"><span class="w-dot {kind}"></span>'
        '<h3 role="status">{title}</h3><span class="w-timing">{timing}</span></div>{body}</div>'
    ).format(kind=kind, title=title, timing=timing, body=body)
