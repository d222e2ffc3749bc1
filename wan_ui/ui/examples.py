"""Examples that run with one click, from assets/examples/examples.json; none when the file is absent."""

import io
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from PIL import Image

from wan_ui.catalog import Model
from wan_ui.place import DATA
from wan_ui.tasks import DEFAULT, FORM, Input, fitting, offered
from wan_ui.ui.markup import SPEAKS, Markup, data_url

log = logging.getLogger(__name__)

FOLDER = DATA / "assets" / "examples"
USUAL = [entry.name for entry in DEFAULT.inputs if entry.required]  # what every example has
SCRIPT = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-example]');
  if (card) trigger('select', { example: Number(card.dataset.example) });
});
"""


@dataclass(frozen=True)
class Example:
    """inputs: name of an input of wan_ui.tasks -> its text, or its file; there is a picture among them."""

    inputs: dict[str, str | Path]

    @property
    def picture(self) -> Path:
        return Path(next(self.inputs[entry.name] for entry in FORM if entry.kind == "picture"))

    @property
    def speaks(self) -> bool:
        return any(entry.kind == "audio" and entry.name in self.inputs for entry in FORM)

    @property
    def words(self) -> str:
        return " ".join(
            str(self.inputs[entry.name]) for entry in FORM if entry.kind == "text" and entry.name in self.inputs
        )


def load_examples() -> list[Example]:
    """Those whose files are there. Names in examples.json are those of the inputs."""
    try:
        entries = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    examples = []
    for entry in entries:
        inputs = {part.name: entry[part.name] for part in FORM if part.name in entry}
        example = Example(
            inputs | {part.name: FOLDER / inputs[part.name] for part in FORM if part.file and part.name in inputs}
        )
        missing = [path for path in example.inputs.values() if isinstance(path, Path) and not path.is_file()]
        if missing:
            log.warning("example %s is not shown: %s is missing", example.words, missing[0])
        else:
            examples.append(example)
    return examples


@dataclass(frozen=True)
class Examples:
    note: gr.HTML
    message: gr.HTML
    cards: gr.HTML


def build_examples(examples: list[Example]) -> Examples:
    with gr.Column(elem_id="examples-part", elem_classes="w-part", visible=bool(examples)):
        gr.HTML(Markup("<h2>Try one</h2>"), apply_default_css=False)
        note = gr.HTML("", elem_id="examples-note", apply_default_css=False)
        cards = gr.HTML(_html(examples), elem_id="examples", js_on_load=SCRIPT, apply_default_css=False)
        message = gr.HTML("", elem_id="examples-message", apply_default_css=False)
    return Examples(note, message, cards)


def lacking(model: Model, given: Collection[str]) -> Input | None:
    """What the model needs beside an example's inputs, which have these names."""
    taken = {entry.name for entry in offered(model.does)}  # of words alone the picture is not
    names = [name for name in given if name in taken]
    return fitting(model.tasks, names).lacks(names)


def note_html(made_with: str, model: Model) -> Markup:
    if needed := lacking(model, USUAL):
        words = f"A click fills in the picture and the words; {made_with} needs a {needed.label.lower()} as well."
    else:
        words = f"A click makes the clip with {made_with}."
    return Markup('<p class="w-quiet">{}</p>').format(words)


def _html(examples: list[Example]) -> Markup:
    cards = Markup().join(
        Markup(
            '<li><button type="button" class="w-tile" data-example="{number}"><span class="w-tile-picture">'
            '<img src="{thumbnail}" alt="">'
            "{speaks}</span>"
            '<span class="w-tile-prompt" translate="no">{words}</span></button></li>'
        ).format(
            number=number,
            thumbnail=_thumbnail(example.picture),
            speaks=SPEAKS if example.speaks else "",
            words=example.words,
        )
        for number, example in enumerate(examples)
    )
    return Markup('<ul class="w-grid">{}</ul>').format(cards)


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        image.thumbnail((256, 256))
        stored = io.BytesIO()
        image.convert("RGB").save(stored, "JPEG", quality=80)
    return data_url(stored.getvalue(), "image/jpeg")
