"""The decoder with fused kernels against diffusers' own decode, for both VAEs; without a GPU interpreted."""

import itertools

import pytest
import torch

from tests.engines.interpreter import DEVICE
from tests.engines.random_models import randomised
from wan_ui.engines import vae_fast, vae_kernels
from wan_ui.engines.vae_fused import AT_ONCE, FusedDecoder, padded_weights
from wan_ui.engines.wan_classes import AutoencoderKLWan

WAN21 = {"base_dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1}
WAN22 = {
    "base_dim": 8, "decoder_base_dim": 12, "z_dim": 6, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1,
    "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
    "temperal_downsample": [False, True, True], "latents_mean": [0.0] * 6, "latents_std": [1.0] * 6,
}  # fmt: skip


@pytest.mark.parametrize(("at_once", "multiple"), ((1, 1), (AT_ONCE, 5)))
@pytest.mark.parametrize("layout", (WAN21, WAN22), ids=("Wan2.1", "Wan2.2"))
@torch.inference_mode()
def test_decode_equals_diffusers(layout, at_once, multiple, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = randomised(AutoencoderKLWan(**layout)).to(DEVICE)
    vae_fast.prepare(vae)
    latents = torch.randn(1, vae.config.z_dim, 4, 3, 2, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    decoder, quantised = FusedDecoder(vae, vae_kernels, padded_weights(vae, multiple)), vae.post_quant_conv(latents)
    cuts = [0, *range(1, 4, at_once), 4]
    got = torch.cat([decoder.decode_next(quantised[:, :, a:b]) for a, b in itertools.pairwise(cuts)], dim=2)
    if vae.config.patch_size:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        got = unpatchify(got, vae.config.patch_size)
    expected = vae.decode(latents).sample
    torch.testing.assert_close(got.clamp(-1, 1), expected, atol=5e-5, rtol=0)
