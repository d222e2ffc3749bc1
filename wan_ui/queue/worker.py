"""The worker as its parent sees it: a spawned child process that owns the engine (wan_ui.queue.desk).

Why a process: a kernel that segfaults, an out-of-memory kill or a hang must cost one job, not the
page. Why spawned: a forked child inherits CUDA and thread state that is not usable.

They exchange the letters of wan_ui.queue.messages over a pipe. An answer to another message is dropped. Whatever goes
wrong between question and answer ends the child, so that nothing of this job is left for the next. When the pipe
closes, the other side is gone: the child then ends at once, the parent reports the signal and the stage.
"""

import itertools
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from wan_ui import temporary
from wan_ui.errors import Cancelled, UserError, WorkerDied
from wan_ui.machine.memory import resident
from wan_ui.queue import desk, messages
from wan_ui.queue.base import OnProgress
from wan_ui.queue.messages import (
    AfterWork,
    Asked,
    Cancel,
    Died,
    Entered,
    Examine,
    Examined,
    Failed,
    Generate,
    Letter,
    LipSync,
    Load,
    Loaded,
    Made,
    NotUnderstood,
    Partial,
    Prepare,
    Prepared,
    Refused,
    Stopped,
)  # fmt: skip
from wan_ui.queue.ranks import Ranks
from wan_ui.request import Progress, Request, Result
from wan_ui.rules import numbers_in
from wan_ui.settings import Settings
from wan_ui.system import KILLED, endings_held

log = logging.getLogger(__name__)

ENGINE_FACTORY = "wan_ui.engines.create:create_engine"
POLL = 0.1  # seconds between looks at the cancel flag
CANCEL_GRACE = 60.0  # a step that does not end within this after a cancel is killed
Wanted = TypeVar("Wanted", Loaded, Made, Examined, Prepared)


class WorkerError(Exception):
    """An unexpected error inside the worker; the text is the child's traceback."""


