"""The voice of a speech-driven clip: samples -> what each layer of wav2vec2 hears at each frame.

The official code (wan/modules/s2v/audio_encoder.py) runs the whole voice at once, stretches the features from 50 to 30
a second by linear interpolation and takes of those the one nearest to each frame's time. Here the same numbers are
computed at the frames alone, and a voice longer than a minute is heard in windows that overlap, so that memory does not
grow with its length but by the features themselves.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wan_ui.engines.base import Entering, ignore
from wan_ui.files import wav2vec
from wan_ui.files.tensors import load_strict, read_tensor, shapes_alone

HEARD = 50  # features a second, nearly: the convolutions take 320 samples each, and 400 for the first
STRETCHED = 30  # a second, in between: frames are looked up among these
HOP = wav2vec.RATE // HEARD
WINDOW, OVERLAP = 60 * HEARD, 5 * HEARD  # features; what a window hears beyond its own part, on each side


class Listener:
    """model: a Wav2Vec2Model

    normalises  the samples are brought to mean 0 and deviation 1, as they were in training"""

    def __init__(self, model: Any, normalises: bool):
        self.model, self.normalises = model, normalises

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, width) of what it hears"""
        return self.model.config.num_hidden_layers + 1, self.model.config.hidden_size

    @torch.inference_mode()
    def hear(
        self, samples: np.ndarray, frames: int, fps: float, device: torch.device, entering: Entering = ignore
    ) -> torch.Tensor:
        """(n,) float32 at 16 kHz -> (layers, width, frames) float32 on the CPU; after the voice's end zero.

        entering  called with (k, n) before window k of n
        """
        values = samples.astype(np.float32)
        if self.normalises:
            values = (values - values.mean()) / np.sqrt(values.var() + 1e-7)
        features = self._count(len(values))
        stretched = int(features / HEARD * STRETCHED)
        at = np.round(np.arange(frames) / fps * STRETCHED).astype(int)  # of each frame, among the stretched
        spoken = int((at < stretched).sum())
        places = at[:spoken] * ((features - 1) / max(1, stretched - 1))
        out = torch.zeros(*self.shape, frames)
        home = next(self.model.parameters()).device
        windows = 1 if features <= WINDOW + 2 * OVERLAP else math.ceil(features / WINDOW)
        self.model.to(device)
        try:
            for window in range(windows):
                entering(window + 1, windows)
                first, last = window * WINDOW, features if window == windows - 1 else (window + 1) * WINDOW
                start, end = max(0, first - OVERLAP), min(features, last + OVERLAP)
                # Feature k is of the 400 samples from 320 k on.
                part = values[start * HOP : len(values) if end == features else (end - 1) * HOP + 400]
                heard = self.model(torch.from_numpy(part)[None].to(device), output_hidden_states=True).hidden_states
                layers = torch.cat(heard).float().cpu()  # (layers, features, width)
                mine = np.flatnonzero((places >= first) & (places < (features if window == windows - 1 else last)))
                below = np.clip(np.floor(places[mine]).astype(int), start, end - 1)
                above = np.minimum(below + 1, end - 1)
                share = torch.from_numpy((places[mine] - below).astype(np.float32))[:, None]
                mixed = torch.lerp(layers[:, below - start], layers[:, above - start], share)
                out[:, :, mine] = mixed.transpose(1, 2)
        finally:
            self.model.to(home)
        return out

    def _count(self, samples: int) -> int:
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples


def load_listener(weights: Path) -> Listener:
    """Of the folder that the weights lie in, on the CPU in float32. Raises UserError."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # it takes a second, and S2V alone hears

    config, normalises = wav2vec.read_config(weights.parent)
    infos = wav2vec.read_infos(weights, config)
    # Nothing is masked: that is for training, and would want one more parameter.
    with shapes_alone():
        model = Wav2Vec2Model(Wav2Vec2Config.from_dict({**config, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}))
    now = {before: name for name, before in wav2vec.RENAMED.items()}
    tensors = {}
    for name, info in infos.items():
        for before, after in now.items():
            name = name.replace(before, after)
        tensors[name] = read_tensor(weights, info).float()
    load_strict(model, tensors, file=weights)
    return Listener(model.eval().requires_grad_(False), normalises)
