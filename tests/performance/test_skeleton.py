"""The drawn skeleton and the face that is cut out, against numbers of a run of the official preprocessing."""

import json
import zlib

import numpy as np
import pytest

from wan_ui.performance import skeleton
from wan_ui.settings import ROOT

THEIRS = json.loads((ROOT / "tests/golden/of-wan22/skeleton.json").read_text())


def points(seed: int, width: int, height: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    found = np.zeros((133, 3))
    found[:, 0] = draw.uniform(0.05, 0.95, 133) * width
    found[:, 1] = draw.uniform(0.05, 0.95, 133) * height
    found[:, 2] = draw.uniform(0.2, 1, 133)
    return found


@pytest.mark.parametrize("theirs", THEIRS["drawings"], ids=lambda theirs: f"{theirs['width']}x{theirs['height']}")
def test_equals_the_official_drawing(theirs):
    size = theirs["width"], theirs["height"]
    drawn = skeleton.draw(points(theirs["seed"], *size), *size)
    assert drawn.astype(int).sum() == theirs["sum"] and zlib.crc32(drawn.tobytes()) == theirs["crc32"]


@pytest.mark.parametrize("seed, box", THEIRS["faces"])
def test_equals_the_official_face(seed, box):
    face = points(seed, 640, 360)[skeleton.FACE, :2] / (640, 360)
    face = face * (0.2, 0.3) + (0.3, 0.05)
    assert list(skeleton.face_box(face * (640, 360), 640, 360)) == box


def test_nobody_is_drawn_of_what_is_not_sure():
    assert not skeleton.draw(np.zeros((133, 3)), 64, 64).any()
    assert skeleton.waving(0.0, 64, 64).any()
