"""Several faces: numbered from the left, one chosen, and that one alone speaks, wherever it goes."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.lipsync.conftest import tone
from wan_ui.errors import UserError
from wan_ui.lipsync.numbered import first_seen, numbered, pick
from wan_ui.lipsync.speech import LipSync
from wan_ui.lipsync.usable import usable_clip, usable_face


@pytest.fixture(scope="module")
def couple(portrait) -> np.ndarray:
    """(240, 480, 3): the same person twice, the one on the right a little smaller."""
    image = Image.new("RGB", (480, 240), (90, 90, 90))
    image.paste(Image.fromarray(portrait), (0, 0))
    image.paste(Image.fromarray(portrait).resize((210, 210)), (260, 30))
    return np.asarray(image)


@pytest.fixture(scope="module")
def clip(couple) -> np.ndarray:
    """(4, 240, 480, 3): both move to the right, the one after the other disappears behind the border and comes back."""
    return np.stack([np.roll(couple, 4 * step, axis=1) for step in range(4)])


def test_faces_are_counted_from_the_left(couple):
    left, right = numbered(couple)
    assert left.box[2] < 240 < right.box[0] and left.area > right.area
    right, left = numbered(couple[:, ::-1])[::-1]
    assert left.box[2] < right.box[0]
    assert pick([left, right], 2) is right


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "there is no face 3, no face is seen there; leave it out: 0 for the largest"),
        (1, "there is no face 3, one face is seen there; leave it out: 0 for the largest"),
        (2, "there is no face 3, 2 faces are seen there; choose 1 to 2, counted from the left, or 0 for the largest"),
    ],
)
def test_a_number_that_is_not_there_is_said_with_those_that_are(couple, count, words):
    with pytest.raises(UserError, match=words) as caught:
        pick(numbered(couple)[:count], 3)
    assert caught.value.field == "face"


def test_the_first_frame_with_a_face_is_the_one_in_which_they_are_counted(clip):
    frames = np.concatenate([np.full_like(clip[:2], 90), clip])
    frame, faces = first_seen(frames)
    assert np.array_equal(frame, clip[0]) and len(faces) == 2
    assert first_seen(frames[:2]) == (pytest.approx(frames[0]), [])


def test_words_name_the_one_that_speaks(couple, clip):
    assert usable_face(couple) == (True, "2 faces were found; the largest one will speak")
    assert usable_face(couple, number=2) == (True, "2 faces were found; number 2 from the left will speak")
    assert usable_clip(clip, 1) == (True, "2 faces were found; number 1 from the left will speak")
    with pytest.raises(UserError, match="no face 3"):
        usable_clip(clip, 3)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_chosen_one_speaks_and_the_other_does_not(weights, clip, number, tmp_path):
    lipsync = LipSync.load(weights, torch.device("cpu"), cache_folder=tmp_path)
    chosen = pick(numbered(clip[0]), number) if number else None
    frames = np.stack(list(lipsync.speak(clip, 16, tone(0.5), lambda progress: None, chosen=chosen)))
    base = clip[[0, 1, 2, 3, 2, 1, 0, 1]]
    changed = (frames != base).any(-1)[:, :, :].sum((0, 1))
    left, right = changed[:245].sum(), changed[245:].sum()
    assert (right == 0 and left > 3000) if number in (0, 1) else (left == 0 and right > 3000), (left, right)
    # Kept faces are those of the one that was chosen.
    other = pick(numbered(clip[0]), 1 if number == 2 else 2)
    again = np.stack(list(lipsync.speak(clip, 16, tone(0.5), lambda progress: None, chosen=other)))
    assert (again != frames).any()


def test_the_chosen_one_is_followed_when_the_other_becomes_the_larger(portrait):
    def frame(left: int, right: int) -> np.ndarray:
        image = Image.new("RGB", (520, 260), (90, 90, 90))
        for place, side in ((0, left), (260, right)):
            image.paste(Image.fromarray(portrait).resize((side, side)), (place, 260 - side))
        return np.asarray(image)

    frames = [frame(170 + 10 * step, 260 - 10 * step) for step in range(9)]
    words = {number: usable_clip(frames, number) for number in (1, 2)}
    assert all(usable for usable, _ in words.values())
    from wan_ui.lipsync.faces import LibFaceDetector
    from wan_ui.lipsync.tracks import track_of

    detector = LibFaceDetector()
    detections = [detector.detect(one) for one in frames]
    for number, inside in ((1, lambda box: box[2] < 270), (2, lambda box: box[0] > 250)):
        followed = track_of(detections, pick(numbered(frames[0]), number))
        assert all(face is not None and inside(face.box) for face in followed)
