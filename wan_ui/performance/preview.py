"""What is seen of a performance before a run: some of its frames, beside them their skeleton and the face."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.media import decoder
from wan_ui.performance import people, skeleton, watch
from wan_ui.performance.people import Find
from wan_ui.settings import Settings

SHOWN, HEIGHT = 5, 240  # frames, and pixels of each


def sheet(
    path: Path, settings: Settings, load: Callable[[Settings], Find] = people.load_dwpose
) -> tuple[Image.Image, str]:
    """Columns of frame, skeleton and face, evenly over the performance, and words. Raises UserError ("performance")."""
    found = watch.look("performance", str(path), settings)
    find = load(settings)
    seconds = decoder.duration(path) or 1.0
    rate = max(1.0, min(30.0, SHOWN / seconds))
    columns, crowded, empty = [], 0, 0
    for number, frame in enumerate(watch.frames_of(path, rate, "performance")):
        if number == SHOWN:
            break
        width = max(2, round(frame.shape[1] * HEIGHT / frame.shape[0]))
        points = [one for one in find(frame) if one[people.BODY, 2].mean() >= people.SURE]
        points.sort(key=lambda one: -people.height(one))
        crowded += len(points) > 1 and people.height(points[1]) > people.SECOND * people.height(points[0])
        empty += not points
        parts = [Image.fromarray(frame).resize((width, HEIGHT))]
        if points:
            scaled = points[0] * (width / frame.shape[1], HEIGHT / frame.shape[0], 1)
            parts.append(Image.fromarray(skeleton.draw(scaled, width, HEIGHT)))
            face = watch.cut_out(frame, points[0][skeleton.FACE, :2])
            parts.append(Image.fromarray(face).resize((min(width, HEIGHT // 2), HEIGHT // 2)))
        column = Image.new("RGB", (width, 5 * HEIGHT // 2))
        top = 0
        for part in parts:
            column.paste(part, ((width - part.width) // 2, top))
            top += part.height
        columns.append(np.asarray(column))
    if not columns:
        raise UserError(f"performance: {path.name} has no frames", field="performance")
    if empty == len(columns):
        raise UserError(f"performance: {path.name} shows no person that can be recognised", field="performance")
    words = f"{found.width} × {found.height} at {found.fps:.4g} frames a second, {seconds:.1f} s"
    words += f"; nobody is seen in {empty} of {len(columns)} frames" if empty else ""
    words += f"; more than one person is seen in {crowded} of {len(columns)} frames" if crowded else ""
    return Image.fromarray(np.concatenate(columns, axis=1)), words
