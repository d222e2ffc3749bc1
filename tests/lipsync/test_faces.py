"""Faces found, refused with words, followed through a clip and boxed."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.lipsync import faces as faces_module
from wan_ui.lipsync.faces import (
    MEAN_FIVE,
    DwposeDetector,
    Face,
    LibFaceDetector,
    create_detector,
    landmarks_from_five,
)
from wan_ui.lipsync.files import DETECTOR, POSE
from wan_ui.lipsync.tracks import face_box, follow
from wan_ui.queue.speech_intake import look_for_face
from wan_ui.settings import ROOT, Settings


def at(x: float, y: float, size: float = 60.0) -> Face:
    """A frontal face `size` wide around (x, y)."""
    five = MEAN_FIVE * size / 2.2 + (x, y)
    box = (x - size / 2, y - size * 0.4, x + size / 2, y + size * 0.8)
    return Face(box, landmarks_from_five(box, five), 0.9)


def test_the_face_of_a_portrait(portrait):
    face = LibFaceDetector().detect(portrait)[0]
    eyes = face.landmarks[36:42].mean(0), face.landmarks[42:48].mean(0)
    assert np.allclose(eyes, [(101, 101), (146, 102)], atol=4)  # where they are in the picture
    assert np.allclose(face.landmarks[8], (121, 174), atol=6)  # the chin


def test_a_large_photo_gives_the_same_face(portrait):
    large = np.asarray(Image.fromarray(portrait).resize((1920, 1920)))
    small, big = (LibFaceDetector().detect(image)[0].landmarks for image in (portrait, large))
    assert np.abs(big / 8 - small).max() < 7  # of a face of 92 pixels


def test_no_torch_is_needed():
    """The page asks before a clip is made, and its process must stay small."""
    modules = "wan_ui.lipsync.usable, wan_ui.media.sound, wan_ui.lipsync.files"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_box_of_musetalk():
    landmarks = at(160, 100).landmarks
    left, top, right, bottom = face_box(landmarks, 240, 320)
    middle, chin = landmarks[29, 1], landmarks[:, 1].max()
    assert (left, right) == (round(landmarks[:, 0].min()), round(landmarks[:, 0].max()))
    assert abs((middle - top) - (chin - middle)) <= 1  # the nose bridge is half way between top and chin
    assert 0 < bottom - chin <= 10


@pytest.mark.parametrize("x, y", [(5, 100), (315, 100), (160, 5), (160, 235), (-20, -20)])
def test_the_box_stays_inside(x, y):
    left, top, right, bottom = face_box(at(x, y).landmarks, 240, 320)
    assert 0 <= left <= right <= 320 and 0 <= top <= bottom <= 240


def test_a_face_outside_is_passed_through():
    assert not follow([[at(-40, 100)]] * 3, 240, 320).present.any()
    assert not follow([[]] * 3, 240, 320).present.any()


def test_jitter_is_smoothed_and_movement_kept():
    jitter = np.random.default_rng(0).uniform(-2, 2, (40, 2))
    clip = [[at(100 + 2 * i + dx, 100 + dy)] for i, (dx, dy) in enumerate(jitter)]
    smooth, raw = (
        np.abs(np.diff(boxes.astype(float), 2, axis=0)).mean()
        for boxes in (
            follow(clip, 240, 320).boxes,
            np.array([face_box(faces[0].landmarks, 240, 320) for faces in clip]),
        )
    )
    assert smooth < 0.6 * raw
    steady = follow([[at(100 + 2 * i, 100)] for i in range(40)], 240, 320).boxes
    assert np.abs(steady - [face_box(at(100 + 2 * i, 100).landmarks, 240, 320) for i in range(40)]).max() <= 1
    still = follow([[at(100, 100)]] * 9, 240, 320)
    assert (still.boxes == still.boxes[0]).all()


def test_frames_without_a_face_stay_in_their_place():
    """Upstream drops them from one of two lists, and all later mouths land on the wrong frames."""
    clip = [[at(100 + i, 100)] for i in range(20)]
    for gone in (5, 10, 11, 12, 13):
        clip[gone] = []
    track = follow(clip, 240, 320)
    assert np.flatnonzero(~track.present).tolist() == [10, 11, 12, 13]  # one missed frame is bridged, four are not
    whole = follow([[at(100 + i, 100)] for i in range(20)], 240, 320)
    assert np.abs(track.boxes - whole.boxes)[track.present].max() <= 1


def test_the_largest_face_is_followed():
    """Not whichever comes first: the order changes, the other one passes in front once and is larger for a moment."""
    clip = []
    for i in range(12):
        main, other = at(100 + i, 120, 70), at(230, 120, 40 if i != 6 else 90)
        clip.append([other, main] if i % 2 else [main, other])
    track = follow(clip, 240, 320)
    assert track.present.all() and track.faces == 2
    assert (track.boxes[:, 2] < 180).all()


def test_dwpose_takes_the_face_points(monkeypatch, tmp_path):
    """rtmlib's 133 whole-body points: 23 to 90 are the face; a body without a visible face is none."""
    keypoints, scores = np.zeros((2, 133, 2), np.float32), np.zeros((2, 133), np.float32)
    keypoints[0, 23:91], scores[0, 23:91] = at(100, 100).landmarks, 0.8
    scores[1, :23] = 0.9

    class Wholebody:
        def __init__(self, det, pose, device, **kwargs):
            assert (
                device == "cpu" and det.endswith("dwpose/yolox_l.onnx") and pose.endswith("dwpose/dw-ll_ucoco_384.onnx")
            )

        def __call__(self, image):
            return keypoints, scores

    rtmlib, onnxruntime = type(sys)("rtmlib"), type(sys)("onnxruntime")
    rtmlib.Wholebody, onnxruntime.get_available_providers = Wholebody, lambda: ["CPUExecutionProvider"]
    monkeypatch.setitem(sys.modules, "rtmlib", rtmlib)
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime)
    for device in ("cpu", "cuda"):  # the CPU's onnxruntime on a machine with a GPU
        faces = DwposeDetector(tmp_path, device).detect(np.zeros((240, 320, 3), np.uint8))
        assert len(faces) == 1 and np.array_equal(faces[0].landmarks, at(100, 100).landmarks)


