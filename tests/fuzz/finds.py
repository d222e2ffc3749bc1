"""One input against its parser, within bounds of time; and the corpus of what was found."""

import atexit
import hashlib
import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS
from wan_ui.errors import UserError

CORPUS = Path(__file__).parent / "corpus"
BATCH = 50  # inputs that follow from one number
PATIENCE = 10  # seconds of CPU for an input, however busy the machine is; ffmpeg has its own
MEMORY = 3_000_000_000  # bytes that a process may ask for beyond what it had at its start: ffmpeg's own limit is 2e9


class TooSlow(Exception):
    """An input kept its parser computing for longer than PATIENCE."""


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


def input_of(name: str, start: int, number: int) -> bytes:
    """The same for the same numbers."""
    random = Random(f"{name} {start} {number}")
    return TARGETS[name].change(random, random.choice(seeds(name)), seeds(name))


def try_one(name: str, content: bytes) -> BaseException | None:
    """What came out that is no UserError."""
    path = _file(TARGETS[name].suffix)
    path.write_bytes(content)

    def slow(number, frame):
        raise TooSlow(f"more than {PATIENCE} s")

    before = signal.signal(signal.SIGPROF, slow)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        TARGETS[name].run(path)
    except UserError as error:
        return None if str(error).strip() else error
    except (Exception, RecursionError) as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return None


@cache
def _file(suffix: str) -> Path:
    """In memory, where there is such a folder: so many files are written."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="wan-ui-fuzz-", dir=memory))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / f"{os.getpid()}{suffix}"


def keep(name: str, content: bytes) -> Path:
    """Put a find into the corpus; where."""
    path = CORPUS / name / f"{hashlib.sha256(content).hexdigest()[:12]}{TARGETS[name].suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
