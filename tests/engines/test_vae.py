"""The fast walk through the Wan2.1 VAE against AutoencoderKLWan's own encode and decode."""

import pytest
import torch

from tests.engines.random_models import randomised
from wan_ui.engines import vae, vae_fast
from wan_ui.engines.wan_classes import AutoencoderKLWan

LAYOUTS = [
    {"base_dim": 8, "dim_mult": [1, 2, 3, 4], "num_res_blocks": 1},
    {"base_dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2},  # the released VAE's, narrower
]


def build(layout, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = randomised(AutoencoderKLWan(**layout)).to(dtype)
    vae_fast.prepare(model)
    return model


def relative_error(got, expected):
    return ((got.float() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 5, 9, 17, 33, 81])
@torch.inference_mode()
def test_encode_equals_diffusers(layout, frames):
    model = build(layout)
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    video = torch.zeros(1, 3, frames, 32, 48)
    video[:, :, 0] = image
    mean, std = vae.latent_statistics(model)
    expected = (model.encode(video).latent_dist.mode() - mean) / std
    got = vae.encode_image(model, image, frames, lambda k, n: None)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 5, 17])
@torch.inference_mode()
def test_a_video_is_encoded_as_by_diffusers(layout, frames):
    model, given = build(layout), torch.rand(1, 3, frames, 32, 48) * 2 - 1
    mean, std = vae.latent_statistics(model)
    expected, entered = (model.encode(given).latent_dist.mode() - mean) / std, []
    got = vae.encode_video(model, given.clone(), lambda k, n: entered.append((k, n)))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=0)
    count = got.shape[2]
    assert count == 1 + (frames - 1) // 4 and entered == [(k, count) for k in range(1, count + 1)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.inference_mode()
def test_decode_equals_diffusers(layout, frames):
    model = build(layout)
    latents = torch.randn(1, 16, frames, 4, 6)
    decoder = vae_fast.Decoder(model)
    quantised = model.post_quant_conv(latents)
    got = torch.cat([decoder.decode_next(quantised[:, :, k : k + 1]) for k in range(frames)], dim=2)
    torch.testing.assert_close(got.clamp(-1, 1), model.decode(latents).sample, atol=2e-5, rtol=0)


def test_finished_frames_are_shown_in_order_while_the_next_ones_are_made():
    model, happened, shown = build(LAYOUTS[0]), [], []

    def show(frames):
        happened.append(f"shown {len(frames)}")
        shown.append(frames.clone())  # they do not change any more

    latents = torch.randn(1, 16, 3, 4, 6)
    frames = vae.decode(model, latents, lambda k, n: happened.append(f"entering {k}"), show=show)
    assert happened == ["entering 1", "entering 2", "shown 1", "entering 3", "shown 4", "shown 4"]
    assert torch.equal(torch.cat(shown), frames) and frames.shape == (9, 32, 48, 3)


@torch.inference_mode()
def test_bf16_is_no_worse_than_plain_bf16():
    exact, model = build(LAYOUTS[0]), build(LAYOUTS[0], torch.bfloat16)
    latents = torch.randn(1, 16, 3, 8, 8)
    expected = exact.decode(latents).sample
    plain = model.decode(latents.bfloat16()).sample
    decoder, quantised = vae_fast.Decoder(model), model.post_quant_conv(latents.bfloat16())
    fast = torch.cat([decoder.decode_next(quantised[:, :, k : k + 1]) for k in range(3)], dim=2).clamp(-1, 1)
    assert relative_error(fast, expected) < 1.1 * relative_error(plain, expected) < 0.1
