"""A performance, or ready pose, face and mask videos -> the tracks that drive a clip, frame by frame at its rate.

What is read goes to files beside the job, of which memory holds what is looked at: a minute at 720p is 5 GB.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.lipsync.faces import Face, LibFaceDetector
from wan_ui.lipsync.tracks import overlap
from wan_ui.media import decoder, video
from wan_ui.media.images import fit, whole_within
from wan_ui.performance import people, skeleton
from wan_ui.performance.people import Find
from wan_ui.request import Progress, Report, Tracks
from wan_ui.settings import Settings
from wan_ui.tasks import FORM

FACE_SIZE = 512
SHORTEST = 5  # frames
LATE = 0.15  # seconds that videos of one performance may differ in length
SQUARE = 0.02  # of the width, that a face video's height may differ from it
SHAPE = 0.02  # by which the shapes of performance and mask may differ
FIELDS = ("performance", "pose_video", "face_video", "mask_video")
KEPT = {entry.name: entry.file for entry in FORM if entry.name in FIELDS}  # as the job's folder calls them


@dataclass(frozen=True)
class Look:
    """A video that was given: pixels, frames a second, and seconds, 0 where its file does not say."""

    field: str
    name: str
    width: int
    height: int
    fps: float
    seconds: float


def look(field: str, path: str, settings: Settings) -> Look:
    """Raises UserError, which names the field."""
    source = Path(path)
    if not os.path.isfile(source):
        what = "is not a file; choose a video" if os.path.exists(source) else "does not exist"
        raise UserError(f"{field}: {source.name} {what}", field=field)
    try:
        found = video.look(source)
    except UserError as error:
        raise video.about(error, field) from None
    seconds = decoder.duration(source)
    if seconds > settings.max_clip_seconds:
        words = f"lasts {seconds:.0f} s; at most {settings.max_clip_seconds:g} s can be followed: cut it"
        raise UserError(f"{field}: {source.name} {words}", field=field)
    return Look(field, source.name, found.width, found.height, found.fps, seconds)


def look_at(paths: dict[str, str], fps: float, settings: Settings) -> dict[str, Look]:
    """Those of FIELDS that were given, held against each other as far as can be told from outside. Raises UserError."""
    found = {field: look(field, paths[field], settings) for field in FIELDS if field in paths}
    first = found.get("performance") or found["pose_video"]
    if 0 < first.seconds < SHORTEST / fps:
        raise too_short(first.field, first.name, max(1, round(first.seconds * fps)), fps)
    for other in found.values():
        if first.seconds and other.seconds and abs(other.seconds - first.seconds) > LATE:
            words = f"lasts {other.seconds:.2f} s, {first.name} {first.seconds:.2f} s; both must show the same moments"
            raise UserError(f"{other.field}: {other.name} {words}", field=other.field)
    if (face := found.get("face_video")) and abs(face.width / face.height - 1) > SQUARE:
        words = f"is {face.width} x {face.height}; a face video is square, with the face filling it"
        raise UserError(f"face_video: {face.name} {words}", field="face_video")
    if mask := found.get("mask_video"):
        performance = found.get("performance")
        if performance is None:
            words = "it says where the performer is, and no performance is given; give one, or leave this out"
            raise UserError(f"mask_video: {words}", field="mask_video")
        if abs((mask.width / mask.height) / (performance.width / performance.height) - 1) > SHAPE:
            own = f"{performance.width} x {performance.height}"
            words = f"is {mask.width} x {mask.height}, {performance.name} {own}; both need the same shape"
            raise UserError(f"mask_video: {mask.name} {words}", field="mask_video")
    return found


def called(path: Path, field: str) -> str:
    """In messages: a job's copy has lost the name that the person gave it."""
    return "the video" if path.stem == KEPT[field] else path.name


def too_short(field: str, name: str, count: int, fps: float) -> UserError:
    words = f"has {count} frames at {fps:g} a second; at least {SHORTEST} are needed ({SHORTEST / fps:.2f} s)"
    return UserError(f"{field}: {name} {words}", field=field)


def frames_of(path: Path, fps: float, field: str) -> Iterator[np.ndarray]:
    """Upright, at `fps` whatever its own rate is. Raises UserError (that field)."""
    try:
        yield from video.frames(replace(video.look(path), fps=fps))
    except UserError as error:
        raise video.about(error, field) from None


def placed(frame: np.ndarray, size: tuple[int, int], fill: bool) -> np.ndarray:
    """The whole frame within `size` (width, height), black around it; fill: no black, its edges cut off instead."""
    if frame.shape[1::-1] == size:
        return frame
    return np.asarray((fit if fill else whole_within)(Image.fromarray(frame), *size))


class Reel:
    """Frames of one size in a file, which ends as an array."""

    def __init__(self, path: Path):
        self.path, self.file = path, path.open("wb")
        self.shape: tuple[int, ...] = ()
        self.count = 0

    def add(self, frame: np.ndarray) -> None:
        self.shape = frame.shape
        self.file.write(np.ascontiguousarray(frame, dtype=np.uint8).tobytes())
        self.count += 1

    def array(self, count: int) -> np.ndarray:
        self.file.close()
        return np.memmap(self.path, np.uint8, "r", shape=(self.count, *self.shape))[:count]


