"""The left side: picture, prompt, settings, Generate. Building and the values that follow from a model."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from wan_ui.catalog import Model, Scheme
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.queue.draft import MAX_SEED
from wan_ui.queue.word_table import load_table
from wan_ui.queue.words import Reading
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS
from wan_ui.ui.answers import Answer
from wan_ui.ui.form import FIELDS, NO_MODEL
from wan_ui.ui.longer import Longer, build_longer
from wan_ui.ui.lora_get import build_lora_get
from wan_ui.ui.lora_picker import LoraPicker, build_lora_picker
from wan_ui.ui.lora_shelf import build_lora_shelf
from wan_ui.ui.markup import Markup
from wan_ui.ui.offload_part import OffloadPart, build_offload
from wan_ui.ui.own_length import OwnLength, build_own_length
from wan_ui.ui.own_size import OwnSize, build_own_size
from wan_ui.ui.performance import Performance, build_performance, is_performed
from wan_ui.ui.picture import Picture, build_picture
from wan_ui.ui.pose import Pose, build_pose
from wan_ui.ui.presets import Presets, build_presets
from wan_ui.ui.recipe_part import RecipePart, build_recipe_part
from wan_ui.ui.several import Several, build_several, build_tray
from wan_ui.ui.voice import Voice, build_voice, is_driven, way_html

EARLIER = 12  # prompts
PROMPT_PLACEHOLDER = "What should happen? For example: slowly zoom in, sunset light"

KEPT = (
    "An MP4 carries its settings, and so the picture comes back when it is dropped on this page. Leave the picture out "
    "where the video is for others who are not to have it."
)
SHOWN = ("picture", "end", "voice", "pose", "performance")  # parts of the form that not every model has

# The line above Generate says what a reload brings back, see form.py.
KEEP = """
watch('value', () => {
  const line = element.querySelector('[data-kept]');
  if (line) window.wanUi.keep(line.dataset);
});
"""


@dataclass(frozen=True)
class Inputs:
    picture: Picture
    tray: gr.HTML
    picture_hint: gr.HTML
    end: Picture
    prompt: gr.Textbox
    phrases: gr.HTML
    earlier: gr.HTML
    presets: Presets
    reading: gr.HTML
    model: gr.Dropdown
    scheme: gr.Dropdown
    size: gr.Radio
    own_size: OwnSize
    frames: gr.Radio
    own_length: OwnLength
    steps: gr.Slider
    fps: gr.Radio
    seed: gr.Number
    draft: gr.Checkbox
    recipe: RecipePart
    offload: OffloadPart
    loras: LoraPicker
    shelf: gr.HTML
    lora_get: gr.HTML
    voice: Voice
    pose: Pose
    performance: Performance
    longer: Longer
    several: Several
    keep_picture: gr.Checkbox
    message: gr.HTML
    using: gr.HTML
    generate: gr.Button
    cancel: gr.Button
    turn: gr.Number
    filled: gr.Number
    seen: gr.Number

    def held(self) -> list[gr.components.Component]:
        """The form's values, in the order of `form.FIELDS`."""
        given: dict[str, gr.components.Component] = {
            "picture": self.picture.image,
            "end": self.end.image,
            "voice": self.voice.audio,
            **self.voice.told(),
            "pose": self.pose.clip,
            "performance": self.performance.performance,
            "face": self.performance.face,
            "mask": self.performance.mask,
            "overlap": self.performance.overlap,
            "offload": self.offload.way,
            "segments": self.longer.segments,
            "before": self.longer.clip,
            "clips": self.several.clips,
            **self.recipe.parts(),
        }
        return [given[name] if name in given else getattr(self, name) for name in FIELDS]

    def of_model(self) -> dict[str, Block]:
        """What changes with the model, by the names of `model_updates`; and what LoRAs are chosen from."""
        names = ("model", "picture_hint", "prompt", "phrases", "scheme", "size", "frames", "steps", "fps", "draft")
        boxes: dict[str, Block] = {
            "picture_part": self.picture.part,
            "end_part": self.end.part,
            "voice_part": self.voice.part,
        }
        boxes |= {
            "voice_way": self.voice.way,
            "lips_part": self.voice.lips,
            "own_length_part": self.own_length.part,
            "pose_part": self.pose.part,
            "performance_part": self.performance.part,
        }
        own = {name: getattr(self, name) for name in names} | {"overlap": self.performance.overlap}
        own["offload"] = self.offload.way
        return {**own, **self.recipe.parts(), **boxes, "longer": self.longer.part, "lora_choices": self.loras.add}


