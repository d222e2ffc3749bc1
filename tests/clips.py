"""Clips made of a few frames."""

from collections.abc import Iterator

import numpy as np


def back_and_forth(frames: np.ndarray, count: int) -> Iterator[np.ndarray]:
    """`count` of the frames (T, H, W, 3), played forth and back, neither end twice in a row."""
    period = max(1, 2 * len(frames) - 2)
    for index in range(count):
        place = index % period
        yield frames[place if place < len(frames) else period - place]
