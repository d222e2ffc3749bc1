"""What the benchmark asks of stock LightX2V, by LightX2V's own arithmetic."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks.lightx2v_gpu import A14B, SMALL, stock_size
from wan_ui.catalog import load_catalog
from wan_ui.settings import settings


class Config(dict):
    """As upstream's: keys are attributes too."""

    __getattr__ = dict.__getitem__


def latent_size(runner_class, picture, target: dict, stride: int):
    """(height, width) of the latents that a runner makes room for; its VAE is left out."""
    config = Config(target, vae_stride=(4, stride, stride), patch_size=(1, 2, 2))
    runner = SimpleNamespace(config=config)
    runner.get_latent_shape_with_lat_hw = lambda height, width: (height, width)
    runner.get_vae_encoder_output = lambda *args: None
    return runner_class.run_vae_encoder(runner, picture)[1]


@pytest.mark.parametrize("name", [A14B[0], SMALL[0]])
def test_stock_makes_clips_of_the_size_asked_for(lightx2v, name):
    from lightx2v.models.runners.wan.wan_runner import Wan22DenseRunner, WanRunner

    sizes = load_catalog(settings().catalog)[name].sizes
    assert {*A14B[1], *SMALL[1]} <= {*sizes}
    for width, height in sizes:
        target = stock_size(width, height, 81)
        if name == "i2v-a14b":
            got = latent_size(WanRunner, torch.zeros(1, 3, height, width), target, 8)
            assert got == (height / 8, width / 8)
        else:
            got = latent_size(Wan22DenseRunner, Image.new("RGB", (width, height)), target, 16)
            assert got == (height / 16, width / 16)


def test_without_it_a_row_of_patches_is_lost(lightx2v):
    from lightx2v.models.runners.wan.wan_runner import WanRunner

    exact = {"target_height": 480, "target_width": 832, "target_video_length": 81}
    assert latent_size(WanRunner, torch.zeros(1, 3, 480, 832), exact, 8) == (58, 104), "upstream was mended"
