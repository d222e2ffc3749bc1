"""What the worker does: load a model, make a clip, make a face speak, examine the stages.

It runs in the child (wan_ui.queue.desk). torch and the engines are imported when they are first needed.
"""

import itertools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.queue.stage_clock import StageClock
from wan_ui.request import Progress, Request
from wan_ui.settings import Settings


class Work:
    """What the child keeps between messages: the loaded engine, and the lip-sync networks once they were needed."""

    def __init__(self, pipe, settings: Settings, create_engine: Callable, cancel: threading.Event):
        self.pipe, self.settings, self.create_engine, self.cancel = pipe, settings, create_engine, cancel
        self.number = 0  # of the message that is being worked on
        self.engine = None
        self.loaded: tuple[str, str, str] | None = None
        self.chosen = ""
        self.mouth, self.mouth_folder, self.mouth_facts = None, None, {}

    def send(self, message: dict) -> None:
        self.pipe.send_bytes(json.dumps(message | {"number": self.number}).encode())

    def load(self, message: dict) -> dict:
        from wan_ui.catalog import find_model, load_catalog

        wanted = (message["model"], message["scheme"], message["engine"])
        started = time.monotonic()
        if self.loaded != wanted:
            model = find_model(load_catalog(self.settings.catalog), message["model"])
            scheme = model.scheme(message["scheme"])
            clock = StageClock(self.send, self.cancel)
            clock.report(Progress("load", detail=f"{model.title}, {scheme.title}"))
            engine, chosen = self.create_engine(message["engine"])
            before, lost = self.loaded, ""
            try:
                engine.check(model, scheme)  # what is wrong with the files is said while the old model still runs
            except UserError as error:
                raise _add(error, f"{before[0]} {before[1]} is still loaded." if before else "") from error
            if self.engine is not None:
                self.engine.close()  # two full-size models do not fit side by side
                self.engine, self.loaded = None, None
                lost = f"{before[0]} {before[1]} was closed for it: no model is loaded now; the next job loads its own."
            try:
                engine.load(model, scheme, clock.report)
            except UserError as error:
                raise _add(error, lost) from error
            self.engine, self.loaded, self.chosen = engine, wanted, chosen
        return {"engine": self.chosen, "seconds": round(time.monotonic() - started, 3)}

    def generate(self, message: dict) -> dict:
        """Result: clip, poster (file names), frames, fps, seconds by stage and denoise step, seconds of the load if
        there was one, memory in GiB, facts, loras, latents_sha256.

        With audio also `silent`, the clip as it was before; that much is sent as a partial result beforehand.
        """
        import hashlib

        from PIL import Image

        from wan_ui import __version__
        from wan_ui.machine import hardware
        from wan_ui.media import muxer

        request = Request.from_dict(message["request"])
        folder = Path(message["folder"])
        clock = StageClock(self.send, self.cancel)
        loaded = self.load({"model": request.model, "scheme": request.scheme, "engine": request.engine})
        hardware.forget_peak()
        matches = [asdict(match) for match in self.engine.set_loras(request.loras)]
        clip = self.engine.generate(request, clock.report)
        clock.report(Progress("encode", detail="MP4"))
        facts = {"engine": self.chosen, **clip.facts}
        metadata = {**request.public(), "facts": facts, "wan_ui": __version__}
        name = "silent.mp4" if request.audio else "clip.mp4"
        try:
            muxer.write_mp4(clip.frames, folder / name, clip.fps, metadata)
            Image.fromarray(clip.frames[len(clip.frames) // 2]).save(folder / "poster.jpg", quality=88)
        except (UserError, OSError) as error:
            # The minutes spent on the frames are not thrown away because of a full disk or a bad ffmpeg.
            raise UserError(f"{error}. {_rescue(clip.frames, folder)}") from None
        result = {
            "clip": name,
            "poster": "poster.jpg",
            "frames": len(clip.frames),
            "fps": clip.fps,
            "seconds": clock.seconds(),
            "step_seconds": clock.steps,
            "load_seconds": loaded["seconds"],
            "memory": hardware.memory_used(),
            "facts": facts,
            "loras": matches,
            "latents_sha256": hashlib.sha256(clip.latents.tobytes()).hexdigest(),
        }
        if request.audio:
            self.send({"kind": "partial", "result": result})
            result |= self._speak(clip.frames, clip.fps, request, folder, clock, facts) | {"silent": name}
        return result

    def lipsync(self, message: dict) -> dict:
        """Result: clip, poster (file names), frames, fps, seconds by stage, facts, silent (the clip it was given)."""
        from wan_ui.media import muxer, sound, video

        request = Request.from_dict(message["request"])
        folder, path = Path(message["folder"]), Path(request.video)
        clock = StageClock(self.send, self.cancel)
        clock.report(Progress("lipsync", detail="reading the clip"))
        # Of a long clip only as much is kept in memory as the voice lasts; the rest follows as it is.
        source = video.look(path)
        limit = request.frames + sound.closing_frames(source.fps)
        frames, fps = muxer.read_frames(path, limit)
        rest = itertools.islice(video.frames(source), limit, None) if len(frames) == limit else ()
        spoken = self._speak(frames, fps, request, folder, clock, {}, rest)
        return {"poster": "poster.jpg", "silent": path.name} | spoken

    def _speak(
        self, frames, fps: float, request: Request, folder: Path, clock: StageClock, facts: dict, rest: Iterable = ()
    ) -> dict:
        """Write clip.mp4 with the voice, frame by frame; the part of the result that speech changes.

        rest  frames of the clip after `frames`, in which nobody speaks
        """
        from PIL import Image

        from wan_ui import __version__
        from wan_ui.media import muxer, sound

        clock.report(Progress("lipsync", detail="loading the lip-sync model"))
        mouth = self._load_mouth()
        # A second more than was allowed: the limit was held when the voice was taken.
        samples = sound.decode(Path(request.audio), self.settings.max_audio_seconds + 1)
        facts = facts | mouth.facts() | self.mouth_facts | {"lipsync_voice": sound.describe(samples)}
        metadata = {**request.public(), "facts": facts, "wan_ui": __version__}
        spoken = itertools.chain(mouth.speak(frames, fps, samples, clock.report), rest)
        count = muxer.write_mp4(spoken, folder / "clip.mp4", fps, metadata, Path(request.audio))
        if not (folder / "poster.jpg").exists():
            Image.fromarray(frames[len(frames) // 2]).save(folder / "poster.jpg", quality=88)
        result = {"clip": "clip.mp4", "frames": count, "fps": fps, "facts": facts}
        return result | {"seconds": clock.seconds(), "before_lipsync": clock.before.get("lipsync", 0.0)}

    def _load_mouth(self):
        """The lip-sync pass, loaded once; again when other weights have become the right ones."""
        import torch

        from wan_ui.engines.device import choose_dtype
        from wan_ui.lipsync.choice import choose_weights
        from wan_ui.lipsync.speech import LipSync

        folder, words = choose_weights(self.settings)
        if folder != self.mouth_folder:
            self.mouth, self.mouth_folder = None, None
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            dtype = choose_dtype(device)  # as the engines do; on a CPU without native bf16 it is float32
            self.mouth = LipSync.load(folder, device, dtype.value, cache_folder=self.settings.cache / "lipsync")
            self.mouth_folder, self.mouth_facts = folder, {"lipsync": words, "lipsync_dtype": dtype.text}
        return self.mouth

    def stages(self, message: dict) -> dict:
        from wan_ui.catalog import find_model, load_catalog
        from wan_ui.qa import stages

        self.load(message)
        model = find_model(load_catalog(self.settings.catalog), message["model"])
        report = StageClock(self.send, self.cancel).report
        scheme, folder = model.scheme(message["scheme"]), Path(message["folder"])
        return stages.examine(self.engine, model, scheme, message["reference"], report, folder)


def _rescue(frames, folder: Path) -> str:
    import numpy as np

    for place in (folder, Path(tempfile.gettempdir())):
        path = place / f"{folder.name}-frames.npz"
        try:
            np.savez(path, frames=frames)
        except OSError:
            path.unlink(missing_ok=True)
            continue
        return f"The frames were kept in {path.name} ({place.name})."
    return "The frames could not be kept either."


def _add(error: UserError, words: str) -> UserError:
    """The same error, and what it means for the model that was loaded."""
    text = str(error)
    end = "" if text.endswith((".", "?", "!")) else "."
    return UserError(f"{text}{end} {words}" if words else text, field=error.field)