class Worker:
    """Handle on the child. One message is answered at a time; `cancel` may interrupt it.

    partial  what the last message had finished before it ended badly: a clip without its speech, or segments of it
    loaded   (model, scheme, engine) after the last answer; () when nothing is
    """

    cancel_grace = CANCEL_GRACE

    def __init__(
        self,
        settings: Settings,
        engine_factory: str = ENGINE_FACTORY,
        environment: dict[str, str] | None = None,
        lacks: Callable[[Request], str] = lambda request: "",
        size: int = 1,
    ):
        """environment: variables that the child has beside this process's, such as which GPU it sees.
        size: GPUs that share a clip, each with a process; one of them is the child that is spoken to."""
        self.settings = settings
        self.engine_factory = engine_factory
        self.environment = environment or {}
        self.lacks = lacks
        self.size = size
        self.ranks: Ranks | None = None
        self.process: BaseProcess | None = None
        self.pipe: Connection
        self.partial: Partial | None = None
        self.loaded: tuple[str, ...] = ()
        self.ids = itertools.count(1)
        self.ending = threading.Event()

    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive() and (self.ranks is None or self.ranks.alive())

    def ready(self) -> bool:
        return True

    def start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")
        pipe, child_pipe = context.Pipe()
        # faulthandler writes the Python stack of a fatal signal here; it goes into the log.
        # Closed here: on Windows the child could not open what its parent has open.
        handle, name = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=temporary.folder())
        os.close(handle)
        self.last_words = Path(name)
        settings = {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.settings).items()
        }
        ranks = Ranks(self.size) if self.size > 1 else None
        process = context.Process(
            target=desk.main,
            args=(
                child_pipe,
                self.engine_factory,
                json.dumps(settings),
                name,
                self.environment,
                ranks and ranks.seats[0],
            ),
            name="wan-ui-worker",
            daemon=True,
        )
        # A Ctrl-C at the terminal reaches the child too: it must not end while it still imports.
        try:
            with endings_held():
                if ranks is None:
                    process.start()
                else:
                    ranks.start(process, desk.follow, (self.engine_factory, json.dumps(settings)), self.environment)
        finally:
            child_pipe.close()
        self.process, self.pipe, self.ranks, self.loaded = process, pipe, ranks, ()

    def stop(self) -> None:
        if self.process is None:
            return
        self.pipe.close()  # the child ends by itself when it sees this
        self.process.join(2)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        if self.ranks is not None:
            self.ranks.close()
        self.last_words.unlink(missing_ok=True)
        temporary.sweep()
        self.process, self.ranks, self.loaded = None, None, ()

    def end(self) -> None:
        """From any thread: whatever is being done is ended at once, and raises Cancelled there."""
        self.ending.set()

    def load(self, model: str, scheme: str, engine: str, on_progress: OnProgress) -> Loaded:
        return self._ask(Loaded, Load(model, scheme, engine), on_progress, lambda: False)

    def generate(
        self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Result:
        """Run a job; writes clip.mp4 and poster.jpg into `folder`."""
        return self._ask(Made, Generate(request, folder), on_progress, cancelled).result

    def lipsync(self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]) -> Result:
        """Add speech to the clip of the request; writes clip.mp4 and poster.jpg into `folder`."""
        return self._ask(Made, LipSync(request, folder), on_progress, cancelled).result

    def afterwork(
        self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Result:
        """Change the clip of the request; writes clip.mp4, poster.jpg and the file that was asked for into `folder`."""
        return self._ask(Made, AfterWork(request, folder), on_progress, cancelled).result

    def examine(
        self, model: str, scheme: str, engine: str, reference: str, folder: Path, on_progress: OnProgress
    ) -> dict[str, Any]:
        """Hold each stage of the model against a reference: see wan_ui.qa.stages.examine."""
        message = Examine(model, scheme, engine, reference, folder)
        return self._ask(Examined, message, on_progress, lambda: False).report

    def prepare(self, request: Request, cancelled: Callable[[], bool]) -> None:
        """Encode text and pictures of a job that may come."""
        self._ask(Prepared, Prepare(request), lambda progress: None, cancelled)

    def _ask(
        self, wanted: type[Wanted], message: Asked, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Wanted:
        """Send, then follow progress. Raises UserError, Cancelled, WorkerDied or WorkerError, and what the callbacks
        raise; of these only an answer of the child's leaves it alive."""
        self.partial = None
        if not self.alive():
            self.start()
        try:
            answer = self._follow(Letter(next(self.ids), message), on_progress, cancelled)
        except BaseException:
            self.kill()
            raise
        self.loaded = answer.loaded
        if self.ranks is not None:
            self.ranks.forget()
            if not self.ranks.alive():
                self.kill()
        match answer.content:
            case Stopped():
                raise Cancelled
            case Refused(words, field, short):
                # On a CPU, where the code that oneDNN makes for a shape found no memory, none is made again.
                if short == "machine":
                    self.kill()
                raise UserError(words, field=field, memory=short)
            case Failed(stack):
                raise WorkerError(stack)
            case Died(words):
                raise WorkerDied(words)
            case content if isinstance(content, wanted):
                return content
        raise WorkerError(f"{type(message).__name__} was answered with {type(answer.content).__name__}")

    def _follow(self, letter: Letter, on_progress: OnProgress, cancelled: Callable[[], bool]) -> Letter:
        """The answer that ends the message."""
        self._send(letter, Progress("start"))
        cancel = partial(self._send, Letter(letter.id, Cancel()))
        return self._until_answered(partial(self._receive, letter.id), cancel, on_progress, cancelled)

    def _until_answered(
        self,
        receive: Callable[[Progress], Letter | None],
        cancel: Callable[[Progress], None],
        on_progress: OnProgress,
        cancelled: Callable[[], bool],
    ) -> Letter:
        """receive: the next answer, None when there is none for a moment; cancel: says it to whoever works. Raises
        Cancelled, WorkerDied for no progress."""
        progress, cancel_sent = Progress("start"), False
        deadline = time.monotonic() + self._patience(progress)
        while True:
            answer = receive(progress)
            if answer is not None:
                match answer.content:
                    case Partial():
                        self.partial = answer.content
                    case Entered(progress):
                        on_progress(progress)
                        if not cancel_sent:
                            deadline = time.monotonic() + self._patience(progress)
                    case _:
                        return answer
            if self.ending.is_set():
                raise Cancelled
            if not cancel_sent and cancelled():
                cancel_sent, deadline = True, time.monotonic() + self.cancel_grace
                cancel(progress)
            if time.monotonic() > deadline:
                if cancel_sent:
                    raise Cancelled
                raise WorkerDied(
                    f"{describe(progress)} made no progress for {self._patience(progress)} s{self._given_up()}. "
                    "WAN_UI_STAGE_TIMEOUT allows more time."
                )

    def _given_up(self) -> str:
        """How the sentence of what made no progress goes on."""
        return f"{self.ranks.behind() if self.ranks is not None else ''}, so the worker was stopped"

    def _send(self, letter: Letter, progress: Progress) -> None:
        try:
            self.pipe.send_bytes(messages.to_json(letter))
        except (BrokenPipeError, ConnectionResetError):
            raise self._death(progress) from None

    def _receive(self, letter_id: int, progress: Progress) -> Letter | None:
        """The next answer to that message; None when there is none for a moment."""
        if self.ranks is not None and (words := self.ranks.trouble()):
            raise WorkerDied(self._group_epitaph(words, progress))
        try:
            answer = messages.from_json(self.pipe.recv_bytes()) if self.pipe.poll(POLL) else None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._death(progress) from None
        except NotUnderstood as error:
            if error.id == letter_id:
                raise WorkerError(f"the worker has answered with {error}") from None
            answer = None
        if answer is not None and answer.id != letter_id:
            log.warning("an answer of the worker to another message is dropped: %s", type(answer.content).__name__)
            return None
        if answer is not None and isinstance(answer.content, Failed) and self.ranks is not None:
            words = self.ranks.settled()
            if words:  # the first rank's error says only that another was gone
                log.error("%s", answer.content.traceback)
                raise WorkerDied(self._group_epitaph(words, progress))
        return answer

    def _patience(self, progress: Progress) -> int:
        """Seconds until the next progress."""
        return numbers_in(self.settings.stage_timeouts).get(progress.stage, self.settings.stage_timeout)

    def offers(self, model: str, scheme: str, engine: str) -> bool:
        return False  # what is on this machine is seen by looking (wan_ui.files.places)

    def memory(self) -> float:
        """GiB of host memory that the child takes."""
        process = self.process
        return resident(process.pid) if process is not None and process.pid is not None else 0.0

    def kill(self) -> None:
        self.loaded = ()
        if self.process is not None:
            self.process.kill()
            self.process.join()
        if self.ranks is not None:
            self.ranks.kill()

    def _group_epitaph(self, words: str, progress: Progress) -> str:
        return (
            f"Of the {self.size} processes that share a clip {words} during {describe(progress)}, so all were ended. "
            "They are started again with the next job; other jobs are not affected."
        )

    def _death(self, progress: Progress) -> WorkerDied:
        words = self._epitaph(progress)
        killed = self.process is not None and KILLED is not None and self.process.exitcode == -KILLED
        return WorkerDied(words, memory="machine" if killed else "")  # who else would kill it

    def _epitaph(self, progress: Progress) -> str:
        assert self.process is not None
        self.process.join(5)
        code = self.process.exitcode
        stack = self.last_words.read_text(encoding="utf-8", errors="replace").strip()
        if stack:
            log.error("worker's last words:\n%s", stack)
        if code is not None and code < 0:
            cause = f"was ended by {_signal(-code)}"
            if -code == KILLED:
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
    words = f"segment {progress.segment} of {progress.segments}: " if progress.segments > 1 else ""
    words += progress.stage
    if progress.total:
        words += f" step {progress.step}/{progress.total}"
    return f"{words}, {progress.detail}" if progress.detail else words
