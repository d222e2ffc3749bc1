"""The folder in which uploads wait: what it may hold, and what is left behind in it.

Gradio writes an upload beside the others as `tmp...` and moves it when it is whole, into a folder named by its content.
An upload is deleted when it is a day old, or when others need its place and it has waited for a while: a job has its
own copy. A part that nothing was added to for a while belongs to nobody, nor does any part once the app has ended.
"""

import contextlib
import logging
import shutil
import threading
import time
from pathlib import Path

from wan_ui import limits
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

EVERY = 60.0  # seconds between looks
HASH = 64  # letters of a folder's name
DAYS = limits.UPLOAD_DAYS * 86_400  # seconds


class Full(Exception):
    """No room for another upload; says why."""


class Uploads:
    """The folder, and the bytes of those that are arriving."""

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self._arriving = 0
        self._lock = threading.Lock()

    def begin(self, size: int) -> None:
        """Keep `size` bytes for an upload that begins; `end` it. Raises Full.

        The oldest others that have waited long enough go where there is no room.
        """
        with self._lock:
            held = sorted(_whole(self.folder), key=lambda entry: entry[1])
            total, count = sum(entry[2] for entry in held) + self._arriving + size, len(held)
            most, now = self.settings.max_uploads_gb * 1e9, time.time()
            for path, changed, taken in held:
                if total <= most and count < limits.UPLOADS:
                    break
                if abs(now - changed) > limits.UPLOAD_LIFE:
                    shutil.rmtree(path, ignore_errors=True)
                    total, count = total - taken, count - 1
            if total > most or count >= limits.UPLOADS:
                raise Full("There is no room for more uploads now; try again in a few minutes.")
            free = shutil.disk_usage(self.folder).free / 1e6 if self.folder.is_dir() else limits.MIN_FREE_MB
            if free < limits.MIN_FREE_MB:
                raise Full(f"The disk of this Wan UI is full ({free:.0f} MB free): nothing can be uploaded.")
            self._arriving += size

    def end(self, size: int) -> None:
        with self._lock:
            self._arriving -= size


def _whole(folder: Path) -> list[tuple[Path, float, int]]:
    """Folder of each upload that has arrived, when it has, its bytes."""
    found = []
    for path in _entries(folder):
        with contextlib.suppress(OSError):
            if len(path.name) == HASH and path.is_dir() and not path.is_symlink():
                files = [entry.lstat() for entry in path.iterdir()]
                found.append((path, path.lstat().st_mtime, sum(entry.st_size for entry in files)))
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def collect(folder: Path, now: float, idle: float = limits.IDLE_SECONDS) -> int:
    """Delete what belongs to nobody; how many files and folders went. Never raises.

    idle  seconds without a byte after which a part is a leftover
    """
    gone = 0
    for entry in _entries(folder):
        with contextlib.suppress(OSError):
            age = now - entry.lstat().st_mtime
            if entry.name.startswith("tmp") and entry.is_file() and not entry.is_symlink() and age > idle:
                entry.unlink()
                gone += 1
            elif len(entry.name) == HASH and entry.is_dir() and not entry.is_symlink() and age > DAYS:
                shutil.rmtree(entry)
                gone += 1
    if gone:
        log.info("%d left over upload(s) deleted", gone)
    return gone


def keep_clean(folder: Path, ours: bool) -> None:
    """Collect now and from time to time, as long as this process lives. ours: no other app uploads into this folder."""

    def run() -> None:
        while True:
            time.sleep(EVERY)
            collect(folder, time.time())

    collect(folder, time.time(), idle=-1.0 if ours else limits.IDLE_SECONDS)
    threading.Thread(target=run, name="wan-ui-uploads", daemon=True).start()
