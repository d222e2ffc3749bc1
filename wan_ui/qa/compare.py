"""Clips side by side: PSNR and SSIM frame by frame, where they differ, and what was set differently.

The first clip is what the others are held against. Two clips are comparable when they have the same size;
of different lengths the common part is compared. Clips are read frame by frame, so that any number of any length take
a few frames of memory. Nothing here imports torch.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.tasks import FILES

SAME = 100.0  # dB that stand for equal frames: JSON has no infinity
SHEET_FRAMES = 5
LABEL = 22  # pixels
MAX_WIDTH = 3840  # pixels of the comparison's video
# Differences of 0, 8, 32, 72 and 128 or more of 255: black, violet, red, orange, white. A square root between them:
# two schemes differ by 1 to 4, which has to be seen as well as a broken one's 100. wan_ui/ui/compare.js has the same.
HEAT = np.array([[0, 0, 0], [90, 20, 130], [210, 50, 60], [255, 170, 40], [255, 255, 230]], np.float32)


@dataclass(frozen=True)
class Item:
    """A finished clip: frames (H, W, 3) uint8, again at each iteration; settings as in its metadata, facts flattened
    into them."""

    name: str
    frames: "np.ndarray | Stored"
    fps: float
    settings: dict

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.shape[2], self.frames.shape[1]


class Stored:
    """The frames of a file, decoded anew at each iteration. shape: as of an array, but for the unknown length."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float):
        self.path, self.fps, self.shape = path, fps, (-1, size[1], size[0], 3)

    def __iter__(self) -> Iterator[np.ndarray]:
        return muxer.iterate(self.path)


@dataclass(frozen=True)
class Pair:
    """One clip against the first. psnr in dB, ssim in -1 .. 1, per frame; the totals are over all pixels and frames."""

    name: str
    psnr: list[float]
    ssim: list[float]
    psnr_total: float
    ssim_total: float
    worst_frame: int


def read_item(path: Path, name: str = "", settings: dict | None = None) -> Item:
    """A clip with its settings, from the file's own metadata unless given. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"compare: {path} {'is not a file' if os.path.exists(path) else 'does not exist'}")
    width, height, fps = muxer.probe(path)
    if settings is None:
        try:
            settings = muxer.read_metadata(path)
        except UserError:
            settings = {}
    return Item(name or path.stem, Stored(path, (width, height), fps), fps, flatten(settings))


def flatten(settings: dict) -> dict[str, str]:
    """{"scheme": "fp8", "facts": {"dtype": ...}} -> {"scheme": "fp8", "dtype": ...}; values in words."""
    flat = {key: value for key, value in settings.items() if key not in ("facts", *FILES)}
    facts = settings.get("facts")
    facts = facts if isinstance(facts, dict) else {}  # of an uploaded file: it may hold anything
    facts = {(f"used {key}" if key in flat else key): value for key, value in facts.items()}
    return {key: _words(value) for key, value in (flat | facts).items()}


def _words(value) -> str:
    """A stored value as a person reads it; "" for none."""
    if isinstance(value, dict) and "file" in value:  # a LoRA
        target = str(value.get("target", "")).replace("_", " ")
        return f"{Path(str(value['file'])).name} x{_words(value.get('strength', 1.0))}{f', {target}' if target else ''}"
    if isinstance(value, dict):
        return "; ".join(f"{str(key).replace('_', ' ')} {_words(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(entry, dict) for entry in value) else ", "
        return separator.join(_words(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def measure(items: Sequence[Item], on_frame: Callable[[int], None] = lambda count: None) -> list[Pair]:
    """Every other clip against the first; on_frame hears how many frames are done. Raises UserError when one has
    another size."""
    first, *others = items
    for other in others:
        if first.size != other.size:
            sizes = " and ".join(f"{width}x{height}" for width, height in (first.size, other.size))
            raise UserError(f"compare: {first.name} and {other.name} have different sizes ({sizes})")
    errors: list[list[float]] = [[] for _ in others]
    likeness: list[list[float]] = [[] for _ in others]
    # A longer clip than the shortest is measured against those that are as long.
    for done, (a, *rest) in enumerate(zip_longest(*(item.frames for item in items))):
        if a is None or all(b is None for b in rest):
            break
        for k, b in enumerate(rest):
            if b is not None:
                errors[k].append(float(np.mean((a.astype(np.float32) - b) ** 2)))
                likeness[k].append(ssim(a, b))
        on_frame(done + 1)
    return [_pair(other.name, errors[k], likeness[k]) for k, other in enumerate(others)]


def _pair(name: str, errors: list[float], likeness: list[float]) -> Pair:
    return Pair(
        name,
        [round(_decibels(error), 2) for error in errors],
        [round(value, 4) for value in likeness],
        round(_decibels(float(np.mean(errors))), 2),
        round(float(np.mean(likeness)), 4),
        int(np.argmax(errors)),
    )


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two pictures (H, W, 3) uint8."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(a, b, channel_axis=-1))


def _decibels(error: float) -> float:
    return min(SAME, 10 * math.log10(255**2 / error)) if error > 0 else SAME


def heat_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two pictures (..., H, W, 3) differ: the largest channel's difference as a colour, in that shape, uint8."""
    level = np.sqrt(np.abs(a.astype(np.int16) - b).max(-1) / 8).clip(0, 4)
    below = level.astype(np.int8)
    part = (level - below)[..., None]
    return (HEAT[below] * (1 - part) + HEAT[np.minimum(below + 1, 4)] * part).astype(np.uint8)