def build_inputs(
    usable: dict[str, list[Scheme]], catalog: dict[str, Model], chosen: str, scheme: str, settings: Settings
) -> Inputs:
    """`usable`: what can run here; only that can be selected."""
    model = catalog[chosen]
    picture = build_picture(
        "picture",
        "Picture",
        "Drop a picture here, paste one, or click to choose",
        height=260,
        visible=takes(model, "picture"),
    )
    tray = build_tray()
    picture_hint = gr.HTML(picture_hint_html(model), elem_id="picture-hint", apply_default_css=False)
    end = build_picture(
        "end",
        "Ends at",
        "Ends at: a second picture (optional)",
        height=110,
        visible=takes(model, "end"),
    )
    prompt = gr.Textbox(
        label="Prompt", info=model.hint or None, placeholder=PROMPT_PLACEHOLDER, lines=3, max_lines=8, elem_id="prompt"
    )
    reading = gr.HTML("", elem_id="reading", apply_default_css=False)
    phrases = gr.HTML(phrases_html(model), elem_id="phrases", apply_default_css=False)
    earlier = gr.HTML("", elem_id="earlier", apply_default_css=False)
    presets = build_presets()
    with gr.Row(elem_classes="w-pair w-models"):
        model_box = gr.Dropdown(
            label="Model",
            choices=[(catalog[name].short_title, name) for name in usable],
            value=chosen if usable else None,
            filterable=False,
            min_width=150,
            elem_id="model",
        )
        scheme_box = gr.Dropdown(
            label="Weights",
            choices=_schemes(usable.get(chosen, [])),
            value=scheme if usable else None,
            filterable=False,
            min_width=150,
            elem_id="scheme",
        )
    size = gr.Radio(
        label="Size", choices=sizes(model), value=default_size(model), elem_id="size", elem_classes="w-segments"
    )
    own_size = build_own_size()
    frames = gr.Radio(
        label="Length: frames · seconds",
        choices=lengths(model, model.fps),
        value=model.default_frames,
        visible=chooses_length(model),
        elem_id="frames",
        elem_classes="w-segments",
    )
    own_length = build_own_length(chooses_length(model))
    fps = gr.Radio(
        label="Frames per second",
        choices=_rates(model),
        value=model.fps,
        elem_id="fps",
        elem_classes="w-segments",
    )
    with gr.Row(elem_classes="w-pair"):
        steps = gr.Slider(
            *model.recipe(model.scheme(scheme)).steps,
            label="Steps",
            value=model.recipe(model.scheme(scheme)).default_steps,
            step=1,
            buttons=[],
            min_width=150,
            elem_id="steps",
        )
        seed = gr.Number(
            label="Seed (-1 = random)",
            value=-1,
            precision=0,
            minimum=-1,
            maximum=MAX_SEED,
            min_width=150,
            elem_id="seed",
        )
    recipe = build_recipe_part(model, model.scheme(scheme))
    with gr.Accordion("Quick draft", open=False, elem_id="draft-part"):
        draft = gr.Checkbox(False, label="Draft", info=_draft_words(settings), elem_id="draft")
    offload = build_offload(model, model.scheme(scheme), settings)
    loras, shelf, lora_get = build_lora_picker(model, settings), build_lora_shelf(), build_lora_get()
    voice = build_voice(model, visible=takes(model, "voice"))
    performance = build_performance(model, visible=takes(model, "performance"))
    pose = build_pose(visible=takes(model, "pose"))
    longer = build_longer(visible=takes(model, "segments"))
    several = build_several()
    with gr.Accordion("The video file", open=False, elem_id="file-part"):
        keep_picture = gr.Checkbox(True, label="Keep the picture in the file", info=KEPT, elem_id="keep-picture")
    with gr.Column(elem_id="actions"):
        message = gr.HTML("" if usable else NO_MODEL, elem_id="message", apply_default_css=False)
        using = gr.HTML("", elem_id="using", js_on_load=KEEP, apply_default_css=False)
        with gr.Row():
            generate = gr.Button("Generate", variant="primary", size="lg", scale=3, min_width=140, elem_id="generate")
            cancel = gr.Button("Cancel", size="lg", scale=1, min_width=100, visible=False, elem_id="cancel")
    gr.HTML(
        Markup('<p class="w-quiet w-keys"><kbd>Ctrl</kbd> <kbd>Enter</kbd> generates as well</p>'),
        apply_default_css=False,
    )
    return Inputs(
        picture,
        tray,
        picture_hint,
        end,
        prompt,
        phrases,
        earlier,
        presets,
        reading,
        model_box,
        scheme_box,
        size,
        own_size,
        frames,
        own_length,
        steps,
        fps,
        seed,
        draft,
        recipe,
        offload,
        loras,
        shelf,
        lora_get,
        voice,
        pose,
        performance,
        longer,
        several,
        keep_picture,
        message,
        using,
        generate,
        cancel,
        turn=gr.Number(0, visible=False),  # these three: see form.py
        filled=gr.Number(0, visible=False),
        seen=gr.Number(0, visible=False),
    )


