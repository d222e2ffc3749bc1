"""LoraEntry: all that is known of one LoRA of the folder, or of the two files that are one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wan_ui.families import NOISE_TARGETS, TRANSFORMERS


@dataclass(frozen=True)
class LoraEntry:
    """One LoRA of the folder, or one high/low pair.

    name       unique; what a LoraSpec.file says: "styles/sepia.safetensors", or for a pair the name
               without its marker, "spiral (high + low)"
    files      {"both": path} for one file, {"high_noise": path, "low_noise": path} for a pair
    fits       name of one of families.TRANSFORMERS, or other
    fits_why   why so, in a few words
    width      of the transformer that it was made for; 0 where nothing tells it
    ranks      distinct ranks of its layers, ascending
    key_format from wan_ui.loras.keys.FORMATS; "+" joins several
    layers     modules that it changes, for each file of `files`
    left_out   tensors and modules of it that are not applied, a line each
    strength_note  where its strength is not told in so many words
    trigger_words, tags, notes  from the metadata; plain text, may be anything a stranger wrote
    cover      whether its metadata have a picture
    made_for   high_noise | low_noise | both | unknown
    made_for_why  which name or metadata says so
    problem    why it is refused; "" when it can be used
    size       bytes, all files together
    shipped    it came with Wan UI
    """

    name: str
    files: dict[str, Path]
    fits: str = "other"
    fits_why: str = ""
    width: int = 0
    ranks: tuple[int, ...] = ()
    key_format: str = ""
    layers: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    strength_note: str = ""
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str = ""
    cover: bool = False
    made_for: str = "unknown"
    made_for_why: str = ""
    problem: str = ""
    size: int = 0
    shipped: bool = False

    @property
    def paired(self) -> bool:
        return "both" not in self.files

    @property
    def title(self) -> str:
        """For a list: "sepia.safetensors · Wan-Tiny · rank 8 · low noise"."""
        parts = [self.name, base_title(self.fits)]
        if self.ranks:
            parts.append("rank " + " to ".join(map(str, sorted({self.ranks[0], self.ranks[-1]}))))
        if self.made_for in NOISE_TARGETS:
            parts.append(self.made_for.replace("_", " "))
        return " · ".join(parts if not self.problem else [self.name, "cannot be used"])

    def to_dict(self) -> dict[str, Any]:
        """For `python -m wan_ui loras --json`."""
        values = {key: value for key, value in vars(self).items() if key != "files"}
        return values | {"files": {target: str(path) for target, path in self.files.items()}}


def base_title(fits: str) -> str:
    """What `LoraEntry.fits` means, for people."""
    return TRANSFORMERS[fits].title if fits in TRANSFORMERS else "another model"
