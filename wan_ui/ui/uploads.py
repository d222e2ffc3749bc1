"""What uploads leave behind in Gradio's folder: parts of broken ones, and files of an app that was killed.

Gradio writes an upload beside the others as `tmp...` and moves it when it is whole, and deletes files a day later as
long as the app lives. A part that nothing was added to for a while, and a folder older than that day, belong to nobody.
"""

import contextlib
import logging
import shutil
import threading
import time
from pathlib import Path

from wan_ui.ui.body import IDLE

log = logging.getLogger(__name__)

DAY = 86_400.0  # seconds; see `delete_cache` in page.py
EVERY = 60.0  # seconds between looks
HASH = 64  # letters of a folder's name


def collect(folder: Path, now: float, idle: float = IDLE) -> int:
    """Delete what belongs to nobody; how many files and folders went. Never raises.

    idle  seconds without a byte after which a part is a leftover
    """
    gone = 0
    try:
        entries = list(folder.iterdir())
    except OSError:
        return 0
    for entry in entries:
        with contextlib.suppress(OSError):
            age = now - entry.lstat().st_mtime
            if entry.name.startswith("tmp") and entry.is_file() and not entry.is_symlink() and age > idle:
                entry.unlink()
                gone += 1
            elif len(entry.name) == HASH and entry.is_dir() and not entry.is_symlink() and age > DAY:
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

    collect(folder, time.time(), idle=-1.0 if ours else IDLE)
    threading.Thread(target=run, name="wan-ui-uploads", daemon=True).start()
