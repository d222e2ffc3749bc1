"""The colours of a segment, matched to the clip that it goes on from.

A model shows the picture it was given again as its first frame, through its VAE and its own taste: a little lighter,
flatter, warmer. Left alone that is a jump at every seam, and it adds up. Since both frames show the same, the
difference is the model's alone and is taken back, in the whole segment: per channel, mean and spread, in limits. What
colours wander by within the segment is taken back, too, growing towards its end, where it is so little that no prompt
has asked for it; a sunset stays.

It is done on the levels as they are stored, not on light: those are what models are trained on and what their VAEs
blur, and a blurred frame keeps its mean level, not its mean light.
"""

from dataclasses import dataclass

import cv2
import numpy as np

GAIN = 1.1  # the most that a channel's spread is changed by, either way
SHIFT = 12.0  # levels, the most that its mean is moved by at a seam
ALIKE = 0.9  # correlation of two frames below which they do not show the same: then the seam is left as it is
WANDERS, CHANGES = 2.0, 6.0  # levels of a mean: up to which it only wanders, from which it is meant to change
SMALL = 32  # pixels of the longer side at which frames are compared: how sharp they are says nothing there


@dataclass(frozen=True)
class Match:
    """What becomes of a level `x` of each channel: (x - own) * gain + wanted, and + back at the segment's end.

    apart  how far the frames at the seam were apart, levels of R, G and B
    """

    own: np.ndarray
    gain: np.ndarray
    wanted: np.ndarray
    back: np.ndarray
    apart: tuple[float, ...]

    def apply(self, frame: np.ndarray, place: float) -> np.ndarray:
        """(H, W, 3) uint8 -> the same. place: 0 at the first frame of the segment, 1 at its last."""
        levels = np.arange(256.0)[:, None]
        table = (levels - self.own) * self.gain + self.wanted + place * self.back
        table = np.rint(np.clip(table, 0, 255)).astype(np.uint8)
        return cv2.LUT(np.ascontiguousarray(frame), table[None])


def match(last: np.ndarray, segment: np.ndarray) -> Match:
    """last: the last frame (H, W, 3) before the segment (T, H, W, 3), whose first one shows the same; uint8."""
    wanted, first, end = _small(last), _small(segment[0]), _small(segment[-1])
    own, target = first.mean((0, 1)), wanted.mean((0, 1))
    apart = own - target
    alike = min(first.std(), wanted.std()) < 1 or np.corrcoef(first.ravel(), wanted.ravel())[0, 1] >= ALIKE
    gain = np.clip(wanted.std((0, 1)) / np.maximum(first.std((0, 1)), 1.0), 1 / GAIN, GAIN) if alike else np.ones(3)
    shift = np.clip(-apart, -SHIFT, SHIFT) if alike else np.zeros(3)
    wandered = (end.mean((0, 1)) - own) * gain
    wanders = np.clip((CHANGES - np.abs(wandered).max()) / (CHANGES - WANDERS), 0, 1)
    return Match(own, gain, own + shift, -wandered * wanders, tuple(float(value) for value in apart))


def _small(frame: np.ndarray) -> np.ndarray:
    """A few pixels, as float."""
    height, width = frame.shape[:2]
    scale = min(1.0, SMALL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA)
