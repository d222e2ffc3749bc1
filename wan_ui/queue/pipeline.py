"""PIPELINE, the module-level handle: submit, observe, cancel.

One Pipeline per outputs folder owns the worker and runs the queue, its people in turn, in a thread of
its own. Handlers in the page only submit, observe and cancel, so a job outlives its tab.
A second process on the same folder (the command line beside a running app) becomes a client: it
submits into the same queue, and the app's warm model does the work. When the owner ends, a client that
waits takes the queue over. A command owns it until its own jobs have ended, then it claims nothing more.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from wan_ui import locks
from wan_ui.catalog import find_model, load_catalog
from wan_ui.errors import Cancelled, UserError
from wan_ui.queue import quota
from wan_ui.queue.fetching import Staging
from wan_ui.queue.intake import Draft, resolve
from wan_ui.queue.jobs import NOT_STARTED, NOTHING, SHORT, Job, Jobs, QueueFull, TableError, TableLocked, new_job_id
from wan_ui.queue.speech_intake import SpeechDraft, resolve_speech
from wan_ui.queue.worker import ENGINE_FACTORY, Worker, WorkerError
from wan_ui.request import Progress, Result
from wan_ui.scrub import clean
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at a job
IDLE = 0.5  # and at an empty queue: other processes add to it too, this one wakes its thread
MIN_FREE_MB = 200  # below this a job is refused rather than started
TRY_AGAIN = 1.0  # seconds between attempts at a write that must not be lost
LAST_TRIES = 4.0  # seconds for such writes once the app is to stop
CLOSING = 10.0  # seconds in which the queue's thread must have ended


@dataclass(frozen=True)
class ModelStatus:
    """state: none | loading | ready | failed. `words` is for the page.

    kept  after a failure: (model, scheme, engine) of the one before, when it is still loaded; else ()
    """

    state: str = "none"
    model: str = ""
    scheme: str = ""
    engine: str = ""
    progress: Progress = NOT_STARTED
    words: str = ""
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """The last one asked for. state: none, waiting, running, done, failed; report: see wan_ui.qa.stages.examine."""

    state: str = "none"
    words: str = ""
    report: dict = field(default_factory=dict)


class Pipeline:
    """Nothing is touched until `open`; then `jobs`, `clips`, `settings` and `staging` (downloads) are there."""

    def __init__(self):
        self.owns_queue = False
        self.model = ModelStatus()
        self.examination = Examination()
        self._wanted: tuple[str, str, str] | None = None  # what the page asked to have loaded
        self._examine: str | None = None  # the reference that the page asked to hold the stages against
        self._patches_off: str | None = None  # what the page asked to load without
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = None
        self._worker: Worker | None = None
        self._command = False
        self._own: set[str] = set()  # jobs that this process has submitted
        self._said = ""  # the last trouble with the table, so that it is logged once

    # ------------------------------------------------------------ life

    def open(
        self, settings: Settings, *, client_ok: bool = False, warm: bool = True, engine_factory: str = ENGINE_FACTORY
    ) -> "Pipeline":
        """Take the outputs folder and start the queue. Raises UserError if another app has it.

        client_ok  for a command: rather than fail, let the other app run the jobs; as the owner, run only what
                   is in line up to its own jobs
        warm       load the default model at once instead of with the first job
        """
        self.settings = settings
        self.clips = settings.outputs / "clips"
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
            self.jobs = Jobs(settings.outputs / "wan_ui.sqlite")
        except OSError as error:
            raise UserError(f"outputs: {settings.outputs} cannot be used ({error}); set WAN_UI_OUTPUTS") from None
        self.staging = Staging(settings)
        self._worker = Worker(settings, engine_factory)
        self._command = client_ok
        if not self._take_queue(warm) and not client_ok:
            raise UserError(
                f"outputs: another Wan UI is using {settings.outputs}; stop it, or set WAN_UI_OUTPUTS to another folder"
            )
        return self

    def _take_queue(self, warm: bool) -> bool:
        """Become the owner, if nobody is. Raises UserError when the folder cannot be locked."""
        try:
            self._lock = locks.take(self.settings.outputs / ".lock")
        except OSError as error:
            raise UserError(
                f"outputs: {self.settings.outputs} cannot be locked ({error}); set WAN_UI_OUTPUTS to a folder on a "
                "local disk"
            ) from None
        if self._lock is None:
            return False
        try:
            interrupted = self.jobs.interrupt_running()
        except TableError:
            self._lock.close()
            raise
        self.owns_queue = True
        if interrupted:
            log.warning("%d job(s) were running when the app last ended; marked as interrupted", interrupted)
        if warm:
            self.load(self.settings.model, self.settings.scheme, self.settings.engine)
        self._thread = threading.Thread(target=self._run, name="wan-ui-queue", daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """End at once: a running job is interrupted, not waited for."""
        self._stopping.set()
        self._wake.set()
        if self._worker is not None:
            self._worker.end()
            if self._thread is not None:
                self._thread.join(CLOSING)
            self._worker.stop()
        if self._lock is not None:
            self._lock.close()

    # ------------------------------------------------------------ what the page and the command line call

    def has_room(self, owner: str) -> bool:
        """Whether the queue would take a job of this person."""
        try:
            self.jobs.check_room(owner, *self._room(owner))
        except QueueFull:
            return False
        return True

    def submit(self, draft: Draft | SpeechDraft, owner: str = "local") -> str:
        """Queue a job; its id. Raises UserError naming the field."""
        room = self._room(owner)
        self.jobs.check_room(owner, *room)
        free = shutil.disk_usage(self.settings.outputs).free / 1e6
        if free < MIN_FREE_MB:
            raise UserError(f"disk: only {free:.0f} MB free in {self.settings.outputs}; delete old clips first")
        job_id = new_job_id()
        folder = self.clips / job_id
        try:
            quota.begin(folder)
            if isinstance(draft, SpeechDraft):
                source = self.job(draft.job, owner) if draft.job else None
                clip = source and self.silent_clip(source)
                request = resolve_speech(draft, self.settings, folder, source, clip)
            else:
                request = resolve(draft, self.settings, folder)
            if self._command:
                self._own.add(job_id)
            self.jobs.add(job_id, owner, request, *room)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"disk: the files could not be stored in {folder.parent} ({error})") from None
            raise
        quota.settle(folder)
        self._wake.set()
        return job_id

    def _room(self, owner: str) -> tuple[int, int]:
        """How many jobs may wait: of all, of this owner. Who has the machine has all of the queue."""
        most = self.settings.max_queue
        return most, most if owner == "local" else min(most, self.settings.max_queue_per_visitor or most)

    def cancel(self, job_id: str, owner: str = "local") -> None:
        """Stop a queued job at once, a running one within a step. Someone else's job is left alone."""
        if self.job(job_id, owner) is not None:
            self.jobs.cancel(job_id)

    def job(self, job_id: str, owner: str = "local") -> Job | None:
        job = self.jobs.get(job_id)
        return self._shown(job) if job is not None and job.owner == owner else None

    def _shown(self, job: Job) -> Job:
        """As its owner may see it: where files lie is for the person at this machine alone."""
        if job.owner == "local":
            return job
        why = clean(job.result.engine_why, self.settings)
        return replace(job, error=clean(job.error, self.settings), result=replace(job.result, engine_why=why))

    def history(self, owner: str = "local", limit: int = 50) -> list[Job]:
        """Newest first, in any state. Never raises: without a table there is nothing to show."""
        try:
            return [self._shown(job) for job in self.jobs.of_owner(owner, limit)]
        except TableError as error:
            self._say(error)
            return []

    def delete(self, job_id: str, owner: str = "local") -> None:
        """Remove an ended job and its files."""
        job = self.job(job_id, owner)
        if job is not None and not job.active:
            self.jobs.delete(job_id)
            shutil.rmtree(self.clips / job_id, ignore_errors=True)

    def position(self, job: Job) -> int:
        """Jobs ahead of a queued one, the running one included; 0 when it is next or running."""
        if job.state != "queued":
            return 0
        line = self.jobs.line()
        return len(self.jobs.in_state("running")) + (line.index(job.id) if job.id in line else 0)

    def clip(self, job: Job) -> Path | None:
        """The finished MP4, if it (still) exists."""
        path = self.clips / job.id / (job.result.clip or "-")
        return path if path.is_file() else None

    def silent_clip(self, job: Job) -> Path | None:
        """The clip before speech was added to it; of a clip without speech, the clip."""
        path = self.clips / job.id / (job.result.silent or job.result.clip or "-")
        return path if path.is_file() else None

    def poster(self, job: Job) -> Path | None:
        path = self.clips / job.id / (job.result.poster or "-")
        return path if path.is_file() else None

    def wait(self, job_id: str, owner: str = "local", on_change=lambda job: None) -> Job:
        """Block until the job has ended, calling on_change(job) about five times a second. Raises as `look`."""
        while True:
            job = self.look(job_id, owner)
            if job is not None:
                on_change(job)
                if not job.active:
                    return job
            time.sleep(POLL)

    def look(self, job_id: str, owner: str = "local") -> Job | None:
        """The job that somebody waits for; None while its table is locked.

        Raises UserError when it will never end: it was deleted, or the app is stopping.
        """
        try:
            job = self.job(job_id, owner)
            if job is None:
                raise UserError("the job is not there any more: its entry was deleted")
            if job.active and self._stopping.is_set():
                raise UserError("Wan UI was stopped; a job that waits in line runs when it is started again")
            if job.active and not self.owns_queue and self._take_queue(warm=False):
                log.warning("the Wan UI that ran the queue has ended; this process runs it now")
        except TableLocked as error:
            self._say(error)
            return None
        return job

    def load(self, model: str, scheme: str, engine: str) -> None:
        """Ask for a model to be loaded now; returns at once. Raises UserError for unknown names."""
        found = find_model(load_catalog(self.settings.catalog), model)
        self._wanted = (model, found.scheme(scheme).name, engine)
        self._wake.set()

    def examine(self, reference: str = "auto") -> None:
        """Hold the stages of the loaded model (else the default one) against a reference, between two jobs."""
        self.examination, self._examine = Examination("waiting"), reference
        self._wake.set()

    def leave_out(self, patches: str) -> None:
        """Start the worker again without these LightX2V patches (names, separated by commas), between two jobs."""
        self._patches_off = patches
        self._wake.set()

    # ------------------------------------------------------------ the queue's thread

    def _run(self) -> None:
        self._collect(announce=True)
        while not self._stopping.is_set():
            try:
                worked = self._load_wanted() or self._examine_wanted() or self._run_next()
            except Cancelled:
                return  # the app stops
            except TableError as error:
                self._say(error)
                worked = False
            except Exception:
                log.exception("the queue stumbled; it goes on")
                worked = False
            if not worked:
                self._wake.wait(IDLE)
                self._wake.clear()

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
            report = self._worker.examine(model, scheme, engine, reference, folder, on_progress)
            self.examination = Examination("done", report=report)
            self.model = ModelStatus("ready", model, report["scheme"], engine, words=self.model.words)
        except Cancelled:
            raise
        except Exception as error:
            _log("examining the stages of %s %s failed", error, model, scheme)
            self.examination = Examination("failed", _words(error))
        return True

    def _load_wanted(self) -> bool:
        if self._patches_off is not None:
            # A patch is never undone: a new process is the only one without it.
            self._worker.stop()
            self.settings = replace(self.settings, lightx2v_patches_off=self._patches_off)
            self._worker.settings, self._patches_off = self.settings, None
            if self._wanted is None and self.model.model:
                self._wanted = (self.model.model, self.model.scheme, self.model.engine)
        if self._wanted is None:
            if self.model.state == "ready" and not self._worker.alive():
                log.warning("the worker is gone while idle (ended by the system?); starting it again")
                self._wanted = (self.model.model, self.model.scheme, self.model.engine)
            else:
                return False
        (model, scheme, engine), self._wanted = self._wanted, None
        log.info("loading %s %s", model, scheme)
        self.model = ModelStatus("loading", model, scheme, engine)
        try:
            answer = self._worker.load(model, scheme, engine, self._on_load)
            words = f"{answer.engine} ({answer.why}), loaded in {answer.seconds:.1f} s"
            self.model = replace(self.model, state="ready", words=words)
        except Cancelled:
            raise
        except Exception as error:
            _log("loading %s %s failed", error, model, scheme)
            self._load_failed(_words(error))
        return True

    def _load_failed(self, words: str) -> None:
        kept = self._worker.loaded if self._worker.alive() else ()
        self.model = replace(self.model, state="failed", words=words, kept=kept)

    def _on_load(self, progress: Progress) -> None:
        self.model = replace(self.model, progress=progress)

    def _run_next(self) -> bool:
        if self._command and not self._waits_for_own():
            return False
        job = self.jobs.claim()
        if job is None:
            return False
        self._said = ""
        if self._stopping.is_set():
            self._settle(lambda: self.jobs.requeue(job.id))
            return False
        state, error, result = self._do(job)
        if state == "queued":
            self._settle(lambda: self.jobs.requeue(job.id))
            return False
        self._settle(lambda: self.jobs.finish(job.id, state, error=error, result=result or NOTHING))
        if self.model.state == "loading":
            self._load_failed("The load did not finish.")
        if not self._worker.alive() and self.model.state == "ready" and not self._stopping.is_set():
            self._wanted = (self.model.model, self.model.scheme, self.model.engine)  # the next job finds it warm
        self._collect()
        return True

    def _do(self, job: Job) -> tuple[str, str, Result | None]:
        """Run a claimed job: the state in which it ends, the error and the result. Never raises.

        "queued" is for a job that somebody else can run when this process has ended.
        """
        request = job.request
        asked = (request.model, request.scheme, request.engine)
        generating = request.kind == "generate"
        late: Progress | None = None  # could not be marked, since the table was locked

        def mark(progress: Progress) -> None:
            nonlocal late
            try:
                self.jobs.mark(job.id, progress, SHORT)
                late = None
            except TableLocked as error:
                self._say(error)
                late = progress

        def on_progress(progress: Progress) -> None:
            if progress.stage == "load":
                self.model = ModelStatus("loading", *asked, progress=progress)
            elif generating and self.model.state != "ready":
                self.model = ModelStatus("ready", *asked)
            mark(progress)

        def cancelled() -> bool:
            if late is not None:
                mark(late)
            try:
                return self.jobs.cancelled(job.id, SHORT)
            except TableLocked:
                return False  # asked again a moment later

        self._worker.partial = None  # of the job before
        try:
            if job.skipped:
                raise UserError(f"{job.unread} It was not run; generate it again.")
            work = self._worker.generate if generating else self._worker.lipsync
            result = work(request, self.clips / job.id, on_progress, cancelled)
            log.info("%s done: %s", job.id, result.seconds)
            return "done", "", result
        except Exception as error:
            if self._stopping.is_set():
                return self._stopped(job)
            partial = self._worker.partial
            if isinstance(error, Cancelled):
                return "cancelled", "", partial
            _log("%s failed", error, job.id)
            if self.model.state == "loading":
                self._load_failed(_words(error))
            if partial:
                return "done", f"The clip is made, but it could not be given speech. {_words(error)}", partial
            return "failed", _words(error), None

    def _stopped(self, job: Job) -> tuple[str, str, Result | None]:
        """What becomes of a job whose app or command is stopped."""
        try:
            if self.jobs.cancelled(job.id, SHORT):
                return "cancelled", "", self._worker.partial
        except TableError as error:
            self._say(error)
        if self._command and job.id not in self._own:
            return "queued", "", None  # another command waits for it, and takes the queue over
        return "interrupted", "The app was stopped.", self._worker.partial

    def _waits_for_own(self) -> bool:
        """Whether a job that this process has submitted is still to be done."""
        return any(job is not None and job.active for job in map(self.jobs.get, list(self._own)))

    def _settle(self, write: Callable[[], None]) -> None:
        """Do a write without which a job would be "running" for ever: tried until it is done."""
        end = None
        while True:
            try:
                return write()
            except TableError as error:
                self._say(error)
            if self._stopping.wait(TRY_AGAIN):
                end = end or time.monotonic() + LAST_TRIES
                time.sleep(POLL)
                if time.monotonic() > end:
                    return  # the next start will find it running, and say so

    def _collect(self, announce: bool = False) -> None:
        try:
            quota.prune(self.clips, self.jobs, self.settings, announce)
        except (OSError, TableError) as error:
            log.error("the outputs folder was not tidied: %s", error)

    def _say(self, error: TableError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            log.error("%s; trying again", error)


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


PIPELINE = Pipeline()
