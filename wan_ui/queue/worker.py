"""The worker: a spawned child process that owns the engine, and the parent's handle on it.

Why a process: a kernel that segfaults, an out-of-memory kill or a hang must cost one job, not the
page. Why spawned: a forked child inherits CUDA and thread state that is not usable.

Messages are JSON texts over a pipe. Parent to child: load, generate, lipsync, stages, cancel. Child to parent:
progress (sent before a step is entered), partial (a result that is worth keeping whatever comes), then
one of done, cancelled, user_error, error. Each message has a number and every answer carries it: an answer to
another message is dropped. Whatever goes wrong between question and answer ends the child, so that nothing of
this job is left for the next. When the pipe closes, the other side is gone: the child then ends at once, the
parent reports the signal and the stage.
"""

import faulthandler
import importlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from wan_ui.errors import Cancelled, UserError, WorkerDied
from wan_ui.machine.cpus import allowed_cpus
from wan_ui.request import Progress, Request
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

ENGINE_FACTORY = "wan_ui.engines.base:create_engine"
POLL = 0.1  # seconds between looks at the cancel flag
CANCEL_GRACE = 60.0  # a step that does not end within this after a cancel is killed
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # are the parent's to handle


class WorkerError(Exception):
    """An unexpected error inside the worker; the text is the child's traceback."""


# ---------------------------------------------------------------- the parent's side


