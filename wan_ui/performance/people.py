"""The person in each frame of a performance: 133 points by DWPose, or why it is no performance of one person.

DWPose is two ONNX files that rtmlib runs: `make dwpose` installs rtmlib and onnxruntime, `python -m wan_ui download
musetalk dwpose` fetches the files. Without them a ready pose video can be given.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from wan_ui.errors import UserError
from wan_ui.lipsync.choice import OFFICIAL, can_run_dwpose, has_dwpose
from wan_ui.lipsync.files import DETECTOR, POSE
from wan_ui.performance.skeleton import POINTS
from wan_ui.place import COMMAND
from wan_ui.settings import Settings

Find = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 RGB -> (people, 133, 3): x, y, how sure
DETECTED, PERSON = 0.3, 0  # how sure of a box, and the detector's number of the kind
SURE = 0.3  # of a person's body, in the mean
SECOND, OFTEN = 0.4, 0.2  # of the largest person's height, and of the frames: from there on somebody else performs too
MISSING = 0.5  # of the frames without anybody
# A cut: every grey level of a thumbnail changes by so much in the mean, far more than between the frames around it.
THUMBNAIL, CUT, CUT_TIMES = (32, 18), 28.0, 4.0
BODY = slice(0, 17)


def missing(settings: Settings) -> str:
    """What DWPose lacks on this machine, with what gets it; "" when it can run."""
    folder = settings.models / OFFICIAL
    if not has_dwpose(folder):
        lacking = " and ".join(str(folder / file) for file in (DETECTOR, POSE) if not (folder / file).is_file())
        return f"DWPose's files are not here ({lacking}); `{COMMAND} download musetalk dwpose` fetches them"
    if not can_run_dwpose():
        return "DWPose's files are here, but not what runs them; `make dwpose` installs rtmlib and onnxruntime"
    return ""


def load_dwpose(settings: Settings) -> Find:
    """Raises UserError (field "performance") with what is missing."""
    if words := missing(settings):
        raise UserError(
            f"performance: its pose cannot be read: {words}. Or give a ready pose video (--pose-video)",
            field="performance",
        )
    import onnxruntime
    from rtmlib import YOLOX, RTMPose

    folder, gpu = settings.models / OFFICIAL, "CUDAExecutionProvider" in onnxruntime.get_available_providers()

    def load(kind: Any, file: str, **options: Any) -> Any:
        try:
            return kind(str(folder / file), device="cuda" if gpu else "cpu", **options)
        except Exception as error:  # onnxruntime's own kinds, all derived from Exception alone
            raise UserError(f"performance: {folder / file}: {error}; fetch it again", field="performance") from None

    # All kinds: what it takes for chairs and dogs would else be people. And as sure as DWPose's own code wants it.
    detector = load(YOLOX, DETECTOR, model_input_size=(640, 640), det_mode="multiclass", score_thr=DETECTED)
    pose = load(RTMPose, POSE, model_input_size=(288, 384))

    def find(image: np.ndarray) -> np.ndarray:
        boxes, kinds = detector(image)
        boxes = boxes[kinds == PERSON] if len(boxes) else boxes
        if not len(boxes):  # without any the whole picture would be taken for one
            return np.zeros((0, POINTS, 3))
        points, sure = pose(image, bboxes=boxes)  # RGB, as the model's mean is
        return np.concatenate([points, sure[..., None]], axis=-1)

    return find


def follow(frames: Iterable[np.ndarray], find: Find, fps: float, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame with its person's points, those of the frame before where nobody is seen.

    Raises UserError (field "performance") at a cut, and at the end where nobody or somebody else was seen too often.
    """
    last: np.ndarray | None = None
    before: np.ndarray | None = None
    waiting: list[np.ndarray] = []  # frames before anybody is seen
    changes: list[float] = []
    count = crowded = empty = 0
    for frame in frames:
        small = thumbnail(frame)
        if before is not None:
            change = float(np.abs(small - before).mean())
            if change > CUT and change > CUT_TIMES * (float(np.median(changes)) if changes else 0.0):
                raise _refused(name, f"has a cut at {count / fps:.1f} s; give one shot without cuts, or a part of it")
            changes.append(change)
        before, count = small, count + 1
        people = [one for one in find(frame) if one[BODY, 2].mean() >= SURE]
        people.sort(key=lambda one: -height(one))
        crowded += len(people) > 1 and height(people[1]) > SECOND * height(people[0])
        if not people:
            empty += 1
        else:
            last = people[0] if last is None else min(people, key=lambda one, last=last: apart(one, last))  # type: ignore[misc]
        if last is None:
            waiting.append(frame)
            continue
        for early in waiting:
            yield early, last
        waiting.clear()
        yield frame, last
    if last is None:
        raise _refused(name, "shows no person that can be recognised; one person is needed, large and well lit")
    if empty > MISSING * count:
        raise _refused(name, f"shows a person in only {count - empty} of {count} frames; one must be there throughout")
    if crowded > OFTEN * count:
        raise _refused(name, f"shows more than one person in {crowded} of {count} frames; crop it so that one is left")


def thumbnail(frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA).mean(-1, dtype=np.float32)


def height(points: np.ndarray) -> float:
    """Of a person, in pixels, by the points that are seen."""
    seen = points[BODY][points[BODY, 2] >= SURE]
    return float(np.ptp(seen[:, 1])) if len(seen) else 0.0


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far a person has moved, in pixels."""
    return float(np.median(np.hypot(*(one[BODY, :2] - other[BODY, :2]).T)))


def _refused(name: str, words: str) -> UserError:
    return UserError(f"performance: {name} {words}", field="performance")