def differences(items: Sequence[Item]) -> dict[str, list[str]]:
    """Settings that are not the same in all clips: {key: one value per clip, "" where it has none}."""
    keys = dict.fromkeys(key for item in items for key in item.settings)
    rows = {key: [item.settings.get(key, "") for item in items] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


# ---------------------------------------------------------------- pictures and files


def contact_sheet(items: Sequence[Item], pairs: Sequence[Pair]) -> Image.Image:
    """A row of up to five frames per clip, with its figures; the rows of different sizes are scaled alike."""
    width, height = items[0].size
    scale = min(1.0, 256 / max(width, height))
    tile = (round(width * scale), round(height * scale))
    count = min(len(pair.psnr) for pair in pairs)
    chosen = sorted({round(k * (count - 1) / (SHEET_FRAMES - 1)) for k in range(SHEET_FRAMES)})
    sheet = Image.new("RGB", (len(chosen) * tile[0], len(items) * (tile[1] + LABEL)), "#16161a")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    figures = {pair.name: f"   PSNR {pair.psnr_total:.1f} dB   SSIM {pair.ssim_total:.3f}" for pair in pairs}
    for row, item in enumerate(items):
        top = row * (tile[1] + LABEL)
        draw.text((6, top + 3), item.name + figures.get(item.name, ""), "#ededf0", font)
        for frame, pixels in enumerate(islice(item.frames, count)):
            if frame in chosen:
                picture = Image.fromarray(pixels).resize(tile, Image.Resampling.LANCZOS)
                sheet.paste(picture, (chosen.index(frame) * tile[0], top + LABEL))
    return sheet


def side_by_side(items: Sequence[Item]) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of all clips beside each other, then the heat map of each against the first.

    Scaled down together to at most MAX_WIDTH: an encoder keeps dozens of them.
    """
    width, height = items[0].size
    scale = min(1.0, MAX_WIDTH / (width * (2 * len(items) - 1)))
    tile = (max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2))
    for first, *others in zip(*(item.frames for item in items), strict=False):
        row = [first, *others, *(heat_map(first, other) for other in others)]
        if scale < 1:
            row = [np.asarray(Image.fromarray(part).resize(tile, Image.Resampling.BOX)) for part in row]
        yield np.concatenate(row, axis=1)


def report(items: Sequence[Item], pairs: Sequence[Pair]) -> dict:
    """What the command prints as JSON and the export keeps."""
    return {
        "reference": items[0].name,
        "clips": [{"name": item.name, "settings": item.settings} for item in items],
        "pairs": [pair.__dict__ for pair in pairs],
        "differences": differences(items),
    }


def export(items: Sequence[Item], pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    """Write comparison.mp4, contact-sheet.png and comparison.json; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ("comparison.mp4", "contact-sheet.png", "comparison.json")}
    muxer.write_mp4(side_by_side(items), paths["comparison.mp4"], items[0].fps, {"comparison": [i.name for i in items]})
    contact_sheet(items, pairs).save(paths["contact-sheet.png"])
    paths["comparison.json"].write_text(json.dumps(report(items, pairs), indent=1), encoding="utf-8")
    return paths
