"""Values as a browser or a program sent them -> of the type that they should have, or a refusal that names the field.

Every handler is an address that anybody may call with anything, and Gradio's own conversion is off; see ui/handlers.
"""

import math
import reprlib

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.valid_text import valid_text

MANY = 100  # entries of a list


def as_text(value, field: str, default: str = "") -> str:
    """None is `default`. Raises UserError for anything but text."""
    if value is None:
        return default
    if not isinstance(value, str):
        raise UserError(f"{field}: {reprlib.repr(value)} is not text", field=field)
    return valid_text(value) or default


def of_event(event: gr.EventData | None, field: str):
    """A field of what came with an event. Raises UserError when it is not there."""
    data = getattr(event, "_data", None)
    if not isinstance(data, dict) or data.get(field) is None:
        raise UserError(f"{field}: it did not come with the event", field=field)
    return data[field]


def text_of_event(event: gr.EventData | None, field: str) -> str:
    return as_text(of_event(event, field), field)


def texts_of_event(event: gr.EventData | None, field: str) -> list[str]:
    values = of_event(event, field)
    if not isinstance(values, list) or len(values) > MANY:
        raise UserError(f"{field}: expected a list of at most {MANY} texts", field=field)
    return [as_text(value, field) for value in values]


def number_of_event(event: gr.EventData | None, field: str) -> float:
    """A finite number; a text that says one will do, as a field of a form sends it."""
    value = of_event(event, field)
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{field}: {reprlib.repr(value)} is not a number", field=field)
    return number
