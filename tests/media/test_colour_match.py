"""The colours of a segment: what the model changes by itself is taken back, what the prompt changes stays."""

import numpy as np
import pytest

from wan_ui.media.colour_match import match


@pytest.fixture
def scene() -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(40, 200, (4, 6, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((16, 16, 1), np.float32))


def levels(frame: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def joined(scene: np.ndarray, changes, segments: int = 5, frames: int = 9) -> list[np.ndarray]:
    """Last frames of the segments of a model that does `changes(frame, place)` to what it is given."""
    last, ends = levels(scene), []
    for _ in range(segments):
        segment = np.stack(
            [levels(changes(last.astype(np.float32), number / (frames - 1))) for number in range(frames)]
        )
        matched = match(last, segment)
        assert np.abs(matched.apply(segment[0], 0.0).astype(int) - last).mean() < 1.5, "no jump at the seam"
        last = matched.apply(segment[-1], 1.0)
        ends.append(last)
    return ends


@pytest.mark.parametrize(
    "changes",
    [
        lambda frame, place: frame + np.array((2.0, 1.0, -1.5)),  # a tint
        lambda frame, place: (frame - 128) * 0.97 + 128 + 1,  # flatter, lighter
        lambda frame, place: frame + np.array((1.0, -0.5, 0.5)) + place * np.array((1.0, 1.5, -1.0)),  # and wanders on
    ],
)
def test_what_a_model_changes_by_itself_does_not_add_up(scene, changes):
    apart = [np.abs(end.mean((0, 1)) - scene.mean((0, 1))).max() for end in joined(scene, changes)]
    assert max(apart) < 1.5, f"levels away from the first frame after each segment: {apart}"
    assert joined(scene, changes)[-1].std() == pytest.approx(scene.std(), rel=0.05)


def test_a_change_that_is_meant_stays(scene):
    night = joined(scene, lambda frame, place: frame * (1 - 0.6 * place), segments=1)[-1]
    assert night.mean() == pytest.approx(0.4 * scene.mean(), abs=2)


def test_frames_that_do_not_show_the_same_are_left_alone(scene):
    other = levels(255 - scene)
    matched = match(levels(scene), np.stack([other, other]))
    assert (matched.apply(other, 0.0) == other).all()


def test_a_limit_to_what_is_taken_back(scene):
    far = levels(scene + 40)
    moved = match(levels(scene), np.stack([far, far])).apply(far, 0.0)
    assert far.mean() - moved.mean() == pytest.approx(12, abs=1)


def test_a_frame_of_one_colour():
    grey = np.full((32, 48, 3), 128, np.uint8)
    assert (match(grey, np.stack([grey, grey])).apply(grey, 1.0) == grey).all()
