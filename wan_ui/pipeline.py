"""PIPELINE, the module-level handle: submit, observe, cancel.

One Pipeline per outputs folder owns the worker and runs the queue, first come first served, in a
thread of its own. Handlers in the page only submit, observe and cancel, so a job outlives its tab.
A second process on the same folder (the command line beside a running app) becomes a client: it
submits into the same queue, and the app's warm model does the work.
"""

import fcntl
import logging
import shutil
import sqlite3
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from wan_ui import outputs
from wan_ui.catalog import find_model, load_catalog
from wan_ui.errors import Cancelled, UserError
from wan_ui.intake import Draft, resolve
from wan_ui.jobs import NOT_STARTED, Job, Jobs, new_job_id
from wan_ui.request import Progress
from wan_ui.settings import Settings
from wan_ui.speech_intake import SpeechDraft, resolve_speech
from wan_ui.staging import Staging
from wan_ui.worker import ENGINE_FACTORY, Worker, WorkerError

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at the queue; other processes add to it too
MIN_FREE_MB = 200  # below this a job is refused rather than started


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

    # ------------------------------------------------------------ life

    def open(
        self, settings: Settings, *, client_ok: bool = False, warm: bool = True, engine_factory: str = ENGINE_FACTORY
    ) -> "Pipeline":
        """Take the outputs folder and start the queue. Raises UserError if another app has it.

        client_ok  rather than fail, only submit and observe: the other app runs the jobs
        warm       load the default model at once instead of with the first job
        """
        self.settings = settings
        self.clips = settings.outputs / "clips"
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
            self.jobs = Jobs(settings.outputs / "wan_ui.sqlite")
            self._lock = open(settings.outputs / ".lock", "w")  # noqa: SIM115 - held while the app lives
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"outputs: {settings.outputs} cannot be used ({error}); set WAN_UI_OUTPUTS") from None
        self.staging = Staging(settings)
        self._worker = Worker(settings, engine_factory)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if client_ok:
                return self
            raise UserError(
                f"outputs: another Wan UI is using {settings.outputs}; stop it, or set WAN_UI_OUTPUTS to another folder"
            ) from None
        self.owns_queue = True
        interrupted = self.jobs.interrupt_running()
        if interrupted:
            log.warning("%d job(s) were running when the app last ended; marked as interrupted", interrupted)
        if warm:
            self.load(self.settings.model, self.settings.scheme, self.settings.engine)
        self._thread = threading.Thread(target=self._run, name="wan-ui-queue", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)
        self._worker.stop()
        self._lock.close()

    # ------------------------------------------------------------ what the page and the command line call

    def submit(self, draft: Draft | SpeechDraft, owner: str = "local") -> str:
        """Queue a job; its id. Raises UserError naming the field."""
        queued = len(self.jobs.in_state("queued"))
        if queued >= self.settings.max_queue:
            raise UserError(f"{queued} jobs are waiting already; try again when some have finished")
        free = shutil.disk_usage(self.settings.outputs).free / 1e6
        if free < MIN_FREE_MB:
            raise UserError(f"disk: only {free:.0f} MB free in {self.settings.outputs}; delete old clips first")
        job_id = new_job_id()
        folder = self.clips / job_id
        try:
            if isinstance(draft, SpeechDraft):
                source = self.job(draft.job, owner) if draft.job else None
                clip = source and self.silent_clip(source)
                request = resolve_speech(draft, self.settings, folder, source, clip)
            else:
                request = resolve(draft, self.settings, folder)
        except (OSError, UserError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, UserError):
                raise
            raise UserError(f"disk: the files could not be stored in {folder.parent} ({error})") from None
        self.jobs.add(job_id, owner, request)
        self._wake.set()
        return job_id

    def cancel(self, job_id: str, owner: str = "local") -> None:
        """Stop a queued job at once, a running one within a step. Someone else's job is left alone."""
        if self.job(job_id, owner) is not None:
            self.jobs.cancel(job_id)

    def job(self, job_id: str, owner: str = "local") -> Job | None:
        job = self.jobs.get(job_id)
        return job if job is not None and job.owner == owner else None

    def history(self, owner: str = "local", limit: int = 50) -> list[Job]:
        """Newest first, in any state."""
        return self.jobs.of_owner(owner, limit)

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
        return sum(other.created < job.created for other in self.jobs.in_state("queued", "running"))

    def clip(self, job: Job) -> Path | None:
        """The finished MP4, if it (still) exists."""
        path = self.clips / job.id / job.result.get("clip", "-")
        return path if path.is_file() else None

    def silent_clip(self, job: Job) -> Path | None:
        """The clip before speech was added to it; of a clip without speech, the clip."""
        path = self.clips / job.id / job.result.get("silent", job.result.get("clip", "-"))
        return path if path.is_file() else None

    def poster(self, job: Job) -> Path | None:
        path = self.clips / job.id / job.result.get("poster", "-")
        return path if path.is_file() else None

    def wait(self, job_id: str, owner: str = "local", on_change=lambda job: None) -> Job:
        """Block until the job has ended, calling on_change(job) about five times a second."""
        while True:
            job = self.job(job_id, owner)
            on_change(job)
            if not job.active:
                return job
            if not self.owns_queue and self._free_lock():
                raise UserError("the Wan UI that runs the queue has ended; start it again, the job is kept")
            time.sleep(POLL)

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
        while not self._stopping.is_set():
            try:
                worked = self._load_wanted() or self._examine_wanted() or self._run_next()
            except Exception:
                log.exception("the queue stumbled; it goes on")
                worked = False
            if not worked:
                self._wake.wait(POLL)
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
            report = self._worker.stages(model, scheme, engine, reference, folder, on_progress)
            self.examination = Examination("done", report=report)
            self.model = ModelStatus("ready", model, report["scheme"], engine, words=self.model.words)
        except (UserError, WorkerError) as error:
            log.error("examining the stages of %s %s failed: %s", model, scheme, error)
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
            self.model = replace(
                self.model, state="ready", words=f"{answer['engine']}, loaded in {answer['seconds']:.1f} s"
            )
        except (UserError, WorkerError) as error:
            log.error("loading %s %s failed: %s", model, scheme, error)
            self._load_failed(_words(error))
        return True

    def _load_failed(self, words: str) -> None:
        kept = self._worker.loaded if self._worker.alive() else ()
        self.model = replace(self.model, state="failed", words=words, kept=kept)

    def _on_load(self, progress: Progress) -> None:
        self.model = replace(self.model, progress=progress)

    def _run_next(self) -> bool:
        job = self.jobs.claim()
        if job is None:
            return False
        request = job.request
        asked = (request.model, request.scheme, request.engine)
        generating = request.kind == "generate"

        def on_progress(progress: Progress) -> None:
            if progress.stage == "load":
                self.model = ModelStatus("loading", *asked, progress=progress)
            elif generating and self.model.state != "ready":
                self.model = ModelStatus("ready", *asked)
            self.jobs.mark(job.id, progress)

        def cancelled() -> bool:
            return self._stopping.is_set() or self.jobs.get(job.id).cancel

        try:
            work = self._worker.generate if generating else self._worker.lipsync
            result = work(request, self.clips / job.id, on_progress, cancelled)
            self.jobs.finish(job.id, "done", result=result)
            log.info("%s done: %s", job.id, result["seconds"])
        except Cancelled:
            state, error = ("interrupted", "The app was stopped.") if self._stopping.is_set() else ("cancelled", "")
            self.jobs.finish(job.id, state, error=error, result=self._worker.partial)
        except (UserError, WorkerError) as error:
            log.error("%s failed: %s", job.id, error)
            if self.model.state == "loading":
                self._load_failed(_words(error))
            partial = self._worker.partial
            if partial:
                words = f"The clip is made, but it could not be given speech. {_words(error)}"
                self.jobs.finish(job.id, "done", error=words, result=partial)
            else:
                self.jobs.finish(job.id, "failed", error=_words(error))
        if self.model.state == "loading":
            self._load_failed("The load did not finish.")
        if not self._worker.alive() and self.model.state == "ready" and not self._stopping.is_set():
            self._wanted = (self.model.model, self.model.scheme, self.model.engine)  # the next job finds it warm
        outputs.prune(self.clips, self.jobs, self.settings)
        return True

    def _free_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return True


def _words(error: Exception) -> str:
    """What the job says: a UserError as it is; of a bug the last line, the rest is in the log."""
    if isinstance(error, UserError):
        return str(error)
    return f"Unexpected error: {str(error).strip().splitlines()[-1]} (the traceback is in the app's log)"


PIPELINE = Pipeline()
