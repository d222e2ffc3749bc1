"""Presets: settings of the form under names, one of which a fresh page may begin with.

They are kept by the browser, as the form itself is (presets.js): what is private to a person stays there, and on a
shared address the server holds nothing of strangers. A file carries them to another browser. So the server reads them
as it reads any file of a stranger: `read_file` refuses what is wrong by its name, and what is right but not offered by
this machine or version is left out when it is used, and said (handlers/presets.py).
"""

import json
import reprlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from wan_ui import stored
from wan_ui.errors import UserError
from wan_ui.ui import form, lora_picker, voice
from wan_ui.ui.markup import Markup
from wan_ui.valid_text import valid_text, valid_values

MOST = 100  # presets of one browser
NAME = 60  # characters
FILE = 1_000_000  # characters
SCRIPT = (Path(__file__).parent / "presets.js").read_text(encoding="utf-8")
TOLD = "watch('value', () => window.wanUi.toldPresets(element.querySelector('[data-presets]')?.dataset));"
WORDS = ("prompt", "segments")  # kept where the person asks for it
# How a voice is spoken belongs to that voice, as the files do to a clip.
SETTINGS = ("model", "scheme", *(n for n in form.FIELDS if n not in form.PARTS and n not in voice.FIELDS.values()))
PART = Markup("""
<details class="w-presets"><summary>Presets</summary>
<ul aria-label="Your presets"></ul>
<p class="w-quiet" data-empty>Settings under a name: model, weights, size, steps, LoRAs and the rest.</p>
<div class="w-preset-new"><input type="text" maxlength="60" aria-label="Name of a new preset" placeholder="Name">
<button type="button" class="w-button" data-preset="save">Save these settings</button></div>
<label class="w-check"><input type="checkbox" data-words> with the prompt</label>
<div class="w-buttons"><button type="button" class="w-button" data-preset="export">Export as a file</button>
<button type="button" class="w-button" data-preset="import">Import a file</button>
<span class="w-quiet" role="status"></span></div></details>
""")


@dataclass(frozen=True)
class Presets:
    part: gr.HTML
    told: gr.HTML


def build_presets() -> Presets:
    part = gr.HTML(PART, elem_id="presets", js_on_load=SCRIPT, apply_default_css=False)
    return Presets(part, gr.HTML("", elem_id="presets-told", js_on_load=TOLD, apply_default_css=False))


def told_html(words: str = "", presets: dict[str, Any] | None = None, complaint: Markup = Markup()) -> Markup:
    """What the server answers: presets for the browser to keep, and what is said of them."""
    given = (
        Markup(' data-presets="{presets}" data-turn="{turn}"').format(
            presets=json.dumps(presets), turn=secrets.token_hex(4)
        )
        if presets
        else Markup()
    )
    said = Markup('<p class="w-quiet" role="status">{}</p>').format(words) if words else Markup()
    return Markup("<div{given}>{said}{complaint}</div>").format(given=given, said=said, complaint=complaint)


def of_form(name: object, held: dict[str, Any], loras: list[dict[str, Any]], with_words: bool) -> dict[str, Any]:
    """A preset of what the form holds. Raises UserError for a name that is none."""
    names = (*SETTINGS, *(WORDS if with_words else ()))
    return {
        "name": _name(name),
        "settings": {key: held[key] for key in names if held.get(key) is not None},
        "loras": loras,
    }


def read_file(content: str) -> dict[str, Any]:
    """{"presets": [...], "start": name or ""} of an exported file. Raises UserError naming what is wrong in it."""
    if len(content) > FILE:
        raise _wrong(f"the file has {len(content):,} characters; at most {FILE:,} are read")
    try:
        values = valid_values(json.loads(content))
    except (ValueError, RecursionError):
        values = None
    entries = values.get("presets") if isinstance(values, dict) else None
    if not isinstance(values, dict) or not isinstance(entries, list):
        raise _wrong(
            "this is no file of presets: it is JSON with a list called “presets”, as “Export as a file” makes it"
        )
    if not 1 <= len(entries) <= MOST:
        raise _wrong(f"there are {len(entries)} in the file; 1 to {MOST} are taken")
    presets = [_entry(number, entry) for number, entry in enumerate(entries, start=1)]
    names = [preset["name"] for preset in presets]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise _wrong(f"two of them are called {twice!r}; give each a name of its own")
    start = values.get("start", "")
    if start and start not in names:
        raise _wrong(f"start: {reprlib.repr(start)} is the name of none of them")
    return {"presets": presets, "start": start or ""}


def read(preset: object) -> dict[str, Any]:
    """One that the browser has kept, as far as it can be read. Raises UserError where it has no name."""
    entry = preset if isinstance(preset, dict) else {}
    settings = entry.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    good = {name: value for name, value in settings.items() if name in KINDS and KINDS[name][0](value)}
    return {"name": _name(entry.get("name")), "settings": good, "loras": lora_picker.from_values(entry.get("loras"))}


def _entry(number: int, entry: object) -> dict[str, Any]:
    """A preset of a file: every value is of its kind, or is named."""
    if not isinstance(entry, dict):
        raise _wrong(f"number {number} is {reprlib.repr(entry)}, and not a name with settings")
    try:
        name = _name(entry.get("name"))
    except UserError as error:
        raise _wrong(f"number {number}: name: {error.words}") from None
    settings, loras = entry.get("settings"), entry.get("loras", [])
    if not isinstance(settings, dict):
        raise _wrong(f"{name!r}: settings: {reprlib.repr(settings)} is no table of settings")
    for field, value in settings.items():
        good, kind = KINDS.get(field, (_anything, ""))
        if not good(value):
            raise _wrong(f"{name!r}: {field}: {reprlib.repr(value)} is not {kind}")
    if not isinstance(loras, list) or len(lora_picker.from_values(loras)) != len(loras):
        raise _wrong(f"{name!r}: loras: {reprlib.repr(loras)} is no list of LoRAs, each with its file")
    known = {field: value for field, value in settings.items() if field in KINDS}
    return {"name": name, "settings": known, "loras": lora_picker.from_values(loras)}


def _name(value: object) -> str:
    name = " ".join(valid_text(value).split()) if isinstance(value, str) else ""
    if not name:
        raise _wrong("give it a name")
    if len(name) > NAME:
        raise _wrong(f"a name has at most {NAME} characters, not {len(name)}")
    return name


def _wrong(words: str) -> UserError:
    return UserError(f"presets: {words}", field="presets")


def _anything(value: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 20_000


def _is_whole(value: Any) -> bool:
    return stored.number(value) is not None and value == int(value)


def _is_number(value: Any) -> bool:
    return stored.number(value) is not None


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


Check = tuple[Callable[[Any], bool], str]
_TEXT: Check = (_is_text, "a text")
_WHOLE: Check = (_is_whole, "a whole number")
_NUMBER: Check = (_is_number, "a number")
_TRUTH: Check = (_is_truth, "true or false")
KINDS: dict[str, Check] = (
    dict.fromkeys(("model", "scheme", "size", "motion", "negative", "solver", "cache", "offload", *WORDS), _TEXT)
    | dict.fromkeys(("frames", "steps", "fps", "seed", "overlap", "clips"), _WHOLE)
    | dict.fromkeys(("guidance", "guidance_low", "shift"), _NUMBER)
    | dict.fromkeys(("draft", "keep_picture"), _TRUTH)
)
assert set(KINDS) == {*SETTINGS, *WORDS}, "each setting of the form is checked as what it is"
