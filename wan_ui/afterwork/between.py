"""Frames between frames: by RIFE where its weights are here, else by optical flow; none across a cut."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import cv2
import numpy as np

from wan_ui.afterwork import weights
from wan_ui.afterwork.flow import FlowBetween
from wan_ui.settings import Settings

SMALL = 64  # pixels of the side at which two frames are compared
OTHER_LEVELS, OTHER_COLOURS = 25.0, 0.6  # mean difference, and likeness of the colours, of frames of two scenes


class Between(Protocol):
    """words: what it is, for people."""

    words: str

    def at(self, first: np.ndarray, second: np.ndarray, time: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 at `time` of 0..1 between two."""


def choose_between(settings: Settings) -> Between:
    """Raises UserError (field "times") for weights that cannot be used."""
    path = weights.rife_file(settings)
    if path is None:
        flow = FlowBetween()
        flow.words = weights.between_words(settings)
        return flow
    from wan_ui.afterwork.rife import RifeBetween

    return RifeBetween(path, weights.device())


def more_frames(frames: Iterable[np.ndarray], times: int, between: Between) -> Iterator[np.ndarray]:
    """`times` frames for each that has one behind it, and the last. Across a cut the frame before it stays."""
    before: np.ndarray | None = None
    for frame in frames:
        if before is not None:
            same = same_scene(before, frame)
            for number in range(1, times):
                yield between.at(before, frame, number / times) if same else before
        yield frame
        before = frame


def same_scene(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether one can have become the other by moving."""
    small = [cv2.resize(frame, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for frame in (first, second)]
    apart = np.abs(small[0].astype(np.float32) - small[1]).mean()
    counts = [cv2.calcHist([frame], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel() for frame in small]
    common = float(np.minimum(counts[0], counts[1]).sum() / (SMALL * SMALL))
    return bool(apart < OTHER_LEVELS or common > OTHER_COLOURS)
