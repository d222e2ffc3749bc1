"""What the form holds: said in a line at Generate, kept for a reload; and what was wrong with it, until it is mended.

Every event by which a person changes the form or sends it carries its number in the order of the person's acts
(`turn`, counted by page.js): answers and events may overtake each other, the acts do not. The server fills in the form
as well, when a page is opened or old settings are loaded. It knows then what the form holds; the page, whose fields are
drawn one after the other and each tell of it, shows it a while later (`fill`, `changed`). What such an answer says
of a field that the person has changed since the press is left out of it in the browser, see acts.js.

A reload brings the form back from the browser: from its storage, and what the line at Generate says from that line
itself (`line_html`), which page.js reads as the page goes. So the person gets what they have seen, although an older
answer may have been the last to reach the storage.
"""

import json
from pathlib import Path
from typing import Any

from wan_ui import loras
from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.machine.offload import WAYS
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.recipes import MOTIONS, Recipe
from wan_ui.settings import Settings
from wan_ui.tasks import FORM, PICTURE, PROMPT, fitting, offered
from wan_ui.ui import lora_picker, models_panel, recipe_part, several, voice
from wan_ui.ui import picture as pictures
from wan_ui.ui.markup import Markup
from wan_ui.ui.session import for_visitor
from wan_ui.ui.view import Complaint, View

PARTS = {entry.part: entry for entry in FORM}
RECIPE = ("motion", "negative", "guidance", "guidance_low", "shift", "solver", "cache")  # see recipe_part.py
FIELDS = (
    *PARTS,
    "size",
    "frames",
    "steps",
    "fps",
    "seed",
    "draft",
    "overlap",
    "offload",
    *voice.FIELDS.values(),
    "clips",
    "keep_picture",
    *RECIPE,
)  # model, scheme and loras: in the view
TEXTS = {*PARTS, "size", "motion", "negative", "solver", "cache", "offload"}
PLACES = ("message", "loras_message", "examples_message", "result_message")  # each beside the buttons it is about
NO_MODEL = Markup(
    '<p class="w-note bad" role="alert">No model can run here yet. '
    '<button type="button" class="w-link" data-tab="models-tab">Models</button> says what is missing.</p>'
)
NAMES = {entry.name: entry.part for entry in FORM} | {
    "face": "speaker"
}  # a UserError's field -> ours, where they differ


def read(sent: dict[str, Any]) -> dict[str, Any]:
    """The fields as the browser sent them; of a file its path, of what is no value nothing."""
    return {name: _value(name, sent.get(name)) for name in FIELDS}


def _value(name: str, sent: Any) -> Any:
    if name in TEXTS:
        value = _path(sent) if name in PARTS and PARTS[name].file else sent
        return value if isinstance(value, str) else None
    return sent if isinstance(sent, int | float) and abs(sent) < 2**53 else None


def _path(record: Any) -> Any:
    return record.get("path") if isinstance(record, dict) else None


def fill(view: View, **values: Any) -> None:
    """The page is being filled in with these fields. Until it says that it has shown them, in `changed`, what it says
    of them is older."""
    view.fills += 1
    view.filled |= dict.fromkeys(values, view.fills)
    _take(view, values, acted=True)


def to_keep(view: View) -> dict[str, Any]:
    """For the browser's storage; files as their paths, which are checked when they come back. page.js keeps the
    prompt, which would else be sent at every key."""
    kept = {name: value for name, value in view.form.items() if value is not None and name != "prompt"}
    crops = pictures.to_keep(view.crops)
    return {**kept, "model": view.model, "scheme": view.scheme, **({"crops": crops} if crops else {})}


