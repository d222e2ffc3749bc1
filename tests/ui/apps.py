"""The app as a process, started as users start it, or forked from one that has imported all of it."""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port
from wan_ui.settings import ROOT

# Seconds: what a right app needs even on a machine that is busy ten times over. Nothing here measures speed.
PATIENCE = 120


class Forks:
    """Starts apps by forking one process that has imported all of them, see fork_scripted.py."""

    def __init__(self) -> None:
        environ = {**own_environment(), "PYTHONUNBUFFERED": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
        command, pipe = [sys.executable, "-m", "tests.ui.fork_scripted"], subprocess.PIPE
        self.server = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, text=True)

    def start(self, environ: dict[str, str], log: Path) -> "Forked":
        return Forked(self.ask(environ=environ, log=str(log)), self)

    def ask(self, **asked) -> int:
        assert self.server.stdin and self.server.stdout
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def close(self) -> None:
        self.server.communicate()  # the end of its input is its own


class Forked:
    """A process that somebody else started, used like a `subprocess.Popen`."""

    def __init__(self, pid: int, forks: Forks):
        self.pid, self.forks, self.handle = pid, forks, os.pidfd_open(pid)

    def poll(self) -> str | None:
        return "ended" if select.select([self.handle], [], [], 0)[0] else None

    def send_signal(self, how: signal.Signals) -> None:
        signal.pidfd_send_signal(self.handle, how)

    def wait(self, seconds: float) -> None:
        if not select.select([self.handle], [], [], seconds)[0]:
            raise TimeoutError(f"process {self.pid} has not ended in {seconds:g} s")

    @functools.cached_property
    def returncode(self) -> int:
        """Of one that has ended."""
        return self.forks.ask(ended=self.pid)


def own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("WAN_UI_", "GRADIO_"))}


class App:
    """One app process. `module` None: `python app.py`, the app as users start it. forks: what starts it instead."""

    def __init__(
        self, folder: Path, module: str | None = "tests.ui.serve_scripted", forks: Forks | None = None, **environ: str
    ):
        self.folder, self.module, self.forks = folder, module, forks
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / "app.log"
        self.environ = {
            **own_environment(),
            "WAN_UI_PORT": str(self.port),
            "WAN_UI_OUTPUTS": str(folder / "outputs"),
            "PYTHONUNBUFFERED": "1",
            **environ,
        }

    def popen(self, **options) -> subprocess.Popen:
        command = [sys.executable, "-m", self.module] if self.module else [sys.executable, "app.py"]
        return subprocess.Popen(command, cwd=ROOT, env=self.environ, **options)

    def start(self) -> "App":
        self.started = time.monotonic()
        before = len(self.log()) if self.log_file.exists() else 0
        self.process: subprocess.Popen | Forked
        if self.forks:
            self.process = self.forks.start(self.environ, self.log_file)
        else:
            with self.log_file.open("a") as log:
                self.process = self.popen(stdout=log, stderr=subprocess.STDOUT)
        while True:
            # A bare socket: asking with httpx every time takes half a core from the app that is starting.
            try:
                # Its port answers a moment before its events do: it says when it is ready.
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                if "Wan UI: http" not in self.log()[before:]:
                    raise ConnectionError
                return self
            except OSError:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() - self.started < 3 * PATIENCE, self.log()
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(PATIENCE)

    def jobs(self) -> list[Path]:
        """The folders of the jobs that were submitted; not those that a job being submitted is about to rename."""
        clips = self.folder / "outputs" / "clips"
        return [folder for folder in clips.iterdir() if not folder.name.startswith(".")]

    def log(self) -> str:
        return self.log_file.read_text()
