"""Clips in segments through the real LightX2V, by the worker's way: made, joined, held against the diffusers engine.

A segment begins with the last frame of the one before, so each inherits what the engines differ by: a pixel on the
other side of a rounding.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.engines.test_upstream_numbers import with_end
from tests.lightx2v.jobs import in_segments, make_request, make_segments, quiet
from tests.lightx2v.test_dense import dense  # noqa: F401 - a fixture
from wan_ui.files.names import original_vae
from wan_ui.media import muxer
from wan_ui.queue.messages import Entered, Partial


@pytest.fixture
def made(monkeypatch, tmp_path):
    """made(engine, model, request) -> see jobs.make_segments"""

    def make(engine, model, request, cancel_at=None):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return make_segments(engine, model, request, folder, monkeypatch, cancel_at)

    return make


def alike(ours, theirs, number):
    assert ours.shape == theirs.shape
    difference = np.abs(ours.astype(int) - theirs)
    print(f"| segment {number} | {difference.max()} / {difference.mean():.1e} levels |")
    assert difference.max() <= 2 and difference.mean() < 0.02


def judge(made, production, other, model, request, segments, before=0):
    """Both engines make it; the joined clip of LightX2V's."""
    frames, answers, result, folder = made(production, model, request)
    theirs, *_ = made(other, model, request)
    assert len(frames) == len(theirs) == segments
    for number, pair in enumerate(zip(frames, theirs, strict=True), start=1):
        alike(*pair, number)
    length = request.frames
    expected = before + (length - 1) * segments + (0 if before else 1)
    joined, fps = muxer.read_frames(folder / "clip.mp4")
    assert len(joined) == result.frames == expected and fps == result.fps
    partial = [message.result.frames for message in answers if isinstance(message, Partial)]
    assert partial == [expected - (length - 1) * left for left in range(segments - 1, 0, -1)]
    steps = [
        (progress.segment, progress.step)
        for progress in (message.progress for message in answers if isinstance(message, Entered))
        if progress.stage == "denoise"
    ]
    total = request.sampling.steps
    several = range(1, segments + 1)
    assert list(dict.fromkeys(steps)) == [(number, step) for number in several for step in range(1, total + 1)]
    assert result.facts["engine"].startswith("lightx2v")
    assert not list(folder.glob(".*.part*"))
    return result


def test_several_segments(load, reference, model, made, tmp_path):
    request = in_segments(make_request(tmp_path, model, "bf16", steps=2), "pan left", "night falls")
    result = judge(made, load("bf16"), reference(model, "bf16"), model, request, 3)
    assert result.facts["segments"] == "3 of 3, seeds 7, 8, 9" and "matched" in result.facts["colours"]


def test_a_clip_goes_on(load, reference, model, made, tmp_path):
    before = np.random.default_rng(1).integers(0, 256, (5, 8, 12, 3)).astype(np.uint8)
    path = tmp_path / "before.mp4"
    muxer.write_mp4(before.repeat(8, axis=1).repeat(8, axis=2), path, 16)
    request = in_segments(
        make_request(tmp_path, model, "bf16", steps=2), "pan left", task="continue", inputs={"clip": str(path)}
    )
    judge(made, load("bf16"), reference(model, "bf16"), model, request, 2, before=5)


def test_after_a_first_and_last_frame(load, reference, model, made, tmp_path):
    request = in_segments(with_end(make_request(tmp_path, model, "bf16", steps=2), tmp_path), "pan left")
    judge(made, load("bf16"), reference(model, "bf16"), model, request, 2)


def test_after_words_alone(dense, compute, reference, made, monkeypatch, settings, tmp_path):  # noqa: F811
    """The 5B model, which goes on from the last frame of what it made without a picture; its VAE is ours."""
    from lightx2v.models.runners.wan import wan_runner

    from wan_ui import settings as settings_module
    from wan_ui.engines.lightx2v import LightX2VEngine
    from wan_ui.patches import embedded_sizes
    from wan_ui.patches.record import resolve

    monkeypatch.setattr(wan_runner, "Wan2_2_VAE", lambda **kwargs: None)
    settings_module.use(replace(settings_module.settings(), lightx2v_plain=""))
    dense = replace(dense, vae="")
    root = settings_module.settings().models / "local" / "random-5b"
    torch.save(original_vae(load_file(root / "vae" / "diffusion_pytorch_model.safetensors")), root / "Wan2.2_VAE.pth")
    if not resolve(embedded_sizes.PATCH):
        embedded_sizes.PATCH.apply(None)  # the random text encoder is small as well
    compute(torch.float32)
    engine = LightX2VEngine()
    engine.load(dense, dense.scheme(""), quiet)
    request = in_segments(make_request(tmp_path, dense, "gguf-Q8_0", steps=2), "night", task="text-to-video", inputs={})
    judge(made, engine, reference(dense, ""), dense, request, 2)
    engine.close()


def test_what_is_finished_is_kept_when_a_later_segment_is_cancelled(load, model, made, tmp_path):
    engine = load("bf16")
    request = in_segments(make_request(tmp_path, model, "bf16", steps=2), "pan left")
    expected, *_ = made(engine, model, request)
    frames, answers, result, folder = made(engine, model, request, cancel_at=(2, "denoise", 2))
    assert result is None and len(frames) == 1
    assert [message.result.frames for message in answers if isinstance(message, Partial)] == [9]
    assert len(muxer.read_frames(folder / "clip.mp4")[0]) == 9
    again, *_ = made(engine, model, request)
    assert all(np.array_equal(*pair) for pair in zip(again, expected, strict=True))
