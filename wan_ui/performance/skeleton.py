"""The skeleton that Animate reads a pose from: 20 joints and two hands, drawn as the official preprocessing draws them.

Joints are drawn as ellipses between two points in 0.6 of their colour, with a dot of the full colour on each point;
hands as lines in the colours of the rainbow. What is less sure than THRESHOLD is left out. Held pixel for pixel to
`draw_aapose_by_meta_new` of wan/modules/animate/preprocess/human_visualization.py (tests/performance/test_skeleton.py).
"""

import colorsys
import math

import numpy as np

POINTS = 133  # COCO-WholeBody: 17 of the body, 6 of the feet, 68 of the face, 21 of each hand
FACE = slice(23, 91)
THRESHOLD = 0.5
# Of the 133 points whose middle is a joint: nose, neck, right arm, left arm, right leg, left leg, eyes, ears, toes.
JOINTS = (
    (0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 17, 20),
    (0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, 18, 21),
)
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19),
)  # fmt: skip
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85), (200, 200, 0), (100, 100, 0),
)  # fmt: skip
HANDS = (slice(91, 112), slice(112, 133))
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
FACE_MARGIN = 1.3  # of the area that is cut out, against that of the face's points


def draw(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """(133, 3), x and y in pixels and how sure they are -> (height, width, 3) uint8 on black."""
    import cv2

    canvas = np.zeros((height, width, 3), np.uint8)
    body = (points[list(JOINTS[0])] + points[list(JOINTS[1])]) / 2
    thick = max(int(min(height, width) / 200) - 1, 1)
    for (a, b), colour in zip(LIMBS, COLOURS, strict=False):
        (x1, y1, sure), (x2, y2, also) = body[a], body[b]
        if min(sure, also) < THRESHOLD:
            continue
        length = math.hypot(y1 - y2, x1 - x2)
        angle = math.degrees(math.atan2(y1 - y2, x1 - x2))
        middle = (int((x1 + x2) / 2), int((y1 + y2) / 2))
        limb = cv2.ellipse2Poly(middle, (int(length / 2), thick), int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, np.asarray(limb), [int(0.6 * part) for part in colour])
    for (x, y, sure), colour in zip(body, COLOURS, strict=True):
        if sure >= THRESHOLD:
            cv2.circle(canvas, (int(x), int(y)), thick, colour, thickness=-1)
    for hand in HANDS:
        _draw_hand(canvas, points[hand], max(thick // 2, 1))
    return canvas


def waving(moment: float, width: int, height: int) -> np.ndarray:
    """A drawn skeleton whose arms swing, for where there is no performance: moment is in radians of the swing."""
    points = np.zeros((POINTS, 3))
    swing = 0.12 * math.sin(moment)
    body = {
        0: (0.5, 0.2), 1: (0.52, 0.18), 2: (0.48, 0.18), 3: (0.54, 0.19), 4: (0.46, 0.19), 5: (0.6, 0.32),
        6: (0.4, 0.32), 7: (0.7, 0.42 - swing), 8: (0.3, 0.42 + swing), 9: (0.78, 0.5 - 2 * swing),
        10: (0.22, 0.5 + 2 * swing), 11: (0.56, 0.6), 12: (0.44, 0.6), 13: (0.57, 0.76), 14: (0.43, 0.76),
        15: (0.57, 0.92), 16: (0.43, 0.92), 17: (0.6, 0.95), 18: (0.58, 0.95), 20: (0.4, 0.95), 21: (0.42, 0.95),
    }  # fmt: skip
    for number, (x, y) in body.items():
        points[number] = x * width, y * height, 1.0
    return draw(points, width, height)


def _draw_hand(canvas: np.ndarray, points: np.ndarray, thick: int) -> None:
    import cv2

    for number, (a, b) in enumerate(FINGERS):
        if min(points[a, 2], points[b, 2]) < THRESHOLD:
            continue
        (x1, y1), (x2, y2) = points[a, :2].astype(int).tolist(), points[b, :2].astype(int).tolist()
        if min(x1, y1, x2, y2) > 0:
            colour = [255 * part for part in colorsys.hsv_to_rgb(number / len(FINGERS), 1.0, 1.0)]
            cv2.line(canvas, (x1, y1), (x2, y2), colour, thickness=thick)
    for x, y, sure in points.tolist():
        if sure >= THRESHOLD and int(x) > 0 and int(y) > 0:
            cv2.circle(canvas, (int(x), int(y)), thick, (0, 0, 255), thickness=-1)


def face_box(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """(68, 2) points of a face -> left, top, right, bottom of what is cut out, inside the frame; mostly more above."""
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    wide, high = max(right - left, 1e-6), max(bottom - top, 1e-6)
    grown = math.sqrt(FACE_MARGIN)  # both sides, so that the area grows by the margin
    aside, above = wide * (grown - 1) / 2, high * (grown - 1) / 4
    return (
        int(max(left - aside, 0)),
        int(max(top - 3 * above, 0)),
        int(min(right + aside, width)),
        int(min(bottom + above, height)),
    )
