"""How sharp a drawn mouth is against the face around it, and the unsharp mask that brings it there. Not in upstream.

What the network draws is softer than the face that it is laid on, also where `match_detail` has strengthened it: a
smear that moves. The measure is how strong what is finer than a 128th of the face's width is in what changes, against
how strong it is there in the frame that lies under it, which is as sharp as the rest of its face.
"""

import cv2
import numpy as np

from wan_ui.lipsync.blend import Mask, match_detail

FINE = 128  # parts of the face's width; what is finer counts
MOST = 1.5  # of what is fine is added; more would draw grain and rims
STEADY = 0.7  # of the strength in the frame before: it does not flicker
CHANGED = 0.5  # of the mask, from which on a pixel is the mouth's


def area_of(mask: Mask, box: tuple[int, int, int, int]) -> np.ndarray:
    """Where the mouth is drawn within `box`, (h, w) bool."""
    left, top, right, bottom = box
    rows, columns = max(0, top - mask.top), max(0, left - mask.left)
    part = mask.alpha[rows : rows + bottom - top, columns : columns + right - left]
    area = np.zeros((bottom - top, right - left), bool)
    area[: part.shape[0], : part.shape[1]] = part > CHANGED * 255
    return area


def ratio(drawn: np.ndarray, there: np.ndarray, area: np.ndarray) -> float:
    """1: as sharp as what lies under it; 0.7: softer. Both (h, w, 3), the box of a face; area: (h, w) bool in it."""
    strengths = [np.square(_fine(pixels.astype(np.float32).mean(-1))[area]).mean() for pixels in (drawn, there)]
    return float(np.sqrt(strengths[0] / max(strengths[1], 1e-6)))


class Sharpener:
    """Of one pass over a clip: its strength changes slowly from frame to frame."""

    def __init__(self) -> None:
        self.strength: float | None = None  # of the last frame; 0: nothing is added

    def match(self, face: np.ndarray, frame: np.ndarray, box: tuple[int, int, int, int], mask: Mask) -> np.ndarray:
        """`face` (S, S, 3) uint8 RGB at the size of `box`, as sharp as `frame` is there."""
        left, top, right, bottom = box
        drawn, area = match_detail(face, frame, box), area_of(mask, box)
        if not area.any():
            return drawn
        wanted = _strength(drawn, frame[top:bottom, left:right], area)
        self.strength = wanted if self.strength is None else STEADY * self.strength + (1 - STEADY) * wanted
        pixels = drawn.astype(np.float32)
        return np.clip(np.rint(pixels + self.strength * _fine(pixels)), 0, 255).astype(np.uint8)


def _strength(drawn: np.ndarray, there: np.ndarray, area: np.ndarray) -> float:
    """Of an unsharp mask that makes the ratio 1: what it adds is partly not as fine, so it takes more than the rest."""
    own = _fine(drawn.astype(np.float32).mean(-1))
    added, wanted = _fine(own)[area], np.square(_fine(there.astype(np.float32).mean(-1))[area]).mean()
    # |own + strength * added| = |there|
    square, both, lacking = np.square(added).mean(), (own[area] * added).mean(), np.square(own[area]).mean() - wanted
    if lacking >= 0 or square < 1e-6:
        return 0.0
    return float(min(MOST, (np.sqrt(both**2 - square * lacking) - both) / square))


def _fine(pixels: np.ndarray) -> np.ndarray:
    return pixels - cv2.GaussianBlur(pixels, (0, 0), max(0.6, pixels.shape[1] / FINE))
