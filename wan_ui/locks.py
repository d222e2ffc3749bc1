"""Locks between processes: a file that only one may hold . They end with the process, however it ends."""

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import IO

from wan_ui import system

log = logging.getLogger(__name__)


def take(path: Path) -> IO[str] | None:
    """An open file that holds the lock until it is closed; None while somebody else has it.

    Where the file system of `path` has no locks (NFS without its daemon, Lustre, some in user space) a file
    in the temporary folder stands for it: that keeps the processes of this machine apart.
    Raises OSError when neither can be had.
    """
    try:
        return _take(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        raise
    except OSError as error:
        if not path.exists():  # it could not be made: that is no question of locks
            raise
        log.warning("%s: its file system has no locks (%s); only this machine's processes are kept apart", path, error)
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    place = Path(tempfile.gettempdir()) / f"wan-ui-{system.user_id()}-{name}.lock"
    return _take(place, os.O_RDWR | os.O_CREAT | system.NO_FOLLOW)


def release(path: Path, lock: IO[str]) -> None:
    """Give a lock back and remove its file, for locks of things that come and go."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # Windows keeps what is open; and then, what another has taken meanwhile
        lock.close()
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)
    lock.close()


def _take(path: Path, flags: int) -> IO[str] | None:
    while True:
        file = os.fdopen(os.open(path, flags, 0o644), "r+")
        try:
            if not system.lock(file):
                file.close()
                return None
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()  # the one before has removed it meanwhile: take the new one
