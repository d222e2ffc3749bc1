"""A download in the background, for the page: one at a time, observed and cancelled from any tab.

The work is wan_ui.files.download's; here it gets a thread and a status. The thread belongs to the app, not to a
page, so that closing the tab changes nothing. What has arrived when the app ends is kept: the next download
goes on from there.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from wan_ui.catalog import Model, find_model
from wan_ui.errors import Cancelled, UserError
from wan_ui.files import download, found
from wan_ui.machine.engine_choice import choose_engine
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

WINDOW = 10.0  # seconds over which the pace is measured
LEAST = 1 << 20  # bytes in that time, below which no pace is named


@dataclass(frozen=True)
class DownloadStatus:
    """state: none | asking (the hub for sizes) | running | done | failed | cancelled.

    done, total  bytes of all files together, counting what was there before
    pace         bytes per second over the last ten seconds; 0 when not known yet
    words        why it failed, else the file that is arriving
    found        files that this machine had already, a sentence each
    """

    state: str = "none"
    model: str = ""
    scheme: str = ""
    done: int = 0
    total: int = 0
    pace: float = 0.0
    words: str = ""
    found: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        return self.state in ("asking", "running")

    @property
    def left(self) -> float | None:
        """Seconds to go; None when nothing is known to base it on."""
        return (self.total - self.done) / self.pace if self.pace else None


class BackgroundDownload:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.status = DownloadStatus()
        self._cancel = threading.Event()
        self._lock = threading.Lock()

    def start(self, model: str, scheme: str, engine: str) -> None:
        """Begin; returns at once. Raises UserError for unknown names or when one is running already."""
        wanted = find_model(found.models(self.settings), model)
        name = wanted.scheme(scheme).name
        if wanted.embedded:
            raise UserError(f"{model} ships with Wan UI; there is nothing to download")
        with self._lock:
            if self.status.active:
                raise UserError(
                    f"download: {self.status.model} {self.status.scheme} is being downloaded; wait for it or cancel it"
                )
            self._cancel.clear()
            self.status = DownloadStatus("asking", model, name)
        threading.Thread(target=self._run, args=(wanted, name, engine), name="wan-ui-download", daemon=True).start()

    def cancel(self) -> None:
        """Stop within a megabyte; what has arrived is kept."""
        self._cancel.set()

    def _run(self, model: Model, scheme: str, engine: str) -> None:
        try:
            chosen = choose_engine(engine, self.settings, family=model.family).name
            items = download.plan(model, model.scheme(scheme), self.settings, chosen)
            self._check()
            self._fetch(items)
            self.status = replace(self.status, state="done", pace=0.0, words="")
            log.info("download of %s %s done", model.name, scheme)
        except Cancelled:
            self.status = replace(self.status, state="cancelled", pace=0.0, words="")
        except UserError as error:
            log.error("download of %s %s failed: %s", model.name, scheme, error)
            self.status = replace(self.status, state="failed", pace=0.0, words=str(error))
        except Exception as error:
            log.exception("download of %s %s failed", model.name, scheme)
            words = f"Unexpected error: {error} (the traceback is in the app's log)"
            self.status = replace(self.status, state="failed", pace=0.0, words=words)

    def _fetch(self, items: list[download.Item]) -> None:
        arrived = {item.target: item.size - item.left for item in items}
        total = sum(item.size for item in items)
        self.status = replace(self.status, state="running", done=sum(arrived.values()), total=total)
        seen = deque([(time.monotonic(), self.status.done)])

        def on_bytes(item: download.Item, done: int) -> None:
            self._check()
            arrived[item.target] = done
            now, together = time.monotonic(), sum(arrived.values())
            seen.append((now, together))
            while seen[0][0] < now - WINDOW:
                seen.popleft()
            (since, before) = seen[0]
            # Small files at the start say nothing about how fast the large ones will come.
            pace = (together - before) / (now - since) if together - before >= LEAST and now > since else 0.0
            self.status = replace(self.status, done=together, pace=pace, words=item.file)

        def on_found(item: download.Item, path: Path) -> None:
            words = f"{Path(item.file).name} was found in {path.parent} and linked: it need not be downloaded."
            log.info("%s", words)
            self.status = replace(self.status, found=(*self.status.found, words))

        download.fetch(items, on_bytes, on_found)
        self.status = replace(self.status, done=total)

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled
