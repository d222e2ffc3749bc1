"""A request as typed, and its single values: each checked, or a UserError naming its field."""

import reprlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wan_ui.errors import UserError
from wan_ui.request import LoraSpec
from wan_ui.valid_text import valid_text

MAX_SEED = 2**32 - 1
MOST_CLIPS = 8  # of one press


@dataclass(frozen=True)
class Draft:
    """A request as typed. None and empty strings mean "choose for me"; seed -1 means a random one.

    seconds  how long, in place of `frames`: the nearest length that the model makes
    inputs  name of an input -> text, or path of a file; which there are says the task
    negative  None: the official text; empty: none
    guidance  a number, two, or a text of them: see recipes.read_guidance
    task    its name, or its few letters; empty: the first of the model's tasks that fits what is given
    overlap  frames that the segments of a performed clip share
    offload  where the weights are to be, of wan_ui.machine.offload; empty and auto: what fits
    job     the entry of the history whose clip is changed or goes on
    jobs    name of an input -> the entry of the history whose clip it is
    changes  what is to be changed of a finished clip, as typed: see wan_ui.changes
    speaking  how the voice is spoken, as typed: see wan_ui.speaking
    draft   a quick clip that is less exact, where the engine can
    crop, end_crop  which part of the first and of the last picture is used, see crop.read_crop
    without_picture  the clip's file does not carry its pictures, see wan_ui.queue.carry
    lora_paths  the command line may name any LoRA file; the page only those in the folder
    """

    inputs: dict[str, str] = field(default_factory=dict)
    task: str = ""
    model: str = ""
    scheme: str = ""
    engine: str = ""
    size: str = "auto"
    frames: int | None = None
    seconds: float | None = None
    steps: int | None = None
    fps: int | None = None
    seed: int = -1
    draft: bool = False
    loras: tuple[LoraSpec, ...] = ()
    motion: str = ""
    negative: str | None = None
    guidance: object = None
    shift: float | None = None
    solver: str = ""
    cache: str = ""
    overlap: int | None = None
    offload: str = ""
    job: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    crop: object = None
    end_crop: object = None
    without_picture: bool = False
    speaking: dict[str, Any] = field(default_factory=dict)
    lora_paths: bool = False


def as_text(field: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{field}: {reprlib.repr(value)} is not text", field=field)
    return valid_text(value)


def one_line(name: str, value: object, limit: int) -> str:
    """A text in one line. Raises UserError where it is longer than `limit`."""
    text = " ".join(as_text(name, value).replace("\0", " ").split())
    if len(text) > limit:
        raise UserError(f"{name}: {len(text):,} characters; the limit is {limit:,}", field=name)
    return text


def seed_of(seed: object) -> int:
    number = whole("seed", seed)
    if number == -1:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= number <= MAX_SEED:
        raise UserError(f"seed: {number} is not between 0 and {MAX_SEED} (-1 draws one)", field="seed")
    return number


def next_seed(asked: object, first: int, place: int) -> int:
    """That of a later clip of one press: drawn as the first was, or the ones after the one asked for."""
    return seed_of(-1) if asked == -1 else (first + place) % (MAX_SEED + 1)


def clips_of(clips: object) -> int:
    """How many clips one press makes. Raises UserError."""
    number = whole("clips", clips)
    if not 1 <= number <= MOST_CLIPS:
        raise UserError(f"clips: 1 to {MOST_CLIPS} are made at once, not {number}", field="clips")
    return number


def whole(field: str, value: object) -> int:
    """An int, or a float without a fraction: that is what JSON makes of a number. True is not 1, nor is "1"."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise UserError(f"{field}: {reprlib.repr(value)} is not a whole number", field=field)
    if abs(value) >= 2**63:  # Python refuses to print one of 4,300 digits
        raise UserError(f"{field}: a number of {value.bit_length()} bits is too large", field=field)
    return value


def truth(field: str, value: object) -> bool:
    """None, which programs send for what is left out, is no."""
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{field}: {reprlib.repr(value)} is neither true nor false", field=field)
    return bool(value)


def listed(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
