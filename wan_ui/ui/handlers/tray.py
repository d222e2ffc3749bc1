"""The tray of pictures that one press makes clips of: filled, changed, emptied."""

from collections.abc import Callable

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.ui import several
from wan_ui.ui.answers import Answer
from wan_ui.ui.handlers.observe import observe
from wan_ui.ui.refusals import guard
from wan_ui.ui.security import uploaded
from wan_ui.ui.values import as_text, number_of_event, of_event, text_of_event, texts_of_event
from wan_ui.ui.view import View


@guard
def add(browser: dict, view: View, event: gr.EventData) -> Answer:
    """Pictures that the browser has sent; refused: what it says of others itself."""
    sent, said = of_event(event, "files"), texts_of_event(event, "refused")
    if not isinstance(sent, list) or len(sent) > several.MOST:
        raise UserError(f"files: expected a list of at most {several.MOST} uploaded files", field="files")
    files = []
    for entry in sent:
        path = uploaded(entry, "files")
        if not path:
            raise UserError("files: send uploaded files", field="files")
        files.append((path, as_text(entry.get("orig_name"), "files", "picture")))
    view.tray, trouble = several.add(view.tray, files)
    view.tray_trouble = " ".join([trouble, *(words[:300] for words in said)]).strip()
    if view.complaint and view.complaint.field == "picture":
        view.complaint = None
    view.bring("tray")
    return observe(browser, view)


@guard
def remove(browser: dict, view: View, event: gr.EventData) -> Answer:
    return _changed(browser, view, event, lambda entry: None)


@guard
def write(browser: dict, view: View, event: gr.EventData) -> Answer:
    words = text_of_event(event, "value")
    return _changed(browser, view, event, lambda entry: {**entry, "words": words})


@guard
def resize(browser: dict, view: View, event: gr.EventData) -> Answer:
    """A size that the model does not offer is refused when it is sent."""
    size = text_of_event(event, "value")[:20]
    return _changed(browser, view, event, lambda entry: {**entry, "size": size})


@guard
def clear(browser: dict, view: View) -> Answer:
    view.tray, view.tray_trouble = [], ""
    return observe(browser, view)


def _changed(
    browser: dict, view: View, event: gr.EventData, change: Callable[[dict[str, str]], dict[str, str] | None]
) -> Answer:
    at = number_of_event(event, "at")
    changed = [change(entry) if number == at else entry for number, entry in enumerate(view.tray)]
    view.tray, view.tray_trouble = [entry for entry in changed if entry is not None], ""
    return observe(browser, view)
