"""Which faces can speak: too small, blurred, turned, tilted, cut off, or not there for most of a clip."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from wan_ui.lipsync.faces import Face, LibFaceDetector
from wan_ui.lipsync.usable import clip_trouble, from_the_side, speaking, tilt, usable_clip, usable_face
from wan_ui.settings import ROOT


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """256x256, a face of 89 x 111 pixels."""
    return Image.open(ROOT / "assets/examples/portrait.jpg").convert("RGB")


def on_grey(image: Image.Image, size: int) -> np.ndarray:
    canvas = Image.new("RGB", (320, 256), (90, 100, 110))
    canvas.paste(image.resize((size, size), Image.Resampling.LANCZOS), (30, 0))
    return np.asarray(canvas)


def turn_aside(image: np.ndarray, degrees: float) -> np.ndarray:
    """The face as a textured ellipsoid, seen from the side."""
    left, top, right, bottom = LibFaceDetector().detect(image)[0].box
    x, y, wide, high = (left + right) / 2, (top + bottom) / 2, 0.62 * (right - left), 0.75 * (bottom - top)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    u, v = (columns - x) / wide, (rows - y) / high
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, None))
    turned = x + wide * (u * np.cos(np.radians(degrees)) - depth * np.sin(np.radians(degrees)))
    from_x = np.where(u**2 + v**2 < 1, turned, columns).astype(np.float32)
    return cv2.remap(image, from_x, rows, cv2.INTER_CUBIC)


def test_a_portrait_is_usable(photo):
    assert usable_face(np.asarray(photo)) == (True, "one face was found")


@pytest.mark.parametrize(("size", "words"), [(8, "no face"), (60, "only 19 x 23"), (100, "only 34 x 42"), (135, "")])
def test_small_faces_are_refused_with_their_size(photo, size, words):
    usable, found = usable_face(on_grey(photo, size))
    assert usable == (not words) and words in found
    assert not words or "no face" in words or "at least 40 are needed: crop closer" in found


def test_a_model_that_draws_faces_softly_needs_larger_ones(photo):
    assert usable_face(on_grey(photo, 180))[0]
    assert "only 6" in usable_face(on_grey(photo, 180), smallest=72)[1]


@pytest.mark.parametrize(
    ("size", "sigma", "usable"), [(256, 1, True), (256, 3, False), (150, 0.5, True), (150, 2, False)]
)
def test_a_mouth_that_cannot_be_seen_is_refused(photo, size, sigma, usable):
    image = Image.fromarray(on_grey(photo, size)).filter(ImageFilter.GaussianBlur(sigma))
    found, words = usable_face(np.asarray(image))
    assert found == usable and ("too blurred" in words) == (not usable)


def test_an_enlarged_face_is_not_a_large_one(photo):
    """50 pixels, of which a codec has left little, scaled up to 267."""
    small = photo.resize((90, 90), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(1))
    large = np.asarray(small.resize((768, 768), Image.Resampling.BICUBIC))
    assert "too blurred" in usable_face(large)[1]
    assert usable_face(np.asarray(photo.resize((768, 768), Image.Resampling.BICUBIC)))[0]


def test_a_turned_head(photo):
    """40 degrees keep the mouth on the face, 60 do not; landmarks of a mean face would look ahead in both."""
    for degrees in (0, 25, 40):
        assert usable_face(turn_aside(np.asarray(photo), degrees))[0], degrees
    for degrees in (55, 60):
        assert "from the side" in usable_face(turn_aside(np.asarray(photo), degrees))[1], degrees
    mirrored = np.ascontiguousarray(turn_aside(np.asarray(photo), 60)[:, ::-1])
    assert "from the side" in usable_face(mirrored)[1]


def test_a_tilted_head(photo):
    for degrees in (-30, -15, 0, 15, 30, 45):
        image = np.asarray(photo.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(90, 100, 110)))
        face = LibFaceDetector().detect(image)[0]
        assert abs(tilt(face, image) + degrees) <= 10, degrees
        usable, words = usable_face(image)
        assert usable == (abs(degrees) < 25) and ("tilted" in words) == (not usable), degrees


def test_other_pictures(photo):
    for name in ("cat", "coffee", "dandelion", "lagoon", "rocket"):
        image = np.asarray(Image.open(ROOT / f"assets/examples/{name}.jpg").convert("RGB"))
        assert not usable_face(image)[0], name
    assert "no face" in usable_face(np.zeros((1, 1, 3), np.uint8))[1]
    for part in (np.s_[:, 115:], np.s_[:, 120:], np.s_[:160], np.s_[:145]):
        assert "cut off" in usable_face(np.ascontiguousarray(np.asarray(photo)[part]))[1], part


def test_several_faces(photo):
    both = np.full((256, 460, 3), 90, np.uint8)
    both[:, :256] = np.asarray(photo)
    both[:190, 260:450] = np.asarray(photo.resize((190, 190)))
    usable, words = usable_face(both)
    assert usable and words.startswith("2 faces")
    assert LibFaceDetector().detect(both)[0].box[0] < 200  # the larger one is first


def test_a_face_must_be_there_in_most_frames(photo):
    face, blank = np.asarray(photo), np.full((256, 256, 3), 90, np.uint8)
    assert usable_clip([blank] * 5)[1].startswith("no face was found")
    assert "in only 3 of 8 frames" in usable_clip([blank] * 5 + [face] * 3)[1]
    assert usable_clip([face] * 5 + [blank] * 3) == (True, "one face was found")


def test_a_cup_of_coffee_is_no_face():
    """Enlarged, shrunk and moved, as a clip of it would: single frames of it reach a confidence of 0.65."""
    cup = Image.open(ROOT / "assets/examples/coffee.jpg").convert("RGB")
    frames = [np.asarray(cup.resize((256 + 4 * i, 256 + 4 * i)).crop((2 * i, 2 * i, 256 + 2 * i, 256 + 2 * i)))
              for i in range(25)]  # fmt: skip
    assert usable_clip(frames)[1].startswith("no face was found")


def test_a_clip_is_refused_for_what_most_of_its_frames_have(photo):
    face = LibFaceDetector().detect(np.asarray(photo))[0]
    assert clip_trouble([face] * 8, [*["too small"] * 6, "", ""]) == "too small"
    assert clip_trouble([face] * 8, [*["too small"] * 4, *[""] * 4]) == ""
    kept = speaking([face] * 22, [*[""] * 12, *["too small"] * 10])
    assert [bool(one) for one in kept] == [True] * 12 + [False] * 10, "those frames are passed through"
    assert all(speaking([face] * 12, ["", "", "", "too small", *[""] * 8])), "no flicker"


def test_a_detectors_own_points_tell_the_side():
    """DWPose's landmarks are where they are seen, so that they tell it themselves."""
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[36:42], landmarks[42:48], landmarks[30] = (0, 0), (40, 0), (20, 25)
    landmarks[48], landmarks[54] = (5, 45), (35, 45)
    box = (-20, -30, 60, 70)
    assert not from_the_side(Face(box, landmarks, 0.9))
    landmarks[30] = (44, 25)
    assert from_the_side(Face(box, landmarks, 0.9))