class Worker:
    """Handle on the child. One message is answered at a time; `cancel` may interrupt it.

    partial  what the last message had finished before it ended badly: the silent clip, if speech could not be added
    loaded   (model, scheme, engine) after the last answer; () when nothing is
    """

    def __init__(self, settings: Settings, engine_factory: str = ENGINE_FACTORY):
        self.settings = settings
        self.engine_factory = engine_factory
        self.process: multiprocessing.process.BaseProcess | None = None
        self.partial: dict | None = None
        self.loaded: tuple[str, ...] = ()
        self.numbers = itertools.count(1)
        self.ending = threading.Event()

    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")
        pipe, child_pipe = context.Pipe()
        # faulthandler writes the Python stack of a fatal signal here; it goes into the log.
        self.stderr = tempfile.NamedTemporaryFile(prefix="wan-ui-worker-", suffix=".log")  # noqa: SIM115
        settings = {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.settings).items()
        }
        process = context.Process(
            target=worker_main,
            args=(child_pipe, self.engine_factory, json.dumps(settings), self.stderr.name),
            name="wan-ui-worker",
            daemon=True,
        )
        # A Ctrl-C at the terminal reaches the child too: it must not end while it still imports.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            child_pipe.close()
        self.process, self.pipe, self.loaded = process, pipe, ()

    def stop(self) -> None:
        if self.process is None:
            return
        self.pipe.close()  # the child ends by itself when it sees this
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.stderr.close()
        self.process = None

    def end(self) -> None:
        """From any thread: whatever is being done is ended at once, and raises Cancelled there."""
        self.ending.set()

    def load(self, model: str, scheme: str, engine: str, on_progress: Callable[[Progress], None]) -> dict:
        """Load a model; {"engine": chosen engine and reason, "seconds": ...}."""
        message = {"kind": "load", "model": model, "scheme": scheme, "engine": engine}
        return self._ask(message, on_progress, lambda: False)

    def generate(
        self, request: Request, folder: Path, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]
    ) -> dict:
        """Run a job; writes clip.mp4 and poster.jpg into `folder`. The result's fields: see `_generate`."""
        message = {"kind": "generate", "request": request.to_dict(), "folder": str(folder)}
        return self._ask(message, on_progress, cancelled)

    def lipsync(
        self, request: Request, folder: Path, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]
    ) -> dict:
        """Add speech to `request.video`; writes clip.mp4 and poster.jpg into `folder`."""
        message = {"kind": "lipsync", "request": request.to_dict(), "folder": str(folder)}
        return self._ask(message, on_progress, cancelled)

    def stages(self, model: str, scheme: str, engine: str, reference: str, folder: Path, on_progress) -> dict:
        """Hold each stage of the loaded model against a reference: see wan_ui.qa.stages.examine."""
        message = {"kind": "stages", "model": model, "scheme": scheme, "engine": engine}
        return self._ask(message | {"reference": reference, "folder": str(folder)}, on_progress, lambda: False)

    def _ask(self, message: dict, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> dict:
        """Send, then follow progress. Raises UserError, Cancelled, WorkerDied or WorkerError, and what the callbacks
        raise; of these only an answer of the child's leaves it alive."""
        self.partial = None
        if not self.alive():
            self.start()
        number = next(self.numbers)
        try:
            answer = self._follow(message | {"number": number}, on_progress, cancelled)
        except BaseException:
            self.kill()
            raise
        self.loaded = tuple(answer["loaded"] or ())
        return _result(answer)

    def _follow(self, message: dict, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> dict:
        """The answer that ends the message."""
        progress, deadline, cancel_sent = Progress("start"), self._deadline(), False
        self._send(message, progress)
        while True:
            answer = self._receive(progress)
            if answer is not None and answer.get("number") != message["number"]:
                log.warning("an answer of the worker to another message is dropped: %s", answer.get("kind"))
            elif answer is not None and answer["kind"] == "partial":
                self.partial = answer["result"]
            elif answer is not None and answer["kind"] != "progress":
                return answer
            elif answer is not None:
                progress = Progress(**answer["progress"])
                on_progress(progress)
                if not cancel_sent:
                    deadline = self._deadline()
            if self.ending.is_set():
                raise Cancelled
            if not cancel_sent and cancelled():
                cancel_sent, deadline = True, time.monotonic() + CANCEL_GRACE
                self._send({"kind": "cancel", "number": message["number"]}, progress)
            if time.monotonic() > deadline:
                if cancel_sent:
                    raise Cancelled
                raise WorkerDied(
                    f"{describe(progress)} made no progress for {self.settings.stage_timeout} s, so the worker was "
                    "stopped. WAN_UI_STAGE_TIMEOUT allows more time."
                )

    def _send(self, message: dict, progress: Progress) -> None:
        try:
            self.pipe.send_bytes(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            raise WorkerDied(self._epitaph(progress)) from None

    def _receive(self, progress: Progress) -> dict | None:
        """The next answer; None when there is none for a moment."""
        try:
            return json.loads(self.pipe.recv_bytes()) if self.pipe.poll(POLL) else None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise WorkerDied(self._epitaph(progress)) from None

    def _deadline(self) -> float:
        return time.monotonic() + self.settings.stage_timeout

    def kill(self) -> None:
        self.loaded = ()
        if self.process is not None:
            self.process.kill()
            self.process.join()

    def _epitaph(self, progress: Progress) -> str:
        self.process.join(5)
        code = self.process.exitcode
        stack = Path(self.stderr.name).read_text(encoding="utf-8", errors="replace").strip()
        if stack:
            log.error("worker's last words:\n%s", stack)
        if code is not None and code < 0:
            cause = f"was ended by {_signal(-code)}"
            if -code == signal.SIGKILL:
                cause += " (often the system running out of memory: try a smaller size or fewer frames)"
        else:
            cause = f"ended with exit code {code}"
        return (
            f"The worker {cause} during {describe(progress)}. It has been started again; other jobs are not affected."
        )


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def describe(progress: Progress) -> str:
    """ "denoise step 3/4, low-noise expert" """
    words = progress.stage
    if progress.total:
        words += f" step {progress.step}/{progress.total}"
    return f"{words}, {progress.detail}" if progress.detail else words


def _result(answer: dict) -> dict:
    match answer["kind"]:
        case "done":
            return answer["result"]
        case "cancelled":
            raise Cancelled
        case "user_error":
            raise UserError(answer["message"], field=answer["field"])
        case _:
            raise WorkerError(answer["traceback"])


# ---------------------------------------------------------------- the child's side


def worker_main(pipe, engine_factory: str, settings_json: str, stderr_path: str) -> None:
    """Entry point of the child: answer messages until the pipe closes."""
    stack_file = open(stderr_path, "w", encoding="utf-8")  # noqa: SIM115 - must stay open for faulthandler
    faulthandler.enable(stack_file)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from wan_ui import settings as settings_module

    values = json.loads(settings_json)
    defaults = Settings()
    resolved = Settings(**{name: type(getattr(defaults, name))(value) for name, value in values.items()})
    settings_module.use(resolved)
    # Read when torch and its like are first imported: speech without an engine, LightX2V and numpy follow it too.
    settings_module.default_environment({"OMP_NUM_THREADS": str(resolved.threads or allowed_cpus())})

    inbox: list[dict] = []
    arrived = threading.Condition()
    cancel = threading.Event()
    newest = 0  # number of the last message; a cancel is for one message alone

    def listen() -> None:
        nonlocal newest
        while True:
            try:
                message = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone: do not outlive it holding a GPU
            if message["kind"] == "cancel":
                if message["number"] == newest:
                    cancel.set()
                continue
            newest = message["number"]
            cancel.clear()  # here, not when the work begins: a cancel may already be right behind it
            with arrived:
                inbox.append(message)
                arrived.notify()

    threading.Thread(target=listen, daemon=True).start()
    factory_module, _, factory_name = engine_factory.partition(":")
    desk = _Desk(pipe, resolved, getattr(importlib.import_module(factory_module), factory_name), cancel)
    while True:
        with arrived:
            arrived.wait_for(lambda: inbox)
            message = inbox.pop(0)
        desk.number = message["number"]
        try:
            work = {"load": desk.load, "generate": desk.generate, "lipsync": desk.lipsync, "stages": desk.stages}
            result = work[message["kind"]](message)
            answer = {"kind": "done", "result": result}
        except Cancelled:
            answer = {"kind": "cancelled"}
        except UserError as error:
            answer = {"kind": "user_error", "message": str(error), "field": error.field}
        except Exception:
            answer = {"kind": "error", "traceback": traceback.format_exc()}
        desk.send(answer | {"loaded": desk.loaded})


def _add(error: UserError, words: str) -> UserError:
    """The same error, and what it means for the model that was loaded."""
    text = str(error)
    end = "" if text.endswith((".", "?", "!")) else "."
    return UserError(f"{text}{end} {words}" if words else text, field=error.field)


class _Desk:
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
            "memory": hardware.memory(),
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
        self, frames, fps: float, request: Request, folder: Path, clock: "StageClock", facts: dict, rest: Iterable = ()
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


class StageClock:
    """`report` for an engine: forwards progress, raises Cancelled, and sums the seconds of each stage."""

    def __init__(self, send: Callable[[dict], None], cancel: threading.Event):
        self._send, self._cancel = send, cancel
        self._spent: dict[str, float] = {}
        self._stage, self._since = "", time.monotonic()
        self.steps: list[float] = []  # seconds of each denoise step
        self.before: dict[str, float] = {}  # seconds of a stage before its first step
        self._step, self._step_since = 0, 0.0

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._stage:
            self._spent[self._stage] = self._spent.get(self._stage, 0.0) + now - self._since
        if progress.total and progress.stage not in self.before:
            self.before[progress.stage] = round(self._spent.get(progress.stage, 0.0), 3)
        self._stage, self._since = progress.stage, now
        step = progress.step if progress.stage == "denoise" else 0
        if step != self._step:
            if self._step:
                self.steps.append(round(now - self._step_since, 3))
            self._step, self._step_since = step, now
        self._send({"kind": "progress", "progress": asdict(progress)})
        if self._cancel.is_set():
            raise Cancelled

    def seconds(self) -> dict[str, float]:
        now = time.monotonic()
        spent = {**self._spent, self._stage: self._spent.get(self._stage, 0.0) + now - self._since}
        return {stage: round(seconds, 3) for stage, seconds in spent.items()}
