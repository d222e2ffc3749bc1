"""Sound files out of samples, and sounds: a voice, music and noises."""

import functools
import wave
from pathlib import Path

import numpy as np

from wan_ui.media import sound
from wan_ui.settings import ROOT

RATE = 16_000


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """samples in -1 .. 1, 16,000 a second, one channel"""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@functools.cache
def _shipped() -> np.ndarray:
    samples = sound.decode(ROOT / "assets" / "examples" / "voice.m4a")
    return samples[int(np.flatnonzero(sound.is_loud(samples))[0]) * RATE // sound.FEATURE_RATE :]


def voice(seconds: float) -> np.ndarray:
    """(n,) float32: the shipped voice from its first word on, 5 s of it at most."""
    return _shipped()[: round(seconds * RATE)]


def melody(seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) float32: four notes a second, each with overtones, as of a piano."""
    random, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    out = np.zeros_like(time)
    for place in range(0, len(time), RATE // 4):
        since, note = time[: len(time) - place], 220 * 2 ** (random.integers(0, 13) / 12)
        for overtone, level in ((1, 1.0), (2, 0.5), (3, 0.3), (4, 0.2)):
            out[place:] += level * np.exp(-4 * since) * np.sin(2 * np.pi * note * overtone * since)
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def hiss(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """(n,) float32: white noise."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).clip(-1, 1).astype(np.float32)


def drums(seconds: float, seed: int = 0) -> np.ndarray:
    """(n,) float32: two beats a second."""
    beat = np.exp(-25 * (np.arange(round(seconds * RATE)) % (RATE // 2)) / RATE)
    return (hiss(seconds, 0.4, seed) * beat).astype(np.float32)
