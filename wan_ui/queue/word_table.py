"""The table of what a small model understands: its meanings, the strengths of them, and what it does not miss."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from wan_ui.errors import UserError

PARTS = ("camera", "motion", "light")


@dataclass(frozen=True)
class Meaning:
    """One thing that the model can do; see the head of a table."""

    name: str
    part: str
    say: str
    words: tuple[str, ...]
    offer: str = ""


@dataclass(frozen=True)
class Strength:
    """words  those that ask for it
    camera, motion, light  how it is said of a meaning of that part
    adverb, adjective      what the model is given
    """

    words: tuple[str, ...]
    camera: str
    motion: str
    light: str
    adverb: str
    adjective: str


@dataclass(frozen=True)
class Table:
    meanings: tuple[Meaning, ...]
    strengths: dict[str, Strength]
    default_name: str
    default_say: str
    ignored: tuple[str, ...]
    lookalikes: tuple[str, ...] = ()

    def offers(self) -> dict[str, list[str]]:
        """Part -> phrases that a click adds to the prompt."""
        return {part: [m.offer for m in self.meanings if m.part == part and m.offer] for part in PARTS}


@lru_cache
def load_table(path: Path) -> Table:
    """Raises UserError naming the file and what is wrong in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        meanings = tuple(Meaning(**{**entry, "words": tuple(entry["words"])}) for entry in values["meaning"])
        strengths = {
            name: Strength(**{**entry, "words": tuple(entry["words"])}) for name, entry in values["strength"].items()
        }
        wrong = next((meaning.name for meaning in meanings if meaning.part not in PARTS), "")
        if wrong:
            raise UserError(f"words {path}, {wrong}: part must be one of {', '.join(PARTS)}")
        default = values["default"]
        return Table(
            meanings, strengths, default["name"], default["say"], tuple(values["ignored"]), tuple(values["lookalikes"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"words {path}: {error}") from None
