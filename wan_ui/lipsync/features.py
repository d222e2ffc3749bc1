"""Samples -> the audio features that each video frame hears, one segment in memory at a time.

Whisper's encoder reads segments of 30 s and answers at 50 Hz. A video frame hears 10 of those answers, 200 ms, with
all layers of each. Ten minutes of features would be 230 MB at full size; here at most two segments are kept, because
windows are asked for in order.

Which 10: `sound.window_start` says, and why.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from wan_ui.lipsync.musetalk import WINDOW, MuseTalk
from wan_ui.media.sound import FEATURE_RATE, SAMPLE_RATE


class AudioFeatures:
    """`windows(starts)` of one track; `samples` is 16 kHz float32 in -1..1."""

    def __init__(self, musetalk: MuseTalk, samples: np.ndarray):
        self._musetalk, self._samples = musetalk, samples
        self._per_segment = musetalk.spectrogram.n_samples  # 30 s
        self._segments: OrderedDict[int, torch.Tensor] = OrderedDict()
        # What the spectrogram's padding with silence gives beyond the end of the track is not heard.
        # In floating point, as upstream: 35.3 s are 1764 features, not 1765.
        self.length = math.floor(len(samples) / SAMPLE_RATE * FEATURE_RATE)

    def _segment(self, index: int) -> torch.Tensor:
        if index not in self._segments:
            part = self._samples[index * self._per_segment : (index + 1) * self._per_segment]
            self._segments[index] = self._musetalk.hear(part)
            while len(self._segments) > 2:
                self._segments.popitem(last=False)
        return self._segments[index]

    def windows(self, starts: Sequence[int]) -> torch.Tensor:
        """(n, 10 * layers, width) float32 on the device; features before the start and after the end are zero."""
        musetalk = self._musetalk
        rows = self._per_segment * FEATURE_RATE // SAMPLE_RATE  # of a segment
        out = torch.zeros(len(starts), WINDOW, musetalk.layers, musetalk.width, device=musetalk.device)
        for number, start in enumerate(starts):
            row, end = max(0, start), min(self.length, start + WINDOW)
            while row < end:
                segment, first = divmod(row, rows)
                count = min(end - row, rows - first)
                out[number, row - start : row - start + count] = self._segment(segment)[first : first + count]
                row += count
        return out.flatten(1, 2)
