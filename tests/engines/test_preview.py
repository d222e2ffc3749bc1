"""The preview of unfinished latents looks like the clip: same colours, same motion, few bytes."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from wan_ui.engines import preview, vae
from wan_ui.settings import ROOT

VAE_FILE = ROOT / "assets" / "wan-tiny" / "Wan2.1_VAE.pth"


@pytest.fixture(scope="module")
def model():
    if not VAE_FILE.is_file():
        pytest.skip("assets/wan-tiny holds no weights")
    return vae.load_vae(VAE_FILE, dtype=torch.float32, device=torch.device("cpu"))


def test_the_preview_resembles_the_clip_it_stands_for(model):
    x = torch.linspace(-1, 1, 64)
    picture = torch.stack([x.expand(64, 64), x[:, None].expand(64, 64), (x[:, None] * x).expand(64, 64)])
    clip = torch.stack([picture.roll(6 * t, dims=2) for t in range(9)], dim=1)[None]
    mean, std = vae.latent_statistics(model)
    with torch.inference_mode():
        latents = (model.encode(clip).latent_dist.mode() - mean) / std
    url = preview.animate(latents, vae.fit_colours(model))
    assert url.startswith("data:image/webp;base64,") and len(url) < 8000
    shown = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert shown.size == (8, 8) and shown.n_frames == latents.shape[2] == 3
    wanted = torch.nn.functional.avg_pool2d(clip[0, :, [0, 3, 7]].transpose(0, 1), 8).permute(0, 2, 3, 1).numpy()
    for index in range(3):
        shown.seek(index)
        got = np.asarray(shown.convert("RGB")) / 127.5 - 1
        matches = [np.corrcoef(got.ravel(), other.ravel())[0, 1] for other in wanted]
        assert int(np.argmax(matches)) == index and matches[index] > 0.8, matches


def test_the_map_is_the_same_every_time(model):
    torch.testing.assert_close(vae.fit_colours(model), vae.fit_colours(model), atol=1e-4, rtol=1e-3)
