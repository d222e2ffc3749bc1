"""How a voice is spoken: which part of the sound it is, whose lips follow it, and what moves them.

As `wan_ui.changes`: values come as a person or a program gave them (`read_speaking`); rows, messages and metadata have
the record as `asdict` gives it. The names are those of the API and, with dashes, of the command line.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from wan_ui.errors import UserError

LATEST = 24 * 3600.0  # seconds into a sound file that a part may begin or end
SHORTEST = 0.1  # seconds
MOST_FACES = 99


@dataclass(frozen=True)
class Speaking:
    """audio_start, audio_end   of the part that is spoken, in seconds of the sound that was given; end 0: its end.
            The job's own copy of the sound is that part alone.
    every_sound  the lips follow music and noise as well, not a voice alone
    face        its number from the left: see wan_ui.lipsync.numbered; 0: the largest
    sharpen     the mouth becomes as sharp as the face around it; else it is as it was drawn
    """

    audio_start: float = 0.0
    audio_end: float = 0.0
    every_sound: bool = False
    face: int = 0
    sharpen: bool = True

    @property
    def part(self) -> str:
        """ "1.2 s to 3.4 s"; "" where it is the whole"""
        if not self.audio_start and not self.audio_end:
            return ""
        return f"{self.audio_start:g} s to {f'{self.audio_end:g} s' if self.audio_end else 'the end'}"


USUAL = Speaking()
NAMES = tuple(entry.name for entry in fields(Speaking))
PART = ("audio_start", "audio_end")  # of any sound; the others are about lips
# What is said of each to programs and in `--help`.
WORDS = {
    "audio_start": "second of the sound at which the voice begins",
    "audio_end": "second at which it ends; 0: its end",
    "face": "which of several faces speaks, counted from the left in the picture or the first frame; 0: the largest",
    "sharpen": "the mouth becomes as sharp as the face around it; else it is left as it was drawn",
    "every_sound": "the lips follow music and noise as well, not a voice alone",
}


def read_speaking(values: Mapping[str, Any]) -> Speaking:
    """None and "" choose the usual. Raises UserError naming the field."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    start = _seconds("audio_start", given.get("audio_start", 0))
    end = _seconds("audio_end", given.get("audio_end", 0))
    if end and end - start < SHORTEST:
        words = f"the part would end at {end:g} s and begin at {start:g} s; choose an end at least {SHORTEST:g} s later"
        raise UserError(f"audio_end: {words}", field="audio_end")
    every, sharpen = (_truth(name, given.get(name, getattr(USUAL, name))) for name in ("every_sound", "sharpen"))
    return Speaking(start, end, every, _number(given.get("face", 0)), sharpen)


def _seconds(name: str, value: Any) -> float:
    """A text that says a number will do, as a field of a form sends it."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= LATEST:
        raise UserError(f"{name}: {reprlib.repr(value)}: expected seconds from the sound's beginning", field=name)
    return number


def _number(value: Any) -> int:
    """A text that says one will do, as a field of a form sends it; so will 2.0, which JSON makes of it."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MOST_FACES or number != int(number):
        words = f"expected a face's number from the left, 1 to {MOST_FACES}, or 0 for the largest"
        raise UserError(f"face: {reprlib.repr(value)}: {words}", field="face")
    return int(number)


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{name}: {reprlib.repr(value)} is neither true nor false", field=name)
    return value


def stored_speaking(value: Any) -> Speaking | None:
    """Of a row, a message or metadata; None where it is no such record."""
    if not isinstance(value, dict):
        return None
    try:
        return read_speaking({name: value[name] for name in NAMES if name in value})
    except UserError:
        return None
