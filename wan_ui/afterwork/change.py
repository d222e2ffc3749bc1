"""A clip and what is to be changed of it -> the changed clip. Frames go through one by one."""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from wan_ui import temporary
from wan_ui.afterwork.between import Between, choose_between, more_frames
from wan_ui.afterwork.loops import SEAM, mix, seamless, there_and_back
from wan_ui.afterwork.upscale import choose_upscaler
from wan_ui.changes import QUALITIES, Changes
from wan_ui.errors import UserError
from wan_ui.media import muxer, soundtrack, video
from wan_ui.media.export import Export
from wan_ui.media.images import fit
from wan_ui.request import Progress, Report
from wan_ui.settings import Settings

STAGE = "change"
MOST_FPS = 120  # a result with more shows every second frame, or fewer


@dataclass(frozen=True)
class Changed:
    """clip, file: names of what was written into the folder; file "" where none was asked for."""

    clip: str
    file: str
    frames: int
    fps: float
    size: tuple[int, int]
    facts: dict[str, str]


class Change:
    """clips: the one that is changed, and those that follow it. expected: frames of the result, about. sound: what is
    heard in place of the clips' own."""

    def __init__(
        self,
        clips: Sequence[Path],
        changes: Changes,
        expected: int,
        settings: Settings,
        report: Report,
        sound: Path | None = None,
    ):
        self.sound = sound
        self.clips, self.changes, self.expected = clips, changes, expected
        self.settings, self.report = settings, report
        self.source = video.look(clips[0])
        self.facts: dict[str, str] = {}
        self.parts: list[int] = []  # frames of each clip that are used
        self.faded: list[int] = []  # of them those in which it fades into the next
        self.between: Between | None = None

    @property
    def rate(self) -> tuple[float, int]:
        """Frames per second of the result, and of how many frames one is kept."""
        rate, kept = self.source.fps * self.changes.times * self.changes.speed, 1
        while rate / kept > MOST_FPS:
            kept += 1
        return rate / kept, kept

    def make(self, folder: Path, metadata: dict[str, object]) -> Changed:
        """Write clip.mp4, poster.jpg and the file that was asked for. metadata: without the facts. Raises UserError."""
        changes, target = self.changes, folder / "clip.mp4"
        fps, kept = self.rate
        frames: Iterator[np.ndarray] = self._joined()
        if changes.times > 1 or changes.loop == "seamless":
            self.between = choose_between(self.settings)
            self.facts["between"] = self.between.words
        if changes.times > 1 and self.between:
            frames = more_frames(frames, changes.times, self.between)
        frames = islice(frames, 0, None, kept)
        if changes.upscale > 1:
            upscaler = choose_upscaler(self.settings)
            self.facts["upscale"] = upscaler.words
            frames = map(upscaler.twice, frames)
        if changes.loop == "ping-pong":
            frames = there_and_back(frames, folder)
        elif changes.loop and self.between:
            frames = seamless(frames, max(1, round(SEAM * fps)), self.between)
        export = Export(changes.file, folder, QUALITIES[changes.quality])
        silent = folder / ".silent.part.mp4"
        try:
            with tempfile.TemporaryDirectory(dir=temporary.folder()) as other:
                crf = QUALITIES["best" if changes.file else changes.quality]
                count = muxer.write_mp4(self._watched(frames, export, folder), silent, fps, crf=crf)
                voice = self._sound(Path(other) / "sound.wav", count / fps)
                self.facts |= {"changes": changes.words or "none", "changed_from": changes.original}
                given = {**metadata, "frames": count, "facts": self.facts}
                muxer.join([silent], target, given, voice, count / fps if voice else 0.0)
                file = export.finish(target, fps, lambda words: self.report(Progress("file", detail=words)))
        finally:
            silent.unlink(missing_ok=True)
            export.close()
        return Changed(target.name, file, count, fps, self.size, self.facts)

    def _watched(self, frames: Iterable[np.ndarray], export: Export, folder: Path) -> Iterator[np.ndarray]:
        """The finished frames, each reported; the one in the middle is the poster."""
        poster = None
        for number, frame in enumerate(frames, start=1):
            total = max(self.expected, number)
            self.report(Progress(STAGE, number, total, f"frame {number} of about {total}"))
            if poster is None or number <= self.expected // 2:
                poster = frame
            export.add(frame)
            self.size = (frame.shape[1], frame.shape[0])
            yield frame
        if poster is None:
            raise UserError("start: no frame of the clip is in that part; choose an earlier start", field="start")
        Image.fromarray(poster).save(folder / "poster.jpg", quality=88)

    def _joined(self) -> Iterator[np.ndarray]:
        """The part that is kept, and the further clips, each faded into the next."""
        fade = round(self.changes.fade * self.source.fps)
        tail: deque[np.ndarray] = deque()
        for number, path in enumerate(self.clips):
            self.report(Progress(STAGE, detail=f"reading {'the clip' if number == 0 else f'clip {number + 1}'}"))
            frames, count = self._frames(path, number), 0
            if number:
                head = list(islice(frames, len(tail)))
                before = list(tail)
                yield from before[: len(before) - len(head)]
                for place, (old, new) in enumerate(zip(before[len(before) - len(head) :], head, strict=True), start=1):
                    yield mix(old, new, place / (len(head) + 1))
                self.faded.append(len(head))
                count, tail = len(head), deque()
            for frame in frames:
                tail.append(frame)
                count += 1
                if len(tail) > (fade if number + 1 < len(self.clips) else 0):
                    yield tail.popleft()
            self.parts.append(count)
        yield from tail

    def _frames(self, path: Path, number: int) -> Iterator[np.ndarray]:
        """Of one of the clips, at the rate and in the size of the first. Of the first the part that is kept."""
        source = self.source if number == 0 else video.look(path)
        rate, size = self.source.fps, (self.source.width, self.source.height)
        first = round(self.changes.start * rate) if number == 0 else 0
        stop = round(self.changes.end * rate) if number == 0 and self.changes.end else None
        for frame in islice(video.frames(replace(source, fps=rate)), first, stop):
            yield frame if frame.shape[1::-1] == size else np.asarray(fit(Image.fromarray(frame), *size))

    def _sound(self, target: Path, seconds: float) -> Path | None:
        """The sound that is laid under the clip, else the clips' own as far as their pictures are used, at the new
        speed. A loop has none of its own. seconds: of the new clip."""
        if self.sound is not None:
            soundtrack.write([soundtrack.Piece(self.sound, 0.0, seconds, 0.0)], 1.0, target)
            self.facts["sound"] = "laid under the clip; no mouth was changed"
            return target
        if not any(soundtrack.has_sound(path) for path in self.clips):
            return None
        if self.changes.loop:
            self.facts["sound"] = "left out of a loop"
            return None
        rate = self.source.fps
        begins = [self.changes.start, *(0.0 for _ in self.clips[1:])]
        pieces = [
            soundtrack.Piece(path, begin, count / rate, fade / rate)
            for path, begin, count, fade in zip(self.clips, begins, self.parts, [*self.faded, 0], strict=True)
        ]
        soundtrack.write(pieces, self.changes.speed, target)
        return target
