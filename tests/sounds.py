"""Sound files out of samples."""

import wave
from pathlib import Path

import numpy as np


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """samples in -1 .. 1, 16,000 a second, one channel"""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path
