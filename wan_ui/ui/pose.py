"""The pose video of a clip that a voice drives: folded until it is wanted."""

from dataclasses import dataclass

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.media.pose_video import look_at_pose
from wan_ui.tasks import POSE
from wan_ui.ui.markup import Markup


@dataclass(frozen=True)
class Pose:
    part: gr.Accordion
    clip: gr.Video
    note: gr.HTML


def build_pose(visible: bool) -> Pose:
    with gr.Accordion(f"{POSE.label} (optional)", open=False, visible=visible, elem_id="pose-part") as part:
        clip = gr.Video(label=POSE.label, sources=["upload"], buttons=[], height=180, elem_id="pose", interactive=True)
        note = gr.HTML(
            Markup('<p class="w-quiet">A drawn skeleton that head and body follow.</p>'),
            elem_id="pose-note",
            apply_default_css=False,
        )
    return Pose(part, clip, note)


def note_html(path: str, size: str, model: Model) -> Markup:
    """What becomes of the video. Raises UserError (field "pose_video")."""
    return Markup('<p class="w-quiet" role="status">{}.</p>').format(look_at_pose(path).words(size, model))
