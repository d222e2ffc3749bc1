"""What drives a character: the performance, its pose to look at, and ready videos in place of what is read from it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.performance import people, preview, watch
from wan_ui.settings import Settings
from wan_ui.tasks import FACE, MASK, PERFORMANCE
from wan_ui.ui.markup import text


@dataclass(frozen=True)
class Performance:
    """performance, face, mask: the videos; look: the button that shows the pose; shown: where"""

    part: gr.Column
    performance: gr.Video
    note: gr.HTML
    look: gr.Button
    shown: gr.HTML
    face: gr.Video
    mask: gr.Video


def build_performance(visible: bool) -> Performance:
    with gr.Column(elem_id="performance-part", visible=visible) as part:
        performance = gr.Video(
            label=PERFORMANCE.label,
            sources=["upload"],
            buttons=[],
            height=180,
            elem_id="performance",
            interactive=True,
        )
        note = gr.HTML("", elem_id="performance-note", apply_default_css=False)
        look = gr.Button("Show its pose", size="sm", elem_id="show-pose")
        shown = gr.HTML("", elem_id="shown-pose", apply_default_css=False)
        with gr.Accordion("Mask and face videos (optional)", open=False, elem_id="mask-and-face"):
            with gr.Column(elem_id="mask-part"):
                mask = _video(MASK.label, "mask")
                gr.HTML(
                    '<p class="w-quiet" id="mask-note">White where the performer is: the character takes that place '
                    "and the rest of the video stays.</p>",
                    apply_default_css=False,
                )
            with gr.Column(elem_id="face-part"):
                face = _video(FACE.label, "face")
                gr.HTML(
                    '<p class="w-quiet" id="face-note">Square, frame for frame with the pose video, in place of the '
                    "face that is cut out of the performance.</p>",
                    apply_default_css=False,
                )
    return Performance(part, performance, note, look, shown, face, mask)


def _video(label: str, name: str) -> gr.Video:
    return gr.Video(label=label, sources=["upload"], buttons=[], height=150, elem_id=name, interactive=True)


def is_performed(model: Model) -> bool:
    return model.family.performance is not None


def note_html(path: str, model: Model, settings: Settings) -> str:
    """What becomes of the performance. Raises UserError (field "performance")."""
    found = watch.look("performance", path, settings)
    lasts = f", {found.seconds:.1f} s" if found.seconds else ""
    said = f"{found.width} × {found.height} at {found.fps:.4g} frames a second{lasts}; the clip lasts as long. "
    missing = people.missing(settings)
    said += f"Its pose cannot be read here: {missing}. A pose video can be given instead." if missing else ""
    return f'<p class="w-quiet" role="status">{text(said.strip())}</p>'


def pose_html(path: str, settings: Settings) -> str:
    """Some frames with their skeleton and face. Raises UserError (field "performance")."""
    picture, words = preview.sheet(Path(path), settings)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    alt = "Frames of the performance, below them their skeleton and the face"
    return f'<figure class="w-pose"><img src="{source}" alt="{alt}"><figcaption>{text(words)}</figcaption></figure>'