def model_updates(
    model: Model,
    schemes: list[Scheme],
    scheme: str,
    *,
    size: str,
    frames: int,
    fps: int,
) -> Answer:
    """What this model offers, with these values."""
    return {
        **{f"{part}_part": gr.update(visible=takes(model, part)) for part in SHOWN},
        "voice_way": way_html(model),
        "lips_part": gr.update(visible=not is_driven(model)),
        "picture_hint": picture_hint_html(model),
        "longer": gr.update(visible=takes(model, "segments")),
        "prompt": gr.update(info=model.hint or None),
        "phrases": phrases_html(model),
        "scheme": gr.update(**scheme_choices(model, schemes, scheme)),
        "size": gr.update(choices=sizes(model, size), value=size),
        "frames": gr.update(choices=lengths(model, fps), value=frames, visible=chooses_length(model)),
        "own_length_part": gr.update(visible=chooses_length(model)),
        "fps": gr.update(choices=_rates(model), value=fps),
    }


def scheme_choices(model: Model, schemes: list[Scheme], scheme: str) -> dict[str, Any]:
    """Choices and value of the scheme box: `scheme` if it is offered, else the model's default or the first."""
    names = [entry.name for entry in schemes]
    wished = [name for name in (scheme, model.default_scheme, *names) if name in names]
    return {"choices": _schemes(schemes), "value": wished[0] if wished else None}


def _draft_words(settings: Settings) -> str:
    if choose_engine("auto", settings).name != "lightx2v":
        return "Nothing quicker than the usual way is known on this machine: it needs LightX2V and an NVIDIA GPU."
    return (
        "For trying things out: sooner there and less exact, by attention in 8 bits and a small decoder, as far as "
        "this GPU and the downloaded files have them. The clip is marked as a draft and says what was used."
    )


def picture_hint_html(model: Model) -> Markup:
    """Said where a model can do without a picture."""
    if not takes(model, "picture") or all(TASKS[name].pictures for name in model.tasks):
        return Markup()
    return Markup(
        '<p class="w-quiet">Optional: with a picture the clip starts at it, without one it is made of the words.</p>'
    )


def phrases_html(model: Model) -> Markup:
    """Chips in groups: of camera and motion together one can be made, of the lights one."""
    if model.words is None:
        return Markup()
    groups = Markup().join(
        Markup(
            '<div class="w-chips" role="group" aria-label="Add to the prompt: {part}">'
            '<span class="w-chips-title" aria-hidden="true">{title}</span>{chips}</div>'
        ).format(part=part, title=part.capitalize(), chips=Markup().join(map(_chip, phrases)))
        for part, phrases in load_table(model.words).offers().items()
    )
    return Markup('<div class="w-chip-groups">{}</div>').format(groups)


def earlier_html(prompts: Iterable[str]) -> Markup:
    """Prompts of this person's clips, the newest first, each once: a click writes it. Folded."""
    different = list(dict.fromkeys(prompt for prompt in prompts if prompt))[:EARLIER]
    rows = Markup().join(
        Markup('<li><button type="button" data-prompt="{prompt}">{prompt}</button></li>').format(prompt=prompt)
        for prompt in different
    )
    return Markup("<details><summary>Earlier prompts</summary><ul>{}</ul></details>").format(rows) if rows else Markup()


def reading_html(reading: Reading | None) -> Markup:
    """Under the prompt: what the model makes of it, while it is written."""
    if reading is None:
        return Markup()
    kind = " warn" if reading.missed or reading.left_out else ""
    words = reading.words
    return Markup('<p class="w-quiet w-reading{kind}" role="status">{words}</p>').format(
        kind=kind, words=words[:1].upper() + words[1:]
    )


def _chip(phrase: str) -> Markup:
    return Markup('<button type="button" class="w-chip" data-phrase="{phrase}">{phrase}</button>').format(phrase=phrase)


def _schemes(schemes: list[Scheme]) -> list[tuple[str, str]]:
    return [(scheme.title, scheme.name) for scheme in schemes]


def sizes(model: Model, own: str = "") -> list[tuple[str, str]]:
    """own: one that is not in the model's list, or one of it."""
    auto = [("auto", "auto")] if default_size(model) == "auto" else []
    listed = [f"{width}x{height}" for width, height in model.sizes]
    listed += [own] if own not in ("", "auto", *listed) else []
    return auto + [(size.replace("x", " × "), size) for size in listed]


def default_size(model: Model) -> str:
    """The shape of what is given, where a task of the model takes something that has one."""
    width, height = model.sizes[0]
    return "auto" if any(TASKS[name].shape for name in model.tasks) else f"{width}x{height}"


def chooses_length(model: Model) -> bool:
    """Whether neither a voice nor a performance says how long a clip is."""
    return not (is_driven(model) or is_performed(model))


def takes(model: Model, part: str) -> bool:
    """Whether a task of the model asks for what is given there."""
    return any(entry.part == part for task in model.does for entry in task.inputs)


def lengths(model: Model, fps: int) -> list[tuple[str, int]]:
    return [(f"{frames} · {frames / fps:.1f} s", frames) for frames in model.frames]


def _rates(model: Model) -> list[tuple[str, int]]:
    return [(f"{rate}", rate) for rate in model.rates]
