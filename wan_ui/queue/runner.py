"""A worker's thread: it loads what is asked for, examines stages, and runs one job after the other.

The page never waits for it: it looks at `model` and `examination`, and at the rows of the jobs. What the threads of a
queue share is in wan_ui.queue.line.
"""

import logging
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from wan_ui.errors import Cancelled, NodeLost, UserError, WorkerDied
from wan_ui.files import found
from wan_ui.queue import memory_fit
from wan_ui.queue.base import AnyWorker
from wan_ui.queue.carry import carry
from wan_ui.queue.jobs import NOT_STARTED, NOTHING, SHORT, Job, TableError, TableLocked
from wan_ui.queue.line import Line
from wan_ui.queue.worker import WorkerError
from wan_ui.request import Progress, Result
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS

log = logging.getLogger(__name__)

IDLE = 0.5  # seconds between looks at an empty queue: other processes add to it too, this one wakes its threads
RECENT = 200  # of a person's jobs, looked at for what fits
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

    job       that it runs; "" when none
    crashes   of its child in the middle of a job, since the app has started
    stopping  nothing more is begun
    """

    def __init__(self, name: str, worker: AnyWorker, line: Line):
        self.name, self.worker, self.line = name, worker, line
        self.seat = line.sit(name, worker)
        self.settings = worker.settings
        self.model = ModelStatus()
        self.examination = Examination()
        self.job = ""
        self.crashes = 0
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self._wanted: tuple[str, str, str] | None = None  # what the page asked to have loaded
        self._examine: str | None = None  # the reference that the page asked to hold the stages against
        self._restart: Settings | None = None  # what the page asked the worker to be started again with
        self._unload = False  # whether the page asked for its memory

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"wan-ui-{self.name}", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """The thread ends; a running job is interrupted, not waited for."""
        self.stopping.set()
        self.wake.set()
        self.worker.end()

    def close(self) -> None:
        """After `end`: wait for it, then end the child."""
        if self.thread is not None:
            self.thread.join(CLOSING)
        self.worker.stop()
        self.line.leave(self.name)

    # ------------------------------------------------------------ asked for, done between two jobs

    def load(self, model: str, scheme: str, engine: str) -> None:
        self._wanted = (model, scheme, engine)
        self.wake.set()

    def unload(self) -> None:
        """Give its memory back. The next job loads its own model."""
        self._unload, self._wanted = True, None
        self.wake.set()

    def examine(self, reference: str) -> None:
        self.examination, self._examine = Examination("waiting"), reference
        self.wake.set()

    def restart(self, settings: Settings) -> None:
        """Start the worker again, with these settings."""
        self._restart = settings
        self.wake.set()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                worked = self.worker.ready() and (
                    self._load_wanted() or self._examine_wanted() or self._run_next() or self._prepare()
                )
            except Cancelled:
                return  # the app stops
            except TableError as error:
                self.line.say(error)
                worked = False
            except Exception:
                log.exception("%s stumbled; it goes on", self.name)
                worked = False
            self.seat.loaded = self.worker.loaded
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
        if self._unload:
            self._unload, self.model = False, ModelStatus()
            self.worker.stop()
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
        job = self.line.claim(self.name)
        if job is None:
            return False
        try:
            if self.stopping.is_set():
                self.line.settle(lambda: self.line.jobs.requeue(job.id))
                return False
            self.job = job.id
            state, error, result = self._do(job)
            if result is not None:
                folder = self.line.clips / job.id
                carry(job.request.in_folder(folder), folder, result, self.settings)
            if state == "queued":
                self.line.settle(lambda: self.line.jobs.requeue(job.id, error))
                return False
            self.line.finish(job, state, error, result or NOTHING)
        finally:
            self.job, self.seat.free_at = "", 0.0
        if self.model.state == "loading":
            self._load_failed(UserError("The load did not finish."))
        if not self.worker.alive() and self.model.state == "ready" and not self.stopping.is_set():
            self._wanted = (self.model.model, self.model.scheme, self.model.engine)  # the next job finds it warm
        return True

    def _prepare(self) -> bool:
        """Encode what somebody is entering; whatever else is to be done interrupts it."""
        if self.model.state != "ready" or not self.worker.alive():
            return False
        self.wake.clear()  # whatever it tells of is looked for below as well
        request = self.line.preparations.next(self.name, self.worker.loaded)
        if request is None:
            return False

        def interrupted() -> bool:
            asked = (self._wanted, self._examine, self._restart, self._unload or None)
            return self.wake.is_set() or self.line.is_waiting() or any(wish is not None for wish in asked)

        try:
            self.worker.prepare(request, interrupted)
        except Cancelled:
            if self.stopping.is_set():
                raise
        except UserError as error:
            log.info("not prepared: %s", error)  # a job would say it
        except Exception as error:
            _log("preparing failed", error)
        return True

    def _do(self, job: Job) -> tuple[str, str, Result | None]:
        """Run a claimed job: the state in which it ends, the error and the result. Never raises.

        "queued" is for a job that somebody else can run: when this process has ended, or (once) when its worker was
        lost; the error then says how.
        """
        folder = self.line.clips / job.id
        request = job.request.in_folder(folder)  # the outputs folder may have been moved since
        made, samples = request.made_with, TASKS[request.task].samples
        asked = (made.model, made.scheme, made.engine) if made else ("", "", "")
        late: Progress | None = None  # could not be marked, since the table was locked
        asked_to_stop: bool | None = None  # as of the last mark; None when that is long ago

        def mark(progress: Progress) -> None:
            nonlocal late, asked_to_stop
            try:
                asked_to_stop = self.line.jobs.mark(job.id, progress, SHORT)
                late = None
            except TableLocked as error:
                self.line.say(error)
                late = progress

        def on_progress(progress: Progress) -> None:
            if progress.stage == "load":
                self.model = ModelStatus("loading", *asked, progress=progress)
            elif samples and self.model.state != "ready":
                self.model = ModelStatus("ready", *asked)
            mark(progress)

        def cancelled() -> bool:
            nonlocal asked_to_stop
            if late is not None:
                mark(late)
            if asked_to_stop is not None:
                known, asked_to_stop = asked_to_stop, None
                return known
            try:
                return self.line.jobs.cancelled(job.id, SHORT)
            except TableLocked:
                return False  # asked again a moment later

        self.worker.partial = None  # of the job before
        try:
            if job.skipped:
                raise UserError(f"{job.unread} It was not run; generate it again.")
            work = {
                "generate": self.worker.generate,
                "lipsync": self.worker.lipsync,
                "afterwork": self.worker.afterwork,
            }[TASKS[request.task].done_by]
            result = work(request, folder, on_progress, cancelled)
            log.info("%s done: %s", job.id, result.seconds)
            return "done", "", result
        except Exception as error:
            asked_to_stop = None
            if self.stopping.is_set():
                return self._stopped(job)
            partial = self.worker.partial
            if isinstance(error, Cancelled):
                return "cancelled", f"Kept: {partial.kept}." if partial else "", partial.result if partial else None
            self.crashes += isinstance(error, WorkerDied)
            if isinstance(error, NodeLost):
                if cancelled():
                    return "cancelled", "", None
                self.model = ModelStatus()
                if not job.lost:
                    log.warning("%s goes back in line: %s", job.id, error)
                    return "queued", str(error), None
                error = NodeLost(f"{error} It had been put back in line once: {job.lost}")
            _log("%s failed", error, job.id)
            loading = self.model.state == "loading"
            if loading:
                self._load_failed(error)
            if partial:
                return "done", f"The clip is made, but {partial.lacking}. {_words(error)}", partial.result
            return ("failed", *self._smaller(job, error, loading))

    def _smaller(self, job: Job, error: Exception, loading: bool) -> tuple[str, Result | None]:
        """What a failed job says and keeps; where memory was not enough, with what fits."""
        words, made = _words(error), job.request.made_with
        short = error.memory if isinstance(error, UserError) else ""
        model = found.models(self.settings).get(made.model) if short and made else None
        if model is None or not TASKS[job.request.task].samples:
            return words, None
        if fit := memory_fit.weights_elsewhere(job.request, short):
            return f"{words} {memory_fit.words(fit, job.request)}", Result(fits=fit.stored())
        if loading:
            return words, None  # a model that does not fit is none the smaller for a small clip
        try:
            others = self.line.jobs.of_owner(job.owner, RECENT)
        except TableError as trouble:
            self.line.say(trouble)
            others = []
        fit = memory_fit.what_fits(job.request, model, others, short)
        if not isinstance(error, WorkerDied):  # of which it is a guess that memory was the reason
            words = f"{words} {memory_fit.words(fit, job.request)}"
        return words, Result(fits=fit.stored()) if fit else None

    def _stopped(self, job: Job) -> tuple[str, str, Result | None]:
        """What becomes of a job whose app or command is stopped."""
        result = self.worker.partial.result if self.worker.partial else None
        try:
            if self.line.jobs.cancelled(job.id, SHORT):
                return "cancelled", "", result
        except TableError as error:
            self.line.say(error)
        if self.line.own is not None and job.id not in self.line.own:
            return "queued", "", None  # another command waits for it, and takes the queue over
        return "interrupted", "The app was stopped.", result


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
