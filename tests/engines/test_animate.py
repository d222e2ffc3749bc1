"""Animate: our engine against diffusers' WanAnimatePipeline on the same weights, pictures and noise, in float32."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.engines.random_models import encoder_of_transformers, make_engine, quiet
from tests.engines.test_parity import distilled_scheduler
from wan_ui.engines import animate as ours
from wan_ui.engines import clip_vision, vae
from wan_ui.engines.animate import Driving, back_and_forth, given_mask, segments, to_face, velocity
from wan_ui.engines.wan_classes import WanAnimateTransformer3DModel
from wan_ui.errors import Cancelled
from wan_ui.files.places import locate
from wan_ui.patches.record import COMMIT
from wan_ui.qa import reference, stages
from wan_ui.request import Tracks
from wan_ui.settings import ROOT

OF_LIGHTX2V = ROOT / "tests" / "golden" / "of-lightx2v" / "animate.safetensors"


@pytest.fixture(scope="module")
def engine(animate):
    return make_engine(animate, dtype=torch.float32)


@pytest.fixture(scope="module")
def theirs(engine) -> WanAnimateTransformer3DModel:
    """diffusers' own transformer, with the same weights: key and value of the face blocks apart."""
    ours = engine.experts[0]
    config = {k: v for k, v in ours.config.items() if not k.startswith("_")}
    model = WanAnimateTransformer3DModel(**config | {"num_layers": 10})  # theirs makes layers // 5 face blocks
    model.blocks = model.blocks[: len(ours.blocks)]
    parts = {"linear1_q": "to_q", "linear2": "to_out", "q_norm": "norm_q", "k_norm": "norm_k"}
    tensors = {}
    for name, tensor in ours.state_dict().items():
        if not name.startswith("face_adapter."):
            tensors[name] = tensor
            continue
        _, number, part, leaf = name.split(".")
        if part == "linear1_kv":
            key, value = tensor.chunk(2)
            tensors |= {f"face_adapter.{number}.to_k.{leaf}": key, f"face_adapter.{number}.to_v.{leaf}": value}
        else:
            tensors[f"face_adapter.{number}.{parts[part]}.{leaf}"] = tensor
    model.load_state_dict(tensors)
    return model.eval()


def tracks_of(count: int, width: int = 64, height: int = 64, replaced: bool = False) -> Tracks:
    draw = np.random.default_rng(3)

    def video(*shape: int) -> np.ndarray:
        small = draw.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
        return np.stack([np.asarray(Image.fromarray(one).resize(shape[::-1])) for one in small])

    if not replaced:
        return Tracks(video(height, width), video(32, 32))
    mask = np.zeros((count, height, width), np.uint8)
    for number in range(count):
        mask[number, 8:40, 8 + number : 32 + number] = 255
    return Tracks(video(height, width), video(32, 32), video(height, width), mask)


