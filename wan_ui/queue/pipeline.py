"""PIPELINE, the module-level handle: submit, observe, cancel.

One Pipeline per outputs folder owns the queue and has it run (wan_ui.queue.pool). Handlers in the page only submit,
observe and cancel, so a job outlives its tab.
A second process on the same folder (the command line beside a running app) becomes a client: it
submits into the same queue, and the app's warm model does the work. When the owner ends, a client that
waits takes the queue over. A command owns it until its own jobs have ended, then it claims nothing more.
"""

import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from wan_ui import limits, locks, temporary
from wan_ui.catalog import find_model
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.queue import estimate, library, order, quota
from wan_ui.queue.background_download import BackgroundDownload
from wan_ui.queue.draft import Draft, clips_of, next_seed
from wan_ui.queue.intake import resolve
from wan_ui.queue.jobs import Job, Jobs, QueueFull, TableError, TableLocked, new_job_id
from wan_ui.queue.lent import Lend
from wan_ui.queue.lora_download import LoraDownloads
from wan_ui.queue.pool import Pool
from wan_ui.queue.preparations import Preparation
from wan_ui.queue.runner import Examination, ModelStatus
from wan_ui.queue.webhook import Webhook, note_ends
from wan_ui.queue.worker import ENGINE_FACTORY
from wan_ui.request import Request
from wan_ui.scrub import clean
from wan_ui.settings import Settings
from wan_ui.tasks import FORM, TASKS

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at a job
MADE = ("clip.mp4", "silent.mp4", "poster.jpg")  # in a job's folder beside what it was given
AGAIN = ("failed", "cancelled", "interrupted")  # states of jobs that gave no clip


