"""The LoRAs that are chosen: added, put on an expert, weakened, removed.

Two events of a page may be answered at the same time, each in its thread: what is chosen is read and changed by one
after the other, so that neither change is lost.
"""

import threading
import time

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.families import TARGETS
from wan_ui.files import found
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, lora_picker
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.choosing import check_download
from wan_ui.ui.handlers.filling import lora_choices
from wan_ui.ui.handlers.observe import IDLE, observe
from wan_ui.ui.refusals import guard
from wan_ui.ui.values import as_text, number_of_event, of_event, text_of_event, texts_of_event
from wan_ui.ui.view import View

CHANGING = threading.Lock()


@guard
def refresh_loras(browser: dict, view: View) -> Answer:
    """The Refresh button: the folder is read again."""
    view.sent.pop("loras", None)
    view.sent.pop("shelf", None)
    choices = lora_choices(view, form.model_of(view, found.models(PIPELINE.settings)))
    return {"lora_choices": choices, **observe(browser, view)}


@guard
def add_lora(browser: dict, view: View, name, turn) -> Answer:
    """Chosen in the list, which is empty again then. None: it was only closed."""
    if not name:
        return observe(browser, view)
    model = form.model_of(view, found.models(PIPELINE.settings))
    try:
        with CHANGING:
            view.loras = lora_picker.add(view.loras, as_text(name, "loras"), model, PIPELINE.settings)
        view.bring("lora")
    except UserError as error:
        form.complain(view, "loras_message", error, turn)
    return {"lora_choices": gr.update(value=None), **observe(browser, view)}


@guard
def open_shelf(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Its button: opened, or closed again. What lies in the folder now is drawn."""
    view.shelf = view.shelf + 1 if of_event(event, "open") is True else 0
    return observe(browser, view)


@guard
def take_lora(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A LoRA from the shelf, or the two files of one: the high-noise one first."""
    model = form.model_of(view, found.models(PIPELINE.settings))
    files = texts_of_event(event, "files")
    try:
        with CHANGING:
            if len(files) == 2:
                high, low = files
                view.loras = lora_picker.add_pair(view.loras, high, low, model, PIPELINE.settings)
            else:
                view.loras = lora_picker.add(view.loras, "".join(files[:1]), model, PIPELINE.settings)
    except UserError as error:
        form.complain(view, "loras_message", error, 0)
    return observe(browser, view)


@guard
def fetch_lora(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A link to the hub. What is fetched belongs to the app, as with models."""
    check_download(browser)
    try:
        PIPELINE.lora_downloads.start(text_of_event(event, "link")[:2000])
    except UserError as error:
        form.complain(view, "loras_message", error, 0)
    return observe(browser, view)


@guard
def stop_lora(browser: dict, view: View) -> Answer:
    check_download(browser)
    PIPELINE.lora_downloads.cancel()
    view.watch = time.monotonic() + IDLE
    return observe(browser, view)


@guard
def change_strength(browser: dict, view: View, event: gr.EventData) -> Answer:
    file, value = text_of_event(event, "file"), number_of_event(event, "value")
    with CHANGING:
        view.loras = lora_picker.change(view.loras, file, strength=value)
    return observe(browser, view)


@guard
def change_target(browser: dict, view: View, event: gr.EventData) -> Answer:
    file, value = text_of_event(event, "file"), text_of_event(event, "value")
    if value not in TARGETS:
        raise UserError(f"target: {value!r} is not one of {', '.join(TARGETS)}", field="target")
    with CHANGING:
        view.loras = lora_picker.change(view.loras, file, target=value)
    return observe(browser, view)


@guard
def remove_lora(browser: dict, view: View, event: gr.EventData) -> Answer:
    with CHANGING:
        view.loras = lora_picker.remove(view.loras, text_of_event(event, "file"))
    return observe(browser, view)
