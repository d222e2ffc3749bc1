"""The actor: on another machine, one worker and its child (wan_ui.queue.worker), lent to one page.

A job is leased to it: it answers with a stream of letters, as the child gives them, the last with the files of the
clip. While there is nothing to say it says that it is alive, and it wants to hear the same of the lease's owner; when
it does not, the job is ended. Cancels, beats and questions come in a second concurrency group, beside the job.
"""

import logging
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray

from wan_ui.cluster import have, parcels
from wan_ui.cluster.parcels import Files
from wan_ui.cluster.versions import versions
from wan_ui.errors import Cancelled, UserError, WorkerDied
from wan_ui.machine.gpus import gpus
from wan_ui.machine.hardware import nvidia_gpu
from wan_ui.queue import messages
from wan_ui.queue.messages import (
    AfterWork,
    Answered,
    Died,
    Entered,
    Examine,
    Examined,
    Failed,
    Generate,
    Letter,
    LipSync,
    Load,
    Made,
    Partial,
    Refused,
    Stopped,
)  # fmt: skip
from wan_ui.queue.worker import Worker, WorkerError
from wan_ui.request import Progress
from wan_ui.settings import settings, visible_devices

BEAT = 1.0  # seconds after which the one who has nothing to say says so
LEASE = 30.0  # seconds of silence after which a lease has ended, on either side
LOOK = 5.0  # seconds for which what is known of the files here is believed
GROUP = "control"
ALIVE: tuple[bytes, Files] = (b"", {})  # nothing else to say

log = logging.getLogger(__name__)


class Abandoned(Exception):
    """The owner of the lease is silent."""


class NodeWorker:
    """name: of the worker, on every machine's lists. lease: what is being done; "" when nothing is."""

    def __init__(self, name: str, engine_factory: str, lease_seconds: float = LEASE, size: int = 1):
        """size: processes that share a clip, see wan_ui.queue.worker."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        sys.modules["__main__"].__file__ = None  # Ray's own program: a spawned child would import it and all of Ray
        self.name, self.lease_seconds, self.settings = name, lease_seconds, settings()
        self.worker = Worker(self.settings, engine_factory, size=size)
        self.gpus = gpus()  # those that Ray lets it see
        self.device = " + ".join(gpu.name for gpu in self.gpus) or (
            "GPU" if nvidia_gpu() and visible_devices() != "" else "CPU"
        )
        self.folder = self.settings.cache / "ray" / name.replace("/", "-")
        self.lease, self.heard = "", 0.0
        self.cancelled = threading.Event()
        self.seen, self.looked = have.Have(), 0.0

    @ray.method(concurrency_group=GROUP)
    def describe(self) -> dict[str, Any]:
        """What is here now."""
        if time.monotonic() - self.looked > LOOK:
            self.seen, self.looked = (
                have.look(self.settings, self.device, sum(gpu.total for gpu in self.gpus)),
                time.monotonic(),
            )
        return {
            "device": self.device,
            "pid": os.getpid(),
            "have": self.seen.to_dict(),
            "versions": versions(),
            "memory": self.worker.memory(),
        }

    @ray.method(concurrency_group=GROUP)
    def beat(self, lease: str) -> None:
        """The owner of the lease is there."""
        if lease == self.lease:
            self.heard = time.monotonic()

    @ray.method(concurrency_group=GROUP)
    def cancel(self, lease: str) -> None:
        if lease == self.lease:
            self.cancelled.set()

    def do(self, lease: str, text: bytes, files: Files) -> Iterator[tuple[bytes, Files]]:
        """Letters with their files, until the one that answers. Where there is none for a moment: ALIVE."""
        letter = messages.from_json(text)
        answers: queue.SimpleQueue[tuple[Answered, Files]] = queue.SimpleQueue()
        self.cancelled.clear()
        self.lease, self.heard = lease, time.monotonic()
        log.info("%s: %s", lease, type(letter.content).__name__)
        threading.Thread(target=self._do, args=(letter.content, files, answers), name="wan-ui-lease").start()
        while True:
            try:
                content, made = answers.get(timeout=BEAT)
            except queue.Empty:
                yield ALIVE
                continue
            last = not isinstance(content, Entered | Partial)
            yield messages.to_json(Letter(letter.id, content, self.worker.loaded if last else ())), made
            if last:
                self.lease = ""
                return

    def _do(self, message: object, files: Files, answers: "queue.SimpleQueue[tuple[Answered, Files]]") -> None:
        sent: Partial | None = None

        def look() -> None:
            """Send what is finished already: it is worth keeping even if all of this machine is lost."""
            nonlocal sent
            partial = self.worker.partial
            if partial is not None and partial is not sent:
                sent = partial
                answers.put((partial, parcels.outputs_of(partial.result, self.folder)))

        def on_progress(progress: Progress) -> None:
            look()
            answers.put((Entered(progress), {}))

        def cancelled() -> bool:
            look()
            if time.monotonic() - self.heard > self.lease_seconds:
                raise Abandoned(f"nothing was heard of the page for {self.lease_seconds:g} s")
            return self.cancelled.is_set()

        last: tuple[Answered, Files]
        self.worker.partial = None
        try:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a lease that was lost
            parcels.put(files, self.folder)
            match message:
                case Load(model, scheme, engine):
                    last = self.worker.load(model, scheme, engine, on_progress), {}
                case Examine(model, scheme, engine, reference, _):
                    report = self.worker.examine(model, scheme, engine, reference, self.folder, on_progress)
                    last = Examined(report), {}
                case Generate() | LipSync() | AfterWork():
                    moved = parcels.moved(message, self.folder)
                    works = {Generate: self.worker.generate, LipSync: self.worker.lipsync}
                    work = works.get(type(moved), self.worker.afterwork)
                    result = work(moved.request, self.folder, on_progress, cancelled)
                    last = Made(result), parcels.outputs_of(result, self.folder)
                case _:
                    raise TypeError(f"a message of kind {type(message).__name__!r} asks for nothing that can be done")
        except Cancelled:
            last = Stopped(), {}
        except WorkerDied as error:
            last = Died(str(error)), {}
        except UserError as error:
            last = Refused(str(error), error.field), {}
        except WorkerError as error:
            last = Failed(str(error)), {}
        except Exception as error:
            log.exception("the lease ends")
            last = Failed(f"{type(error).__name__}: {error}"), {}
        look()
        shutil.rmtree(self.folder, ignore_errors=True)
        answers.put(last)
