"""A length of one's own: typed in seconds, and brought to the nearest that the model makes."""

from dataclasses import dataclass

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.tasks import SEGMENTS, offered
from wan_ui.ui.markup import Markup
from wan_ui.ui.own_size import script

PART = Markup("""
<details class="w-own-size"><summary>Length in seconds</summary><div class="w-own-row">
<input data-name="seconds" type="number" inputmode="decimal" min="0.1" max="3600" step="0.1"
aria-label="Length in seconds" placeholder="Seconds">
<button type="button" class="w-button">Use this length</button></div></details>
""")


@dataclass(frozen=True)
class OwnLength:
    """part: all of it, shown where a model has lengths to choose from"""

    part: gr.Column
    typed: gr.HTML
    note: gr.HTML


def build_own_length(visible: bool) -> OwnLength:
    with gr.Column(elem_id="own-length-part", visible=visible) as part:
        typed = gr.HTML(PART, elem_id="own-length", js_on_load=script("own_length"), apply_default_css=False)
        note = gr.HTML("", elem_id="own-length-note", apply_default_css=False)
    return OwnLength(part, typed, note)


def words(wanted: float, frames: int, fps: int, model: Model) -> str:
    """What became of what was typed."""
    said = f"{frames / fps:.1f} s: {frames} frames at {fps} a second"
    if abs(frames / fps - wanted) < 0.05:
        return f"{said}."
    said += f", the nearest to {wanted:g} s that {model.short_title} makes at once."
    longest = max(model.frames)
    if wanted > longest / fps and any(entry.name == SEGMENTS.name for entry in offered(model.does)):
        said += " “Longer clip” goes on from there."
    return said
