"""Probes that misbehave as kernels built for another GPU do."""

import ctypes
import subprocess
import sys
import time

from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import Trial


def segfault(shape: Shape) -> Trial:
    """Right on small shapes; beyond them a real SIGSEGV."""
    if shape.tokens <= 16:
        return Trial(lambda: 1.0, lambda result: 0.001)
    return Trial(lambda: ctypes.string_at(0), lambda result: 0.0)


def wrong(shape: Shape) -> Trial:
    return Trial(lambda: 1.0, lambda result: 0.7)


def not_a_number(shape: Shape) -> Trial:
    return Trial(lambda: 1.0, lambda result: float("nan"))


def raising(shape: Shape) -> Trial:
    raise RuntimeError("no kernel image is available for execution on the device")


def chatty(shape: Shape) -> Trial:
    print('{"not": "an answer"}')
    print("Loading extension...")
    return Trial(lambda: 1.0, lambda result: 0.002)


def by_shape(shape: Shape) -> Trial:
    kinds = {"wrong": wrong, "not a number": not_a_number, "raising": raising, "chatty": chatty}
    return kinds[shape.name](shape)


def endless(shape: Shape) -> Trial:
    """Never returns, and neither does a process that it has started."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
