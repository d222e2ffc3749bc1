"""A clip without an end: there and back, or its end faded into its beginning. Few frames are kept in memory."""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from wan_ui.afterwork.between import Between, same_scene

SEAM = 0.5  # seconds of a seam, a third of the clip at most


def there_and_back(frames: Iterable[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """The frames, and those between its ends again from behind. Meanwhile they lie in a file without a name."""
    with tempfile.TemporaryFile(dir=folder) as kept:
        count, last = 0, None
        for frame in frames:
            kept.write(np.ascontiguousarray(frame).data.cast("B"))
            count, last = count + 1, frame
            yield frame
        if last is None:
            return
        for number in range(count - 2, 0, -1):
            kept.seek(number * last.nbytes)
            yield np.frombuffer(kept.read(last.nbytes), np.uint8).reshape(last.shape)


def seamless(frames: Iterable[np.ndarray], seam: int, between: Between) -> Iterator[np.ndarray]:
    """Begins `seam` frames later and ends there: the last frames of the clip become its first ones, one by one.

    The result has `seam` frames less.
    """
    rest = iter(frames)
    head = [frame for _, frame in zip(range(seam), rest, strict=False)]
    tail: deque[np.ndarray] = deque()
    for frame in rest:
        tail.append(frame)
        if len(tail) > 2 * seam:  # what is given out can't be part of the seam, nor of a shorter one
            yield tail.popleft()
    every = [*head, *tail]
    if len(head) < seam or len(tail) < 2 * seam:  # a short clip: all of it is here
        seam = len(every) // 3
        yield from every[seam : len(every) - seam]
        yield from _melt(every[len(every) - seam :], every[:seam], between)
        return
    yield from list(tail)[: len(tail) - seam]
    yield from _melt(list(tail)[len(tail) - seam :], head, between)


def _melt(ends: Sequence[np.ndarray], begins: Sequence[np.ndarray], between: Between) -> Iterator[np.ndarray]:
    for number, (end, begin) in enumerate(zip(ends, begins, strict=True), start=1):
        share = number / (len(ends) + 1)
        yield between.at(end, begin, share) if same_scene(end, begin) else mix(end, begin, share)


def mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    return np.clip(first + share * (second.astype(np.float32) - first) + 0.5, 0, 255).astype(np.uint8)