def line_html(view: View, model: Model, needs: str = "") -> Markup:
    """`using_html`, with its values for page.js, and their number: an older line is known by it."""
    if not view.fills:  # nothing of this page's own yet: what the browser kept is to stay
        return using_html(view, model, needs)
    kept = {name: view.form.get(name) for name in FIELDS if name not in PARTS}
    kept |= {"model": view.model, "scheme": view.scheme, "crops": pictures.to_keep(view.crops)}
    line = json.dumps({"form": kept, "loras": view.loras})
    if line != view.line:
        view.line, view.lines = line, view.lines + 1
    return Markup('<div data-kept="{line}" data-number="{lines}">{using}</div>').format(
        line=line, lines=view.lines, using=using_html(view, model, needs)
    )


def model_of(view: View, catalog: dict[str, Model]) -> Model:
    return catalog.get(view.model) or next(iter(catalog.values()))


def recipe_of(view: View, model: Model) -> tuple[str, Recipe]:
    """The motion that is chosen, else the usual one, and how it is sampled with the weights that are chosen."""
    scheme = scheme_of(view, model)
    motions, chosen = model.motions(scheme), view.form.get("motion")
    motion = chosen if chosen in motions else motions[0]
    return motion, model.recipe(scheme, motion)


def scheme_of(view: View, model: Model) -> Scheme:
    try:
        return model.scheme(view.scheme)
    except UserError:  # of another model, or of none that can run here
        return model.scheme("")


# ---------------------------------------------------------------- what will be used


def with_words(view: View, model: Model) -> str:
    """ "Wan-Tiny, bf16, with the LoRA sepia ×0.8" """
    scheme = model.schemes.get(view.scheme)
    words = model.short_title + (f", {scheme.title}" if scheme else "")
    chosen = [f"{Path(spec['file']).stem} ×{spec['strength']:g}" for spec in view.loras]
    if chosen:
        words += f", with the LoRA{'s' if len(chosen) > 1 else ''} {', '.join(chosen)}"
    return words


def using_html(view: View, model: Model, needs: str = "") -> Markup:
    """The line above Generate: everything that the next clip is made with. needs: see memory_part.py."""
    held = view.form
    size, seed, frames, steps, fps = (held.get(name) for name in ("size", "seed", "frames", "steps", "fps"))
    entries = offered(model.does)
    given = {entry.name for entry in entries if held.get(entry.part)}
    tray = view.tray if any(entry.name == PICTURE.name for entry in entries) else []
    given |= {PICTURE.name} if tray else set()
    task = fitting(model.tasks, given | {PROMPT.name})
    motion, recipe = recipe_of(view, model)
    has_motions = len(model.motions(scheme_of(view, model))) > 1
    segments = len([row for row in (held.get("segments") or "").splitlines() if row.strip()])
    segments += bool(held.get("prompt")) or not segments
    if size in (None, "auto"):
        shape = task.input(task.shape)
        named = {"picture": "picture", "video": "clip"}
        size = f"the {named[shape.kind]}’s shape" if shape else f"{model.sizes[0][0]}x{model.sizes[0][1]}"
    parts = [
        with_words(view, model),
        size.replace("x", " × ") if size[0].isdigit() else size,
        "as long as the voice"
        if task.driven
        else "as long as the performance"
        if task.performed
        else (f"{segments} segments of " if segments > 1 else "") + f"{frames or model.default_frames:g} frames",
        *([f"{fps:g} a second"] if fps and fps != model.fps else []),
        f"{steps or recipe.default_steps:g} steps",
        *([MOTIONS[motion].title] if has_motions else []),
        *recipe_part.words(held, motion, recipe),
        "random seed" if seed in (None, -1) else f"seed {seed:.0f}",
        *(["draft"] if held.get("draft") else []),
        *([WAYS[held["offload"]][0]] if held.get("offload") in WAYS and held["offload"] != "auto" else []),
        *(["no picture in the file"] if held.get("keep_picture") is False else []),
        *several.words(held.get("clips"), tray),
    ]
    parts += [entry.using for entry in task.inputs if entry.using and entry.name in given]
    parts += voice.words(held) if "audio" in given and task.input("audio") else []
    overlap = held.get("overlap")
    parts += [f"{overlap:g} frames shared at a seam"] if task.performed and overlap in model.overlaps[1:] else []
    if task.either and not any(name in given for name in task.either):
        parts += [entry.lacking for entry in task.inputs if entry.name == task.either[0]]
    parts += [entry.lacking for entry in task.inputs if entry.lacking and entry.required and entry.name not in given]
    parts = [part if len(part) > 24 else part.replace(" ", "\u00a0") for part in parts]  # lines break between parts
    words = " · ".join(parts)
    beside = Markup('<small class="w-quiet">{}</small>').format(needs[:1].upper() + needs[1:]) if needs else Markup()
    return Markup('<p class="w-quiet" title="{words}">{words}</p>{beside}').format(words=words, beside=beside)


