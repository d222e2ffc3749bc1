"""A clip whose segments an engine makes one after the other: each an MP4 of its own, joined after each one.

So memory holds the frames of one segment, and what is finished is a clip although a later one fails.
"""

from pathlib import Path

import numpy as np

from wan_ui.media import muxer
from wan_ui.request import Request


class Parts:
    """made: segments that are finished, of `total`; frames: of them together."""

    def __init__(self, request: Request, folder: Path):
        self.fps, self.folder = request.sampling.fps, folder
        self.paths: list[Path] = []
        self.frames, self.total = 0, 1

    @property
    def made(self) -> int:
        return len(self.paths)

    def add(self, frames: np.ndarray, total: int) -> None:
        part = self.folder / f".segment-{self.made}.part.mp4"
        self.frames += muxer.write_mp4(frames, part, self.fps)
        self.paths.append(part)
        self.total = total

    def join(self, target: Path, metadata: dict[str, object]) -> None:
        muxer.join(self.paths, target, metadata)

    def unfinished(self) -> tuple[str, str]:
        """What a clip is that ends here: the words of a Partial."""
        if self.made == 1:
            return f"the first of {self.total} segments", f"only the first of its {self.total} segments"
        return f"{self.made} of {self.total} segments", f"only {self.made} of its {self.total} segments"

    def clear(self) -> None:
        """Remove what only the making needed."""
        for path in self.folder.glob(".*.part*"):
            path.unlink(missing_ok=True)
