"""Speech: the voice that the face in a clip is to speak, and whether there is one that can.

The same voice serves Generate and "Add speech" beside a finished clip.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.crop import MIDDLE, Crop
from wan_ui.errors import UserError
from wan_ui.lipsync.choice import shortcoming
from wan_ui.queue.speech_intake import look_for_face, look_for_face_in_clip, voice_trouble
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS
from wan_ui.ui.markup import text


@dataclass(frozen=True)
class Voice:
    """way: what the model does with it"""

    part: gr.Column
    audio: gr.Audio
    way: gr.HTML
    note: gr.HTML


def build_voice(model: Model, visible: bool) -> Voice:
    with gr.Column(elem_id="voice-part", visible=visible) as part:
        audio = gr.Audio(
            label="Speech",
            type="filepath",
            sources=["upload", "microphone"],
            buttons=[],
            editable=False,
            elem_id="voice",
        )
        way = gr.HTML(way_html(model), elem_id="voice-way", apply_default_css=False)
        note = gr.HTML("", elem_id="voice-note", apply_default_css=False)
    return Voice(part, audio, way, note)


def is_driven(model: Model) -> bool:
    """Whether a voice drives whatever the model makes, and says how long it is."""
    return all(TASKS[name].driven for name in model.tasks)


def way_html(model: Model) -> str:
    """Which of the two ways to make a face speak this model goes."""
    if is_driven(model):
        way = (
            "<b>The voice drives the picture:</b> face, head and body move to it from the first frame, and the clip "
            "lasts as long. To give a finished clip a voice there is <i>Add speech</i> beside it."
        )
    else:
        way = "<b>Optional, lip-sync of the finished clip:</b> its mouth alone is changed, whatever made it. "
        way += "With Wan2.2 S2V, under <i>Model</i>, the voice drives the picture instead."
    return f'<p class="w-quiet">{way}</p>'


def voice_note(
    audio: str, picture: str, clip: Path | None, size: str, model: Model, settings: Settings, crop: Crop = MIDDLE
) -> str:
    """What will become of the voice: with the clip that Generate makes of the picture, and with the one shown.

    audio, picture  paths; picture is "" where none was chosen
    clip            what "Add speech" would make speak, if a clip is shown
    """
    if words := voice_trouble(audio, settings):
        return _note(False, words)
    driven, lines = is_driven(model), []
    if driven:
        words = f"The sound can be read. {'It will drive the picture.' if picture else 'Add a picture.'}"
        return _note(True, words) + (_add_speech_note(clip) if clip else "")
    if picture:
        with contextlib.suppress(UserError):  # said beside the picture
            usable, words = look_for_face(picture, size, model, crop)
            after = "It will speak this." if usable else "With this picture the clip may stay silent."
            lines.append((usable, "New clip: " if clip else "", words, after))
    if clip:
        with contextlib.suppress(UserError):  # a clip that cannot be read is said beside it
            usable, words = look_for_face_in_clip(clip)
            after = "It will speak this." if usable else "It cannot be given speech."
            lines.append((usable, "The clip that is shown: ", words, after))
    notes = [_note(usable, f"{_sentence(where + words)}. {after}") for usable, where, words, after in lines]
    if not picture and not clip:
        notes.append(_note(True, "The sound can be read. A face in a picture or in a clip will speak it."))
    if words := shortcoming(settings):
        notes.append(f'<p class="w-note" role="status">{text(_sentence(words))}.</p>')
    return "".join(notes)


def _add_speech_note(clip: Path) -> str:
    """Where the voice is meant for another clip: that the one shown has no face is nothing wrong."""
    with contextlib.suppress(UserError):
        usable, words = look_for_face_in_clip(clip)
        if usable:
            return _note(True, f"The clip that is shown: {words}. Add speech has it speak this.")
    return ""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _note(good: bool, words: str) -> str:
    if good:
        return f'<p class="w-quiet" role="status">{text(words)}</p>'
    return f'<p class="w-note bad" role="alert">{text(_sentence(words))}</p>'
