"""A program that hides what Windows and macOS lack, then makes a clip: python -m tests.unit.hidden FOLDER PICTURE

Its worker is a spawned child, which imports this file again and so hides the same.
"""

import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import fcntl  # isort: skip

GONE = {
    os: "killpg getuid geteuid wait4 wait3 O_NOFOLLOW sysconf nice sched_getaffinity symlink mkfifo getloadavg",
    signal: "SIGHUP SIGSTOP SIGCONT SIGUSR1 SIGUSR2 pthread_sigmask setitimer",
}


def locking(handle: int, mode: int, count: int) -> None:
    """As Windows does: an error where another has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise PermissionError(13, "Permission denied") from error


def hide() -> None:
    for module, names in GONE.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    resources = sys.modules.get("multiprocessing.resource_tracker")
    if resources is not None:
        resources._HAVE_SIGMASK = False
    stand_in = ModuleType("msvcrt")
    stand_in.locking, stand_in.LK_NBLCK = locking, 2
    sys.modules["msvcrt"] = stand_in
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        sys.modules[name] = None


import multiprocessing.spawn  # noqa: E402, F401

import psutil  # noqa: E402, F401

hide()


def main(folder: str, picture: str) -> None:
    from tests.conftest import scripted
    from wan_ui import locks, system
    from wan_ui.errors import UserError
    from wan_ui.media import muxer
    from wan_ui.queue.draft import Draft
    from wan_ui.queue.pipeline import Pipeline

    assert system.fcntl is None and system.resource is None and system.HANG_UP is None
    there = Path(folder)
    there.mkdir()
    lock = locks.take(there / "lock")
    assert lock is not None
    locks.release(there / "lock", lock)
    assert not (there / "lock").exists()

    settings = scripted(there)
    pipeline = Pipeline().open(settings, engine_factory="tests.scripted_engine:create_engine")
    try:
        job = pipeline.wait(pipeline.submit(Draft({"image": picture, "prompt": "calm"})))
        assert job.state == "done", job.error
        assert len(muxer.read_frames(pipeline.clip(job))[0]) == 5
        try:
            Pipeline().open(settings, engine_factory="tests.scripted_engine:create_engine")
        except UserError as error:
            print(error)
        else:
            raise AssertionError("two have the same queue")
    finally:
        pipeline.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("all of it")
