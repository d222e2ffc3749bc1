"""Where the weights wait: the same clip bit for bit, and less memory."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import live_bytes, make_request, quiet


@pytest.mark.parametrize(
    ("scheme", "modes"),
    [
        ("bf16", ("none", "text", "model", "block")),
        ("fp8", ("none", "model", "block")),
        ("gguf-Q8_0", ("none", "model")),
    ],
)
def test_the_same_clip_wherever_the_weights_wait(load, offload, configured, device, model, tmp_path, scheme, modes):
    configured(lightx2v_plain="blocks,products")  # which only weights that stay can have
    if device == "cpu":
        modes = [mode for mode in modes if mode not in ("none", "text")]  # upstream: there must be a device to stay on
    request, clips, held = make_request(tmp_path, model, scheme), {}, {}
    for mode in modes:
        offload(mode)
        engine = load(scheme, torch.bfloat16)
        assert engine.offload == mode
        held[mode] = live_bytes("cuda")
        clips[mode] = [engine.generate(request, quiet).latents for _ in range(2)]
        engine.close()
    for mode, (latents, again) in clips.items():
        assert np.array_equal(latents, again), mode
    first, *others = (latents for latents, _ in clips.values())
    assert all(np.array_equal(latents, first) for latents in others), "weights only move"
    if "none" in modes:
        assert all(held[mode] < held["none"] for mode in modes if mode != "none")
