"""Whisper's encoder and the spectrogram that it hears, with the names of the released files.

Both do every operation in the order of transformers' WhisperEncoder and WhisperFeatureExtractor, to which they are
equal bit for bit. Why not those: to import them takes as long as all else that a worker imports.

Source: Radford et al. 2022 (https://arxiv.org/abs/2212.04356); the scale is Slaney's, Auditory Toolbox, 1998.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

TOP = 8000.0  # Hz: the highest that is heard
LINEAR, KNEE = 1000.0, 15.0  # up to so many Hz the scale is linear; that are so many mels
RATE = math.log(6.4) / 27.0  # from there on, per mel


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = (x.shape[-1] // self.heads) ** -0.5
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()
            for part in (self.q_proj(x) * scale, self.k_proj(x), self.v_proj(x))
        )
        seen = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, ffn: int):
        super().__init__()
        self.self_attn, self.self_attn_layer_norm = Attention(width, heads), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(nn.Module):
    def __init__(
        self,
        d_model: int = 384,
        encoder_layers: int = 4,
        encoder_attention_heads: int = 6,
        encoder_ffn_dim: int = 1536,
        num_mel_bins: int = 80,
        max_source_positions: int = 1500,
    ):
        """The names and defaults are those of the released config.json; the defaults are whisper-tiny's."""
        super().__init__()
        self.width, self.heads, self.positions = d_model, encoder_attention_heads, max_source_positions
        self.conv1 = nn.Conv1d(num_mel_bins, d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(max_source_positions, d_model)
        layers = (Layer(d_model, encoder_attention_heads, encoder_ffn_dim) for _ in range(encoder_layers))
        self.layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(d_model)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(batch, num_mel_bins, 2 T) -> (batch, T, layers + 1, d_model): all hidden states, from the embedding to the
        normalised last one. T is max_source_positions."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).permute(0, 2, 1) + self.embed_positions.weight
        states = []
        for layer in self.layers:
            states.append(x)
            x = layer(x)
        return torch.stack([*states, self.layer_norm(x)], dim=2)


class MelSpectrogram:
    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        hop_length: int = 160,
        chunk_length: int = 30,
        n_fft: int = 400,
    ):
        """The names and defaults are those of the released preprocessor_config.json; chunk_length is in seconds."""
        self.n_samples = chunk_length * sampling_rate
        self.frames = self.n_samples // hop_length
        self.hop_length, self.n_fft = hop_length, n_fft
        self.filters = torch.from_numpy(mel_filters(n_fft // 2 + 1, feature_size, sampling_rate)).float()

    def __call__(self, samples: np.ndarray) -> torch.Tensor:
        """(n,) float32 in -1..1 -> (1, feature_size, frames) float32: silence follows what is shorter than a segment,
        and what is longer is cut."""
        wave = np.zeros(self.n_samples, np.float32)
        wave[: len(samples)] = samples[: self.n_samples]
        window = torch.hann_window(self.n_fft)
        found = torch.stft(
            torch.from_numpy(wave)[None], self.n_fft, self.hop_length, window=window, return_complex=True
        )
        power = (found[..., :-1].abs() ** 2).contiguous()
        mel = (self.filters.T @ power).clamp(min=1e-10).log10()
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


def mel_filters(bins: int, mels: int, sampling_rate: int) -> np.ndarray:
    """(bins, mels) float64: triangles from the centre of one to that of the next, each of the same area."""
    highest = KNEE + math.log(TOP / LINEAR) / RATE
    scale = np.linspace(0.0, highest, mels + 2)
    centres = np.where(scale < KNEE, 200.0 * scale / 3.0, LINEAR * np.exp(RATE * (scale - KNEE)))
    apart = np.diff(centres)
    slopes = centres[None, :] - np.linspace(0, sampling_rate // 2, bins)[:, None]
    triangles = np.maximum(0.0, np.minimum(-slopes[:, :-2] / apart[:-1], slopes[:, 2:] / apart[1:]))
    return triangles * (2.0 / (centres[2:] - centres[:-2]))
