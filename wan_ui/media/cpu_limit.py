"""The seconds of CPU that a decoder may use: the system's own limit where a running process can be given one (Linux),
elsewhere a thread that looks at what it has used, ten times a second."""

import contextlib
import math
import os
import subprocess
import threading

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LOOK = 0.1  # seconds


def limited(process: "subprocess.Popen[bytes]", seconds: float) -> "SystemLimit | Watch":
    system = hasattr(resource, "prlimit") and hasattr(os, "wait4")
    return SystemLimit(process, seconds) if system else Watch(process, seconds)


class SystemLimit:
    """At so many seconds of CPU the system sends SIGXCPU, at which ffmpeg ends itself, and again every second."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float):
        self.process = process
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        self.allowed = math.ceil(seconds)
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            _, most = resource.prlimit(self.process.pid, resource.RLIMIT_CPU)
            limit = self.allowed if most == resource.RLIM_INFINITY else min(self.allowed, most)
            resource.prlimit(self.process.pid, resource.RLIMIT_CPU, (limit, most))

    def kill(self) -> None:
        """Not Popen.kill, which asks for the exit status of one that has ended: `wait` does."""
        os.kill(self.process.pid, 9)

    def wait(self) -> bool:
        """Once its output has ended: sets its returncode. Whether it had used what it might."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime > self.allowed - 0.5


class Watch:
    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float):
        self.process, self.allowed, self.stopped, self.ended = process, seconds, False, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def allow(self, seconds: float) -> None:
        self.allowed = seconds

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> bool:
        self.process.wait()
        self.ended.set()
        return self.stopped

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended
            seen = psutil.Process(self.process.pid)
            while not self.ended.wait(LOOK):
                times = seen.cpu_times()
                if times.user + times.system > math.ceil(self.allowed):
                    self.stopped = True
                    self.process.kill()
                    return
