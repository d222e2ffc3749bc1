"""Ctrl-C, SIGTERM (`docker stop`) and SIGHUP (the terminal is closed) end a program alike: once, in order, without a
traceback."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from wan_ui.system import ENDING, HANG_UP


class Stop(KeyboardInterrupt):
    """The program was asked to end. `code` is its exit code, by the shells' custom."""

    def __init__(self, number: int):
        super().__init__()
        self.code = 128 + number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """The first signal raises Stop; more of them do not disturb what is being put in order."""
    numbers = list(ENDING)
    if HANG_UP is not None and signal.getsignal(HANG_UP) == signal.SIG_IGN:  # nohup: it is to go on
        numbers.remove(HANG_UP)
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stop(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
