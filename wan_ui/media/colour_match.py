"""The colours of a segment, matched to the clip that it goes on from.

A model shows the picture it was given again as its first frame, through its VAE and its own taste: a little darker,
flatter, warmer. Left alone that is a jump at every seam, and it adds up. Since both frames show the same, the
difference is the model's alone and is taken back: per channel, mean and spread in linear light, in limits. What the
prompt changes later in the segment stays.
"""

from dataclasses import dataclass

import cv2
import numpy as np

GAIN = 1.25  # the most that a channel's spread is changed by, either way
SHIFT = 0.08  # the most that its mean is moved by, of full linear light
ALIKE = 0.9  # correlation of two frames below which they do not show the same: nothing is matched then
SMALL = 32  # pixels of the longer side at which frames are compared: how sharp they are says nothing there


def _to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0.0, 1.0)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


LINEAR = _to_linear(np.arange(256) / 255.0).astype(np.float32)  # level -> light


@dataclass(frozen=True)
class Match:
    """Three tables of 256 levels, and how far the frames were apart: means of R, G and B in levels."""

    table: np.ndarray
    apart: tuple[float, ...]

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> the same."""
        return cv2.LUT(np.ascontiguousarray(frame), self.table)


def match(first: np.ndarray, last: np.ndarray) -> Match:
    """What turns the colours of a segment's `first` frame into those of the `last` one before it; (H, W, 3) uint8."""
    own, wanted = _small(first), _small(last)
    levels = np.arange(256, dtype=np.uint8)
    table = np.repeat(levels[:, None], 3, axis=1)
    apart = tuple(float(value) for value in first.mean((0, 1)) - last.mean((0, 1)))
    if np.corrcoef(own.ravel(), wanted.ravel())[0, 1] < ALIKE:
        return Match(table[None], apart)
    for channel in range(3):
        mine, theirs = own[..., channel], wanted[..., channel]
        gain = np.clip(theirs.std() / max(float(mine.std()), 1e-4), 1 / GAIN, GAIN)
        mean = mine.mean() + np.clip(theirs.mean() - mine.mean(), -SHIFT, SHIFT)
        light = (LINEAR - mine.mean()) * gain + mean
        table[:, channel] = np.rint(255 * _to_srgb(light))
    return Match(table[None], apart)


def _small(frame: np.ndarray) -> np.ndarray:
    """A few pixels of linear light."""
    height, width = frame.shape[:2]
    scale = SMALL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(LINEAR[frame], size, interpolation=cv2.INTER_AREA)
