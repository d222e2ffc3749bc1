"""A LoRA fetched from the hub in the background, for the page: one at a time, observed and cancelled from any tab."""

import logging
import threading
from dataclasses import dataclass, replace

from wan_ui.errors import Cancelled, UserError
from wan_ui.files import download
from wan_ui.loras.arrival import Link, arriving, check_room, keep, read_link
from wan_ui.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraDownload:
    """state: none | asking (the hub for its size) | running | done | failed | cancelled.

    name         as it is to be called here, or is
    done, total  bytes
    words        why it failed
    kept         how many have been kept since the app was started
    """

    state: str = "none"
    name: str = ""
    done: int = 0
    total: int = 0
    words: str = ""
    kept: int = 0

    @property
    def active(self) -> bool:
        return self.state in ("asking", "running")


class LoraDownloads:
    def __init__(self, settings: Settings):
        self.settings = settings
        self.status = LoraDownload()
        self._cancel = threading.Event()
        self._lock = threading.Lock()

    def start(self, words: str) -> None:
        """Begin with what a link names; returns at once. Raises UserError, also when one is running already."""
        link = read_link(words, self.settings)
        with self._lock:
            if self.status.active:
                raise UserError(f"link: {self.status.name} is being fetched; wait for it or cancel it", field="link")
            self._cancel.clear()
            self.status = LoraDownload("asking", link.name, kept=self.status.kept)
        threading.Thread(target=self._run, args=(link,), name="wan-ui-lora", daemon=True).start()

    def cancel(self) -> None:
        self._cancel.set()

    def _run(self, link: Link) -> None:
        try:
            name = self._fetch(link)
            self.status = replace(self.status, state="done", name=name, kept=self.status.kept + 1)
            log.info("the LoRA %s was fetched from %s", name, link.url(self.settings))
        except Cancelled:
            self.status = replace(self.status, state="cancelled")
        except UserError as error:
            log.error("the LoRA %s was not fetched: %s", link.name, error)
            self.status = replace(self.status, state="failed", words=error.words)
        except Exception as error:
            log.exception("the LoRA %s was not fetched", link.name)
            words = f"Unexpected error: {error} (the traceback is in the app's log)"
            self.status = replace(self.status, state="failed", words=words)

    def _fetch(self, link: Link) -> str:
        """The name under which it is kept. Raises UserError or Cancelled."""
        url = link.url(self.settings)
        with arriving(self.settings) as folder:
            try:
                item = download.describe(link.repo, link.file, folder / link.name, url)
            except OSError as error:
                reason = getattr(error, "reason", "") or error
                raise UserError(f"link: {self.settings.hub} cannot be reached ({reason})", field="link") from None
            check_room(item.size, self.settings, "link")
            self.status = replace(self.status, state="running", total=item.size)

            def on_bytes(item: download.Item, done: int) -> None:
                if self._cancel.is_set():
                    raise Cancelled
                self.status = replace(self.status, done=done)

            on_bytes(item, 0)
            download.fetch([item], on_bytes)
            return keep(folder / link.name, self.settings, "link")
