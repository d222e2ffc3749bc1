"""Strips of frames, rank after rank in one process, against the whole."""

import itertools
from typing import ClassVar

import pytest
import torch

from tests.engines.test_vae import LAYOUTS, build
from wan_ui.engines import vae_fast, vae_strips
from wan_ui.engines.group import Group
from wan_ui.engines.wan_classes import AutoencoderKLWan

RELEASED = LAYOUTS[1]


class Arrives(Exception):
    """A rank waits for the others."""


class Turns(Group):
    """A group whose ranks take turns: the first time each stops where it gives its part, then all parts are there."""

    parts: ClassVar[dict] = {}

    def whole(self, x, count, dim=0):
        if len(self.parts) < self.size:
            self.parts[self.rank] = x
            raise Arrives
        return torch.cat([self.parts[rank] for rank in range(self.size)], dim).narrow(dim, 0, count)


@pytest.fixture
def ranks(monkeypatch):
    """ranks(size, work) -> what each rank makes of `work`."""

    def run(size, work):
        made, Turns.parts = [], {}
        for rank in (*range(size), *range(size)):
            monkeypatch.setattr(vae_strips, "here", lambda rank=rank: Turns(rank, size))
            try:
                made.append(work())
            except Arrives:
                assert not made
        return made

    return run


@pytest.mark.parametrize(("size", "height", "width"), [(2, 26, 2), (3, 2, 30)])
@torch.inference_mode()
def test_strips_of_a_decode_are_those_of_the_whole(size, height, width):
    model = build(RELEASED)
    latents = torch.randn(1, 16, 2, height, width, generator=torch.Generator().manual_seed(1))

    def decode(strip):
        decoder = vae_fast.Decoder(model, strip)
        return torch.cat([decoder.decode_next(latents[:, :, k : k + 1]) for k in range(2)], dim=2)

    whole, strips, computed = decode(None), [], 0
    for rank in range(size):
        stages = [(len(block.resnets), vae_strips.upsampler(block) is not None) for block in model.decoder.up_blocks]
        strip = vae_strips.Strip(height, width, Group(rank, size), stages)
        pixels = decode(strip)
        computed += pixels.shape[strip.dim + 2]
        strips.append(pixels.narrow(strip.dim + 2, *strip.own))
    torch.testing.assert_close(torch.cat(strips, strip.dim + 2), whole, atol=2e-5, rtol=0)
    assert computed < whole.shape[strip.dim + 2] + 2 * size * 8, "a rank computes more than a latent row beside its own"


@pytest.mark.parametrize(("size", "height", "width"), [(2, 104, 16), (3, 16, 136)])
@torch.inference_mode()
def test_an_image_is_encoded_as_by_one(ranks, size, height, width):
    model = build(RELEASED)
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole = vae_fast.encode(model, image, 9, lambda k, n: None)
    for made in ranks(size, lambda: vae_fast.encode(model, image, 9, lambda k, n: None)):
        torch.testing.assert_close(made, whole, atol=2e-5, rtol=0)


def test_strips_need_not_be_equally_long(ranks):
    stages, whole = [(1, True)], torch.arange(10.0).view(1, 1, 1, 10, 1)

    def work():
        strip = vae_strips.Strip(5, 1, vae_strips.here(), stages)
        first = strip.start * 2 - strip.own[0]
        return strip.joined(whole[:, :, :, first:])

    assert all(torch.equal(made, whole) for made in ranks(3, work))


def test_more_ranks_than_rows_decode_the_whole_each(ranks):
    model = build(RELEASED)
    assert ranks(8, lambda: vae_strips.of_decoder(model.decoder, 7, 6)) == [None] * 16


def test_the_residual_decoder_goes_in_strips(monkeypatch):
    interpreter = pytest.importorskip("tests.engines.interpreter")
    from tests.engines.test_vae_fused import WAN22
    from wan_ui.engines import vae_kernels
    from wan_ui.engines.vae_fused import FusedDecoder, padded_weights

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(3)
        vae = AutoencoderKLWan(**WAN22).to(interpreter.DEVICE)
        vae_fast.prepare(vae)
        latents = torch.randn(1, 6, 2, 14, 2).to(interpreter.DEVICE)

        def decode(strip):
            decoder = FusedDecoder(vae, vae_kernels, padded_weights(vae, 1), strip)
            return torch.cat([decoder.decode_next(latents[:, :, a:b]) for a, b in itertools.pairwise((0, 1, 2))], dim=2)

        whole, strips = decode(None), []
        for rank in range(2):
            stages = [(len(block.resnets), vae_strips.upsampler(block) is not None) for block in vae.decoder.up_blocks]
            strip = vae_strips.Strip(14, 2, Group(rank, 2), stages)
            strips.append(decode(strip).narrow(3, *strip.own))
    torch.testing.assert_close(torch.cat(strips, 3), whole, atol=5e-5, rtol=0)
