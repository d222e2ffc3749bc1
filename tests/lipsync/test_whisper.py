"""Whisper's encoder and its spectrogram against those of transformers: bit for bit."""

import numpy as np
import pytest
import torch

from wan_ui.lipsync.whisper import MelSpectrogram, WhisperEncoder


@pytest.mark.parametrize("width, heads, layers, ffn", [(24, 2, 2, 32), (64, 4, 4, 192), (384, 6, 4, 1536)])
def test_every_hidden_state_is_that_of_transformers(width, heads, layers, ffn):
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Theirs

    torch.manual_seed(0)
    sizes = {"d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": ffn}
    theirs = Theirs(WhisperConfig(**sizes, max_source_positions=150)).eval()
    for tensor in theirs.parameters():
        tensor.data.normal_(0, 0.1)
    ours = WhisperEncoder(**sizes, max_source_positions=150)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    mel = torch.randn(2, 80, 300)
    with torch.inference_mode():
        expected = theirs(mel, output_hidden_states=True).hidden_states
        assert torch.equal(ours(mel), torch.stack(expected, dim=2))


@pytest.mark.parametrize("seconds", [0, 0.01, 1.5, 3, 4])
def test_the_spectrogram_is_that_of_transformers(seconds):
    from transformers import WhisperFeatureExtractor

    samples = np.random.default_rng(0).normal(0, 0.2, round(16_000 * seconds)).astype(np.float32)
    theirs = WhisperFeatureExtractor(chunk_length=3)
    expected = theirs(samples, sampling_rate=16_000, return_tensors="pt").input_features
    assert torch.equal(MelSpectrogram(chunk_length=3)(samples), expected)
    other = WhisperFeatureExtractor(feature_size=128, hop_length=200, n_fft=512, chunk_length=3)
    expected = other(samples, sampling_rate=16_000, return_tensors="pt").input_features
    ours = MelSpectrogram(feature_size=128, hop_length=200, n_fft=512, chunk_length=3)
    assert torch.equal(ours(samples), expected)