# ---------------------------------------------------------------- what is wrong


def complain(view: View, place: str, error: UserError, turn, held: dict | None = None) -> None:
    """Say `error` at `place`, in view, until what it is about is mended. held: what the form held when it was sent."""
    field = NAMES.get(error.field, error.field)
    value = view.loras if field == "loras" else (held or {}).get(field)
    view.complaint = Complaint(place, field, str(error), _count(turn), value)
    view.bring(place)


def changed(view: View, held: dict[str, Any], seen: Any, turn: Any) -> None:
    """The page has these values since `turn`. seen: the last of `View.fills` whose fields it had shown by then: what it
    says of a field that was filled in later is what was there before, whoever of the two is answered first."""
    newer = {name: value for name, value in held.items() if view.filled.get(name, 0) <= _count(seen)}
    _take(view, newer, acted=view.complaint is not None and _count(turn) > view.complaint.turn)


def _take(view: View, values: dict[str, Any], acted: bool) -> None:
    """acted: after the complaint. One about a field is over when that is another now, one about none of them (the disk,
    the queue) with any change; one about the address (its clip) with another clip: a page that has just been opened
    tells of its form, and nobody has done anything."""
    before, view.form = view.form, {**view.form, **values}
    complaint = view.complaint
    if complaint is None or not acted or complaint.field in ("model", "loras", "link"):
        return
    if complaint.field in FIELDS:
        mended = complaint.field in values and values[complaint.field] != complaint.value
    else:
        mended = view.form != before
    if mended:
        view.complaint = None


def forget_what_is_mended(view: View, model: Model, owner: str) -> None:
    """Models, LoRAs and the queue become right without the form: a file arrives, a row is removed, a job begins."""
    complaint, settings = view.complaint, PIPELINE.settings
    if complaint is None:
        return
    match complaint.field, complaint.place:
        case "model", "message" | "examples_message":
            schemes = models_panel.usable(settings).get(view.model, [])
            mended = view.scheme in [scheme.name for scheme in schemes]
        case "loras", "loras_message":
            mended = view.loras != complaint.value
        case "loras", _:
            mended = _loras_are_right(view, model, settings)
        case "queue", _:
            mended = PIPELINE.has_room(owner)
        case _:
            return
    if mended:
        view.complaint = None


def _loras_are_right(view: View, model: Model, settings: Settings) -> bool:
    try:
        loras.check(lora_picker.specs(view.loras), model, settings)
    except UserError:
        return False
    return True


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def complaint_html(view: View, place: str, settings: Settings) -> Markup:
    complaint = view.complaint
    if complaint is None or complaint.place != place:
        return NO_MODEL if place == "message" and not models_panel.usable(settings) else Markup()
    return note(
        for_visitor(complaint.words, settings),
        Markup(' data-field="{field}" data-turn="{turn}"').format(field=complaint.field, turn=complaint.turn),
    )


def note(words: str, more: Markup = Markup()) -> Markup:
    return Markup('<p class="w-note bad" role="alert"{more}>{words}</p>').format(
        more=more, words=words[:1].upper() + words[1:]
    )
