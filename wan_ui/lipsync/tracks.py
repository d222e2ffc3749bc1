"""Landmarks of every frame -> one face followed through the clip -> MuseTalk's box in each frame. No torch.

The box of MuseTalk 1.5 reaches from the chin to as far above the nose bridge (point 29) as the chin lies below it, and
10 pixels further down. Upstream takes each frame's first face, leaves the box unclamped and unsmoothed, so that it
jitters, and drops frames without a face from one of two parallel lists, so that all that follow are shifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wan_ui.lipsync.faces import Face

MARGIN = 10  # pixels below the chin
MARGIN_PART = 0.08  # but at most this part of the face's height: small faces
SMOOTHED = 5  # frames of the running median
THINNEST = 16  # pixels of a box that is worth drawing; less is left of a face that leaves the picture
LINKED = 0.2  # overlap of one person's face in two frames
BRIDGED = 2  # frames without a face that are filled in when it is there before and after


@dataclass(frozen=True)
class Track:
    """One face through a clip of n frames.

    present    (n,) bool: False where the frame is passed through
    boxes      (n, 4) int32: left, top, right, bottom, inside the image; zeros where not present
    landmarks  (n, 68, 2) float32, smoothed as the boxes are
    faces      the largest number of faces seen in one frame
    """

    present: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    faces: int


def face_box(landmarks: np.ndarray, height: int, width: int, compat: bool = False) -> tuple[int, int, int, int]:
    """MuseTalk's crop (left, top, right, bottom) for (68, 2) landmarks in an image of that size.

    With `compat` the landmarks are cut to integers first and the sides are not clamped, as upstream does.
    """
    points = landmarks.astype(np.int32) if compat else landmarks
    middle, bottom = points[29, 1], points[:, 1].max()
    top = max(0, middle - (bottom - middle))
    left, right = points[:, 0].min(), points[:, 0].max()
    if compat:
        return int(left), int(top), int(right), min(int(bottom) + MARGIN, height)
    bottom += min(MARGIN, MARGIN_PART * (bottom - top))
    return (
        min(max(0, round(float(left))), width),
        min(max(0, round(float(top))), height),
        min(max(0, round(float(right))), width),
        min(max(0, round(float(bottom))), height),
    )


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / max(one.area + other.area - shared, 1e-6)


def largest_track(detections: Sequence[Sequence[Face]]) -> list[Face | None]:
    """Of the faces that are followed through a clip the one with the largest area in sum; None where it is not seen."""
    tracks = _tracks(detections)
    chosen = max(tracks, key=lambda track: sum(face.area for face in track.values()), default={})
    return [chosen.get(frame) for frame in range(len(detections))]


def track_of(detections: Sequence[Sequence[Face]], face: Face) -> list[Face | None]:
    """As `largest_track`, the one that begins where `face` is; nobody where none does."""
    tracks = _tracks(detections)
    chosen = max(tracks, key=lambda track: overlap(track[min(track)], face), default={})
    if chosen and overlap(chosen[min(chosen)], face) <= LINKED:
        chosen = {}
    return [chosen.get(frame) for frame in range(len(detections))]


def _tracks(detections: Sequence[Sequence[Face]]) -> list[dict[int, Face]]:
    """Link faces of consecutive frames by overlap: frame -> face, for each person.

    A track that was lost is taken up again by a face that overlaps where it was last seen.
    """
    tracks: list[dict[int, Face]] = []
    for frame, faces in enumerate(detections):
        free = list(faces)
        recent = sorted(tracks, key=lambda track: -max(track))
        for track in recent:
            last = track[max(track)]
            best = max(free, key=lambda face: overlap(face, last), default=None)
            if best is not None and overlap(best, last) > LINKED:
                track[frame] = best
                free = [face for face in free if face is not best]
        tracks += [{frame: face} for face in free]
    return tracks


def follow(detections: Sequence[Sequence[Face]], height: int, width: int) -> Track:
    """The face that speaks: the largest track, short gaps bridged, landmarks smoothed, boxes inside the image."""
    faces = largest_track(detections)
    count = len(faces)
    present = np.array([face is not None for face in faces], dtype=bool)
    landmarks = np.zeros((count, 68, 2), np.float32)
    for index, face in enumerate(faces):
        if face is not None:
            landmarks[index] = face.landmarks
    seen = np.flatnonzero(present)
    for before, after in pairwise(seen):
        if 1 < after - before <= BRIDGED + 1:
            for index in range(int(before) + 1, int(after)):
                part = (index - before) / (after - before)
                landmarks[index] = (1 - part) * landmarks[before] + part * landmarks[after]
                present[index] = True
    landmarks = _running_median(landmarks, present)
    boxes = np.zeros((count, 4), np.int32)
    for index in np.flatnonzero(present).tolist():
        box = face_box(landmarks[index], height, width)
        if min(box[2] - box[0], box[3] - box[1]) < THINNEST:
            present[index] = False
        else:
            boxes[index] = box
    return Track(present, boxes, landmarks, max((len(found) for found in detections), default=0))


def follow_upstream(detections: Sequence[Sequence[Face]], height: int, width: int) -> Track:
    """As upstream, number for number where every frame has a face: the first one, unsmoothed, unclamped.

    Where the landmarks' box is empty or leaves the image on the left, the detector's own box takes its place.
    """
    present = np.array([bool(faces) for faces in detections], dtype=bool)
    landmarks = np.zeros((len(detections), 68, 2), np.float32)
    boxes = np.zeros((len(detections), 4), np.int32)
    for index in np.flatnonzero(present).tolist():
        face = detections[index][0]
        landmarks[index] = face.landmarks
        left, top, right, bottom = face_box(face.landmarks, height, width, compat=True)
        if bottom - MARGIN <= top or right <= left or left < 0:
            left, top, right, bottom = (max(0, int(side)) for side in face.box)
            bottom = min(bottom + MARGIN, height)
        boxes[index] = left, top, right, bottom
    return Track(present, boxes, landmarks, max((len(faces) for faces in detections), default=0))


def _running_median(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Median over the SMOOTHED frames around each one, never across a frame without a face."""
    out, half = values.copy(), SMOOTHED // 2
    for index in np.flatnonzero(present):
        first, last = index, index
        while first > 0 and index - first < half and present[first - 1]:
            first -= 1
        while last + 1 < len(present) and last - index < half and present[last + 1]:
            last += 1
        reach = min(index - first, last - index)  # symmetric: a moving face is not held back at the ends
        out[index] = np.median(values[index - reach : index + reach + 1], axis=0)
    return out
