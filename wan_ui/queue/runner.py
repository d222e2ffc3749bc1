"""The queue's thread with its worker: it loads what is asked for, examines stages, and runs the jobs in turn.

The page never waits for it: it looks at `model` and `examination`, and at the rows of the jobs.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wan_ui.errors import Cancelled, UserError
from wan_ui.queue import quota
from wan_ui.queue.jobs import NOT_STARTED, NOTHING, SHORT, Job, Jobs, TableError, TableLocked
from wan_ui.queue.worker import Worker, WorkerError
from wan_ui.request import Progress, Result
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS

log = logging.getLogger(__name__)

IDLE = 0.5  # seconds between looks at an empty queue: other processes add to it too, this one wakes its thread
TRY_AGAIN = 1.0  # seconds between attempts at a write that must not be lost
LAST_TRIES = 4.0  # seconds for such writes once the app is to stop
CLOSING = 10.0  # seconds in which the thread must have ended


@dataclass(frozen=True)
class ModelStatus:
    """state: none | loading | ready | failed. `words` is for the page.

    field  after a failure: that of the UserError
    kept   after a failure: (model, scheme, engine) of the one before, when it is still loaded; else ()
    """

    state: str = "none"
    model: str = ""
    scheme: str = ""
    engine: str = ""
    progress: Progress = NOT_STARTED
    words: str = ""
    field: str = ""
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """The last one asked for. state: none, waiting, running, done, failed; report: see wan_ui.qa.stages.examine."""

    state: str = "none"
    words: str = ""
    report: dict[str, Any] = field(default_factory=dict)


class Runner:
    """model, examination  for the page

    own  of a command: ids of the jobs that it has submitted; when all have ended nothing more is claimed. None: an app
    """

    def __init__(self, jobs: Jobs, clips: Path, settings: Settings, engine_factory: str, own: set[str] | None):
        self.jobs, self.clips, self.settings, self.own = jobs, clips, settings, own
        self.worker = Worker(settings, engine_factory)
        self.model = ModelStatus()
        self.examination = Examination()
        self.stopping = threading.Event()
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None
        self._wanted: tuple[str, str, str] | None = None  # what the page asked to have loaded
        self._examine: str | None = None  # the reference that the page asked to hold the stages against
        self._restart: Settings | None = None  # what the page asked the worker to be started again with
        self._said = ""  # the last trouble with the table, so that it is logged once

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name="wan-ui-queue", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End at once: a running job is interrupted, not waited for."""
        self.stopping.set()
        self.wake.set()
        self.worker.end()
        if self.thread is not None:
            self.thread.join(CLOSING)
        self.worker.stop()

    # ------------------------------------------------------------ asked for, done between two jobs

    def load(self, model: str, scheme: str, engine: str) -> None:
        self._wanted = (model, scheme, engine)
        self.wake.set()

    def examine(self, reference: str) -> None:
        self.examination, self._examine = Examination("waiting"), reference
        self.wake.set()

    def restart(self, settings: Settings) -> None:
        """Start the worker again with other settings."""
        self._restart = settings
        self.wake.set()

    def say(self, error: TableError) -> None:
        """Log it, once while it lasts."""
        if str(error) != self._said:
            self._said = str(error)
            log.error("%s; trying again", error)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        self._collect(announce=True)
        while not self.stopping.is_set():
            try:
                worked = self._load_wanted() or self._examine_wanted() or self._run_next()
            except Cancelled:
                return  # the app stops
            except TableError as error:
                self.say(error)
                worked = False
            except Exception:
                log.exception("the queue stumbled; it goes on")
                worked = False
            if not worked:
                self.wake.wait(IDLE)
                self.wake.clear()

    def _examine_wanted(self) -> bool:
        if self._examine is None:
            return False
        reference, self._examine = self._examine, None
        loaded = (self.model.model, self.model.scheme, self.model.engine)
        default = (self.settings.model, self.settings.scheme, self.settings.engine)
        model, scheme, engine = loaded if self.model.state == "ready" else default
        self.examination = Examination("running")

        def on_progress(progress: Progress) -> None:
            self.examination = Examination("running", progress.detail)

        folder = self.settings.cache / "doctor"
        try:
            report = self.worker.examine(model, scheme, engine, reference, folder, on_progress)
            self.examination = Examination("done", report=report)
            self.model = ModelStatus("ready", model, report["scheme"], engine, words=self.model.words)
        except Cancelled:
            raise
        except Exception as error:
            _log("examining the stages of %s %s failed", error, model, scheme)
            self.examination = Examination("failed", _words(error))
        return True

    def _load_wanted(self) -> bool:
        if self._restart is not None:
            self.worker.stop()
            self.settings, self._restart = self._restart, None
            self.worker.settings = self.settings
            if self._wanted is None and self.model.model:
                self._wanted = (self.model.model, self.model.scheme, self.model.engine)
        if self._wanted is None:
            if self.model.state == "ready" and not self.worker.alive():
                log.warning("the worker is gone while idle (ended by the system?); starting it again")
                self._wanted = (self.model.model, self.model.scheme, self.model.engine)
            else:
                return False
        (model, scheme, engine), self._wanted = self._wanted, None
        log.info("loading %s %s", model, scheme)
        self.model = ModelStatus("loading", model, scheme, engine)
        try:
            answer = self.worker.load(model, scheme, engine, self._on_load)
            words = f"{answer.engine} ({answer.why}), loaded in {answer.seconds:.1f} s"
            self.model = replace(self.model, state="ready", words=words)
        except Cancelled:
            raise
        except Exception as error:
            _log("loading %s %s failed", error, model, scheme)
            self._load_failed(error)
        return True

    def _load_failed(self, error: Exception) -> None:
        kept = self.worker.loaded if self.worker.alive() else ()
        field = error.field if isinstance(error, UserError) else ""
        self.model = replace(self.model, state="failed", words=_words(error), field=field, kept=kept)

    def _on_load(self, progress: Progress) -> None:
        self.model = replace(self.model, progress=progress)

    def _run_next(self) -> bool:
        if self.own is not None and not any(map(self._active, list(self.own))):
            return False
        job = self.jobs.claim()
        if job is None:
            return False
        self._said = ""
        if self.stopping.is_set():
            self._settle(lambda: self.jobs.requeue(job.id))
            return False
        state, error, result = self._do(job)
        if state == "queued":
            self._settle(lambda: self.jobs.requeue(job.id))
            return False
        self._settle(lambda: self.jobs.finish(job.id, state, error=error, result=result or NOTHING))
        if self.model.state == "loading":
            self._load_failed(UserError("The load did not finish."))
        if not self.worker.alive() and self.model.state == "ready" and not self.stopping.is_set():
            self._wanted = (self.model.model, self.model.scheme, self.model.engine)  # the next job finds it warm
        self._collect()
        return True

    def _do(self, job: Job) -> tuple[str, str, Result | None]:
        """Run a claimed job: the state in which it ends, the error and the result. Never raises.

        "queued" is for a job that somebody else can run when this process has ended.
        """
        request = job.request
        made, samples = request.made_with, TASKS[request.task].samples
        asked = (made.model, made.scheme, made.engine) if made else ("", "", "")
        late: Progress | None = None  # could not be marked, since the table was locked

        def mark(progress: Progress) -> None:
            nonlocal late
            try:
                self.jobs.mark(job.id, progress, SHORT)
                late = None
            except TableLocked as error:
                self.say(error)
                late = progress

        def on_progress(progress: Progress) -> None:
            if progress.stage == "load":
                self.model = ModelStatus("loading", *asked, progress=progress)
            elif samples and self.model.state != "ready":
                self.model = ModelStatus("ready", *asked)
            mark(progress)

        def cancelled() -> bool:
            if late is not None:
                mark(late)
            try:
                return self.jobs.cancelled(job.id, SHORT)
            except TableLocked:
                return False  # asked again a moment later

        self.worker.partial = None  # of the job before
        try:
            if job.skipped:
                raise UserError(f"{job.unread} It was not run; generate it again.")
            work = self.worker.generate if samples else self.worker.lipsync
            result = work(request, self.clips / job.id, on_progress, cancelled)
            log.info("%s done: %s", job.id, result.seconds)
            return "done", "", result
        except Exception as error:
            if self.stopping.is_set():
                return self._stopped(job)
            partial = self.worker.partial
            if isinstance(error, Cancelled):
                return "cancelled", f"Kept: {partial.kept}." if partial else "", partial.result if partial else None
            _log("%s failed", error, job.id)
            if self.model.state == "loading":
                self._load_failed(error)
            if partial:
                return "done", f"The clip is made, but {partial.lacking}. {_words(error)}", partial.result
            return "failed", _words(error), None

    def _stopped(self, job: Job) -> tuple[str, str, Result | None]:
        """What becomes of a job whose app or command is stopped."""
        result = self.worker.partial.result if self.worker.partial else None
        try:
            if self.jobs.cancelled(job.id, SHORT):
                return "cancelled", "", result
        except TableError as error:
            self.say(error)
        if self.own is not None and job.id not in self.own:
            return "queued", "", None  # another command waits for it, and takes the queue over
        return "interrupted", "The app was stopped.", result

    def _active(self, job_id: str) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and job.active

    def _settle(self, write: Callable[[], None]) -> None:
        """Do a write without which a job would be "running" for ever: tried until it is done."""
        end = None
        while True:
            try:
                return write()
            except TableError as error:
                self.say(error)
            if self.stopping.wait(TRY_AGAIN):
                end = end or time.monotonic() + LAST_TRIES
                time.sleep(TRY_AGAIN / 5)
                if time.monotonic() > end:
                    return  # the next start will find it running, and say so

    def _collect(self, announce: bool = False) -> None:
        try:
            quota.prune(self.clips, self.jobs, self.settings, announce)
        except (OSError, TableError) as error:
            log.error("the outputs folder was not tidied: %s", error)


def _log(words: str, error: Exception, *names: str) -> None:
    """A UserError and the worker's traceback are all that is to be said; of anything else also where it came from."""
    expected = isinstance(error, UserError | WorkerError)
    log.error(f"{words}: %s", *names, error, exc_info=None if expected else error)


def _words(error: Exception) -> str:
    """What the job says: a UserError as it is; of a bug the last line, the rest is in the log."""
    if isinstance(error, UserError):
        return str(error)
    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return f"Unexpected error: {last} (the traceback is in the app's log)"
