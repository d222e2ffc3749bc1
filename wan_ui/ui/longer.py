"""Longer clips: the clip that goes on, and what happens after the prompt, a segment each. Folded until it is wanted."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model, parse_size
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.media import muxer
from wan_ui.queue import successor
from wan_ui.queue.segments_intake import look_before
from wan_ui.settings import Settings
from wan_ui.tasks import BEFORE, SEGMENTS
from wan_ui.ui.markup import Markup


@dataclass(frozen=True)
class Longer:
    part: gr.Accordion
    clip: gr.Video
    note: gr.HTML
    segments: gr.Textbox


def build_longer(visible: bool) -> Longer:
    with gr.Accordion("Longer clip", open=False, visible=visible, elem_id="longer") as part:
        segments = gr.Textbox(
            label=SEGMENTS.label,
            info="What happens after the prompt, one line each: every line adds a segment of as many frames.",
            placeholder="the camera turns left\nnight falls",
            lines=3,
            max_lines=8,
            elem_id="segments",
        )
        with gr.Column(elem_id="before-part"):
            clip = gr.Video(
                label=BEFORE.label, sources=["upload"], buttons=[], height=180, elem_id="before", interactive=True
            )
        note = gr.HTML("", elem_id="before-note", apply_default_css=False)
    return Longer(part, clip, note, segments)


def note_html(path: str, size: str, fps: int | None, model: Model, settings: Settings) -> tuple[Markup, int]:
    """What becomes of the clip, and the frames per second of the new one. Raises UserError (field "clip")."""
    before = look_before(path, settings)
    fps = fps if fps in model.rates else before.rate(model)
    words = before.words(before.size(model) if size == "auto" else parse_size(size), fps)
    said = f"{words}. The new clip is this one and what follows it, in place of a picture. Its sound is not kept."
    said += _made_by_another(path, model, settings)
    return Markup('<p class="w-quiet" role="status">{}</p>').format(said), fps


def _made_by_another(path: str, model: Model, settings: Settings) -> str:
    """Where the clip's own model takes no picture, so that this one goes on in its place."""
    with contextlib.suppress(UserError):
        own = found.models(settings).get(str(muxer.read_metadata(Path(path)).get("model")))
        if own is not None and own.successor == model.name:
            return f" {successor.words(own, model)}."
    return ""
