"""A clip in segments: each goes on from the last frame of what is there, in its colours, and all are joined.

Every segment is written as an MP4 of its own when it is made, and joined without being encoded again: memory holds the
frames of one, whatever the clip's length, and what is finished is a clip although a later segment fails.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image

from wan_ui.catalog import Model
from wan_ui.errors import UserError
from wan_ui.media import muxer, video
from wan_ui.media.colour_match import match
from wan_ui.media.images import fit
from wan_ui.performance import watch
from wan_ui.queue.segments_intake import too_long
from wan_ui.request import Clip, Progress, Report, Request
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS

if TYPE_CHECKING:
    from wan_ui.engines.base import Engine, Performer, Speaker

MAX_SEED = 2**32 - 1


def in_segments(request: Request) -> bool:
    task = TASKS[request.task]
    return "clip" in request.inputs or bool(request.sampling.segments) or task.driven or task.performed


class Chain:
    """The clip so far. `last` is its last frame (H, W, 3) uint8; `made` counts the segments that a model has made."""

    def __init__(self, request: Request, folder: Path):
        self.request, self.folder = request, folder
        self.parts: list[Path] = []
        self.frames, self.made = 0, 0
        self.last: np.ndarray | None = None
        self.apart: list[tuple[float, ...]] = []

    @property
    def total(self) -> int:
        """Segments that a model makes."""
        return 1 + len(self.request.sampling.segments)

    @property
    def reads(self) -> bool:
        """Whether there is something to `read` before a model is needed."""
        return "clip" in self.request.inputs

    def read(self, settings: Settings, report: Report) -> None:
        """The clip that goes on becomes the beginning, at the request's size and rate. Raises UserError."""
        path, rate = Path(self.request.inputs["clip"]), self.request.sampling.fps
        size, most = (self.request.width, self.request.height), int(settings.max_clip_seconds * rate)

        def frames() -> Iterator[np.ndarray]:
            for count, frame in enumerate(video.frames(replace(video.look(path), fps=float(rate)))):
                if count >= most:
                    raise UserError(too_long(path.name, "is too long", settings), field="clip")
                if count % rate == 0:
                    report(Progress("read", detail=f"{count // rate} s"))
                self.last = frame if frame.shape[1::-1] == size else np.asarray(fit(Image.fromarray(frame), *size))
                yield self.last

        try:
            self._write(frames())
        except UserError as error:
            raise video.about(error, "clip") if error.field == "video" else error from None

    def placed(self, report: Report) -> Report:
        """`report` for the next segment, saying which it is."""
        number, total = self.made + 1, self.total

        def placed(progress: Progress) -> None:
            report(replace(progress, segment=number, segments=total))

        return placed

    def clips(self, engine: "Engine", report: Report) -> Iterator[Clip]:
        """What a model makes of each segment; `add` is called with its frames before the next one begins."""
        for _ in range(self.total):
            yield engine.generate(self.next(), self.placed(report))

    def next(self) -> Request:
        """What the engine is asked for: the next segment as a clip of its own."""
        made, number = self.request.sampling, self.made
        said = (made.first, *made.segments)[number]
        seed = (made.seed + number) % (MAX_SEED + 1)
        sampling = replace(
            made, prompt=said.prompt, given=said.given, understood=said.understood, seed=seed, segments=()
        )
        if self.last is None:
            return replace(self.request, made_with=sampling)
        picture = self.folder / ".last.part.png"
        Image.fromarray(self.last).save(picture)
        return replace(self.request, task="image-to-video", inputs={"image": str(picture)}, made_with=sampling)

    def add(self, frames: np.ndarray) -> None:
        """A segment (T, H, W, 3) uint8, whose first frame is the last one of the clip so far."""
        if self.last is None:
            self._write(frames)
            self.last = frames[-1].copy()  # not a view: the segment itself is not kept
        else:
            matched, end = match(self.last, frames), len(frames) - 1
            self.apart.append(matched.apart)
            self._write(matched.apply(frames[number], number / end) for number in range(1, len(frames)))
            self.last = matched.apply(frames[-1], 1.0)
        self.made += 1

    def _write(self, frames: Iterable[np.ndarray]) -> None:
        part = self.folder / f".segment-{len(self.parts)}.part.mp4"
        self.frames += muxer.write_mp4(frames, part, self.request.sampling.fps)
        self.parts.append(part)

    def unfinished(self) -> tuple[str, str]:
        """What a clip is that ends here: the words of a Partial."""
        if self.made == 1:
            return f"the first of {self.total} segments", f"only the first of its {self.total} segments"
        return f"{self.made} of {self.total} segments", f"only {self.made} of its {self.total} segments"

    def facts(self) -> dict[str, str]:
        seeds = ", ".join(f"{(self.request.sampling.seed + number) % (MAX_SEED + 1)}" for number in range(self.made))
        words = f"{self.made} of {self.total}, seeds {seeds}" if self.total > 1 else ""
        apart = [max(map(abs, entry)) for entry in self.apart]
        matched = f"matched at each seam, where they were {max(apart):.1f} of 255 levels apart at most" if apart else ""
        named = {"segments": words, "colours": matched}
        return {name: value for name, value in named.items() if value}

    def join(self, target: Path, metadata: dict[str, object]) -> None:
        muxer.join(self.parts, target, metadata)

    def clear(self) -> None:
        """Remove what only the making needed."""
        for path in self.folder.glob(".*.part*"):
            path.unlink(missing_ok=True)


class DrivenChain(Chain):
    """A clip whose engine lets each segment see the end of the one before: nothing is matched, and none begins with the
    last frame of another. `count`: of its segments."""

    def __init__(self, request: Request, folder: Path, count: int):
        super().__init__(request, folder)
        self.count = count

    @property
    def total(self) -> int:
        return self.count

    def add(self, frames: np.ndarray) -> None:
        self._write(frames)
        self.made += 1


class SpokenChain(DrivenChain):
    """A clip that a voice drives."""

    def clips(self, engine: "Engine", report: Report) -> Iterator[Clip]:
        return cast("Speaker", engine).speak(self.request, report)

    def join(self, target: Path, metadata: dict[str, object]) -> None:
        """With the voice, as far as the clip goes."""
        muxer.join(
            self.parts, target, metadata, Path(self.request.inputs["audio"]), self.frames / self.request.sampling.fps
        )


class PerformedChain(DrivenChain):
    """A clip that a performance drives, which is watched first."""

    reads = True

    def read(self, settings: Settings, report: Report) -> None:
        """Raises UserError for a performance that cannot be followed."""
        request = self.request
        size, fps = (request.width, request.height), float(request.sampling.fps)
        self.tracks = watch.watch(request.inputs, size, fps, settings, report, self.folder)

    def placed(self, report: Report) -> Report:
        return super().placed(report) if self.total > 1 else report

    def clips(self, engine: "Engine", report: Report) -> Iterator[Clip]:
        for clip in cast("Performer", engine).perform(self.request, self.tracks, report):
            _, self.count = clip.segment
            yield clip

    def facts(self) -> dict[str, str]:
        return {}  # the engine's own say it


def start_chain(request: Request, folder: Path, model: Model) -> Chain:
    if TASKS[request.task].performed:
        return PerformedChain(request, folder, 1)  # how many they are the engine says
    speech = model.family.speech
    if speech is None or not TASKS[request.task].driven:
        return Chain(request, folder)
    return SpokenChain(request, folder, speech.segments(request.frames, model.default_frames - 1))
