"""Drafts: attention in e4m3 and small decoders, put on for one clip and gone with the next."""

import shutil

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet, stop_at
from wan_ui.engines import lightx2v_draft
from wan_ui.errors import Cancelled, UserError
from wan_ui.settings import ROOT


@pytest.fixture
def engine(load):
    return load("bf16")


@pytest.fixture
def quick(engine, monkeypatch):
    """The engine whose drafts may take e4m3, with a stand-in for it; calls are counted in `quick.calls`."""
    calls = []

    def attend(q, k, v, **_):
        calls.append(q.shape)
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.to(torch.float8_e4m3fn).to(v)).flatten(1)

    monkeypatch.setattr(lightx2v_draft, "_attend", attend)
    engine.draft.quick, engine.draft.why, engine.calls = True, "for the test", calls
    return engine


def test_attention_is_quick_in_the_inner_blocks_of_a_draft_alone(quick, model, tmp_path):
    plain, draft = (make_request(tmp_path, model, "bf16", steps=2, draft=draft) for draft in (False, True))
    expected = quick.generate(plain, quiet)
    assert "draft" not in expected.facts and not quick.calls
    clip = quick.generate(draft, quiet)
    blocks = len(quick.transformers[0].transformer_weights.blocks)
    assert len(quick.calls) == 2 * (blocks - 2)
    assert clip.facts["draft"].startswith(
        "attention in e4m3 but for the first and last block (for the test), decoded as"
    )
    off = np.linalg.norm(clip.latents - expected.latents) / np.linalg.norm(expected.latents)
    assert 0 < off < 0.05
    assert np.array_equal(quick.generate(plain, quiet).latents, expected.latents)


def test_a_draft_that_is_stopped_leaves_the_next_clip_exact(quick, model, tmp_path):
    plain, draft = (make_request(tmp_path, model, "bf16", steps=2, draft=draft) for draft in (False, True))
    expected = quick.generate(plain, quiet)
    with pytest.raises(Cancelled):
        quick.generate(draft, stop_at("denoise", 2))
    assert np.array_equal(quick.generate(plain, quiet).latents, expected.latents)


def test_where_nothing_is_quicker_the_clip_is_exact_and_says_so(engine, model, tmp_path):
    plain, draft = (make_request(tmp_path, model, "bf16", steps=1, draft=draft) for draft in (False, True))
    expected, clip = (engine.generate(request, quiet) for request in (plain, draft))
    assert np.array_equal(clip.frames, expected.frames)
    assert clip.facts["draft"] == (
        "asked for, but nothing quicker is here: attention as usual (no GPU), decoded as usual (no small decoder is "
        "here); made in full"
    )


@pytest.mark.parametrize("name", ["lighttaew2_1.safetensors", "taew2_1.pth"])
def test_a_tiny_decoder_gets_the_latents_that_it_was_made_for(engine, model, tmp_path, name):
    from lightx2v.models.video_encoders.hf.wan.vae_tiny import WanVAE_tiny
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = lightx2v_tae().state_dict()
    path = tmp_path / name
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    engine.draft.path = path
    clip = engine.generate(make_request(tmp_path, model, "bf16", steps=1, draft=True), quiet)
    assert clip.facts["draft"].endswith(f"decoded by {name}")
    theirs = WanVAE_tiny(str(path), dtype=torch.float32, need_scaled="light" in name)
    pixels = theirs.decode(torch.from_numpy(clip.latents))[0].permute(1, 2, 3, 0)
    assert clip.frames.shape == tuple(pixels.shape)
    expected = pixels.add(1).mul(127.5).round().numpy()
    assert np.abs(clip.frames.astype(float) - expected).max() <= 1


def lightx2v_tae():
    from lightx2v.models.video_encoders.hf.tae import TAEHV

    return TAEHV(None)


def test_a_narrower_vae_goes_our_own_way(engine, model, tmp_path):
    shutil.copyfile(next((ROOT / "assets" / "wan-tiny").glob("Wan2.1_VAE.pth")), tmp_path / "lightvaew2_1.pth")
    plain, draft = (make_request(tmp_path, model, "bf16", steps=1, draft=draft) for draft in (False, True))
    engine.draft.path = tmp_path / "lightvaew2_1.pth"
    expected, clip = (engine.generate(request, quiet) for request in (plain, draft))
    assert np.array_equal(clip.frames, expected.frames), "it is the same VAE"
    assert clip.facts["draft"].endswith("decoded by lightvaew2_1.pth")


def test_another_file_is_refused_by_name(engine, model, tmp_path):
    torch.save({"decoder.1.weight": torch.zeros(1)}, tmp_path / "taew2_1.pth")
    engine.draft.path = tmp_path / "taew2_1.pth"
    with pytest.raises(UserError, match=r"taew2_1\.pth: no small decoder of this model"):
        engine.generate(make_request(tmp_path, model, "bf16", steps=1, draft=True), quiet)
