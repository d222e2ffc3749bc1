"""What systems do differently, each with what there is where it lacks: locks of files, signals, limits, priority.

The only file that names what Windows or macOS do not have, beside `wan_ui/media/cpu_limit.py` and `wan_ui/cluster`
(Ray's workers are for Linux). A name is looked up when it is used, since the module may be there without it.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal is closed
ENDING = (signal.SIGINT, signal.SIGTERM, *([] if HANG_UP is None else [HANG_UP]))
KILLED = getattr(signal, "SIGKILL", None)  # the exit code of a process that the system has ended is its negative
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)  # of Windows, where files are texts else
LINKS = [getattr(os, name) for name in ("link", "symlink") if hasattr(os, name)]  # each may be refused
LOCKED_BYTE = 2**30  # beyond what a lock's file holds: on Windows nobody else can read a byte that is locked


def lock(file: IO[str]) -> bool:
    """Lock an open file for this process alone, until it is closed; False while another has it.

    Raises OSError where the file's system has no locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    import msvcrt

    handle = file.fileno()
    os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except PermissionError:
        return False
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True


def user_id() -> int:
    """0 where users have no numbers; their temporary folders are their own there."""
    return os.getuid() if hasattr(os, "getuid") else 0


@contextlib.contextmanager
def endings_held() -> Iterator[None]:
    """Signals that end a program wait meanwhile, for a child that is started too, until it calls `hear_endings`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_endings() -> None:
    """Of a child whose parent sees to them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def end_family(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """A child that was started with `start_new_session`, and what it has started."""
    if hasattr(os, "killpg") and KILLED is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, KILLED)
        return
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    process.kill()


def most_files(wanted: int) -> int:
    """Raise this process's limit of open files as far as it may go, at most to `wanted`; what it then is."""
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except ValueError:  # macOS: the kernel's own limit lies below "infinite"
            return soft
    return max(soft, most)


def limit_addresses(most: int) -> None:
    """Bytes of addresses for this process and for each that it starts, where the system can."""
    if resource is not None:
        with contextlib.suppress(ValueError, OSError):  # macOS takes no such limit
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def stand_back() -> None:
    """Others' processes go first."""
    if hasattr(os, "nice"):
        os.nice(10)
    else:
        psutil.Process().nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10))


def flush(path: Path) -> None:
    """A file, or where that can be a folder's names, onto the disk."""
    if sys.platform == "win32":
        if path.is_dir():
            return
        handle = os.open(path, os.O_RDWR | BINARY)  # only what can be written is flushed there
    else:
        handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def peak_resident() -> int:
    """Bytes of memory that this process had at most; where that is not told, what it has now."""
    taken = psutil.Process().memory_info()
    if peak := getattr(taken, "peak_wset", 0):  # Windows
        return int(peak)
    if resource is None:
        return int(taken.rss)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
