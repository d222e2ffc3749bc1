"""Presets: made of what the form holds, used, read from a file. The browser keeps them; see wan_ui/ui/presets.py."""

from typing import Any

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, models_panel, presets
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.filling import fill, fill_fields, is_whole, offered
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import complaint, guard
from wan_ui.ui.several import read_clips
from wan_ui.ui.values import as_text, of_event
from wan_ui.ui.view import View


@guard
def save(browser: dict, view: View, event: gr.EventData, model, scheme, *sent) -> Answer:
    """The settings as they are now, under a name; with its words where that is asked for."""
    held = form.read(dict(zip(form.FIELDS, sent, strict=True)))
    held |= {"model": as_text(model, "model"), "scheme": as_text(scheme, "scheme")}
    try:
        made = presets.of_form(of_event(event, "name"), held, view.loras, of_event(event, "words") is True)
    except UserError as error:
        return {"presets_told": presets.told_html(complaint=complaint(error)), **observe(browser, view)}
    told = presets.told_html(f"Saved as {made['name']}.", {"presets": [made]})
    return {"presets_told": told, **observe(browser, view)}


@guard
def take_file(browser: dict, view: View, event: gr.EventData) -> Answer:
    """An exported file: all of it, or nothing with the reason."""
    try:
        read = presets.read_file(as_text(of_event(event, "content"), "presets"))
    except UserError as error:
        return {"presets_told": presets.told_html(complaint=complaint(error)), **observe(browser, view)}
    names = ", ".join(preset["name"] for preset in read["presets"])
    return {"presets_told": presets.told_html(f"Imported: {names}.", read), **observe(browser, view)}


@guard
def use(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Into the form, as far as this machine and version offer it; picture, sound and, if it has none, words stay."""
    try:
        preset = presets.read(of_event(event, "preset"))
        filled, left = _fill(view, preset)
    except UserError as error:
        return {"presets_told": presets.told_html(complaint=complaint(error)), **observe(browser, view)}
    words = f"{preset['name']} is used."
    words += f" Not taken over, since this version or model does not offer it: {', '.join(left)}." if left else ""
    return {"presets_told": presets.told_html(words), **filled, **observe(browser, view)}


def _fill(view: View, preset: dict[str, Any]) -> tuple[Answer, list[str]]:
    """The answer, and which settings are not offered. Raises UserError where the model cannot run here."""
    settings, usable = preset["settings"], models_panel.usable(PIPELINE.settings)
    name = settings.get("model") or view.model
    if name not in usable:
        words = f"presets: {preset['name']} is for {name}, which cannot run here; the tab “Models” says what is missing"
        raise UserError(words, field="presets")
    view.loras = preset["loras"]
    prompt, segments = settings.get("prompt"), settings.get("segments")
    filled = fill(view, name, settings.get("scheme", ""), prompt=prompt, **offered(settings))
    seed = settings["seed"] if is_whole(settings.get("seed")) else None
    filled |= fill_fields(view, seed=seed, segments=segments or ("" if prompt is not None else None))
    own = {"clips": read_clips(settings["clips"])} if "clips" in settings else {}
    own |= {name: settings[name] for name in ("keep_picture",) if name in settings}
    form.fill(view, **own)
    filled |= own
    now = {**view.form, "model": view.model, "scheme": view.scheme}
    return filled, [key for key, value in settings.items() if key in now and now[key] != value]
