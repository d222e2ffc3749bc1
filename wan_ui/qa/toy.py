"""The catalog's models at toy size, where there is no GPU: random weights that a CPU runs in seconds.

Only sizes change: width, blocks and text encoder, the picture, and how many frames there are. Experts, channels, tasks,
schemes, recipes and names of files stay, so that every model goes the way that it goes at full size.
"""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from wan_ui.catalog import Model, parse_size
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES, Family
from wan_ui.settings import Settings

LABEL = "toy size on a CPU: the numbers say nothing about the model"
WIDTH, FFN, HEADS, BLOCKS = 256, 512, 2, 2  # rows of 256 numbers are the least that K-quants take
VAE_WIDTH = 8
UMT5 = {"vocabulary": 2048, "dim": 64, "ffn": 128, "heads": 4, "layers": 2, "buckets": 32}  # of Wan-Tiny's tokenizer
CLIP = {"width": 160, "ffn": 320, "layers": 3, "picture": 28, "patch": 14}
ANIMATE = {"face_size": 16, "motion_encoder_dim": 32, "face_width": 32, "clip_width": CLIP["width"]}
LONGEST = 6  # tokens along the longer side of a picture, or as much of a coarser grid


def of_family(family: Family) -> Family:
    transformer = replace(family.transformer, width=WIDTH, ffn=FFN, heads=HEADS, blocks=BLOCKS)
    decoder = VAE_WIDTH * (2 if family.vae.residual else 1)
    return replace(family, transformer=transformer, vae=replace(family.vae, encoder=VAE_WIDTH, decoder=decoder))


def of_size(family: Family, size: tuple[int, int]) -> tuple[int, int]:
    """About the shape of `size`, in pixels."""
    longest = max(2, LONGEST * family.token // family.grid)
    width, height = (family.grid * max(1, round(longest * side / max(size))) for side in size)
    return width, height


def of_frames(frames: list[int], family: Family) -> dict[int, int]:
    """Which length each stands for: 5 for the shortest, then 9, 13 ...; of segments that a voice drives 17; of those
    that a performance drives 13, of which up to 5 are of the segment before."""
    shortest = 17 if family.speech else 13 if family.performance else 5
    return {length: shortest + 4 * place for place, length in enumerate(sorted(frames))}


def in_place_of(model: Model, size: str, frames: int | None) -> tuple[str, int | None]:
    """What stands for a size and a length of the full-size model. Raises UserError where it makes no such clips."""
    if size not in ("", "auto"):
        full = parse_size(size)
        if full not in model.sizes:
            made = ", ".join(f"{width}x{height}" for width, height in model.sizes)
            raise UserError(f"size: {model.name} makes {made}, not {size}", field="size")
        size = "{}x{}".format(*of_size(model.family, full))
    if frames is not None:
        lengths = of_frames(list(model.frames), model.family)
        if frames not in lengths:
            made = ", ".join(map(str, lengths))
            raise UserError(f"frames: {model.name} makes {made} frames, not {frames}", field="frames")
        frames = lengths[frames]
    return size, frames


def shrink(settings: Settings, folder: Path) -> Settings:
    """Settings with a catalog, below `folder`, of the same models at toy size; embedded ones stay as they are."""
    entries = tomllib.loads(settings.catalog.read_text(encoding="utf-8"))
    entries.pop("repositories", None)  # sizes and checksums of the real files
    for values in entries.values():
        if values["root"].startswith("embedded:"):
            continue
        family = FAMILIES[values["family"]]
        lengths = of_frames(values["frames"], family)
        sizes = ["{}x{}".format(*of_size(family, parse_size(size))) for size in values["sizes"]]
        values |= {
            "needs_gpu": False,
            "sizes": list(dict.fromkeys(sizes)),
            "frames": [lengths[length] for length in values["frames"]],
            "default_frames": lengths[values["default_frames"]],
        }
    path = folder / "catalog.toml"
    path.write_text("\n".join(_toml(entries)), encoding="utf-8")
    return replace(settings, catalog=path)


def _toml(values: dict[str, Any], above: tuple[str, ...] = ()) -> list[str]:
    """Strings, numbers and lists of them are written alike in JSON and TOML."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"[{'.'.join(map(json.dumps, above))}]"] if above else []
    lines += [f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in values.items():
        if key not in plain:
            lines += _toml(value, (*above, key))
    return lines
