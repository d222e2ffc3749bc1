"""The workers behind one queue: each a thread with a child. They come with the app; others may join and leave."""

import logging
import threading
from dataclasses import replace
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.machine.gpus import GAUGES
from wan_ui.queue import roster
from wan_ui.queue.base import AnyWorker
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.lent import Lend, LentWorker
from wan_ui.queue.line import Line
from wan_ui.queue.local import make_worker, places_here
from wan_ui.queue.roster import WorkerRow
from wan_ui.queue.runner import Examination, ModelStatus, Runner
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

KEEP = 1.0  # seconds between looks at whether the list of workers has changed


class Pool:
    """runners   by name, those of this machine first
    devices   what each runs on, in words
    troubles  what of the settings could not be followed, in words
    """

    def __init__(
        self,
        jobs: Jobs,
        clips: Path,
        settings: Settings,
        engine_factory: str,
        own: set[str] | None,
        lend: Lend | None = None,
    ):
        """lend: what has a GPU for one job at a time (wan_ui.queue.lent), in place of this machine's workers."""
        self.settings, self.engine_factory, self._lend = settings, engine_factory, lend
        self._lent: LentWorker | None = None
        self.line = Line(jobs, clips, settings, own)
        self.runners: dict[str, Runner] = {}
        self.devices: dict[str, str] = {}
        self._gpus: dict[str, tuple[str, ...]] = {}  # of this machine's workers, for the gauges
        self.troubles: tuple[str, ...] = ()
        self._shown = ""  # the worker that was last asked to load something
        self._examining = ""  # and to examine
        self._changing = threading.Lock()
        self._keepers = [
            threading.Thread(target=self._keep_roster, name="wan-ui-roster", daemon=True),
            threading.Thread(target=self.line.keep_tidy, name="wan-ui-tidy", daemon=True),
        ]

    # ------------------------------------------------------------ life

    def open(self) -> None:
        """Take the workers of this machine in, without starting them."""
        if self._lend is not None:
            self._lent = LentWorker(self.settings, self._lend, self.line.expected, self.engine_factory)
            self._take_in("lent", self._lent, "GPU, lent")
            return
        here, troubles = places_here(self.settings)
        for words in troubles:
            log.error("%s", words)
        self.troubles = tuple(troubles)
        for place in here:
            self._take_in(place.name, make_worker(place, self.settings, self.engine_factory), place.device)
            self._gpus[place.name] = tuple(gpu.uuid for gpu in place.gpus)
        if len(here) > 1:
            log.info("%d workers: %s", len(here), ", ".join(self.runners))

    def start(self) -> None:
        for runner in self.runners.values():
            runner.start()
        for keeper in self._keepers:
            keeper.start()

    def close(self) -> None:
        """End at once: running jobs are interrupted, not waited for."""
        self.line.stopping.set()
        with self._changing:
            runners = list(self.runners.values())
        for runner in runners:
            runner.end()
        for runner in runners:
            runner.close()
        for keeper in self._keepers:
            if keeper.is_alive():
                keeper.join()
        if self.line.untidy.is_set():
            self.line.collect()
        self.line.preparations.clear()

    def join(self, name: str, worker: AnyWorker, device: str) -> Runner:
        """Another worker has come, and works at once. Raises UserError when there is one of that name."""
        runner = self._take_in(name, worker, device)
        runner.start()
        return runner

    def _take_in(self, name: str, worker: AnyWorker, device: str) -> Runner:
        with self._changing:
            if name in self.runners:
                raise UserError(f"worker: there is one called {name} already")
            self.runners = {**self.runners, name: Runner(name, worker, self.line)}
            self.devices[name] = device
            return self.runners[name]

    def remove(self, name: str) -> None:
        """A worker has gone. A job that it runs is interrupted."""
        with self._changing:
            runner = self.runners[name]
            self.runners = {other: kept for other, kept in self.runners.items() if other != name}
        runner.end()
        runner.close()

    def busy(self, name: str) -> bool:
        """Whether a worker has a job, or is about to take one."""
        return name in self.runners and bool(self.runners[name].job)

    def offers(self, model: str, scheme: str, engine: str) -> bool:
        """Whether a worker of another machine has this model."""
        return any(runner.worker.offers(model, scheme, engine) for runner in self.runners.values())

    def asked(self, job: str) -> None:
        """In the thread that answers whoever asks for it."""
        if self._lent is not None:
            self._lent.asked(job)

    def wake(self) -> None:
        """There is a new job, or something to prepare."""
        for runner in self.runners.values():
            runner.wake.set()

    # ------------------------------------------------------------ what the page looks at and asks for

    @property
    def several(self) -> bool:
        return len(self.runners) > 1

    def __getitem__(self, name: str) -> Runner:
        """Raises UserError when there is no such worker."""
        if name not in self.runners:
            raise UserError(f"worker: there is none called {name[:80]!r}; there are {', '.join(self.runners)}")
        return self.runners[name]

    @property
    def model(self) -> ModelStatus:
        """Of the worker that was last asked to load something."""
        runner = self.runners.get(self._shown) or next(iter(self.runners.values()), None)
        return runner.model if runner else ModelStatus()

    @property
    def examination(self) -> Examination:
        runner = self.runners.get(self._examining)
        return runner.examination if runner else Examination()

    def load(self, model: str, scheme: str, engine: str, name: str = "") -> None:
        """On that worker; without a name on one: that which has it, else the idle one with nothing loaded, else any."""
        if name:
            runner = self[name]
        elif not self.runners:
            raise UserError("worker: none is here yet; the jobs wait for one of another machine")
        else:
            wanted = (model, scheme, engine)
            runner = min(
                self.runners.values(),
                key=lambda one: (one.worker.loaded != wanted, bool(one.job), one.model.state not in ("none", "failed")),
            )
        self._shown = runner.name
        runner.load(model, scheme, engine)

    def restart_one(self, name: str) -> None:
        """Start a worker again with what it had loaded, between two jobs. Raises UserError when there is none."""
        self[name].restart(self[name].settings)

    def load_everywhere(self, model: str, scheme: str, engine: str) -> None:
        for runner in self.runners.values():
            runner.load(model, scheme, engine)

    def examine(self, reference: str) -> None:
        if not self.runners:
            raise UserError("worker: none is here yet")
        runner = min(self.runners.values(), key=lambda one: (bool(one.job), one.model.state != "ready"))
        self._examining = runner.name
        runner.examine(reference)

    def restart(self, settings: Settings) -> None:
        """Start all workers again, with other settings."""
        self.settings = self.line.settings = settings
        for runner in self.runners.values():
            runner.restart(replace(settings, threads=runner.settings.threads))

    # ------------------------------------------------------------ who works, for those who look

    def rows(self) -> list[WorkerRow]:
        return [self._row(runner) for runner in self.runners.values()]

    def _row(self, runner: Runner) -> WorkerRow:
        look = GAUGES.now()
        gpus = [gpu for uuid in self._gpus.get(runner.name, ()) if look and (gpu := look.gpu(uuid))]
        model = runner.model
        loaded = model.kept or (model.model, model.scheme)
        state = "working" if runner.job and model.state != "loading" else model.state
        return WorkerRow(
            name=runner.name,
            device=self.devices.get(runner.name, ""),
            state=state,
            model=loaded[0],
            scheme=loaded[1],
            words=model.words,
            job=runner.job,
            memory=round(runner.worker.memory(), 2),
            gpu_used=round(sum(gpu.used for gpu in gpus), 2),
            gpu_total=round(sum(gpu.total for gpu in gpus), 2),
            celsius=max((gpu.celsius for gpu in gpus if gpu.celsius is not None), default=None),
            crashes=runner.crashes,
        )

    def _keep_roster(self) -> None:
        """Write down who works, for other processes."""
        written: list[WorkerRow] | None = None
        while True:
            rows = self.rows()
            if rows != written:
                try:
                    roster.write(self.settings.outputs, rows)
                except OSError as error:
                    log.debug("the list of workers was not written: %s", error)  # a full disk is said elsewhere
                written = rows
            if self.line.stopping.wait(KEEP):
                return
