"""What a person wants done with a finished clip: a part of it, more frames, larger, a loop, another file.

The page, the API and the command line send values as they like (`read_changes`); rows, messages and metadata have the
record as `asdict` gives it.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from wan_ui.errors import UserError

LOOPS = {"ping-pong": "there and back", "seamless": "its end fades into its beginning"}
QUALITIES = {"best": 14, "good": 20, "small": 26}  # x264's crf; 14 is what clips are written with
# name -> its suffix, and what it is called
FILES = {
    "gif": (".gif", "GIF"),
    "webp": (".webp", "WebP"),
    "webm": (".webm", "WebM"),
    "frames": (".zip", "frames"),
    "last": (".png", "last frame"),
}
MAX_JOINED = 7  # further clips
SPEEDS = (0.25, 4.0)
MAX_FADE = 5.0  # seconds


@dataclass(frozen=True)
class Changes:
    """In the order in which they are made; further clips are inputs of the request.

    original    the history entry, or the name of the file, that is changed
    start, end  of the part that is kept, in seconds of the original; end 0: its end
    fade        seconds for which one clip fades into the next; 0: a cut
    times       2, 4: frames for each that was there; 1: as it is
    upscale     2: twice as wide and high
    speed       2: twice as fast
    loop        of LOOPS
    quality     of QUALITIES, of the MP4; where there is a `file`, of that
    file        of FILES: what is made beside the MP4
    """

    original: str = ""
    start: float = 0.0
    end: float = 0.0
    fade: float = 0.5
    times: int = 1
    upscale: int = 1
    speed: float = 1.0
    loop: str = ""
    quality: str = "best"
    file: str = ""

    @property
    def words(self) -> str:
        """ "2x frames, there and back": what differs from the original; "" where nothing does."""
        said = [
            f"{self.start:g} s to {f'{self.end:g} s' if self.end else 'the end'}" if self.start or self.end else "",
            f"{self.times}x frames" if self.times > 1 else "",
            f"{self.upscale}x size" if self.upscale > 1 else "",
            f"{self.speed:g}x speed" if self.speed != 1 else "",
            LOOPS.get(self.loop, ""),
            FILES[self.file][1] if self.file else "",
            f"{self.quality} quality" if self.quality != "best" else "",
        ]
        return ", ".join(filter(None, said))


NAMES = tuple(entry.name for entry in fields(Changes))
ASKED = tuple(name for name in NAMES if name != "original")


def read_changes(values: Mapping[str, Any], original: str) -> Changes:
    """Values as a person or a program gave them. None and "" choose the usual. Raises UserError naming the field."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    for name in given:
        if name not in ASKED:
            raise UserError(f"{reprlib.repr(name)} is no change; known are {', '.join(ASKED)}", field="changes")
    start = _number("start", given.get("start", 0), 0, 1e6, "seconds from the beginning")
    end = _number("end", given.get("end", 0), 0, 1e6, "seconds from the beginning, or 0 for the end")
    if end and end <= start:
        raise UserError(
            f"end: the part would end at {end:g} s and begin at {start:g} s; choose a later end", field="end"
        )
    return Changes(
        original,
        start,
        end,
        _number("fade", given.get("fade", Changes.fade), 0, MAX_FADE, f"seconds from 0 (a cut) to {MAX_FADE:g}"),
        _times("times", given.get("times", 1), (1, 2, 4)),
        _times("upscale", given.get("upscale", 1), (1, 2)),
        _number("speed", given.get("speed", 1), *SPEEDS, f"a number from {SPEEDS[0]:g} to {SPEEDS[1]:g}"),
        _choice("loop", given.get("loop", ""), ("", *LOOPS)),
        _choice("quality", given.get("quality", "best"), tuple(QUALITIES)),
        _choice("file", given.get("file", ""), ("", *FILES)),
    )


def _number(name: str, value: Any, least: float, most: float, allowed: str) -> float:
    """A text that says a number will do, as a field of a form sends it; so will "2x"."""
    try:
        number = float(value.lower().removesuffix("x")) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not least <= number <= most:
        raise UserError(f"{name}: {reprlib.repr(value)}: expected {allowed}", field=name)
    return number


def _times(name: str, value: Any, allowed: tuple[int, ...]) -> int:
    words = " or ".join(f"{number}x" for number in allowed[1:])
    number = _number(name, value, allowed[0], allowed[-1], words)
    if number not in allowed:
        raise UserError(f"{name}: {reprlib.repr(value)}: expected {words}", field=name)
    return int(number)


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise UserError(f"{name}: {reprlib.repr(value)}: expected {', '.join(filter(None, allowed))}", field=name)
    return value


def stored_changes(value: Any) -> Changes | None:
    """Of a row or a message; None where it is no record of changes."""
    if not isinstance(value, dict):
        return None
    original = value.get("original")
    try:
        return read_changes({n: value[n] for n in ASKED if n in value}, original if isinstance(original, str) else "")
    except UserError:
        return None
