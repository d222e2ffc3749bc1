"""What the queue asks of a worker, wherever its child runs: on this machine (wan_ui.queue.worker), or elsewhere.

A runner (wan_ui.queue.runner) has one and calls it from its own thread, one thing at a time; only `end`, `alive` and
`memory` come from others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from wan_ui.queue.messages import Loaded, Partial
from wan_ui.request import Progress, Request, Result
from wan_ui.settings import Settings

OnProgress = Callable[[Progress], None]


class AnyWorker(Protocol):
    """All that works raises UserError, Cancelled, WorkerDied or WorkerError. After the latter two the next call works
    with a new child.

    settings  those that its next child is started with
    partial   what the last message had finished before it ended badly
    loaded    (model, scheme, engine as asked for) after the last answer; () when nothing is
    """

    settings: Settings
    partial: Partial | None
    loaded: tuple[str, ...]

    def ready(self) -> bool:
        """Whether it can be given something to do; a worker of another machine may be cut off."""

    def alive(self) -> bool: ...

    def load(self, model: str, scheme: str, engine: str, on_progress: OnProgress) -> Loaded: ...

    def generate(
        self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Result:
        """Writes clip.mp4 and poster.jpg into `folder`, a folder of the page's machine."""

    def lipsync(
        self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Result: ...

    def afterwork(
        self, request: Request, folder: Path, on_progress: OnProgress, cancelled: Callable[[], bool]
    ) -> Result: ...

    def examine(
        self, model: str, scheme: str, engine: str, reference: str, folder: Path, on_progress: OnProgress
    ) -> dict[str, Any]: ...

    def prepare(self, request: Request, cancelled: Callable[[], bool]) -> None:
        """Encode text and pictures of a job that may come, if its model is loaded; a worker need not."""

    def end(self) -> None:
        """From any thread: whatever is being done is ended at once, and raises Cancelled there."""

    def stop(self) -> None:
        """End the child, which frees its memory. The next call starts another."""

    def lacks(self, request: Request) -> str:
        """Why it could never run this, in words; "" when it can. Jobs are kept for workers that can, if there are."""

    def offers(self, model: str, scheme: str, engine: str) -> bool:
        """Whether it is known to have a model, with its files, that this machine may not have."""

    def memory(self) -> float:
        """GiB of host memory that its child takes now; 0 when there is none, or it cannot be told."""
