"""A worker on another machine as the page's queue sees it: the letters go through the dispatcher's lane to its actor.

It is lost when the lane closes: its child, actor or machine has ended, or the dispatcher. That is no fault of the job.
"""

import math
from collections.abc import Callable
from multiprocessing.connection import Connection
from threading import Condition
from typing import Any

from wan_ui.cluster.have import Have, lacks
from wan_ui.errors import NodeLost, UserError, WorkerDied
from wan_ui.queue.base import OnProgress
from wan_ui.queue.messages import Asked, Letter
from wan_ui.queue.worker import CANCEL_GRACE, Worker, describe
from wan_ui.request import Progress, Request
from wan_ui.settings import Settings

SAID = 2.0  # seconds in which the dispatcher says why a lane has closed
RETURN = 30.0  # seconds in which a lane that was closed by us is there again
CANCELLED = CANCEL_GRACE + 120.0  # seconds for a cancel: the child is killed there before, and then the actor


class RemoteWorker(Worker):
    """
    name  "gpu-2/0": its machine, and its number there
    pid   of its actor there
    lost  why the lane has closed, as the dispatcher says
    """

    cancel_grace = CANCELLED

    def __init__(self, name: str, settings: Settings):
        super().__init__(settings, lacks=self._lacks)
        self.name, self.node, self.address = name, name.rpartition("/")[0], ""
        self.have, self.gib, self.pid, self.lost = Have(), 0.0, 0, ""
        self.there = False
        self.changed = Condition()

    # ------------------------------------------------------------ what the dispatcher tells

    def connected(self, pipe: Connection, hello: dict[str, Any]) -> None:
        with self.changed:
            self.pipe, self.loaded, self.lost, self.there = pipe, (), "", True
            self.address = hello["address"]
            self.know(hello)
            self.changed.notify_all()

    def know(self, said: dict[str, Any]) -> None:
        """What is there, now."""
        self.have, self.gib, self.pid = Have(**said["have"]), said["memory"], said["pid"]

    def gone(self, why: str) -> None:
        with self.changed:
            self.lost, self.there = why, False
            self.changed.notify_all()

    # ------------------------------------------------------------ what the queue asks

    def ready(self) -> bool:
        return self.there

    def alive(self) -> bool:
        return self.there

    def prepare(self, request: Request, cancelled: Callable[[], bool]) -> None:
        """Nothing: its pictures would travel for a job that may never come."""

    def memory(self) -> float:
        return self.gib if self.there else 0.0

    def _lacks(self, request: Request) -> str:
        if not self.there:
            return f"{self.name} is not connected"
        return lacks(request, self.have, self.settings, self.node)

    def offers(self, model: str, scheme: str, engine: str) -> bool:
        return self.there and engine in self.have.models.get(f"{model} {scheme}", [])

    def start(self) -> None:
        """There is nothing to start from here: wait for the lane."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.there, RETURN):
                raise NodeLost(self._epitaph(Progress("start")))

    def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        """The dispatcher ends the actor, and with it the child; then it starts another."""
        with self.changed:
            if self.there:
                self.there = False
                self.pipe.close()
        self.loaded = ()

    def _ask(self, wanted: Any, message: Asked, on_progress: OnProgress, cancelled: Callable[[], bool]) -> Any:
        try:
            return super()._ask(wanted, message, on_progress, cancelled)
        except NodeLost:
            raise
        except UserError as error:  # what is wrong with files there is of no use without the machine's name
            raise type(error)(f"{error} (on {self.name})", field=error.field) from error

    def _deadline(self) -> float:
        return math.inf  # it is held there, by that machine's settings; the lane is given up when it is silent

    def _send(self, letter: Letter, progress: Progress) -> None:
        try:
            super()._send(letter, progress)
        except (WorkerDied, OSError):
            raise NodeLost(self._epitaph(progress)) from None

    def _receive(self, letter_id: int, progress: Progress) -> Letter | None:
        try:
            if self.lost and not self.pipe.poll():
                raise NodeLost(self._epitaph(progress))
            return super()._receive(letter_id, progress)
        except (WorkerDied, OSError):
            raise NodeLost(self._epitaph(progress)) from None

    def _epitaph(self, progress: Progress) -> str:
        with self.changed:
            self.changed.wait_for(lambda: bool(self.lost), SAID)
            why = self.lost or "the way to it is cut"
        return f"The worker {self.name} at {self.address} was lost during {describe(progress)}: {why}."
