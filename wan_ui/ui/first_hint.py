"""What a new user should know of the model that ships, until they close it; where a GPU is, a large one by a button.

The server draws the hint for the model that the form holds; whether it was closed is known by the browser alone.
"""

from collections.abc import Sequence

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.files import places
from wan_ui.machine.gpus import Look, visible
from wan_ui.queue.background_download import DownloadStatus
from wan_ui.settings import Settings, visible_devices
from wan_ui.ui import models_panel
from wan_ui.ui.markup import Markup
from wan_ui.ui.models_panel import Offer

TASK = "image-to-video"  # what everybody begins with
SCRIPT = """
const KEY = 'wan-ui-hint';
let closed = false;
try { closed = localStorage.getItem(KEY) === 'closed'; } catch { /* it is shown again */ }
const show = () => {
  const hint = element.querySelector('.w-hint');
  if (hint) hint.hidden = closed;
};
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button?.dataset.do === 'download_model') {
    if (!window.confirm(button.dataset.confirm)) return;
    trigger('download_model', { model: button.dataset.model, scheme: button.dataset.scheme });
    window.wanUi.openTab('models-tab');
  }
  if (button?.dataset.close === undefined) return;
  closed = true;
  try { localStorage.setItem(KEY, 'closed'); } catch { /* until the page is opened again */ }
  show();
  document.querySelector('#prompt textarea')?.focus({ preventScroll: true });
});
watch('value', show);
show();
"""


def build_first_hint() -> gr.HTML:
    return gr.HTML("", elem_id="hint", js_on_load=SCRIPT, apply_default_css=False)


def memory_here(looks: Sequence[Look]) -> tuple[float, float]:
    """GiB of the largest GPU that may be used, and of the machine's memory; 0 where it is not known."""
    if not looks:
        return 0.0, 0.0
    gpus = visible(list(looks[-1].gpus), visible_devices())
    return max((gpu.total for gpu in gpus), default=0.0), looks[-1].host[1]


def large(offers: Sequence[Offer], settings: Settings, gpu: float, host: float) -> Offer | None:
    """The first model of the catalog for a picture that this machine can hold, in a scheme of few steps: the one that
    the catalog prefers, else the largest that fits. gpu, host: GiB. One expert at a time lies on the GPU where not all
    do, the rest in the machine's memory."""
    able: dict[str, list[tuple[bool, bool, float, Offer]]] = {}
    for offer in offers:
        model, scheme = offer.model, offer.scheme
        if not model.needs_gpu or TASK not in model.tasks or not (scheme.distilled or scheme.distill_loras):
            continue
        engine = models_panel.engine_of(model, settings)
        everything, least = places.gpu_memory_wanted(model, scheme, engine, min(model.sizes))
        if least <= gpu and everything <= gpu + host:
            rank = (scheme.name == model.default_scheme, scheme.distilled, least)
            able.setdefault(model.name, []).append((*rank, offer))
    for found in able.values():
        return max(found, key=lambda entry: entry[:3])[3]
    return None


def hint_html(
    model: Model, looks: Sequence[Look], download: DownloadStatus, settings: Settings, *, own: bool, fetch: bool
) -> Markup:
    """`own`, `fetch`: see models_html. Nothing where a large model is chosen."""
    if not model.embedded:
        return Markup()
    longest = max(model.frames) / model.fps
    width = max(max(size) for size in model.sizes)
    words = Markup(
        "<b>{name} comes with Wan UI and needs no GPU.</b> Clips have up to {width} pixels and {longest:.1f} seconds: "
        "one motion of the whole picture (a zoom, waves), one light (a sunset, fog), a mouth that speaks. It cannot "
        "make people or things act; the large models can."
    ).format(name=model.short_title, width=width, longest=longest)
    return Markup(
        '<section class="w-hint" aria-label="First steps" hidden><div><p>{words}</p>{more}</div>'
        '<button type="button" class="w-hint-close" data-close aria-label="Close this hint">×</button></section>'
    ).format(words=words, more=_more(looks, download, settings, own, fetch))


def _more(looks: Sequence[Look], download: DownloadStatus, settings: Settings, own: bool, fetch: bool) -> Markup:
    """How to get a large one here."""
    offers = models_panel.offers(settings)
    large_ones = [offer for offer in offers if offer.model.needs_gpu and TASK in offer.model.tasks]
    tab = Markup('<button type="button" class="w-link" data-tab="models-tab">Models</button>')
    if not large_ones:
        return Markup()
    if here := next((offer for offer in large_ones if not offer.reason), None):
        return Markup("<p>{name} is here: choose it under Model.</p>").format(name=here.model.short_title)
    if all(offer.lacks_gpu for offer in large_ones):
        return Markup("<p>They need a CUDA GPU, which is not here; {tab} lists them.</p>").format(tab=tab)
    gpu, host = memory_here(looks)
    gpu = min(gpu, settings.gpu_gib or gpu)
    fitting = large(offers, settings, gpu, host)
    if fitting is None or not fetch:
        return Markup("<p>{tab} lists what this machine’s GPU can run.</p>").format(tab=tab)
    model, scheme = fitting.model, fitting.scheme
    if download.active and (download.model, download.scheme) == (model.name, scheme.name):
        return Markup("<p>{name} is being downloaded: see {tab}.</p>").format(name=model.short_title, tab=tab)
    button = models_panel.download_button(fitting, download, settings, own=own, label=f"Get {model.short_title}:")
    return Markup("<p>The GPU here has {gpu:.0f} GiB: that is enough for {name} as {scheme}.</p>{button}").format(
        gpu=gpu, name=model.short_title, scheme=scheme.title, button=button
    )
