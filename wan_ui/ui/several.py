"""Several clips from one press: so many of each picture, and a tray of pictures.

The tray lives in the page's `view` (path, name, words, size, and a small picture), as the LoRAs do. The browser sends
the files one by one (tray.js); the server looks at each, so that any picture it can read has its thumbnail.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.media.images import open_image
from wan_ui.queue.draft import MOST_CLIPS, Draft
from wan_ui.tasks import PICTURE, PROMPT
from wan_ui.ui.markup import Markup

MOST = 20  # pictures in the tray
THUMB = (144, 108)  # pixels that a small picture fits into
SCRIPT = (Path(__file__).parent / "tray.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Several:
    part: gr.Accordion
    clips: gr.Radio


CHOOSE = Markup(
    '<p class="w-quiet">Drop up to 20 pictures, or a folder of them, anywhere on the page: one press makes a clip of '
    'each.</p><div class="w-buttons">'
    '<button type="button" class="w-button" data-choose="files">Choose pictures</button>'
    '<button type="button" class="w-button" data-choose="folder">Choose a folder</button></div>'
)


def build_tray() -> gr.HTML:
    """Beside the picture, and not in what is folded: pictures may be dropped before that was ever opened."""
    return gr.HTML("", elem_id="tray", js_on_load=SCRIPT, apply_default_css=False)


def build_several() -> Several:
    with gr.Accordion("Several at once", open=False, elem_id="several") as part:
        clips = gr.Radio(
            label="Clips of each picture",
            info="Each has a seed of its own: made one after the other, shown side by side.",
            choices=list(range(1, MOST_CLIPS + 1)),
            value=1,
            elem_id="clips",
            elem_classes="w-segments",
        )
        gr.HTML(CHOOSE, elem_id="several-pictures", apply_default_css=False)
    return Several(part, clips)


def words(clips: Any, tray: Sequence[Mapping[str, str]]) -> list[str]:
    """Parts of the line above Generate."""
    said = [f"{len(tray)} {'picture' if len(tray) == 1 else 'pictures'}"] if tray else []
    number = read_clips(clips)
    return said + ([f"{number} clips" + (" of each" if len(tray) > 1 else "")] if number > 1 else [])


def button(clips: Any, tray: Sequence[Mapping[str, str]]) -> str:
    number = read_clips(clips) * max(len(tray), 1)
    return f"Generate {number} clips" if number > 1 else "Generate"


def read_clips(value: Any) -> int:
    """Of a form, which may hold anything."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return int(value) if whole and 1 <= value <= MOST_CLIPS else 1


def drafts(draft: Draft, tray: Sequence[Mapping[str, str]]) -> list[Draft]:
    """One for each picture of the tray, with its own words and size where it has them; without any, the draft."""
    made = []
    for entry in tray:
        inputs = {**draft.inputs, PICTURE.name: entry["path"]}
        inputs |= {PROMPT.name: entry["words"]} if entry["words"] else {}
        made.append(replace(draft, inputs=inputs, size=entry["size"] or draft.size))
    return made or [draft]


def add(tray: Sequence[Mapping[str, str]], files: Sequence[tuple[str, str]]) -> tuple[list[dict[str, str]], str]:
    """With these pictures (path, name) at its end, and what is wrong with those that are not taken."""
    new, wrong = [dict(entry) for entry in tray], []
    for path, name in files:
        if len(new) >= MOST:
            wrong.append(f"At most {MOST} pictures; {name} and what came after it were left out.")
            break
        try:
            new.append(entry_of(path, name))
        except UserError as error:
            wrong.append(f"{name}: {error.words}")
    return new, " ".join(wrong)


def entry_of(path: str, name: str, words: str = "", size: str = "") -> dict[str, str]:
    """Raises UserError where it is no picture."""
    small = open_image(path, PICTURE.name).convert("RGB")
    small.thumbnail(THUMB)
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=80)
    thumb = base64.b64encode(stored.getvalue()).decode()
    return {"path": path, "name": name[:120], "words": words, "size": size, "thumb": thumb}


def to_keep(tray: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """For the browser's storage; see form.to_keep."""
    return [{name: entry[name] for name in ("path", "name", "words", "size")} for entry in tray]


def tray_html(tray: Sequence[Mapping[str, str]], trouble: str, model: Model) -> Markup:
    rows = Markup().join(_row(number, entry, model) for number, entry in enumerate(tray))
    note = Markup('<p class="w-note bad" role="alert">{}</p>').format(trouble) if trouble else Markup()
    state = Markup('<p class="w-quiet w-tray-state" role="status"></p>')
    if not tray:
        return note + state
    said = "One press makes a clip of each. Where one has no words of its own, the prompt is taken."
    clear = Markup('<button type="button" class="w-button" data-do="clear_tray">Empty the tray</button>')
    return Markup(
        '{note}<p class="w-quiet">{said}</p><ul class="w-tray" aria-label="Pictures">{rows}</ul>{state}'
        '<div class="w-buttons"><button type="button" class="w-button" data-choose="files">More pictures</button>'
        "{clear}</div>"
    ).format(note=note, said=said, rows=rows, state=state, clear=clear)


def _row(number: int, entry: Mapping[str, str], model: Model) -> Markup:
    name, at = entry["name"], Markup('data-at="{}"').format(number)
    sizes = {"": "size as above", "auto": "its own shape"}
    sizes |= {f"{width}x{height}": f"{width} × {height}" for width, height in model.sizes}
    options = Markup().join(
        Markup('<option value="{value}"{selected}>{said}</option>').format(
            value=value, selected=" selected" if value == entry["size"] else "", said=said
        )
        for value, said in sizes.items()
    )
    return Markup(
        '<li class="w-tray-row"><img src="data:image/jpeg;base64,{thumb}" alt="{name}" title="{name}">'
        '<input type="text" data-do="word_tray" {at} data-key="words {number}" value="{words}" '
        'placeholder="as the prompt above" aria-label="Words for {name}">'
        '<select data-do="size_tray" {at} data-key="size {number}" aria-label="Size of {name}">{options}</select>'
        '<button type="button" class="w-lora-remove" data-do="remove_tray" {at} data-key="remove {number}" '
        'aria-label="Take {name} out" title="Take it out">×</button></li>'
    ).format(thumb=entry["thumb"], name=name, at=at, number=number, words=entry["words"], options=options)
