"""Faces numbered from left to right, as the page shows them: which of several is to speak. No torch.

They are counted in the picture that a clip is made of, else in the clip's first frame that has a face, and by
libfacedetection whatever finds them later: a number means the same before a run and in it.
"""

from collections.abc import Sequence

import numpy as np

from wan_ui.errors import UserError
from wan_ui.lipsync.faces import Face, LibFaceDetector

LOOKED_AT = 48  # frames in which the first face of a clip is looked for


def numbered(image: np.ndarray) -> list[Face]:
    """Faces of an (H, W, 3) uint8 RGB image; the first is number 1."""
    return sorted(LibFaceDetector().detect(image), key=lambda face: face.box[0] + face.box[2])


def first_seen(frames: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, list[Face]]:
    """The frame of a clip in which its faces are numbered, and they."""
    for frame in frames[:LOOKED_AT]:
        if faces := numbered(frame):
            return frame, faces
    return frames[0], []


def pick(faces: Sequence[Face], number: int) -> Face:
    """Raises UserError (field "face")."""
    if number <= len(faces):
        return faces[number - 1]
    seen = {0: "no face is", 1: "one face is"}.get(len(faces), f"{len(faces)} faces are")
    known = f"choose 1 to {len(faces)}, counted from the left, or" if len(faces) > 1 else "leave it out:"
    raise UserError(f"face: there is no face {number}, {seen} seen there; {known} 0 for the largest", field="face")
