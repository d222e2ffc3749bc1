"""An MP4 that is written while its frames are still being made: the same file, sooner."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wan_ui.media import muxer


class _Abandoned(Exception):
    """The clip will not be finished."""


class Mp4Writer:
    """ffmpeg, fed by a thread. Ends with `finish` or `abandon`, whatever happens; never leaves half a file.

    `add` never waits and never raises: what goes wrong with the file is told by `finish`, when the frames are there.
    """

    def __init__(self, path: Path, fps: float, metadata: dict[str, Any]):
        self.path, self.fps, self.metadata = path, fps, metadata
        self.parts: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self.abandoned = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._write, name="mp4", daemon=True)
        self.thread.start()

    def add(self, frames: np.ndarray) -> None:
        """The next frames (T, H, W, 3) uint8, which must not change any more."""
        self.parts.put(frames)

    def finish(self) -> None:
        """Wait until the file is there. Raises what `muxer.write_mp4` raises."""
        self.parts.put(None)
        self.thread.join()
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Stop; no file is left. Raises nothing."""
        self.abandoned.set()
        self.parts.put(None)
        self.thread.join()

    def _frames(self) -> Iterator[np.ndarray]:
        while (part := self.parts.get()) is not None:
            for frame in part:
                if self.abandoned.is_set():
                    raise _Abandoned
                yield frame
        if self.abandoned.is_set():
            raise _Abandoned

    def _write(self) -> None:
        try:
            muxer.write_mp4(self._frames(), self.path, self.fps, self.metadata)
        except _Abandoned:
            pass
        except BaseException as error:  # told by `finish`, in the thread that asked for the file
            self.error = error
