"""The worker as its parent sees it: a spawned child process that owns the engine (wan_ui.queue.desk).

Why a process: a kernel that segfaults, an out-of-memory kill or a hang must cost one job, not the
page. Why spawned: a forked child inherits CUDA and thread state that is not usable.

Messages are JSON texts over a pipe. Parent to child: load, generate, lipsync, stages, cancel. Child to parent:
progress (sent before a step is entered), partial (a result that is worth keeping whatever comes), then
one of done, cancelled, user_error, error. Each message has a number and every answer carries it: an answer to
another message is dropped. Whatever goes wrong between question and answer ends the child, so that nothing of
this job is left for the next. When the pipe closes, the other side is gone: the child then ends at once, the
parent reports the signal and the stage.
"""

import itertools
import json
import logging
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from wan_ui.errors import Cancelled, UserError, WorkerDied
from wan_ui.queue import desk
from wan_ui.queue.desk import SIGNALS
from wan_ui.request import Progress, Request
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

ENGINE_FACTORY = "wan_ui.engines.base:create_engine"
POLL = 0.1  # seconds between looks at the cancel flag
CANCEL_GRACE = 60.0  # a step that does not end within this after a cancel is killed


class WorkerError(Exception):
    """An unexpected error inside the worker; the text is the child's traceback."""


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
            target=desk.main,
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
        """Run a job; writes clip.mp4 and poster.jpg into `folder`. The result's fields: see wan_ui.queue.work."""
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
