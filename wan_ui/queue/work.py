"""What the worker does: load a model, make a clip, make a face speak, examine the stages.

It runs in the child (wan_ui.queue.desk). torch and the engines are imported when they are first needed.
"""

import hashlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wan_ui import __version__
from wan_ui.catalog import find_model
from wan_ui.errors import UserError
from wan_ui.files import found, places
from wan_ui.machine import memory
from wan_ui.machine.engine_choice import EngineChoice, choose_engine
from wan_ui.media import muxer, sound, video, voice_activity
from wan_ui.media.streaming import Mp4Writer
from wan_ui.queue.messages import (
    AfterWork,
    Answered,
    Entered,
    Examine,
    Examined,
    Generate,
    LipSync,
    Load,
    Loaded,
    Made,
    Partial,
    Prepare,
    Prepared,
)
from wan_ui.queue.segments import in_segments, start_chain
from wan_ui.queue.stage_clock import StageClock
from wan_ui.request import Clip, Progress, Report, Request, Result, Sampling
from wan_ui.settings import Settings, split_names
from wan_ui.speaking import Speaking
from wan_ui.tasks import PICTURE

if TYPE_CHECKING:
    from wan_ui.engines.base import Engine
    from wan_ui.lipsync import speech
    from wan_ui.lipsync.faces import Face

SILENT = ("the clip without its speech", "it could not be given speech")  # of a Partial

CreateEngine = Callable[[str], "tuple[Engine, EngineChoice]"]


