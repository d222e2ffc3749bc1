"""The pass on a small MuseTalk of random weights: which frames change, where, and what it costs."""

import cv2
import numpy as np
import pytest
import torch

from tests.lipsync.conftest import tone
from wan_ui.errors import Cancelled, UserError
from wan_ui.lipsync import cache
from wan_ui.lipsync.blend import blend_mask, match_detail, match_tone, paste
from wan_ui.lipsync.faces import LibFaceDetector
from wan_ui.lipsync.parsing import LandmarkParser
from wan_ui.lipsync.speech import LipSync, base_frame

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync.load(weights, CPU, batch=3)


@pytest.fixture(scope="module")
def clip(portrait):
    """(5, 240, 240, 3) uint8 RGB"""
    return np.stack([np.roll(portrait, step, axis=1) for step in range(5)])


@pytest.fixture(scope="module")
def faces(lipsync, clip):
    return lipsync.prepare(clip, lambda progress: None)


def speak(lipsync, clip, samples, faces=None, fps=16, report=lambda progress: None):
    return np.stack(list(lipsync.speak(clip, fps, samples, report, faces)))


def test_base_frames_go_forth_and_back():
    assert [base_frame(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [base_frame(i, 1) for i in range(3)] == [0, 0, 0]
    assert [base_frame(i, 3, compat=True) for i in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]


def test_only_the_lower_face_changes(lipsync, clip, faces):
    out = speak(lipsync, clip, tone(1.5), faces)
    assert out.shape == (24, 240, 240, 3) and out.dtype == np.uint8
    for index, frame in enumerate(out):
        base = base_frame(index, len(clip))
        changed = (frame != clip[base]).any(-1)
        left, top, right, bottom = faces.track.boxes[base]
        assert changed.sum() > 500
        assert not changed[: (top + bottom) // 2 - 5].any()  # the mask's edge is soft
        assert not changed[bottom:].any()
        assert not changed[:, :left].any() and not changed[:, right:].any()
        assert changed[140:148, 115:135].all()  # the mouth


def test_silence_keeps_the_original_frames(lipsync, clip, faces):
    silence = np.zeros(16_000, np.float32)
    out = speak(lipsync, clip, np.concatenate([silence, tone(1.0), silence]), faces)
    same = [np.array_equal(frame, clip[base_frame(i, len(clip))]) for i, frame in enumerate(out)]
    assert all(same[:14]) and not any(same[16:32]) and all(same[36:])
    assert np.array_equal(speak(lipsync, clip, silence, faces), clip[[base_frame(i, 5) for i in range(16)]])


def test_the_batch_size_does_not_matter(lipsync, weights, clip, faces):
    one = LipSync(lipsync.musetalk, lipsync.detector, lipsync.parser, batch=1)
    difference = speak(lipsync, clip, tone(0.5), faces).astype(int) - speak(one, clip, tone(0.5), faces)
    assert np.abs(difference).max() <= 3  # one level as drawn, where it moved strengthened three times


def test_a_frame_without_a_face_is_passed_through(lipsync, clip):
    clip = np.concatenate([clip, np.full((4, 240, 240, 3), 90, np.uint8)])
    out = speak(lipsync, clip, tone(0.5), fps=16)
    assert [np.array_equal(out[i], clip[i]) for i in range(8)] == [False] * 5 + [True] * 3


def test_no_face_at_all_is_said(lipsync):
    with pytest.raises(UserError, match="the clip has no face that can speak: no face was found") as caught:
        speak(lipsync, np.full((3, 64, 64, 3), 90, np.uint8), tone(0.5))
    assert caught.value.field == "audio"


def test_a_face_in_single_frames_is_not_painted_on(lipsync, portrait):
    """As in a cup of coffee, whose spoon looked like a face in 3 frames of 33."""
    clip = np.full((12, 240, 240, 3), 90, np.uint8)
    clip[4:7] = portrait
    with pytest.raises(UserError, match=r"has no face that can speak: a face was found in only 3 of 12 frames"):
        speak(lipsync, clip, tone(0.5))


def test_what_is_too_small_or_blurred_is_refused_by_the_pass(lipsync, portrait):
    small = np.full((3, 240, 240, 3), 90, np.uint8)
    small[:, 60:140, 60:140] = cv2.resize(portrait, (80, 80), interpolation=cv2.INTER_AREA)
    with pytest.raises(UserError, match=r"the face is only \d\d x \d\d pixels; at least 40 are needed"):
        speak(lipsync, small, tone(0.5))
    blurred = np.stack([cv2.GaussianBlur(portrait, (0, 0), 4)] * 3)
    with pytest.raises(UserError, match=r"pixels\) is too blurred for its mouth to be seen"):
        speak(lipsync, blurred, tone(0.5))


def test_every_frame_is_reported_before_it_comes(lipsync, clip, faces):
    seen = []
    out = speak(lipsync, clip, tone(1.0), faces, report=seen.append)
    steps = [progress.step for progress in seen]
    assert {progress.stage for progress in seen} == {"lipsync"} and {progress.total for progress in seen} == {len(out)}
    assert steps == sorted(steps) and set(steps) == set(range(1, 17))


def test_cancel_ends_within_a_batch(lipsync, clip, faces):
    came = []

    def report(progress):
        if len(came) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        for frame in lipsync.speak(clip, 16, tone(5.0), report, faces):
            came.append(frame)
    assert len(came) == 4


def test_nothing_grows_with_the_audio_but_its_samples(lipsync, clip, faces, monkeypatch):
    """Segments of features are dropped, and frames are not kept: counted, at 2 s a segment, over a minute."""
    heard, alive = [], []
    hear = type(lipsync.musetalk).hear
    monkeypatch.setattr(type(lipsync.musetalk), "hear", lambda self, part: heard.append(len(part)) or hear(self, part))
    frames = lipsync.speak(clip, 2, tone(60.0), lambda progress: None, faces)
    for _ in frames:
        features = frames.gi_frame.f_locals["features"]
        alive.append(len(features._segments))
    assert len(heard) == 30 and max(alive) <= 2  # each segment is heard once


def test_a_clip_is_prepared_once(weights, clip, tmp_path, monkeypatch):
    lipsync = LipSync.load(weights, CPU, cache_folder=tmp_path / "cache")
    first = lipsync.prepare(clip, lambda progress: None)
    calls = []
    monkeypatch.setattr(LibFaceDetector, "detect", lambda self, image: calls.append(1) or [])
    again = lipsync.prepare(clip, lambda progress: None)
    assert not calls
    assert torch.equal(first.latents, again.latents)
    for name in ("present", "boxes", "landmarks", "faces"):
        assert np.array_equal(getattr(first.track, name), getattr(again.track, name))
    for one, other in zip(first.masks, again.masks, strict=True):
        assert np.array_equal(one.alpha, other.alpha) and (one.left, one.top) == (other.left, other.top)
    assert np.array_equal(speak(lipsync, clip, tone(0.3), first), speak(lipsync, clip, tone(0.3), again))

    changed = clip.copy()
    changed[2, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="no face"):  # one bit of one pixel: another clip
        lipsync.prepare(changed, lambda progress: None)
    path = next((tmp_path / "cache").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="no face"):  # a damaged file is made again, not used
        lipsync.prepare(clip, lambda progress: None)


@pytest.mark.limit("FACE_FILES", "FACE_BYTES")
def test_the_cache_is_bounded(tmp_path):
    import os

    for age in range(6):
        path = tmp_path / f"{age}.safetensors"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    cache.trim(tmp_path, max_files=4, max_bytes=10**6)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "1", "2", "3"]
    cache.trim(tmp_path, max_files=4, max_bytes=250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_face_at_the_border_is_blended(portrait):
    """The face's crop and its mask reach out of the picture; nothing is written beside it."""
    cut = np.ascontiguousarray(portrait[:, 70:])
    face = LibFaceDetector().detect(cut)[0]
    box = (0, 65, 100, 184)
    mask = blend_mask(cut, box, face.landmarks, LandmarkParser())
    out = cut.copy()
    paste(out, np.zeros((64, 64, 3), np.uint8), box, mask)
    assert (out != cut).any() and np.array_equal(out[:, 100:], cut[:, 100:])
    paste(out := cut.copy(), np.zeros((64, 64, 3), np.uint8), box, mask, gain=0.0)
    assert np.array_equal(out, cut)


def test_the_skin_keeps_its_tone_and_the_mouth_its_dark(portrait):
    """A network whose faces are too yellow, and that has opened a mouth."""
    box = (69, 65, 171, 184)
    there = cv2.resize(portrait[65:184, 69:171], (64, 64), interpolation=cv2.INTER_AREA)
    drawn = np.clip(there + np.array([8, 0, -16]), 0, 255).astype(np.uint8)
    drawn[44:52, 24:40] = (60, 20, 20)
    out = match_tone(drawn, portrait, box).astype(int)
    skin = np.ones((64, 64), bool)
    skin[40:56, 20:44] = False
    assert np.abs(drawn.astype(int) - there).mean((0, 1))[2] > 15
    assert np.abs(np.median(out - there, axis=(0, 1))).max() <= 2
    assert np.abs((out - there)[skin]).mean() < 3
    assert out[46:50, 28:36].mean() < 60, "what moved is left as drawn"


def test_a_soft_face_becomes_as_sharp_as_the_frame(portrait):
    """A face drawn without any detail whose mouth has opened, smaller and larger than the network's 256 pixels."""
    for scale in (1, 4):
        frame = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)
        frame = np.clip(frame + np.random.default_rng(0).normal(0, 6, frame.shape), 0, 255).astype(np.uint8)  # grain
        left, top, right, bottom = box = tuple(scale * side for side in (69, 65, 171, 184))
        crop = cv2.resize(frame[top:bottom, left:right], (256, 256), interpolation=cv2.INTER_AREA)
        soft = cv2.GaussianBlur(crop, (0, 0), 3)
        cv2.ellipse(soft, (128, 200), (40, 18), 0, 0, 360, (50, 15, 15), -1, cv2.LINE_AA)
        sharp = match_detail(soft, frame, box).astype(np.float32)
        assert sharp.shape == (bottom - top, right - left, 3)
        plain = cv2.resize(soft, (right - left, bottom - top)).astype(np.float32)

        def detail(image, rows, columns):
            part = image[rows, columns].astype(np.float32).mean(-1)
            return cv2.Laplacian(part, cv2.CV_32F)[2:-2, 2:-2]

        cheek = slice(40 * scale, 60 * scale), slice(15 * scale, 35 * scale)
        wanted = detail(frame[top:bottom, left:right], *cheek)
        assert detail(plain, *cheek).std() < 0.4 * wanted.std()
        assert np.corrcoef(detail(sharp, *cheek).ravel(), wanted.ravel())[0, 1] > 0.95, "the frame's own pores"
        mouth = slice(90 * scale, 96 * scale), slice(42 * scale, 60 * scale)
        assert np.abs(sharp[mouth].mean((0, 1)) - (50, 15, 15)).max() < 12, "the open mouth stays as it was drawn"


def test_a_silent_voice_needs_no_face(lipsync):
    blank = np.full((3, 64, 64, 3), 90, np.uint8)
    assert np.array_equal(speak(lipsync, blank, np.zeros(8000, np.float32)), blank[[0, 1, 2, 1, 0, 1, 2, 1]])
