"""What people are entering just now: its text and pictures are encoded while nothing else is to be done.

A preparation is a job's request that nobody has sent: checked by intake as any, with a row in no table, and its
pictures in a private folder that goes when the next one takes its place. There is one for each person, and few in all.
A clip is the same with and without; what was prepared for nothing has cost an idle machine a second.
"""

import tempfile
import threading
import time
from dataclasses import dataclass, field

from wan_ui.request import Request

MOST = 8  # people
TIMELY = 120.0  # seconds, after which nobody is entering it any more


@dataclass
class Preparation:
    """folder: of the request's files. done: the workers that have encoded it, or have been interrupted."""

    request: Request
    folder: tempfile.TemporaryDirectory[str]
    since: float = field(default_factory=time.monotonic)
    done: set[str] = field(default_factory=set)


class Preparations:
    def __init__(self) -> None:
        self._waiting: dict[str, Preparation] = {}  # by owner, the newest last
        self._lock = threading.Lock()

    def put(self, owner: str, preparation: Preparation) -> None:
        """Takes the place of this person's last one."""
        with self._lock:
            self._remove(owner)
            self._waiting[owner] = preparation
            while len(self._waiting) > MOST:
                self._remove(next(iter(self._waiting)))

    def drop(self, owner: str) -> None:
        """This person has sent a job, or what is entered cannot become one."""
        with self._lock:
            self._remove(owner)

    def next(self, worker: str, loaded: tuple[str, ...]) -> Request | None:
        """The newest that this worker has not done, of those for the model that it has loaded."""
        with self._lock:
            for owner, preparation in list(self._waiting.items()):
                if time.monotonic() - preparation.since > TIMELY:
                    self._remove(owner)
            for preparation in reversed(self._waiting.values()):
                made = preparation.request.sampling
                if worker not in preparation.done and loaded == (made.model, made.scheme, made.engine):
                    preparation.done.add(worker)
                    return preparation.request
        return None

    def clear(self) -> None:
        with self._lock:
            for owner in list(self._waiting):
                self._remove(owner)

    def _remove(self, owner: str) -> None:
        if owner in self._waiting:
            self._waiting.pop(owner).folder.cleanup()