def test_dwpose_is_an_option_that_nothing_waits_for(monkeypatch, tmp_path):
    for name in (DETECTOR, POSE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(faces_module, "can_run_dwpose", lambda: False)
    assert create_detector(tmp_path).name == "libfacedetection"
    monkeypatch.setattr(faces_module, "can_run_dwpose", lambda: True)
    monkeypatch.setattr(faces_module, "DwposeDetector", lambda folder, device: (folder, device))
    assert create_detector(tmp_path, "cuda") == (tmp_path, "cuda")
    (tmp_path / POSE).unlink()
    assert create_detector(tmp_path).name == "libfacedetection"


def test_the_part_of_a_picture_that_is_used_is_looked_at(tmp_path):
    """A face at the left of a wide picture is there in its own shape, and cut away in a square."""
    model = load_catalog(Settings().catalog)["wan-tiny"]
    person = Image.open(ROOT / "assets/examples/portrait.jpg").convert("RGB")
    wide = Image.new("RGB", (640, 256), (90, 90, 90))
    wide.paste(person, (0, 0))
    wide.save(tmp_path / "wide.png")
    assert look_for_face(str(ROOT / "assets/examples/portrait.jpg"), "auto", model) == (True, "one face was found")
    assert not look_for_face(str(tmp_path / "wide.png"), "192x320", model)[0]
    with pytest.raises(UserError, match=r"image: gone\.png does not exist"):
        look_for_face(str(tmp_path / "gone.png"), "auto", model)