class Pipeline:
    """Nothing is touched until `open`; then all of this is there. download: the one in the background."""

    settings: Settings
    clips: Path
    jobs: Jobs
    pool: Pool
    download: BackgroundDownload
    lora_downloads: LoraDownloads

    def __init__(self) -> None:
        self.owns_queue = False
        self._opened = False
        self._lock: IO[str] | None = None
        self._own: set[str] | None = None
        self._askers: dict[str, str] = {}  # waiting job -> address of whoever asked for it
        self._adding = threading.RLock()
        self._webhook: Webhook | None = None

    # ------------------------------------------------------------ life

    def open(
        self,
        settings: Settings,
        *,
        client_ok: bool = False,
        warm: bool = True,
        engine_factory: str = ENGINE_FACTORY,
        lend: Lend | None = None,
    ) -> "Pipeline":
        """Take the outputs folder and start the queue. Raises UserError if another app has it.

        client_ok  for a command: rather than fail, let the other app run the jobs; as the owner, run only what
                   is in line up to its own jobs
        warm       load the default model at once instead of with the first job
        lend       what has a GPU for one job at a time, where there is no worker: see wan_ui.queue.lent
        """
        self.settings = settings
        self.clips = settings.outputs / "clips"
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
            self.jobs = Jobs(settings.outputs / "wan_ui.sqlite")
        except OSError as error:
            raise UserError(f"outputs: {settings.outputs} cannot be used ({error}); set WAN_UI_OUTPUTS") from None
        self.download = BackgroundDownload(settings)
        self.lora_downloads = LoraDownloads(settings)
        self._own = set() if client_ok else None
        self.pool = Pool(self.jobs, self.clips, settings, engine_factory, self._own, lend)
        self._opened = True
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
            note_ends(self.jobs, bool(self.settings.webhook))
            interrupted = self.jobs.interrupt_running()
        except TableError:
            self._lock.close()
            raise
        self.owns_queue = True
        if interrupted:
            log.warning("%d job(s) were running when the app last ended; marked as interrupted", interrupted)
        self.pool.open()
        if warm:
            self.warm()
        self.pool.start()
        if self.settings.webhook:
            self._webhook = Webhook(self.jobs, self.settings)
            self._webhook.start()
        return True

    def close(self) -> None:
        """End at once: a running job is interrupted, not waited for."""
        if self._opened:
            self.pool.close()
            if self._webhook is not None:
                self._webhook.close()
            self.jobs.close()
        if self._lock is not None:
            self._lock.close()

    # ------------------------------------------------------------ what the page and the command line call

    @property
    def model(self) -> ModelStatus:
        return self.pool.model

    @property
    def examination(self) -> Examination:
        return self.pool.examination

    def elsewhere(self, model: str, scheme: str, engine: str) -> bool:
        """Whether a worker of another machine has a model, as far as is known."""
        return self._opened and self.pool.offers(model, scheme, engine)

    def has_room(self, owner: str) -> bool:
        """Whether the queue would take a job of this person."""
        try:
            self.jobs.check_room(owner, *self._room(owner))
        except QueueFull:
            return False
        return True

    def submit(self, draft: Draft, owner: str = "local", asker: str = "") -> str:
        """Queue a job; its id. asker: the address of a visitor, who may say to be anybody. Raises UserError naming the
        field."""
        return self.submit_all([draft], owner, asker=asker)[0]

    def submit_all(self, drafts: Sequence[Draft], owner: str = "local", clips: int = 1, asker: str = "") -> list[str]:
        """Queue `clips` jobs of each draft, all of them or none; their ids. What one press asks for is one batch.

        Each clip of a draft has a seed of its own: the one asked for and those after it, or as many random ones. Raises
        UserError naming the field.
        """
        clips = clips_of(clips)
        if not drafts:
            raise UserError("clips: there is nothing to make", field="clips")
        room, number = self._room(owner), len(drafts) * clips
        self.jobs.check_room(owner, *room, number)
        self._check_address(asker, number)
        free = shutil.disk_usage(self.settings.outputs).free / 1e6
        if free < limits.MIN_FREE_MB:
            raise UserError(f"disk: only {free:.0f} MB free in {self.settings.outputs}; delete old clips first")
        batch = secrets.token_hex(8) if number > 1 else ""
        requests: dict[str, Request] = {}
        try:
            for draft in drafts:
                first, *others = (new_job_id() for _ in range(clips))
                requests[first] = replace(self._stored(draft, first, owner), batch=batch)
                if clips > 1 and not TASKS[requests[first].task].samples:
                    raise UserError("clips: a clip that is changed becomes one; leave it out", field="clips")
                for place, job_id in enumerate(others, start=1):
                    requests[job_id] = self._copied(requests[first], first, job_id)
                    seed = next_seed(draft.seed, requests[first].seed, place)
                    requests[job_id] = requests[job_id].with_seed(seed)
            if self._own is not None:
                self._own.update(requests)
            with self._adding:
                self._check_address(asker, number)
                self.jobs.add_all(requests, owner, *room, paused=self._own is None)
                if asker and self.settings.max_queue_per_visitor:
                    self._askers |= dict.fromkeys(requests, asker)
        except BaseException as error:
            for job_id in requests:
                shutil.rmtree(self.clips / job_id, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"disk: the files could not be stored in {self.clips} ({error})") from None
            raise
        for job_id in requests:
            quota.settle(self.clips / job_id)
        self.pool.line.preparations.drop(owner)
        self.pool.wake()
        return list(requests)

    def _stored(self, draft: Draft, job_id: str, owner: str) -> Request:
        """The draft as a request, its files in a new folder, which is gone again where that fails."""
        self.pool.asked(job_id)
        folder = self.clips / job_id
        try:
            quota.begin(folder)
            source = self.job(draft.job, owner) if draft.job else None
            keeps_sound = draft.task == "after-work"
            clip = (self.clip(source) if keeps_sound else self.silent_clip(source)) if source else None
            draft = replace(draft, inputs={**draft.inputs, **self._clips(draft.jobs, owner)})
            return resolve(draft, self.settings, folder, source, clip, self.elsewhere)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _copied(self, request: Request, job_id: str, new_id: str) -> Request:
        """The same for another job, whose folder has copies of the files that it was given."""
        self.pool.asked(new_id)
        folder = self.clips / new_id
        try:
            quota.begin(folder)
            for path in (self.clips / job_id).iterdir():
                if path.name != quota.BEGUN and path.name not in MADE and ".part" not in path.name:
                    shutil.copyfile(path, folder / path.name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return request.in_folder(folder)

    # ------------------------------------------------------------ a person's own waiting jobs

    def waiting(self, owner: str = "local") -> list[Job]:
        """In the order in which they run. Never raises, as `history`."""
        try:
            jobs = [self.job(job_id, owner) for job_id in order.waiting(self.jobs, owner)]
        except TableError as error:
            self.pool.line.say(error)
            return []
        return [job for job in jobs if job is not None and job.state == "queued"]

    def move(self, job_id: str, owner: str, to: int) -> None:
        order.move(self.jobs, job_id, owner, to)

    def pause(self, owner: str, on: bool) -> None:
        """Nothing of theirs begins after what runs, until this is taken back."""
        order.pause(self.jobs, owner, on)
        self.pool.wake()

    def duplicate(self, job_id: str, owner: str = "local", asker: str = "") -> str:
        """The same once more, with a seed of its own, behind it; its id. Raises UserError."""
        job = self.job(job_id, owner)
        if job is None or job.state != "queued":
            raise UserError("queue: that clip does not wait any more", field="queue")
        new_id = self._once_more(job, owner, asker, other_seed=True)
        ids = order.waiting(self.jobs, owner)
        if job_id in ids:
            order.move(self.jobs, new_id, owner, ids.index(job_id) + 1)
        self.pool.wake()
        return new_id

    def again(self, job_id: str, owner: str = "local", asker: str = "") -> str:
        """One that gave no clip, as it was; a clip that a model made, with another seed. At the end of the line.
        Its new id. Raises UserError."""
        job = self.job(job_id, owner)
        made = job is not None and job.state == "done"
        if job is None or not ((made and TASKS[job.request.task].samples) or job.state in AGAIN):
            words = "queue: only a clip that failed, was cancelled or interrupted, or that a model made, is run again"
            raise UserError(words, field="queue")
        new_id = self._once_more(job, owner, asker, other_seed=made)
        self.pool.wake()
        return new_id

    def _once_more(self, job: Job, owner: str, asker: str, other_seed: bool = False) -> str:
        self._check_address(asker)
        new_id = new_job_id()
        try:
            request = self._copied(replace(job.request, batch=""), job.id, new_id)
            if other_seed and TASKS[request.task].samples:
                request = request.with_seed(next_seed(-1, request.seed, 1))
            with self._adding:
                self._check_address(asker)
                self.jobs.add_all({new_id: request}, owner, *self._room(owner))
                if asker and self.settings.max_queue_per_visitor:
                    self._askers[new_id] = asker
        except BaseException as error:
            shutil.rmtree(self.clips / new_id, ignore_errors=True)
            if isinstance(error, FileNotFoundError):
                raise UserError("queue: its files are not kept any more; fill in the form and press Generate") from None
            if isinstance(error, OSError):
                raise UserError(f"disk: the files could not be stored in {self.clips} ({error})") from None
            raise
        quota.settle(self.clips / new_id)
        return new_id

    def change(self, job_id: str, draft: Draft, owner: str = "local") -> str:
        """A waiting job as `draft` says, in its place; its new id. Raises UserError."""
        job, new_id = self.job(job_id, owner), new_job_id()
        request = self._stored(draft, new_id, owner)
        request = replace(request, batch=job.request.batch if job else "")
        if job is None or not order.put_in_place(self.jobs, job_id, owner, new_id, request):
            shutil.rmtree(self.clips / new_id, ignore_errors=True)
            words = "queue: that clip has begun, or does not wait any more; Generate makes a new one of the form"
            raise UserError(words, field="queue")
        quota.settle(self.clips / new_id)
        shutil.rmtree(self.clips / job_id, ignore_errors=True)
        with self._adding:
            if job_id in self._askers:
                self._askers[new_id] = self._askers.pop(job_id)
        self.pool.wake()
        return new_id

    def seconds_left(self, owner: str = "local") -> dict[str, float]:
        """Until each of this person's waiting jobs is done, as far as it is known how long what is ahead takes."""
        history = self.history(owner)
        queued = {job.id: job for job in self.jobs.in_state("queued")}
        ahead, found = 0.0, {}
        for job in self.jobs.in_state("running"):
            left = estimate.eta(job, estimate.reference(history, job.request))
            if left is None:
                return {}
            ahead += left
        for job_id in self.jobs.line():
            expected = estimate.reference(history, queued[job_id].request) if job_id in queued else {}
            if not expected:
                break
            ahead += sum(spent for stage, spent in expected.items() if stage != "load")
            if queued[job_id].owner == owner:
                found[job_id] = ahead / max(1, len(self.pool.runners))
        return found

    def batch(self, batch: str, owner: str = "local") -> list[Job]:
        """What one press has asked for, as far as it is still there."""
        return [self._shown(job) for job in self.jobs.of_batch(batch, owner)] if batch else []

    def star(self, job_id: str, owner: str = "local", star: bool = True) -> None:
        """Whether a clip is to stay, whatever the quota says. Raises UserError where all that a visitor may have is
        starred: the disk is not theirs."""
        most = self.settings.max_outputs_gb * 1e9
        if star and owner != "local" and most:
            starred = [job.id for job in self.jobs.briefs() if job.star and job.owner == owner]
            if sum(quota.folder_bytes(self.clips / name) for name in {*starred, job_id}) > most:
                words = f"star: starred clips may take {self.settings.max_outputs_gb:g} GB; take the star from another"
                raise UserError(words, field="star")
        self.jobs.set_star(job_id, owner, star)

    def _clips(self, jobs: dict[str, str], owner: str) -> dict[str, str]:
        """The clips of these history entries. Raises UserError where one is gone, or another's."""
        found = {}
        for name, job_id in jobs.items():
            job = self.job(job_id, owner)
            clip = self.clip(job) if job else None
            if clip is None:
                raise UserError(f"{name}: that clip is not there any more; choose another", field=name)
            found[name] = str(clip)
        return found

    def prepare(self, draft: Draft, owner: str = "local") -> bool:
        """Have the text and the pictures of what is being entered encoded, where a worker has its model loaded and
        nothing else to do. Whether it was accepted: not what is no job yet, or goes on from a video, or is refused.
        """
        preparations, model = self.pool.line.preparations, draft.model or self.settings.model
        preparations.drop(owner)
        loaded = any(runner.worker.loaded[:1] == (model,) for runner in self.pool.runners.values())
        if not (self.settings.prepare and self.owns_queue and loaded and self.has_room(owner)):
            return False
        kinds = {entry.name: entry.kind for entry in FORM if draft.inputs.get(entry.name)}
        if draft.job or "video" in kinds.values():
            return False
        inputs = {name: draft.inputs[name] for name, kind in kinds.items() if kind != "audio"}
        folder = tempfile.TemporaryDirectory(prefix="prepare-", dir=temporary.folder(), ignore_cleanup_errors=True)
        try:
            request = resolve(replace(draft, inputs=inputs), self.settings, Path(folder.name), None, None)
        except (UserError, OSError):
            folder.cleanup()
            return False
        preparations.put(owner, Preparation(request, folder))
        self.pool.wake()
        return True

    def _room(self, owner: str) -> tuple[int, int]:
        """How many jobs may wait: of all, of this owner. Who has the machine has all of the queue."""
        most = self.settings.max_queue
        return most, most if owner == "local" else min(most, self.settings.max_queue_per_visitor or most)

    def _check_address(self, asker: str, new: int = 1) -> None:
        """Raises QueueFull where the visitors of one address have their part of the queue: each call of the API, and
        each browser without its storage, is another person."""
        if not asker or not self.settings.max_queue_per_visitor:
            return
        with self._adding:  # else a job that is added meanwhile would be taken for one that waits no more
            waiting = {job.id for job in self.jobs.in_state("queued")}
            self._askers = {job_id: other for job_id, other in self._askers.items() if job_id in waiting}
            theirs = sum(other == asker for other in self._askers.values())
        most = max(self.settings.max_queue_per_visitor, int(self.settings.max_queue * limits.ADDRESS_SHARE))
        if theirs + new > most:
            raise QueueFull(f"{most} jobs from your address are waiting already; try again when one has finished")

    def cancel(self, job_id: str, owner: str = "local") -> None:
        """Stop a queued job at once, a running one within a step. Someone else's job is left alone."""
        if self.job(job_id, owner) is not None:
            self.jobs.cancel(job_id)

    def job(self, job_id: str, owner: str = "local") -> Job | None:
        job = self.jobs.get(job_id)
        return self._shown(job) if job is not None and job.owner == owner and job.removed is None else None

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
            self.pool.line.say(error)
            return []

    def page(self, owner: str, words: str, starred: bool, first: int, number: int) -> tuple[list[Job], int]:
        """Some of a person's clips and how many there are: see library.page. Never raises, as `history`."""
        try:
            jobs, total = library.page(self.jobs, owner, words, starred, first, number)
        except TableError as error:
            self.pool.line.say(error)
            return [], 0
        return [self._shown(job) for job in jobs], total

    def remove(self, ids: Sequence[str], owner: str = "local") -> list[str]:
        """Delete ended jobs of this person, which can be taken back for a while; the ids of those that are gone."""
        return library.remove(self.jobs, ids, owner)

    def take_back(self, ids: Sequence[str], owner: str = "local") -> list[str]:
        return library.take_back(self.jobs, ids, owner)

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

    def made(self, job: Job) -> Path:
        """The MP4 of a job that has ended. Raises UserError saying why there is none."""
        if job.state != "done":
            raise UserError(job.error or f"the job was {job.state}")
        path = self.clip(job)
        if path is None:
            raise UserError(f"the clip of job {job.id} has been deleted meanwhile")
        return path

    def silent_clip(self, job: Job) -> Path | None:
        """The clip before speech was added to it; of a clip without speech, the clip."""
        path = self.clips / job.id / (job.result.silent or job.result.clip or "-")
        return path if path.is_file() else None

    def file(self, job: Job) -> Path | None:
        """What was made beside the clip, where that was asked for."""
        path = self.clips / job.id / (job.result.file or "-")
        return path if path.is_file() else None

    def poster(self, job: Job) -> Path | None:
        path = self.clips / job.id / (job.result.poster or "-")
        return path if path.is_file() else None

    def input_files(self, job: Job, *kinds: str) -> dict[str, Path]:
        """What lies in the job's folder of these kinds of input, by name: its own, and of a clip that was changed also
        what that was made of."""
        folder = self.clips / job.id
        found = {}
        for entry in FORM:
            path = folder / Path(job.request.inputs.get(entry.name, entry.file)).name
            if entry.file and (not kinds or entry.kind in kinds) and path.is_file():
                found[entry.name] = path
        return found

    def picture(self, job: Job) -> Path | None:
        """The first picture that the job was given, if it (still) exists."""
        return next(iter(self.input_files(job, "picture").values()), None)

    def wait(self, job_id: str, owner: str = "local", on_change: Callable[[Job], None] = lambda job: None) -> Job:
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
            if job.active and self.pool.line.stopping.is_set():
                raise UserError("Wan UI was stopped; a job that waits in line runs when it is started again")
            if job.active and not self.owns_queue and self._take_queue(warm=False):
                log.warning("the Wan UI that ran the queue has ended; this process runs it now")
        except TableLocked as error:
            self.pool.line.say(error)
            return None
        return job

    def load(self, model: str, scheme: str, engine: str, worker: str = "") -> None:
        """Ask for a model to be loaded now, on that worker or the one that suits; returns at once. Raises UserError for
        unknown names."""
        wanted = find_model(found.models(self.settings), model)
        self.pool.load(model, wanted.scheme(scheme).name, engine, worker)

    def warm(self) -> None:
        """Ask every worker to load the default model."""
        wanted = find_model(found.models(self.settings), self.settings.model)
        self.pool.load_everywhere(wanted.name, wanted.scheme(self.settings.scheme).name, self.settings.engine)

    def examine(self, reference: str = "auto") -> None:
        """Hold the stages of the loaded model (else the default one) against a reference, between two jobs."""
        self.pool.examine(reference)

    def leave_out(self, patches: str) -> None:
        """Load again without these LightX2V patches (names, separated by commas), between two jobs.

        A patch is never undone: a new process is the only one without it.
        """
        self.settings = replace(self.settings, lightx2v_patches_off=patches)
        self.pool.restart(self.settings)


PIPELINE = Pipeline()
