"""Locks between processes: a file that only one may hold (flock). They end with the process, however it ends."""

import fcntl
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import IO

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
    place = Path(tempfile.gettempdir()) / f"wan-ui-{os.getuid()}-{name}.lock"
    return _take(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)


def release(path: Path, lock: IO[str]) -> None:
    """Give a lock back and remove its file, for locks of things that come and go."""
    path.unlink(missing_ok=True)
    lock.close()


def _take(path: Path, flags: int) -> IO[str] | None:
    while True:
        file = os.fdopen(os.open(path, flags, 0o644), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()  # the one before has removed it meanwhile: take the new one
