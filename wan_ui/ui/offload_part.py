"""Where the weights are while the GPU makes a clip: the choice, and why; only where there is a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from wan_ui.catalog import Model, Scheme, parse_size
from wan_ui.errors import UserError
from wan_ui.files import places
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.machine.hardware import nvidia_gpu
from wan_ui.machine.offload import WAYS, in_words, offered
from wan_ui.queue.jobs import Job
from wan_ui.queue.roster import WorkerRow
from wan_ui.settings import Settings
from wan_ui.ui.markup import Markup
from wan_ui.ui.view import View


@dataclass(frozen=True)
class OffloadPart:
    way: gr.Radio
    note: gr.HTML


def build_offload(model: Model, scheme: Scheme, settings: Settings) -> OffloadPart:
    with gr.Accordion("Memory of the GPU", open=False, visible=nvidia_gpu(), elem_id="offload-part"):
        way = gr.Radio(
            label="Where the weights are",
            **offers(model, scheme, settings),
            elem_id="offload",
            elem_classes="w-segments",
        )
        note = gr.HTML("", elem_id="offload-note", apply_default_css=False)
    return OffloadPart(way, note)


def offers(model: Model, scheme: Scheme, settings: Settings, wished: str = "auto") -> dict[str, Any]:
    """What the engine that would run offers for these weights, with `wished` if that is among it."""
    ways = offered(model, scheme, _engine(model, settings))
    return {"choices": [(WAYS[way][0], way) for way in ways], "value": wished if wished in ways else "auto"}


def note_html(
    view: View, model: Model, scheme: Scheme, jobs: Sequence[Job], rows: Sequence[WorkerRow], settings: Settings
) -> Markup:
    """What the choice means: as the last clip of these weights was made, else by the sizes of the files."""
    gpu = max((row.gpu_total for row in rows), default=0.0)
    if not gpu:
        return Markup()
    way = view.form.get("offload") or "auto"
    for job in jobs:
        made = job.request.made_with
        if job.state != "done" or made is None or (made.model, made.scheme) != (model.name, scheme.name):
            continue
        if (made.offload or "auto") == way and "offload" in job.result.facts:
            return _quiet(f"In the last clip: {in_words(job.result.facts['offload'])}.")
    words = WAYS[way][1] if way in WAYS else ""
    said = f"{words[:1].upper()}{words[1:]}."
    if not model.needs_gpu:
        return _quiet(said)
    try:
        size = parse_size(view.form["size"])
    except (KeyError, TypeError, UserError):
        size = model.sizes[0]
    whole, one = places.gpu_memory_wanted(model, scheme, _engine(model, settings), size)
    there = min(gpu, settings.gpu_gib or gpu)
    at = f"At {size[0]}x{size[1]}"
    if way == "auto" and whole > there:
        said = "What does not fit waits in RAM or moves between RAM and GPU."
    elif way == "auto":
        said = "Everything stays on the GPU as long as nothing else takes its memory."
    return _quiet(f"{said} {at} all of it needs about {whole:.1f} of {there:.1f} GiB, one expert at a time {one:.1f}.")


def _quiet(words: str) -> Markup:
    return Markup('<p class="w-quiet">{}</p>').format(words)


def _engine(model: Model, settings: Settings) -> str:
    return choose_engine(settings.engine, settings, family=model.family).name
