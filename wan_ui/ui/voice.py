"""Speech: the voice that the face in a clip is to speak, and whether the picture has a face that can.

The same voice serves Generate and "Add speech" beside a finished clip.
"""

from dataclasses import dataclass

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.speech_intake import look_for_face
from wan_ui.ui.markup import text


@dataclass(frozen=True)
class Voice:
    audio: gr.Audio
    note: gr.HTML


def build_voice() -> Voice:
    with gr.Column(elem_id="voice-part"):
        audio = gr.Audio(
            label="Speech (optional)",
            type="filepath",
            sources=["upload", "microphone"],
            buttons=[],
            editable=False,
            elem_id="voice",
        )
        note = gr.HTML("", elem_id="voice-note", apply_default_css=False)
    return Voice(audio, note)


def face_note(path: str, size: str, model: Model) -> str:
    """Whether the part of the picture that is used has a face that can speak. Raises UserError."""
    usable, words = look_for_face(path, size, model)
    words = words[:1].upper() + words[1:] + "."
    if usable:
        return f'<p class="w-quiet" role="status">{text(words)} It will speak this.</p>'
    words += " With this picture the clip may stay silent."
    return f'<p class="w-note bad" role="alert">{text(words)}</p>'
