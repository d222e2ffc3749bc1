"""Pictures of intermediate results: latent channels, decoded frames, the error of each block."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

FRAMES_SHOWN = 6
# Blue, black, orange: signed values around zero.
NEGATIVE, POSITIVE = np.array([80, 150, 255]), np.array([255, 160, 60])


def of_stage(name: str, output: torch.Tensor, expected: torch.Tensor | None, folder: Path) -> dict[str, str]:
    """Write what can be seen of a stage's output; {what it shows: file name}."""
    if output.dim() != 4:
        return {}  # the text has no picture
    folder.mkdir(parents=True, exist_ok=True)
    draw = film if name == "decode" else channels
    stem = name.replace(" ", "-")
    shown = {name: f"{stem}.png"}
    draw(output).save(folder / f"{stem}.png")
    if expected is not None:
        shown[f"{name} reference"] = f"{stem}-reference.png"
        draw(expected).save(folder / f"{stem}-reference.png")
    return shown


def channels(latents: torch.Tensor) -> Image.Image:
    """(c, t, h, w) -> a sheet with a row per latent frame (at most six) and a column per channel.

    Values are scaled by three standard deviations of the finite ones; NaN and Inf are magenta.
    """
    finite = latents[latents.isfinite()]
    scale = 3 * float(finite.std()) if finite.numel() > 1 and finite.std() > 0 else 1.0
    rows = []
    for frame in _spread(latents.shape[1]):
        values = (latents[:, frame] / scale).clamp(-1, 1).numpy()
        bad = ~np.isfinite(values)
        values = np.nan_to_num(values)[..., None]
        colours = np.where(values > 0, values * POSITIVE, -values * NEGATIVE)
        colours[bad] = (255, 0, 255)
        tiles = [np.pad(tile, ((0, 2), (0, 2), (0, 0)), constant_values=40) for tile in colours]
        rows.append(np.concatenate(tiles, axis=1))
    sheet = Image.fromarray(np.concatenate(rows).astype(np.uint8))
    factor = max(1, min(6, 1600 // sheet.width))
    return sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)


def film(frames: torch.Tensor) -> Image.Image:
    """(T, H, W, 3) in -1 .. 1 -> up to six frames side by side; NaN and Inf are magenta."""
    chosen = frames[_spread(len(frames))]
    bad = ~chosen.isfinite().all(dim=-1)
    pixels = chosen.nan_to_num().clamp(-1, 1).mul(127.5).add(127.5).round().to(torch.uint8)
    pixels[bad] = torch.tensor([255, 0, 255], dtype=torch.uint8)
    return Image.fromarray(np.concatenate(list(pixels.numpy()), axis=1))


def _spread(count: int) -> list[int]:
    return sorted({round(k * (count - 1) / (FRAMES_SHOWN - 1)) for k in range(FRAMES_SHOWN)})


def block_plot(blocks, folder: Path) -> str:
    """An SVG of the relative error after each block, on a logarithmic scale; its file name."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height, left, bottom = 720, 240, 56, 30
    floor = 1e-5
    logs = [np.log10(max(error, floor)) for error in blocks.errors]
    top = max(0.0, float(np.ceil(max(logs))))
    low = np.log10(floor)

    def x(index: int) -> float:
        return left + (index + 0.5) * (width - left - 12) / len(logs)

    def y(value: float) -> float:
        return 12 + (top - value) / (top - low) * (height - bottom - 12)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{blocks.stage}: {blocks.verdict}</title>'
    ]
    for power in range(int(low), int(top) + 1):
        parts.append(
            f'<line x1="{left}" x2="{width - 12}" y1="{y(power):.1f}" y2="{y(power):.1f}" stroke="#8888" '
            f'stroke-width="0.5"/><text x="{left - 8}" y="{y(power) + 4:.1f}" text-anchor="end" fill="#888">'
            f"1e{power}</text>"
        )
    bar = 0.7 * (width - left - 12) / len(logs)
    for index, value in enumerate(logs):
        bad = blocks.not_finite[index] or (blocks.first is not None and index - 1 == blocks.first)
        parts.append(
            f'<rect x="{x(index) - bar / 2:.1f}" y="{y(value):.1f}" width="{bar:.1f}" '
            f'height="{max(1.0, y(low) - y(value)):.1f}" fill="{"#d9534f" if bad else "#6b6be0"}"/>'
        )
        if len(logs) <= 24 or index % 5 == 1:
            name = "in" if index == 0 else str(index - 1)
            parts.append(f'<text x="{x(index):.1f}" y="{height - 12}" text-anchor="middle" fill="#888">{name}</text>')
    name = f"{blocks.stage.replace(' ', '-')}-blocks.svg"
    (folder / name).write_text("\n".join([*parts, "</svg>"]), encoding="utf-8")
    return name
