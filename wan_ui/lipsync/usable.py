"""Whether a face can speak: how large, sharp and upright it must be, and in how many frames of a clip. No torch.

The limits were measured with the embedded network on assets/examples/portrait.jpg, made smaller, blurred, turned
(as a textured ellipsoid), and as Wan-Tiny gives it back. Below them the mouth becomes a smear that no longer follows
the voice. Correlation is that of the dark between the lips with the voice's envelope, the swing is in levels of 255.

    width of the face (pixels)   18    27    35    41    52    65    89
    correlation                 0.64  0.82  0.80  0.81  0.80  0.80  0.80
    swing                        20    49    57    58    51    56    53

    detail (see below)   < 0.47        0.48 to 0.53   0.57 to 0.64   > 0.64
    correlation          0.43 to 0.71  0.48 to 0.80   0.67 to 0.77   0.74 to 0.81
    swing                11 to 29      13 to 37       30 to 50       37 to 61

The network's input is 256 pixels wide, so that 40 are enlarged 6.4 times; what counts is whether a mouth can be
seen in them. `detail` tells that whatever the size: of the inner face at 128 pixels, the contrast between 2 and 4
pixels against that between 4 and 8. A blurred face of 89 pixels (sigma 3: 0.47) is as far gone as one of 54 that
Wan-Tiny drew (0.48). To the side the drawn mouth stays on the face up to 40 degrees and leaves it at 50. A head
tilted by 20 degrees keeps its mouth, at 30 it is smeared over the cheek, since libfacedetection sees an upright face
in it: so the tilt is told by the axis about which the face is most alike on both sides, to 5 degrees on a photo and
on drawn faces. 30 degrees up or down change nothing.
"""

from collections.abc import Sequence

import numpy as np

from wan_ui.lipsync.faces import Face, LibFaceDetector
from wan_ui.lipsync.numbered import first_seen, numbered, pick
from wan_ui.lipsync.tracks import largest_track, track_of

SMALLEST = 40  # pixels
DETAIL = 0.55
TILTED = 25  # degrees, in steps of 5
# To the side: the nose tip's way from the middle between the eyes, and the eyes' distance against that to the mouth.
NOSE, NARROW = 0.4, 0.7
BORDER = 0.05  # of the face's width, that eyes and mouth must lie inside the picture
MOST = 0.5  # of a clip's frames: in more of them the face must be


def trouble(face: Face, image: np.ndarray, smallest: int = SMALLEST) -> str:
    """Why `face` of an (H, W, 3) uint8 RGB image cannot speak, for people; "" when it can."""
    left, top, right, bottom = face.box
    size = f"{right - left:.0f} x {bottom - top:.0f} pixels"
    if min(right - left, bottom - top) < smallest:
        return f"the face is only {size}; at least {smallest} are needed: crop closer or use a larger picture"
    height, width = image.shape[:2]
    # What lies beyond the border is guessed to be just inside; the chin may touch it.
    features, edge, chin = face.points[[0, 1, 3, 4]], BORDER * (right - left), face.landmarks[8]
    if (features < edge).any() or (features > (width - edge, height - edge)).any() or chin[1] > height:
        return "the face is cut off by the border; use a picture that shows all of it"
    if from_the_side(face):
        return "the face is seen from the side; speech needs a face that looks at the camera"
    if abs(angle := tilt(face, image)) >= TILTED:
        return f"the head is tilted by about {abs(angle)} degrees; turn the picture so that it is upright"
    if detail(face, image) < DETAIL:
        return (
            f"the face ({size}) is too blurred for its mouth to be seen; "
            "use a sharper picture, or one in which the face is larger"
        )
    return ""


def from_the_side(face: Face) -> bool:
    """Whether the nose tip lies beside the eyes' middle, or the eyes are close together, as in a side view."""
    left, right, tip, *corners = face.points
    across, middle = right - left, (left + right) / 2
    down = np.mean(corners, axis=0) - middle
    distance = max(float(np.hypot(*across)), 1e-6)
    aside = abs(float((tip - middle) @ across)) / distance**2
    return aside > NOSE or distance < NARROW * float(np.hypot(*down))


