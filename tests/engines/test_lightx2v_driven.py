"""Clips of the LightX2V engine that are driven, on a stand-in of its upstream; tests/lightx2v has the real one."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engines import s2v_models as small
from tests.engines.lightx2v_standin import installed
from tests.engines.random_models import animate_model
from tests.engines.test_animate import tracks_of
from tests.engines.test_s2v import exact, files, request  # noqa: F401 - fixtures
from tests.job_requests import job_request
from tests.lightx2v.jobs import quiet
from wan_ui import patches
from wan_ui import settings as settings_module
from wan_ui.engines import lightx2v_config
from wan_ui.engines.lightx2v import LightX2VEngine
from wan_ui.errors import Cancelled, UserError
from wan_ui.settings import load_settings


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return root, small.write(root)


@pytest.fixture
def calls(models, tmp_path, monkeypatch):
    """What upstream was asked for; the stand-in is installed, no patch is applied."""
    before = settings_module.settings()
    settings_module.use(load_settings({"WAN_UI_CACHE": str(tmp_path / "cache"), "WAN_UI_MODELS": str(models[0])}))
    monkeypatch.setattr(patches, "apply_all", lambda *args, **more: [])
    found = []
    with installed(found):
        yield found
    settings_module.use(before)


@pytest.fixture
def engine(calls, models):
    engine, (_, model) = LightX2VEngine(), models
    engine.load(model, model.scheme(""), quiet)
    yield engine
    engine.close()


def test_each_segment_sees_the_end_of_the_one_before(engine, calls, files, exact):  # noqa: F811
    seen = []
    clips = list(engine.speak(request(files | {"pose_video": "pose.mp4"}), seen.append))
    assert [len(clip.frames) for clip in clips] == [13, 10] and clips[0].fps == 16
    assert all(clip.frames.dtype == np.uint8 and clip.latents.shape == (16, 4, 8, 8) for clip in clips)
    assert [event.segment for event in seen if event.stage == "denoise"] == [1] * 6 + [2] * 6
    given = [call for call in calls if isinstance(call, dict)]
    assert len(given) == 12, "three steps of two halves, twice"
    assert [entry["drop_motion_frames"] for entry in given] == [True] * 6 + [False] * 6
    assert not given[0]["motion_latents"].any() and given[6]["motion_latents"].any()
    assert given[0]["motion_frames"] == (73, 19) and given[0]["cond_latents"].any()
    assert given[0]["audio_input"].any() and not given[1]["audio_input"].any(), "guidance is away from silence"
    assert not engine.runner.model.on_device, "encoder and decoder have the place"
    assert clips[0].facts["engine"] == "lightx2v" and {"voice", "guidance"} <= clips[0].facts.keys()


def test_nothing_of_a_cancelled_clip_survives_it(engine, files, exact):  # noqa: F811
    job = request(files, steps=2)
    expected = [clip.latents for clip in engine.speak(job, quiet)]
    for at in [(1, "text", 0), (1, "audio", 1), (1, "denoise", 2), (2, "decode", 2)]:

        def stop(progress, at=at):
            if (progress.segment, progress.stage, progress.step) == at:
                raise Cancelled

        with pytest.raises(Cancelled):
            list(engine.speak(job, stop))
        assert engine.runner.scheduler.latents is None and not engine.runner.model.on_device, at
        again = [clip.latents for clip in engine.speak(job, quiet)]
        assert all(np.array_equal(*pair) for pair in zip(again, expected, strict=True)), at


def test_out_of_memory_says_what_to_do(engine, files, exact, monkeypatch):  # noqa: F811
    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB")

    monkeypatch.setattr(engine.runner.model.transformer_infer, "infer_s2v_block", exhausted)
    with pytest.raises(UserError, match=r"64x64 \(CUDA out of memory") as caught:
        next(engine.speak(request(files), quiet))
    assert caught.value.field == "size"


def test_a_step_by_itself_shows_its_blocks(engine):
    picture, voice = engine.encode_image(small.picture(), 1), engine.encode_voice(small.voice(), 16)
    latents, words = torch.randn(16, 4, 8, 8), engine.encode_text("zoom in")
    shown = {}
    plain = engine.predict(latents, 0.5, 0, words, picture, None, voice)
    again = engine.predict(latents, 0.5, 0, words, picture, lambda k, x: shown.update({k: x}), voice)
    assert torch.equal(plain, again) and list(shown) == [-1, 0, 1] and shown[0].shape == (4 * 8 * 8, 256)
    louder = engine.predict(latents, 0.5, 0, words, picture, None, 2 * voice)
    zeroed = engine.predict(latents, 0.5, 0, words, picture, lambda k, x: 0 * x if k == 1 else None, voice)
    assert not torch.equal(plain, louder) and not zeroed.any()


@pytest.fixture(scope="module")
def performers(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return root, animate_model(root)


def test_a_performance_drives_every_segment(calls, performers, picture):
    root, model = performers
    settings_module.use(replace(settings_module.settings(), models=root))
    engine = LightX2VEngine()
    engine.load(model, model.scheme("bf16"), quiet)
    values = {"kind": "animate", "solver": "euler", "motion": "full", "guidance": [2.0], "negative": "fog", "steps": 2}
    values |= {"width": 64, "height": 64, "frames": 14, "overlap": 1, "seed": 3, "model": model.name}
    job, tracks, seen = job_request(image=str(picture), **values), tracks_of(14), []
    clips = list(engine.perform(job, tracks, seen.append))
    assert [len(clip.frames) for clip in clips] == [9, 5] and [clip.segment[0] for clip in clips] == [1, 2]
    given = [call for call in calls if isinstance(call, dict)]
    assert len(given) == 8, "two steps of two halves, twice"
    faces = [entry["face_pixel_values"] for entry in given]
    assert not torch.equal(faces[0], faces[1]) and torch.equal(faces[0], faces[2]), "one half sees no face"
    condition = given[4]["vae_encoder_out"]
    assert condition[:4, 1].min() == 1 and not condition[:4, -1].any(), "the overlap is given, the rest is not"
    assert not engine.runner.model.on_device and engine.runner.scheduler.latents is None
    assert clips[0].facts["segments"].startswith("1 of 2 of 9 frames, 1 of them")
    again = list(engine.perform(job, tracks, quiet))
    assert all(np.array_equal(one.latents, other.latents) for one, other in zip(clips, again, strict=True))
    engine.close()


def test_a_model_that_is_closed_leaves_no_ear(engine):
    cache = sys.modules["lightx2v.models.networks.wan.infer.s2v.causal_audio_encoder"]._MODULE_CACHE
    cache["as upstream keeps it"] = torch.zeros(1)
    engine.close()
    assert not cache and engine.driven is None


def test_it_is_not_offloaded_block_by_block(models, monkeypatch):
    _, model = models
    monkeypatch.setattr(
        lightx2v_config.lightx2v_memory, "on_gpu", lambda *args: dict.fromkeys(("none", "text", "model"), 1e12)
    )
    from tests.patches.test_records import H200

    assert lightx2v_config._offload("auto", model, model.scheme(""), None, H200)[0] == "model"
    with pytest.raises(UserError, match="a model that a voice drives can be offloaded by whole models only"):
        lightx2v_config._offload("block", model, model.scheme(""), None, H200)
