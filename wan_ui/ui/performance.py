"""What drives a character: the performance, its pose to look at, and ready videos in place of what is read from it."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.performance import people, preview, watch
from wan_ui.settings import Settings
from wan_ui.tasks import FACE, MASK, PERFORMANCE, Input
from wan_ui.ui.markup import Markup


@dataclass(frozen=True)
class Performance:
    """performance, face, mask: the videos; look: the button that shows the pose; shown: where; overlap: frames that
    the clip's segments share"""

    part: gr.Column
    performance: gr.Video
    note: gr.HTML
    look: gr.Button
    shown: gr.HTML
    face: gr.Video
    face_note: gr.HTML
    mask: gr.Video
    mask_note: gr.HTML
    overlap: gr.Radio


HINTS = {
    MASK.part: "White where the performer is: the character takes that place and the rest of the video stays.",
    FACE.part: "Square, frame for frame with the pose video, in place of the face that is cut out of the performance.",
}


def build_performance(model: Model, visible: bool) -> Performance:
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
        with gr.Accordion("Mask, face and seams (optional)", open=False, elem_id="mask-and-face"):
            with gr.Column(elem_id="mask-part"):
                mask, mask_note = _ready(MASK)
            with gr.Column(elem_id="face-part"):
                face, face_note = _ready(FACE)
            overlap = gr.Radio(
                label="Frames shared at a seam",
                **overlap_offers(model),
                elem_id="overlap",
                elem_classes="w-segments",
            )
    return Performance(part, performance, note, look, shown, face, face_note, mask, mask_note, overlap)


def overlap_offers(model: Model, wished: int = 0) -> dict[str, Any]:
    """What the field of the overlap says and offers, with `wished` if that is offered, else the usual number."""
    frames = model.default_frames
    words = (
        f"A clip of more than {frames} frames is made in segments, each of which begins with the last frames of the "
        "one before. More of them carry a movement over more smoothly, and the clip needs a few more segments"
    )
    value = wished if wished in model.overlaps else next(iter(model.overlaps), None)
    return {"choices": [(f"{count}", count) for count in model.overlaps], "value": value, "info": words}


def _ready(entry: Input) -> tuple[gr.Video, gr.HTML]:
    """A video that takes the place of what is read from the performance, and its note."""
    video = gr.Video(
        label=entry.label, sources=["upload"], buttons=[], height=150, elem_id=entry.part, interactive=True
    )
    return video, gr.HTML(hint_html(entry), elem_id=f"{entry.part}-note", apply_default_css=False)


def hint_html(entry: Input) -> Markup:
    """What the video must show."""
    return Markup('<p class="w-quiet">{}</p>').format(HINTS[entry.part])


def ready_html(entry: Input, path: str, settings: Settings) -> Markup:
    """What the video is. Raises UserError (the input's name)."""
    found = watch.look(entry.name, path, settings)
    return Markup('<p class="w-quiet" role="status">{}.</p>').format(_words(found))


def _words(found: watch.Look) -> str:
    lasts = f", {found.seconds:.1f} s" if found.seconds else ""
    return f"{found.width} × {found.height} at {found.fps:.4g} frames a second{lasts}"


def is_performed(model: Model) -> bool:
    return model.family.performance is not None


def note_html(path: str, model: Model, settings: Settings) -> Markup:
    """What becomes of the performance. Raises UserError (field "performance")."""
    found = watch.look("performance", path, settings)
    said = f"{_words(found)}; the clip lasts as long. "
    missing = people.missing(settings)
    said += f"Its pose cannot be read here: {missing}. A pose video can be given instead." if missing else ""
    return Markup('<p class="w-quiet" role="status">{}</p>').format(said.strip())


def pose_html(path: str, settings: Settings) -> Markup:
    """Some frames with their skeleton and face. Raises UserError (field "performance")."""
    picture, words = preview.sheet(Path(path), settings)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    alt = "Frames of the performance, below them their skeleton and the face"
    return Markup(
        '<figure class="w-pose"><img src="{source}" alt="{alt}"><figcaption>{words}</figcaption></figure>'
    ).format(source=source, alt=alt, words=words)