class Work:
    """What is kept between messages: the loaded engine, and the lip-sync networks once they were needed.

    answer  sends what is to be known before the work is done
    loaded  (model, scheme, engine as asked for); () when no model is
    """

    def __init__(
        self,
        settings: Settings,
        create_engine: CreateEngine,
        answer: Callable[[Answered], None],
        cancel: threading.Event,
    ):
        self.settings, self.create_engine, self.answer, self.cancel = settings, create_engine, answer, cancel
        self.engine: Engine | None = None
        self.loaded: tuple[str, ...] = ()
        self.chosen = EngineChoice("", "")
        self.offload = "auto"  # as asked for, of what is loaded
        self.mouth: speech.LipSync | None = None
        self.mouth_folder: Path | None = None
        self.mouth_facts: dict[str, str] = {}
        self.left_plain = split_names(settings.lightx2v_plain)

    def do(self, message: object) -> Answered:
        match message:
            case Load():
                started = time.monotonic()
                self.load(message)
                return Loaded(self.chosen.name, self.chosen.why, round(time.monotonic() - started, 3))
            case Generate():
                return Made(self.generate(message.request, message.folder))
            case LipSync():
                return Made(self.lipsync(message.request, message.folder))
            case AfterWork():
                return Made(self.afterwork(message.request, message.folder))
            case Examine():
                return self.examine(message)
            case Prepare():
                return self.prepare(message.request)
        raise TypeError(f"a message of kind {type(message).__name__!r} asks for nothing that can be done")

    def _clock(self) -> StageClock:
        return StageClock(lambda progress: self.answer(Entered(progress)), self.cancel)

    def load(self, wanted: Load | Examine | Sampling) -> "Engine":
        """The engine with that model and scheme."""
        asked = (wanted.model, wanted.scheme, wanted.engine)
        offload = (wanted.offload or "auto") if isinstance(wanted, Sampling) else self.offload
        if self.engine is not None and self.loaded == asked and offload in self._offloads():
            return self.engine
        model = find_model(found.models(self.settings), wanted.model)
        scheme = model.scheme(wanted.scheme)
        clock = self._clock()
        clock.report(Progress("load", detail=f"{model.title}, {scheme.title}"))
        if wanted.engine == "auto" and "lightx2v" not in model.family.engines:
            chosen = choose_engine("auto", self.settings, family=model.family)
            engine, _ = self.create_engine(chosen.name)
        else:
            engine, chosen = self.create_engine(wanted.engine)
        before, lost = self.loaded, ""
        try:
            engine.check(model, scheme, offload)  # what is wrong with the files is said while the old model still runs
        except UserError as error:
            raise _add(error, f"{before[0]} {before[1]} is still loaded." if before else "") from error
        if self.engine is not None:
            self.engine.close()  # two full-size models do not fit side by side
            self.engine, self.loaded = None, ()
            lost = f"{before[0]} {before[1]} was closed for it: no model is loaded now; the next job loads its own."
        try:
            engine.load(model, scheme, clock.report, offload)
        except UserError as error:
            raise _add(error, lost) from error
        self.engine, self.loaded, self.chosen, self.offload = engine, asked, chosen, offload
        return engine

    def _offloads(self) -> tuple[str, str]:
        """What a job may ask for with this load: what it was loaded with, and what that has become."""
        return self.offload, getattr(self.engine, "offload", self.offload)

    def generate(self, request: Request, folder: Path) -> Result:
        """Write clip.mp4 and poster.jpg.

        With a voice also silent.mp4, the clip as it was before; that much is sent as a partial result beforehand.
        """
        if in_segments(request):
            return self.generate_segments(request, folder)
        clock, started, made = self._clock(), time.monotonic(), request.sampling
        engine = self.load(made)
        load_seconds = round(time.monotonic() - started, 3)
        memory.give_back(most=places.least_work(request.width, request.height))
        memory.forget_peak()
        matches = engine.set_loras(made.loras)
        speaks = "lipsync" in request.stages()
        name = "silent.mp4" if speaks else "clip.mp4"
        writer: Mp4Writer | None = None

        def show(part: Clip) -> None:
            nonlocal writer
            if writer is None:
                writer = Mp4Writer(folder / name, part.fps, _metadata(request, self._facts(part, made)))
            writer.add(part.frames)

        try:
            clip = engine.generate(request, clock.report, None if "stream" in self.left_plain else show)
            clock.report(Progress("encode", detail="MP4"))
            facts = self._facts(clip, made)
            metadata = _metadata(request, facts)
            if writer is not None and (writer.fps, writer.metadata) != (clip.fps, metadata):
                writer.abandon()  # something was found out at the end, and is to stand in the file
                writer = None
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise
        try:
            if writer is not None:
                writer.finish()
            else:
                muxer.write_mp4(clip.frames, folder / name, clip.fps, metadata)
            Image.fromarray(clip.frames[len(clip.frames) // 2]).save(folder / "poster.jpg", quality=88)
        except (UserError, OSError) as error:
            # The minutes spent on the frames are not thrown away because of a full disk or a bad ffmpeg.
            raise UserError(f"{error}. {_rescue(clip.frames, folder)}") from None
        result = Result(
            clip=name,
            poster="poster.jpg",
            frames=len(clip.frames),
            fps=clip.fps,
            engine_ran=self.chosen.name,
            engine_why=self.chosen.why,
            seconds=clock.seconds(),
            step_seconds=tuple(clock.steps),
            load_seconds=load_seconds,
            memory=memory.memory_used(),
            facts=facts | clip.ready,
            loras=tuple(matches),
            latents_sha256=hashlib.sha256(clip.latents.tobytes()).hexdigest(),
        )
        if speaks:
            self.answer(Partial(result, *SILENT))
            result = self._speak(clip.frames, clip.fps, request, folder, clock, replace(result, silent=name))
        return result

    def _facts(self, clip: Clip, made: Sampling) -> dict[str, str]:
        in_full = {"draft": "asked for, but this engine has nothing quicker: made in full"} if made.draft else {}
        return {"engine": self.chosen.words, **in_full, **clip.facts}

    def prepare(self, request: Request) -> Prepared:
        made = request.sampling
        if self.engine is not None and self.loaded == (made.model, made.scheme, made.engine):
            memory.give_back(most=places.least_work(request.width, request.height))
            self.engine.prepare(request, self._clock().report)
        return Prepared()

    def generate_segments(self, request: Request, folder: Path) -> Result:
        """As `generate`, for a clip that goes on from another, has several prompts, or is driven by a voice or a
        performance.

        What is finished is sent as a partial result after each segment, and joined in the file already.
        """
        made, reading = request.sampling, {}
        chain = start_chain(request, folder, find_model(found.models(self.settings), made.model))
        speaks = "lipsync" in request.stages()
        name = "silent.mp4" if speaks else "clip.mp4"
        try:
            if chain.reads:
                clock = self._clock()
                chain.read(self.settings, clock.report)
                reading = clock.seconds()
            clock, started = self._clock(), time.monotonic()
            engine = self.load(made)
            load_seconds = round(time.monotonic() - started, 3)
            memory.give_back(most=places.least_work(request.width, request.height))
            memory.forget_peak()
            matches, latents = engine.set_loras(made.loras), hashlib.sha256()
            for number, clip in enumerate(chain.clips(engine, clock.report), start=1):
                chain.placed(clock.report)(Progress("encode", detail="MP4"))
                if number == 1:
                    Image.fromarray(clip.frames[len(clip.frames) // 2]).save(folder / "poster.jpg", quality=88)
                chain.add(clip.frames)
                latents.update(clip.latents.tobytes())
                facts = self._facts(clip, made) | chain.facts()
                chain.join(folder / name, _metadata(request, facts))
                result = Result(
                    clip=name,
                    poster="poster.jpg",
                    frames=chain.frames,
                    fps=clip.fps,
                    engine_ran=self.chosen.name,
                    engine_why=self.chosen.why,
                    seconds=reading | clock.seconds(),
                    step_seconds=tuple(clock.steps),
                    load_seconds=load_seconds,
                    memory=memory.memory_used(),
                    facts=facts,
                    loras=tuple(matches),
                    latents_sha256=latents.hexdigest(),
                )
                if number < chain.total:
                    self.answer(Partial(result, *chain.unfinished()))
        finally:
            chain.clear()
        if speaks:
            self.answer(Partial(result, *SILENT))
            spoken = sound.frame_count(round(request.audio_seconds * sound.SAMPLE_RATE), clip.fps)
            result = self._speak_file(folder / name, spoken, request, folder, clock, replace(result, silent=name))
        return result

    def lipsync(self, request: Request, folder: Path) -> Result:
        """Write clip.mp4, the clip of the request with its voice, and poster.jpg."""
        path, clock = Path(request.inputs["video"]), self._clock()
        clock.report(Progress("lipsync", detail="reading the clip"))
        before = Result(poster="poster.jpg", silent=path.name)
        return self._speak_file(path, request.frames, request, folder, clock, before)

    def afterwork(self, request: Request, folder: Path) -> Result:
        """Write clip.mp4, the clip of the request with its changes, poster.jpg, and the file that was asked for."""
        from wan_ui.afterwork.change import Change

        assert request.changes is not None, "a request of this task says what is to be changed"
        clock, paths = self._clock(), {name: Path(path) for name, path in request.inputs.items()}
        sound = paths.pop("sound", None)
        change = Change([*paths.values()], request.changes, request.frames, self.settings, clock.report, sound)
        made = change.make(folder, _metadata(request, {}))
        return Result(
            clip=made.clip,
            poster="poster.jpg",
            file=made.file,
            frames=made.frames,
            fps=made.fps,
            facts=made.facts,
            seconds=clock.seconds(),
        )

    def _speak_file(
        self, path: Path, spoken: int, request: Request, folder: Path, clock: StageClock, before: Result
    ) -> Result:
        """As `_speak`. Of a long clip only as much is kept in memory as is spoken; the rest follows as it is."""
        source = video.look(path)
        limit = spoken + sound.closing_frames(source.fps)
        frames, fps = muxer.read_frames(path, limit)
        rest = itertools.islice(video.frames(source), limit, None) if len(frames) == limit else ()
        return self._speak(frames, fps, request, folder, clock, before, rest)

    def _speak(
        self,
        frames: np.ndarray,
        fps: float,
        request: Request,
        folder: Path,
        clock: StageClock,
        before: Result,
        rest: Iterable[np.ndarray] = (),
    ) -> Result:
        """Write clip.mp4 with the voice, frame by frame; `before` with what speech changes.

        rest  frames of the clip after `frames`, in which nobody speaks
        """
        clock.report(Progress("lipsync", detail="loading the lip-sync model"))
        mouth = self._load_mouth()
        voice = Path(request.inputs["audio"])
        # A second more than was allowed: the limit was held when the voice was taken.
        samples = sound.decode(voice, self.settings.max_audio_seconds + 1)
        voiced, heard = _listen(samples, request.speaking, clock.report)
        facts = before.facts | mouth.facts() | self.mouth_facts | {"lipsync_voice": heard}
        chosen, told = _chosen(frames, request), request.speaking
        moving = mouth.speak(frames, fps, samples, clock.report, voiced=voiced, chosen=chosen, sharpen=told.sharpen)
        spoken = itertools.chain(moving, rest)
        target = folder / "clip.mp4"
        count = muxer.write_mp4(spoken, target, fps, _metadata(request, facts), voice)
        if not (folder / "poster.jpg").exists():
            Image.fromarray(frames[len(frames) // 2]).save(folder / "poster.jpg", quality=88)
        return replace(
            before,
            clip=target.name,
            frames=count,
            fps=fps,
            facts=facts,
            seconds=before.seconds | clock.seconds(),
            before_lipsync=clock.before.get("lipsync", 0.0),
        )

    def _load_mouth(self) -> "speech.LipSync":
        """The lip-sync pass, loaded once; again when other weights have become the right ones."""
        import torch

        from wan_ui.engines.device import choose_dtype
        from wan_ui.lipsync.choice import choose_weights
        from wan_ui.lipsync.speech import LipSync

        folder, words = choose_weights(self.settings)
        if self.mouth is None or folder != self.mouth_folder:
            self.mouth = None  # freed before the new one is read
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            dtype = choose_dtype(device)  # as the engines do; on a CPU without native bf16 it is float32
            self.mouth = LipSync.load(folder, device, dtype.value, cache_folder=self.settings.cache / "lipsync")
            self.mouth_folder, self.mouth_facts = folder, {"lipsync": words, "lipsync_dtype": dtype.text}
        return self.mouth

    def examine(self, wanted: Examine) -> Examined:
        from wan_ui.qa import stages

        engine = self.load(wanted)
        model = find_model(found.models(self.settings), wanted.model)
        report, scheme = self._clock().report, model.scheme(wanted.scheme)
        return Examined(stages.examine(engine, model, scheme, wanted.reference, report, wanted.folder))


def _metadata(request: Request, facts: dict[str, str]) -> dict[str, object]:
    """What the MP4 carries."""
    return {**request.public(), "facts": facts, "wan_ui": __version__}


def _chosen(frames: np.ndarray, request: Request) -> "Face | None":
    """The face that was asked for, as it is where it was numbered. Raises UserError."""
    from wan_ui.lipsync.numbered import first_seen, numbered, pick

    if not request.speaking.face:
        return None
    picture = request.inputs.get(PICTURE.name)
    seen = numbered(np.asarray(Image.open(picture).convert("RGB"))) if picture else first_seen(frames)[1]
    return pick(seen, request.speaking.face)


def _listen(samples: np.ndarray, speaking: Speaking, report: Report) -> tuple[np.ndarray | None, str]:
    """Where somebody speaks (None: the lips follow every sound), and words about it."""
    if speaking.every_sound:
        return None, f"{sound.describe(samples)}; the lips follow every sound, as asked for"
    if why := voice_activity.lacking():
        return None, f"{sound.describe(samples)}; the lips follow every sound: {why}"
    voiced = voice_activity.voiced(samples, lambda part: report(Progress("lipsync", detail=f"listening, {part:.0%}")))
    return voiced, sound.describe(samples, voiced)


def _add(error: UserError, words: str) -> UserError:
    """The same error, and what it means for the model that was loaded."""
    text = str(error)
    end = "" if text.endswith((".", "?", "!")) else "."
    return UserError(f"{text}{end} {words}" if words else text, field=error.field)


def _rescue(frames: np.ndarray, folder: Path) -> str:
    for place in (folder, Path(tempfile.gettempdir())):
        path = place / f"{folder.name}-frames.npz"
        try:
            np.savez(path, frames=frames)
        except OSError:
            path.unlink(missing_ok=True)
            continue
        return f"The frames were kept in {path.name} ({place.name})."
    return "The frames could not be kept either."