def pictures(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


@pytest.mark.parametrize(
    "count, overlap, guidance, replaced",
    [(20, 1, 2.0, False), (18, 5, 1.0, True)],
)
def test_equals_pipeline(
    count, overlap, guidance, replaced, engine, theirs, animate, make_request, picture, isolated_settings, monkeypatch
):
    from diffusers import WanAnimatePipeline
    from transformers import PreTrainedTokenizerFast

    length = 9 if overlap == 1 else 13  # theirs miscounts segments of which more than half is known
    monkeypatch.setattr(engine, "model", replace(animate, default_frames=length))
    tracks = tracks_of(count, replaced=replaced)
    job = make_request(
        animate, kind="animate", steps=2, frames=count, solver="euler", motion="full", guidance=[guidance],
        negative="fog", overlap=overlap,
    )  # fmt: skip
    clips = list(engine.perform(job, tracks, quiet))
    frames = np.concatenate([clip.frames for clip in clips])
    assert frames.shape == (count, 64, 64, 3)

    pipeline = WanAnimatePipeline(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(
            locate(animate, animate.scheme("bf16"), isolated_settings).tokenizer
        ),
        text_encoder=encoder_of_transformers(engine.encoder),
        vae=engine.vae,
        scheduler=distilled_scheduler(animate.shift),
        image_processor=None,
        image_encoder=None,
        transformer=theirs,
    )
    pipeline.set_progress_bar_config(disable=True)
    image = Image.open(picture)
    seen = clip_vision.encode_picture(engine.clip, vae.to_image(np.array(image)))
    pipeline.encode_image = lambda *_: seen  # theirs cuts the picture square first, the official code does not
    given = {"pose_video": pictures(tracks.pose), "face_video": pictures(tracks.face)}
    if replaced:
        given |= {"background_video": pictures(tracks.background), "mask_video": pictures(tracks.mask)}
    expected = pipeline(
        image=image,
        **given,
        mode="replace" if replaced else "animate",
        prompt=job.sampling.prompt,
        negative_prompt="fog",
        width=64,
        height=64,
        segment_frame_length=length,
        prev_segment_conditioning_frames=overlap,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(job.sampling.seed),
        output_type="np",
    ).frames[0]
    apart = np.abs(frames.astype(int) - np.round(expected * 255).astype(int))
    assert apart.max() <= 1 and frames.std() > 10


def test_one_step_equals_theirs(engine, theirs):
    """Pose, face, picture and one denoise step, to float32's rounding."""
    draw = torch.Generator().manual_seed(4)
    latents, condition = (torch.randn(n, 4, 8, 6, generator=draw) for n in (16, 20))
    pose, face = torch.randn(1, 16, 3, 8, 6, generator=draw), torch.rand(3, 9, 32, 32, generator=draw) * 2 - 1
    prompt, seen = torch.randn(512, 64, generator=draw), torch.randn(1, 5, 160, generator=draw)
    model = engine.experts[0]
    driving = Driving(condition, pose, (model.read_face(face),))
    ours = velocity(engine, latents, 700.0, prompt, seen, driving, driving.faces[0])
    with torch.inference_mode():
        expected = theirs(
            hidden_states=torch.cat([latents, condition])[None],
            timestep=torch.tensor([700.0]),
            encoder_hidden_states=prompt[None],
            encoder_hidden_states_image=seen,
            pose_hidden_states=pose,
            face_pixel_values=face[None],
            return_dict=False,
        )[0][0]
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
    assert expected.std() > 0.1
    changed = Driving(condition, pose + 1, (model.read_face(-face),))
    for other in (replace(driving, pose=changed.pose), replace(driving, faces=changed.faces)):
        moved = velocity(engine, latents, 700.0, prompt, seen, other, other.faces[0])
        assert (moved - ours).abs().max() > 1e-3


def one_step(engine, latents_of):
    """What `engine` gives for drawn inputs, with a face and without: (2, 16, 4, 8, 6). latents_of: how it is asked."""
    draw = torch.Generator().manual_seed(8)
    latents, condition = (torch.randn(n, 4, 8, 6, generator=draw) for n in (16, 20))
    pose, face = torch.randn(1, 16, 3, 8, 6, generator=draw), torch.rand(3, 9, 32, 32, generator=draw) * 2 - 1
    prompt, seen = torch.randn(512, 64, generator=draw), torch.randn(1, 257, 160, generator=draw)
    faces = tuple(engine.expert(0).read_face(pixels) for pixels in (face, torch.full_like(face, -1)))
    driving = Driving(condition, pose, faces)
    return torch.stack([latents_of(engine, latents, 700.0, prompt, seen, driving, each) for each in faces])


def test_one_step_is_what_lightx2v_gave(engine):
    """A run of it on the same weights (tests/lightx2v/test_performance.py --store)."""
    with safe_open(OF_LIGHTX2V, "pt") as file:
        assert file.metadata()["source"].startswith(f"LightX2V {COMMIT}")
        expected = file.get_tensor("velocity")
    ours = one_step(engine, velocity)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1 and (expected[0] - expected[1]).abs().max() > 1e-3


def test_reports_segments_and_stops_within_a_step(engine, animate, make_request):
    job = make_request(animate, kind="animate", steps=2, frames=12, solver="euler", motion="full", guidance=[1.0])
    events = []

    def report(progress):
        events.append((progress.segment, progress.stage, progress.step))
        if progress.stage == "denoise" and progress.segment == 2 and progress.step == 2:
            raise Cancelled("stop")

    clips = []
    with pytest.raises(Cancelled):
        for clip in engine.perform(job, tracks_of(12), report):
            clips.append(clip)
    assert [len(clip.frames) for clip in clips] == [9] and clips[0].facts["segments"].startswith("1 of 2")
    assert [event for event in events if event[1] == "denoise"] == [(s, "denoise", k) for s in (1, 2) for k in (1, 2)]


@pytest.mark.parametrize("count", [1, 2, 9, 10, 17, 18])
def test_frames_go_back_and_forth(count):
    """As `inputs_padding` and `get_valid_len` of wan/animate.py of the official code, with segments of 9."""
    total = segments(count, 9, 1)
    order = back_and_forth(count, 1 + total * 8)
    assert total == max(1, -(-(count - 1) // 8)) and order[:count] == list(range(count))
    assert all(abs(a - b) <= 1 for a, b in pairwise(order)) and max(order) == count - 1
    if count == 9:
        assert order == list(range(9))
    if count == 10:
        assert order[9:] == [9, 8, 7, 6, 5, 4, 3, 2]


def test_each_stage_is_held_against_a_reference(engine, animate, monkeypatch, tmp_path):
    """Of the doctor; what is wrong with one is found there."""
    right = reference.compute(engine, animate, reference.default_trial(animate))

    def failing() -> list[str]:
        found = stages.check(engine, animate, animate.scheme("bf16"), right, "", quiet, tmp_path)
        names = ["text", "image", "seen", "pose", "face", "schedule", "dit", "decode", "next segment"]
        assert [stage.name for stage in found.stages] == names
        blocks_said.extend(found.blocks)
        return [stage.name for stage in found.stages if not stage.passed]

    blocks_said: list = []
    assert failing() == [] and blocks_said == []
    with monkeypatch.context() as patch:
        patch.setattr(ours, "given_mask", lambda free, given: given_mask(free, 0))
        assert failing() == ["next segment"], "the end of the segment before is not told from noise"
    with monkeypatch.context() as patch:
        patch.setattr(ours, "to_face", lambda frames, count, size: to_face(None, count, size))
        assert failing() == ["face"]
    with monkeypatch.context() as patch:
        patch.setattr(clip_vision, "MEAN", (0.0, 0.0, 0.0))
        assert failing() == ["seen"]
    with torch.no_grad():
        engine.experts[0].blocks[1].ffn.net[2].weight.mul_(3)
    try:
        assert failing() == ["dit"]
        assert blocks_said[-1].first == 1, blocks_said[-1].verdict
    finally:
        with torch.no_grad():
            engine.experts[0].blocks[1].ffn.net[2].weight.div_(3)
