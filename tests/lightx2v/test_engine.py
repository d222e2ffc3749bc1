"""Wan-Tiny through the real LightX2V: every scheme, cancelling, seeds, and a failure in the middle."""

import numpy as np
import pytest
import torch
from PIL import Image

from wan_ui.request import Request

SCHEMES = ("bf16", "fp8", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0")


def make_request(folder, model, scheme, **changes) -> Request:
    width, height = 128, 128
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    path = folder / "picture.png"
    Image.fromarray(picture).save(path)
    values = {"prompt": "zoom in, sunset light", "frames": 9, "steps": 4, "seed": 7} | changes
    return Request(
        image=str(path), model=model.name, scheme=scheme, engine="lightx2v", width=width, height=height, **values
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(load, model, scheme, tmp_path):
    engine = load(scheme, torch.bfloat16)
    seen = []
    clip = engine.generate(make_request(tmp_path, model, scheme), seen.append)
    assert clip.frames.shape == (9, 128, 128, 3) and clip.frames.dtype == np.uint8
    assert np.isfinite(clip.latents).all() and clip.latents.shape == (16, 3, 16, 16)
    assert [p.stage for p in seen if p.stage == "denoise"] == ["denoise"] * 4
    assert list(dict.fromkeys(p.stage for p in seen)) == ["text", "image", "denoise", "decode"]
    print(scheme, engine.facts)
