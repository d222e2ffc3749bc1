"""A pose video: a drawn skeleton that a clip follows, at the clip's size and rate, whatever it is shot in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui.catalog import Model, parse_size
from wan_ui.crop import MIDDLE
from wan_ui.errors import UserError
from wan_ui.media import decoder, video
from wan_ui.media.images import fit


@dataclass(frozen=True)
class PoseVideo:
    """Its size in pixels, frames per second, and seconds, 0 where its file does not say."""

    width: int
    height: int
    fps: float
    seconds: float

    def words(self, size: str, model: Model) -> str:
        """ "640 × 360 at 30 frames a second, 4.0 s; followed at 16 a second, its edges cut off" """
        wanted = model.closest_size(self.width, self.height) if size == "auto" else parse_size(size)
        left, top, right, bottom = MIDDLE.box((self.width, self.height), wanted)
        cut = (right - left) * (bottom - top) < 0.99 * self.width * self.height
        lasts = f", {self.seconds:.1f} s" if self.seconds else ""
        followed = f"followed at {model.fps} a second{', its edges cut off' if cut else ''}"
        return f"{self.width} × {self.height} at {self.fps:.4g} frames a second{lasts}; {followed}"


def look_at_pose(path: str) -> PoseVideo:
    """Raises UserError (field "pose_video")."""
    source = Path(path)
    if not os.path.isfile(source):
        what = "is not a file; choose a video" if os.path.exists(source) else "does not exist"
        raise UserError(f"pose_video: {source.name} {what}", field="pose_video")
    try:
        found = video.look(source)
    except UserError as error:
        raise video.about(error, "pose_video") from None
    return PoseVideo(found.width, found.height, found.fps, decoder.duration(source))


def pose_frames(path: Path, fps: float, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 at `fps`, upright, cropped to `size` (width, height). Raises UserError (field "pose_video")."""
    try:
        for frame in video.frames(replace(video.look(path), fps=fps)):
            yield frame if frame.shape[1::-1] == size else np.asarray(fit(Image.fromarray(frame), *size))
    except UserError as error:
        raise video.about(error, "pose_video") from None