def tilt(face: Face, image: np.ndarray) -> int:
    """Degrees by which the head is tilted, clockwise, -60 to 60 in steps of 5; 0 where no axis is better."""
    import cv2

    left, top, right, bottom = face.box
    x, y = (left + right) / 2, (top + bottom) / 2
    grey = image.mean(-1).astype(np.float32)
    side, reach = 96, 9  # pixels that the face is brought to, and that its axis may lie beside the middle
    rows, columns = np.mgrid[0:side, 0:side] - (side - 1) / 2
    weight = np.exp(-(rows**2 + columns**2) / (2 * 28**2)).astype(np.float32)
    likeness: dict[int, float] = {}
    for angle in range(-60, 61, 5):
        turn = cv2.getRotationMatrix2D((x, y), angle, side / max(right - left, bottom - top))
        turn[:, 2] += np.array([(side - 1) / 2 + reach - x, (side - 1) / 2 - y])
        upright = cv2.warpAffine(grey, turn, (side + 2 * reach, side), borderMode=cv2.BORDER_REPLICATE)
        upright = cv2.GaussianBlur(upright, (0, 0), 1.5) - cv2.GaussianBlur(upright, (0, 0), 8)
        for shift in range(0, 2 * reach + 1, 3):
            part = upright[:, shift : shift + side]
            mirrored = part[:, ::-1]
            norm = float(np.sqrt((weight * part**2).sum() * (weight * mirrored**2).sum()))
            alike = float((weight * part * mirrored).sum()) / max(norm, 1e-6)
            likeness[angle] = max(alike, likeness.get(angle, -1.0))
    best = max(likeness, key=lambda angle: likeness[angle])
    return best if likeness[best] > max(likeness[0] + 0.1, 0.4) else 0


def detail(face: Face, image: np.ndarray) -> float:
    """How much can be seen in a face, whatever its size: 0.4 for a smear, above 0.7 for a photo."""
    import cv2  # a tenth of a second, which the page's start is spared

    height, width = image.shape[:2]
    left, top = max(0, round(face.box[0])), max(0, round(face.box[1]))
    right, bottom = min(width, round(face.box[2])), min(height, round(face.box[3]))
    grey = image[top:bottom, left:right].mean(-1).astype(np.float32)
    larger = grey.shape[1] > 128
    grey = cv2.resize(grey, (128, 160), interpolation=cv2.INTER_AREA if larger else cv2.INTER_CUBIC)
    inner = grey[30:150, 12:116]  # without hair and background
    two, four, eight = (cv2.GaussianBlur(inner, (0, 0), sigma) for sigma in (2, 4, 8))
    return float((two - four).std() / max((four - eight).std(), 1e-6))


def usable_face(image: np.ndarray, smallest: int = SMALLEST, number: int = 0) -> tuple[bool, str]:
    """Whether a face of an (H, W, 3) uint8 RGB image can speak, and words for the person about it.

    number  which, from the left; 0: the largest. Raises UserError (field "face") where there is none of that number
    """
    faces = numbered(image)
    if not faces and not number:
        return False, "no face was found; speech needs a face that looks at the camera"
    face = pick(faces, number) if number else max(faces, key=lambda face: face.area)
    if words := trouble(face, image, smallest):
        return False, words
    return True, _found(len(faces), number)


def usable_clip(frames: Sequence[np.ndarray], number: int = 0) -> tuple[bool, str]:
    """As `usable_face`, of the face that can be followed through (H, W, 3) uint8 RGB frames."""
    detector = LibFaceDetector()
    first = first_seen(frames)[1]
    detections = [detector.detect(frame) for frame in frames]
    faces = track_of(detections, pick(first, number)) if number else largest_track(detections)
    troubles = ["" if face is None else trouble(face, frame) for face, frame in zip(faces, frames, strict=True)]
    words = clip_trouble(faces, troubles)
    return not words, words or _found(len(first), number)


def _found(count: int, number: int) -> str:
    if count < 2:
        return "one face was found"
    return f"{count} faces were found; {f'number {number} from the left' if number else 'the largest one'} will speak"


def clip_trouble(faces: Sequence[Face | None], troubles: Sequence[str]) -> str:
    """Why the face that was followed through a clip (None where it was not seen) cannot speak; "" when it can.

    troubles  what `trouble` says of each frame, "" where there is no face
    """
    seen = [face for face in faces if face is not None]
    if not seen:
        return "no face was found in it; speech needs a face that looks at the camera"
    if len(seen) <= MOST * len(faces):
        return f"a face was found in only {len(seen)} of {len(faces)} frames; it must be there in most of them"
    words = [found for found in troubles if found]
    return words[len(words) // 2] if len(words) > MOST * len(seen) else ""


def speaking(faces: Sequence[Face | None], troubles: Sequence[str]) -> list[Face | None]:
    """The faces of the frames that speak. By the majority of 9 frames, so that a face at a limit does not flicker."""
    fit = [face is not None and not words for face, words in zip(faces, troubles, strict=True)]
    kept = []
    for index, face in enumerate(faces):
        around = fit[max(0, index - 4) : index + 5]
        kept.append(face if 2 * sum(around) > len(around) else None)
    return kept