def watch(
    inputs: dict[str, str],
    size: tuple[int, int],
    fps: float,
    settings: Settings,
    report: Report,
    folder: Path,
    load: Callable[[Settings], Find] = people.load_dwpose,
) -> Tracks:
    """What drives a clip of `size` (width, height) at `fps`. Raises UserError naming the field.

    inputs  paths of FIELDS, those that were given
    folder  where the frames are kept, as files that begin with a point
    """
    paths = {field: Path(inputs[field]) for field in FIELDS if field in inputs}
    fill = "mask_video" in paths  # the character takes a place in the performance, so that both have one shape
    reels: dict[str, Reel] = {}

    def add(track: str, frame: np.ndarray) -> None:
        if track not in reels:
            reels[track] = Reel(folder / f".{track}.part.raw")
        reels[track].add(frame)

    if path := paths.get("performance"):
        frames = _counted(frames_of(path, fps, "performance"), path, fps, report)
        shown = (placed(frame, size, fill) for frame in frames)
        if "pose_video" not in paths:
            for frame, points in people.follow(shown, load(settings), fps, called(path, "performance")):
                add("pose", skeleton.draw(points, *size))
                if "face_video" not in paths:
                    add("face", cut_out(frame, points[skeleton.FACE, :2]))
                if fill:
                    add("background", frame)
        elif fill or "face_video" not in paths:
            for frame, face in (
                _faces(shown, called(path, "performance")) if "face_video" not in paths else ((f, None) for f in shown)
            ):
                if face is not None:
                    add("face", face)
                if fill:
                    add("background", frame)
    for field, track in (("pose_video", "pose"), ("face_video", "face"), ("mask_video", "mask")):
        if field in paths:
            target = (FACE_SIZE, FACE_SIZE) if track == "face" else size
            for frame in _counted(frames_of(paths[field], fps, field), paths[field], fps, report):
                shaped = placed(frame, target, fill or track == "face")
                add(track, np.where(shaped.mean(-1) > 127, 255, 0) if track == "mask" else shaped)
    count = min(reel.count for reel in reels.values())
    for field, track in (("pose_video", "pose"), ("face_video", "face"), ("mask_video", "mask")):
        longest = max(reel.count for reel in reels.values())
        if field in paths and abs(reels[track].count - longest) > LATE * fps:
            words = f"has {reels[track].count} frames at {fps:g} a second where there are {longest} of the others"
            raise UserError(
                f"{field}: {called(paths[field], field)} {words}; all must show the same moments", field=field
            )
    if count < SHORTEST:
        field = "performance" if "performance" in paths else "pose_video"
        raise too_short(field, called(paths[field], field), count, fps)
    arrays = {track: reel.array(count) for track, reel in reels.items()}
    if fill:
        behind = Reel(folder / ".behind.part.raw")
        for frame, mask in zip(arrays["background"], arrays["mask"], strict=True):
            behind.add(np.where(mask[..., None] > 127, 0, frame))
        arrays["background"] = behind.array(count)
        if not arrays["mask"].any() or arrays["mask"].all():
            what = "nothing in it is white" if not arrays["mask"].any() else "all of it is white"
            raise UserError(f"mask_video: {what}; white is where the performer is, black the rest", field="mask_video")
    return Tracks(**arrays)


def _counted(frames: Iterable[np.ndarray], path: Path, fps: float, report: Report) -> Iterator[np.ndarray]:
    """Says before each frame how far it is."""
    total = max(1, round(decoder.duration(path) * fps))
    for number, frame in enumerate(frames, start=1):
        report(Progress("pose", number, max(number, total), f"{path.name}, frame {number} of about {total}"))
        yield frame


def cut_out(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face with these points, FACE_SIZE pixels each way."""
    height, width = frame.shape[:2]
    left, top, right, bottom = skeleton.face_box(points, width, height)
    left, top = min(left, width - 2), min(top, height - 2)
    part = frame[top : max(bottom, top + 2), left : max(right, left + 2)]
    return np.asarray(Image.fromarray(part).resize((FACE_SIZE, FACE_SIZE), Image.Resampling.BILINEAR))


def _faces(frames: Iterable[np.ndarray], name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame with its face, by libfacedetection: where a pose video is given, DWPose is not needed."""
    detector = LibFaceDetector()
    last: Face | None = None
    waiting: list[np.ndarray] = []
    for frame in frames:
        found = detector.detect(frame)
        if found:
            last = found[0] if last is None else max(found, key=lambda face, last=last: overlap(face, last))  # type: ignore[misc]
        if last is None:
            waiting.append(frame)
            continue
        for early in waiting:
            yield early, cut_out(early, last.landmarks)
        waiting.clear()
        yield frame, cut_out(frame, last.landmarks)
    if last is None:
        words = "shows no face; give a face video (--face-video), or leave the performance out and expressions are free"
        raise UserError(f"performance: {name} {words}", field="performance")
