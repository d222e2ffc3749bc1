"""A new face back into its frame: through a soft mask of the lower face, once computed for each base frame.

As in upstream's `get_image`, whose mask depends on the base frame alone: so its offline and its realtime path are the
same two steps here, with blur 0.05 and 0.1. Everything is RGB; upstream's BGR swaps cancel out.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from wan_ui.lipsync.parsing import Parser

EXPAND = 1.5  # the mask's crop, relative to the face box
KEPT = 0.5  # the upper part of the crop that never changes
BLUR = 0.05  # kernel, as a part of the crop's width
TONE_GRID, TONE_REACH, TONE_LARGEST = 32, 4.0, 64.0  # cells a side; cells; a difference that is no matter of tone
# What is finer than REACH (pixels of a face 256 wide) is detail; a smooth difference of LARGEST levels means that
# something has moved; there the drawn detail is strengthened at most GAIN times.
DETAIL_REACH, DETAIL_LARGEST, DETAIL_GAIN = 6.0, 40.0, 3.0


@dataclass(frozen=True)
class Mask:
    """alpha: (h, w) uint8; left, top: where it lies in the frame (may be negative: it is cut when it is used)."""

    alpha: np.ndarray
    left: int
    top: int


def crop_square(box: tuple[int, int, int, int], expand: float = EXPAND) -> tuple[int, int, int, int]:
    """The square around a face box that the parser sees; its side is even, and it may leave the frame."""
    left, top, right, bottom = box
    x, y = (left + right) // 2, (top + bottom) // 2
    half = int(max(right - left, bottom - top) // 2 * expand)
    return x - half, y - half, x + half, y + half


def blend_mask(
    frame: np.ndarray,
    box: tuple[int, int, int, int],
    landmarks: np.ndarray,
    parser: Parser,
    mode: str = "jaw",
    blur: float = BLUR,
) -> Mask:
    """The mask of a face in an (H, W, 3) uint8 RGB frame; `box` is the face crop, `landmarks` (68, 2) in the frame."""
    left, top, right, bottom = box
    square = crop_square(box)
    crop = Image.fromarray(frame).crop(square)  # black outside the frame
    region = np.asarray(parser.region(crop, landmarks - np.array(square[:2], np.float32), mode))
    kept = np.zeros_like(region)
    rows = slice(max(int(region.shape[0] * KEPT), top - square[1]), bottom - square[1])
    columns = slice(left - square[0], right - square[0])
    kept[rows, columns] = region[rows, columns]
    size = int(blur * region.shape[1] // 2 * 2) + 1
    return Mask(cv2.GaussianBlur(kept, (size, size), 0), square[0], square[1])


def match_tone(face: np.ndarray, frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """`face` (S, S, 3) uint8 RGB with the tone of skin that `box` (inside the frame) has in the frame.

    What a network draws is a little warmer or greyer than its picture, and the cheek would change colour with every
    word. The smooth part of the difference is taken out; where it is large something has moved (lips, teeth, the dark
    between them), which counts for nothing. Not in upstream.
    """
    left, top, right, bottom = box
    cells = (TONE_GRID, TONE_GRID)
    drawn = cv2.resize(face, cells, interpolation=cv2.INTER_AREA).astype(np.float32)
    there = cv2.resize(frame[top:bottom, left:right], cells, interpolation=cv2.INTER_AREA).astype(np.float32)
    difference = there - drawn
    weight = np.square(np.clip(1 - np.abs(difference).max(-1, keepdims=True) / TONE_LARGEST, 0, 1)) + 1e-3
    spread = cv2.GaussianBlur(np.concatenate([difference * weight, weight], -1), (0, 0), TONE_REACH)
    evened = np.asarray(spread[..., :3] / spread[..., 3:], np.float32)
    tone = cv2.resize(evened, face.shape[1::-1])
    return np.clip(np.rint(face + tone), 0, 255).astype(np.uint8)


def match_detail(face: np.ndarray, frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """`face` (S, S, 3) uint8 RGB at the size of `box` (inside the frame), as sharp as the frame is there.

    A network of 256 pixels draws softer than a photo is, and a face larger than that softer still: pores, stubble and
    the edge of the jaw would melt with every word. Where nothing has moved the frame's own detail is laid over the
    drawn face; where something has, the drawn detail is strengthened up to the frame's. Not in upstream.
    """
    left, top, right, bottom = box
    size = (right - left, bottom - top)
    there = frame[top:bottom, left:right].astype(np.float32)
    larger = size[0] * size[1] > face.shape[0] * face.shape[1]
    drawn = cv2.resize(face, size, interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA).astype(np.float32)
    reach = max(0.6, DETAIL_REACH * size[0] / 256)

    def soft(values: np.ndarray, sigma: float = reach) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), sigma)

    def strength(detail: np.ndarray) -> np.ndarray:
        return np.sqrt(soft(np.square(detail.mean(-1)), max(2.0, 6 * reach)))

    there_soft, drawn_soft = soft(there), soft(drawn)
    there_fine, drawn_fine = there - there_soft, drawn - drawn_soft
    moved = np.abs(soft(there_soft - drawn_soft)).max(-1) / DETAIL_LARGEST
    still = soft(np.clip(1 - moved, 0, 1))[..., None]
    gain = np.clip(strength(there_fine) / np.maximum(strength(drawn_fine), 0.5), 1, DETAIL_GAIN)[..., None]
    sharp = drawn_soft + still * there_fine + (1 - still) * gain * drawn_fine
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


def paste(frame: np.ndarray, face: np.ndarray, box: tuple[int, int, int, int], mask: Mask, gain: float = 1.0) -> None:
    """Lay `face` (S, S, 3) uint8 RGB over `box` of `frame`, in place, through the mask times `gain` (0..1)."""
    left, top, right, bottom = box
    height, width = frame.shape[:2]
    face = cv2.resize(face, (right - left, bottom - top))  # bilinear, as upstream's
    # The part of the mask that lies on the face and in the frame; the mask's blurred rim lies outside the face, where
    # the crop is the frame itself and nothing changes.
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    alpha = mask.alpha[y0 - mask.top : y1 - mask.top, x0 - mask.left : x1 - mask.left]
    if gain < 1:
        alpha = np.rint(alpha * np.float32(gain)).astype(np.uint8)
    under = Image.fromarray(frame[y0:y1, x0:x1])
    under.paste(Image.fromarray(face[y0 - top : y1 - top, x0 - left : x1 - left]), (0, 0), Image.fromarray(alpha))
    frame[y0:y1, x0:x1] = np.asarray(under)
