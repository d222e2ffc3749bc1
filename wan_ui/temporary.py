"""Files for a moment: each process has a folder of its own among the system's temporary files.

It goes when the process ends. One that was killed cannot see to that: beside each folder lies a file that its process
has locked, so that another process tells which folders are nobody's, and deletes them.
"""

import atexit
import secrets
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import IO

from wan_ui import locks, system

PREFIX = f"wan-ui-temporary-{system.user_id()}-"

_own: dict[Path, tuple[Path, IO[str]]] = {}  # where temporary files lie -> this process's folder there, its lock
_making = threading.Lock()


def folder() -> Path:
    """This process's, private, made at the first call. Raises OSError where it cannot be."""
    place = Path(tempfile.gettempdir())
    with _making:
        if place not in _own:
            sweep()
            mine = place / f"{PREFIX}{secrets.token_hex(8)}"
            lock = locks.take(_beside(mine))
            assert lock is not None, "nobody else knows its name"
            mine.mkdir(mode=0o700)
            if not _own:
                atexit.register(_remove_own)
            _own[place] = mine, lock
        return _own[place][0]


def sweep() -> None:
    """Delete the folders of processes that have ended. To be called, too, when a child has: it may have been killed."""
    for file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        try:
            found = file.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_uid != system.user_id():
                continue
            lock = locks.take(file)
        except OSError:
            continue
        if lock is not None:
            _remove(file.with_suffix(""), lock)


def _beside(mine: Path) -> Path:
    return mine.with_suffix(".lock")


def _remove(mine: Path, lock: IO[str]) -> None:
    shutil.rmtree(mine, ignore_errors=True)
    locks.release(_beside(mine), lock)


def _remove_own() -> None:
    while _own:
        _remove(*_own.popitem()[1])
    sweep()
