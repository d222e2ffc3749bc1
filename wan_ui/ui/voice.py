"""Speech: the voice that the face in a clip is to speak, and whether there is one that can.

The same voice serves Generate and "Add speech" beside a finished clip.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.crop import MIDDLE, Crop
from wan_ui.errors import UserError
from wan_ui.lipsync.choice import shortcoming
from wan_ui.lipsync.faces import Face
from wan_ui.media import sound
from wan_ui.queue.speech_intake import (
    faces_of_clip,
    faces_of_picture,
    lasts,
    look_for_face,
    look_for_face_in_clip,
    no_voice,
    voice_trouble,
)
from wan_ui.settings import Settings
from wan_ui.speaking import NAMES, PART, USUAL, Speaking, stored_speaking
from wan_ui.tasks import TASKS
from wan_ui.ui.faces import build_faces, faces_html
from wan_ui.ui.handles import handles_html
from wan_ui.ui.markup import Markup

# Names of `Speaking` -> those of the form, where "face" is a video.
FIELDS = {name: "speaker" if name == "face" else name for name in NAMES}
TICKS = 100  # steps of the handles in a second
# Handles and numbers say the same: the numbers are the form's.
TRIM = """
const field = (name) => document.querySelector(`#audio-${name} input`);
const write = (name, value) => {
  if (!field(name)) return;
  field(name).value = value;
  field(name).dispatchEvent(new Event('input', { bubbles: true }));
  field(name).dispatchEvent(new Event('blur'));
};
const handles = window.wanUi.handles(element, (handle) => {
  const chosen = handles.seconds();
  if (handle.dataset.handle === 'start') write('start', chosen.start || '');
  else write('end', chosen.end);
  stop();
});
const player = () => element.querySelector('audio'), button = () => element.querySelector('.w-play-part');
let until = 0, watching = 0;
const stop = () => {
  clearInterval(watching);
  player()?.pause();
  if (button()) button().textContent = 'Play this part';
};
element.addEventListener('click', async ({ target }) => {
  if (!target.closest('.w-play-part')) return;
  if (!player().paused) return stop();
  const { start, end, all } = handles.seconds();
  until = end || all;
  try {
    player().currentTime = start;
    await player().play();
  } catch {
    button().textContent = 'This browser cannot play the file';
    return;
  }
  button().textContent = 'Stop';
  watching = setInterval(() => { if (player()?.currentTime >= until || player()?.paused) stop(); }, 20);
});
const follow = () => handles.set(Number(field('start')?.value), Number(field('end')?.value));
window.wanUi.followPart = follow;
watch('value', () => { clearInterval(watching); follow(); });
"""


@dataclass(frozen=True)
class Voice:
    """trim: the handles of the part that is spoken; start, end: it in numbers. way: what the model does with it"""

    part: gr.Column
    audio: gr.Audio
    trim: gr.HTML
    start: gr.Number
    end: gr.Number
    every_sound: gr.Checkbox
    sharpen: gr.Checkbox
    faces: gr.HTML
    face: gr.Number
    lips: gr.Accordion
    way: gr.HTML
    note: gr.HTML

    def told(self) -> dict[str, Any]:
        """How the voice is spoken, by the names of the form, in the order of `Speaking`."""
        own = {"audio_start": "start", "audio_end": "end"}
        return {field: getattr(self, own.get(name, name)) for name, field in FIELDS.items()}


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
        trim = gr.HTML("", elem_id="voice-trim", js_on_load=TRIM, apply_default_css=False)
        with gr.Row(elem_classes="w-pair", elem_id="voice-seconds"):
            start = gr.Number(None, label="From, seconds", minimum=0, step=0.1, min_width=100, elem_id="audio-start")
            end = gr.Number(None, label="To, seconds", minimum=0, step=0.1, min_width=100, elem_id="audio-end")
        faces, face = build_faces()
        way = gr.HTML(way_html(model), elem_id="voice-way", apply_default_css=False)
        note = gr.HTML("", elem_id="voice-note", apply_default_css=False)
        with gr.Accordion("Lips", open=False, visible=not is_driven(model), elem_id="lips-part") as lips:
            every = gr.Checkbox(
                False,
                label="Lips follow every sound",
                info="Music and noise as well. Else a voice alone moves them.",
                elem_id="every-sound",
            )
            sharpen = gr.Checkbox(
                True,
                label="Sharpen the mouth",
                info="As sharp as the face around it. Else it stays as it was drawn, a little softer.",
                elem_id="sharpen",
            )
    return Voice(part, audio, trim, start, end, every, sharpen, faces, face, lips, way, note)


def trim_html(audio: str) -> Markup:
    """The handles over a sound; "" of one that cannot be read or is too short for a part."""
    seconds = lasts(Path(audio))
    if seconds < 2 * sound.MIN_SECONDS:
        return Markup()
    handles = handles_html(round(seconds * TICKS), TICKS, round(sound.MIN_SECONDS * TICKS), leap=TICKS // 10)
    source = f"gradio_api/file={quote(audio)}"
    return Markup(
        '<fieldset class="w-after-part w-voice-part"><legend>Part that is spoken</legend>{handles}'
        '<button type="button" class="w-button small w-play-part">Play this part</button>'
        '<audio preload="none" src="{source}"></audio></fieldset>'
    ).format(handles=handles, source=source)


def words(held: dict[str, Any]) -> list[str]:
    """For the line above Generate: what differs from the usual."""
    speaking = stored_speaking(of_form(held)) or USUAL
    said = [f"spoken: {speaking.part}"] if speaking.part else []
    said += [] if speaking.sharpen else ["mouth as drawn"]
    said += [f"face {speaking.face} speaks"] if speaking.face else []
    return [*said, "lips follow every sound"] if speaking.every_sound else said


def who_html(picture: str, clip: Path | None, size: str, model: Model, crop: Crop = MIDDLE) -> Markup:
    """The faces of what Generate makes speak, where there are several, and of what "Add speech" does."""
    shown = Markup()
    if picture and not is_driven(model):
        with contextlib.suppress(UserError):
            shown += faces_html(*faces_of_picture(picture, size, model, crop), "The picture")
    if clip:
        with contextlib.suppress(UserError):
            shown += faces_html(*faces_of_clip(clip), "The clip that is shown")
    return shown


def _of_several(number: Any, faces: list[Face]) -> Any:
    """Where there is no choice the number was meant for another picture."""
    return number if len(faces) > 1 else 0


def for_picture(told: dict[str, Any], picture: str, size: str, model: Model, crop: Crop) -> dict[str, Any]:
    """How the voice is spoken by what Generate makes, as far as the form shows it."""
    if is_driven(model):
        return {name: told[name] for name in PART}
    with contextlib.suppress(UserError):  # said where it is taken
        if told["face"] and picture:
            return {**told, "face": _of_several(told["face"], faces_of_picture(picture, size, model, crop)[1])}
    return told


def for_clip(told: dict[str, Any], clip: Path | None) -> dict[str, Any]:
    """How the voice is spoken by the clip that is shown."""
    with contextlib.suppress(UserError):
        if told["face"] and clip:
            return {**told, "face": _of_several(told["face"], faces_of_clip(clip)[1])}
    return told


def of_form(held: Mapping[str, Any]) -> dict[str, Any]:
    """What a form holds of it, by the names of `Speaking`."""
    return {name: held.get(field) for name, field in FIELDS.items()}


def to_form(stored: Any) -> dict[str, Any]:
    """Of a stored record of it, which may be anything, as far as it can be used."""
    found = stored_speaking(stored) or USUAL
    return {
        field: (getattr(found, name) or None) if name in PART else getattr(found, name)
        for name, field in FIELDS.items()
    }


def speaking_of(sent: Sequence[Any]) -> dict[str, Any]:
    """By name what `Voice.told` sent."""
    return dict(zip(NAMES, sent, strict=True))


def is_driven(model: Model) -> bool:
    """Whether a voice drives whatever the model makes, and says how long it is."""
    return all(TASKS[name].driven for name in model.tasks)


def way_html(model: Model) -> Markup:
    """Which of the two ways to make a face speak this model goes."""
    if is_driven(model):
        way = Markup(
            "<b>The voice drives the picture:</b> face, head and body move to it from the first frame, and the clip "
            "lasts as long. To give a finished clip a voice there is <i>Add speech</i> beside it."
        )
    else:
        way = Markup("<b>Optional, lip-sync of the finished clip:</b> its mouth alone is changed, whatever made it. ")
        way += Markup("With Wan2.2 S2V, under <i>Model</i>, the voice drives the picture instead.")
    return Markup('<p class="w-quiet">{}</p>').format(way)


def voice_note(
    audio: str,
    picture: str,
    clip: Path | None,
    size: str,
    model: Model,
    settings: Settings,
    speaking: Speaking = USUAL,
    crop: Crop = MIDDLE,
) -> Markup:
    """What will become of the voice: with the clip that Generate makes of the picture, and with the one shown.

    audio, picture  paths; picture is "" where none was chosen
    clip            what "Add speech" would make speak, if a clip is shown
    """
    if words := voice_trouble(audio, settings, speaking):
        return _note(False, words)
    driven, lines = is_driven(model), []
    if driven:
        words = f"The sound can be read. {'It will drive the picture.' if picture else 'Add a picture.'}"
        return _note(True, words) + (_add_speech_note(clip) if clip else Markup())
    if words := no_voice(audio, speaking):
        lines.append((False, "", words, ""))
    if picture:
        try:
            number = speaking.face and _of_several(speaking.face, faces_of_picture(picture, size, model, crop)[1])
            usable, words = look_for_face(picture, size, model, number, crop)
            after = "It will speak this." if usable else "With this picture the clip may stay silent."
            lines.append((usable, "New clip: " if clip else "", words, after))
        except UserError as error:  # about the picture it is said beside that
            lines += [(False, "", str(error), "")] if error.field == "face" else []
    if clip:
        try:
            number = speaking.face and _of_several(speaking.face, faces_of_clip(clip)[1])
            usable, words = look_for_face_in_clip(clip, number)
            after = "It will speak this." if usable else "It cannot be given speech."
            lines.append((usable, "The clip that is shown: ", words, after))
        except UserError as error:  # a clip that cannot be read is said beside it
            lines += [(False, "The clip that is shown: ", str(error), "")] if error.field == "face" else []
    notes = [_note(usable, f"{_sentence(where + words)}. {after}".strip()) for usable, where, words, after in lines]
    if not picture and not clip:
        notes.append(_note(True, "The sound can be read. A face in a picture or in a clip will speak it."))
    if words := shortcoming(settings):
        notes.append(Markup('<p class="w-note" role="status">{}.</p>').format(_sentence(words)))
    return Markup().join(notes)


def _add_speech_note(clip: Path) -> Markup:
    """Where the voice is meant for another clip: that the one shown has no face is nothing wrong."""
    with contextlib.suppress(UserError):
        usable, words = look_for_face_in_clip(clip)
        if usable:
            return _note(True, f"The clip that is shown: {words}. Add speech has it speak this.")
    return Markup()


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _note(good: bool, words: str) -> Markup:
    if good:
        return Markup('<p class="w-quiet" role="status">{}</p>').format(words)
    return Markup('<p class="w-note bad" role="alert">{}</p>').format(_sentence(words))
