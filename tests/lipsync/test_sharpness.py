"""The drawn mouth against the face around it: measured, matched within limits, steady, and left alone where asked."""

import cv2
import numpy as np
import pytest
import torch

from tests.lipsync.conftest import tone
from wan_ui.lipsync.blend import Mask, match_detail
from wan_ui.lipsync.sharpness import MOST, Sharpener, area_of, ratio
from wan_ui.lipsync.speech import LipSync

BOX = (69, 65, 171, 184)


@pytest.fixture(scope="module")
def crop(portrait) -> np.ndarray:
    return portrait[BOX[1] : BOX[3], BOX[0] : BOX[2]]


@pytest.fixture(scope="module")
def mask() -> Mask:
    alpha = np.zeros((150, 150), np.uint8)
    cv2.ellipse(alpha, (76, 100), (40, 26), 0, 0, 360, 255, -1)
    return Mask(cv2.GaussianBlur(alpha, (9, 9), 0), BOX[0] - 24, BOX[1] - 16)


def test_a_blurred_mouth_measures_less_and_its_own_self_one(crop, mask):
    area = area_of(mask, BOX)
    assert area.shape == crop.shape[:2] and 2000 < area.sum() < 4000 and not area[:50].any()
    found = [ratio(cv2.GaussianBlur(crop, (0, 0), sigma) if sigma else crop, crop, area) for sigma in (0, 0.6, 1.2, 3)]
    assert found[0] == 1 and found == sorted(found, reverse=True) and found[2] < 0.6


def test_what_is_drawn_soft_becomes_as_sharp_as_the_face(portrait, crop, mask):
    area, soft = area_of(mask, BOX), cv2.GaussianBlur(crop, (0, 0), 1.0)
    cv2.ellipse(soft, (52, 94), (16, 8), 0, 0, 360, (60, 20, 20), -1, cv2.LINE_AA)  # an open mouth
    soft = cv2.GaussianBlur(soft, (0, 0), 1.0)
    before = ratio(soft, crop, area)
    matched = ratio(match_detail(soft, portrait, BOX), crop, area)
    sharp = Sharpener().match(soft, portrait, BOX, mask)
    after = ratio(sharp, crop, area)
    assert before < 0.75 and abs(after - 1) < abs(matched - 1) and 0.9 < after < 1.1, (before, matched, after)


def test_it_is_limited_and_does_not_flicker(portrait, crop, mask):
    sharpener, flat = Sharpener(), np.full((64, 64, 3), 128, np.uint8)
    sharpener.match(flat, portrait, BOX, mask)
    assert sharpener.strength <= MOST
    strengths = []
    for soft in (crop, cv2.GaussianBlur(crop, (0, 0), 2.5)) * 4:
        sharpener.match(soft, portrait, BOX, mask)
        strengths.append(sharpener.strength)
    assert np.abs(np.diff(strengths)).max() <= 0.31 * MOST


def test_it_can_be_switched_off(weights, portrait):
    lipsync, clip = LipSync.load(weights, torch.device("cpu")), portrait[None]
    faces = lipsync.prepare(clip, lambda progress: None)

    def speak(**how):
        return np.stack(list(lipsync.speak(clip, 8, tone(0.5), lambda progress: None, faces, **how)))

    box, area = tuple(faces.track.boxes[0].tolist()), area_of(faces.masks[0], tuple(faces.track.boxes[0].tolist()))
    left, top, right, bottom = box
    plain, sharp = speak(sharpen=False), speak()
    assert (plain != sharp).any() and np.array_equal(sharp, speak(sharpen=True))
    outside = np.ones(portrait.shape[:2], bool)
    outside[top:bottom, left:right][area] = False
    assert plain[1][~outside].tolist() != portrait[~outside].tolist()
