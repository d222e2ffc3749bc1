"""A frame twice as wide and high: by Real-ESRGAN's networks where their weights are here, else by Lanczos."""

from typing import Protocol

import cv2
import numpy as np

from wan_ui.afterwork import weights
from wan_ui.settings import Settings


class Upscaler(Protocol):
    """words: what it is, for people."""

    words: str

    def twice(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (2 H, 2 W, 3)."""


class Lanczos:
    words = ""

    def twice(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        return np.asarray(cv2.resize(frame, (2 * width, 2 * height), interpolation=cv2.INTER_LANCZOS4), np.uint8)


def choose_upscaler(settings: Settings) -> Upscaler:
    """Raises UserError (field "upscale") for weights that cannot be used."""
    path = weights.upscaler_file(settings)
    if path is None:
        plain = Lanczos()
        plain.words = weights.upscale_words(settings)
        return plain
    from wan_ui.afterwork.esrgan import Esrgan

    return Esrgan(path, weights.device())
