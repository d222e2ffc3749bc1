"""What a clip in segments is made of: the prompts after the first, and the clip that it goes on from."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from wan_ui.catalog import Model
from wan_ui.crop import MIDDLE
from wan_ui.errors import UserError
from wan_ui.media import decoder, video
from wan_ui.settings import Settings


def read_prompts(text: str, first: str, settings: Settings) -> list[str]:
    """All prompts of a clip: `first`, if there is one, and those of `text`, a line each or with "|" in between.

    Raises UserError (field "segments"). Empty lines say nothing; an empty place between two "|" is a prompt forgotten.
    """
    rows = [row for row in text.replace("\0", " ").splitlines() if row.strip()]
    prompts = [" ".join(part.split()) for row in rows for part in row.split("|")]
    for place, prompt in enumerate(prompts, start=1):
        if not prompt:
            words = f"prompt {place} of {len(prompts)} is empty; say what happens there, or take its “|” away"
            raise UserError(f"segments: {words}", field="segments")
        if len(prompt) > settings.max_prompt:
            words = f"prompt {place} has {len(prompt):,} characters; the limit is {settings.max_prompt:,}"
            raise UserError(f"segments: {words}", field="segments")
    prompts = [*([first] if first else []), *prompts]
    if len(prompts) > settings.max_segments:
        words = f"{len(prompts)} prompts; one clip takes at most {settings.max_segments}: continue it in another job"
        raise UserError(f"segments: {words}", field="segments")
    return prompts


@dataclass(frozen=True)
class Before:
    """A clip that is continued: its size in pixels, frames per second, and seconds, 0 where its file does not say."""

    width: int
    height: int
    fps: float
    seconds: float

    def size(self, model: Model) -> tuple[int, int]:
        """At which the model goes on: the clip's own if it makes that, else of its list the nearest in shape."""
        own = (self.width, self.height)
        return own if model.takes_size(own) else model.closest_size(*own)

    def rate(self, model: Model) -> int:
        """Frames per second that the model plays at, nearest to the clip's."""
        return min(model.rates, key=lambda rate: (abs(math.log(rate / self.fps)), rate))

    def words(self, size: tuple[int, int], fps: int) -> str:
        """ "1920 × 1080 at 60 frames a second; goes on at 832 × 480, its edges cut off, at 30 frames a second" """
        left, top, right, bottom = MIDDLE.box((self.width, self.height), size)
        cut = (right - left) * (bottom - top) < 0.99 * self.width * self.height
        said = f"{self.width} × {self.height} at {self.fps:.4g} frames a second"
        changes = f" at {size[0]} × {size[1]}" if size != (self.width, self.height) else ""
        changes += ", its edges cut off," if cut else ""
        changes += f" at {fps} frames a second" if abs(fps - self.fps) > 0.01 else ""
        return f"{said}; goes on{changes or ' as it is'}"


def look_before(path: str, settings: Settings) -> Before:
    """The clip that is to be continued. Raises UserError (field "clip")."""
    source = Path(path)
    if not os.path.isfile(source):
        what = "is not a file; choose a clip" if os.path.exists(source) else "does not exist"
        raise UserError(f"clip: {source.name} {what}", field="clip")
    try:
        found = video.look(source)
    except UserError as error:
        raise video.about(error, "clip") from None
    seconds = decoder.duration(source)
    if seconds > settings.max_clip_seconds:
        raise UserError(too_long(source.name, f"lasts {seconds:.0f} s", settings), field="clip")
    return Before(found.width, found.height, found.fps, seconds)


def too_long(name: str, what: str, settings: Settings) -> str:
    words = f"at most {settings.max_clip_seconds:g} s can be continued: cut it, only its last frame is gone on from"
    return f"clip: {name} {what}; {words}"
