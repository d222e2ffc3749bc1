"""The app that is soaked: its processes, its disk, and its job table as a bystander reads it."""

import contextlib
import os
import random
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wan_ui.queue.jobs import ENDED
from wan_ui.settings import ROOT

PATIENCE = 600.0  # seconds for anything to happen; nothing here measures speed


def until(condition, what: str, seconds: float = PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.1)
    return value


def free_port() -> int:
    """Below those that the system gives to clients, who would take it while the app is away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


class App:
    """port: 0 for a free one. module: what is started instead of app.py. away: when it was not there, (from, to) on the
    monotonic clock."""

    def __init__(self, folder: Path, disk: Path, port: int, module: str, environ: dict[str, str]):
        self.port = port or free_port()
        self.url, self.outputs, self.log = f"http://127.0.0.1:{self.port}", disk / "outputs", folder / "app.log"
        self.temporary = disk / "tmp"
        self.temporary.mkdir()
        self.command = [sys.executable, "-m", module] if module else [sys.executable, "app.py"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAN_UI_", "GRADIO_"))}
        self.environ = {
            **kept,
            "WAN_UI_PORT": str(self.port),
            "WAN_UI_OUTPUTS": str(self.outputs),
            "WAN_UI_CACHE": str(ROOT / "build" / "soak-cache"),
            "WAN_UI_STAGE_TIMEOUT": "300",  # of what is not killed; a machine may be busy
            "WAN_UI_PROXIES": "127.0.0.1",  # each user says an address of their own
            "TMPDIR": str(self.temporary),
            "PYTHONUNBUFFERED": "1",
            **environ,
        }
        self.process: subprocess.Popen | None = None
        self.away: list[list[float]] = [[time.monotonic(), float("inf")]]

    def start(self) -> None:
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environ, stdout=log, stderr=log)

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the app has ended:\n{self.words()[-3000:]}")
            return "Wan UI: http" in self.log.read_bytes()[before:].decode(errors="replace")

        until(ready, "the app does not start")
        self.away[-1][1] = time.monotonic()

    def end(self, how: signal.Signals) -> int:
        self.away.append([time.monotonic(), float("inf")])
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def was_away(self, since: float) -> bool:
        """Whether it was not there at some moment between then and now; a little is given for what was on its way."""
        return any(start - 1 < time.monotonic() and end + 3 > since for start, end in self.away)

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def all_processes(self) -> list[psutil.Process]:
        """Of this app and of those before it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("WAN_UI_OUTPUTS") == str(self.outputs) and process.pid != os.getpid():
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [one for one in psutil.Process(self.process.pid).children() if "spawn_main" in str(one.cmdline())]
        return []


class Disk:
    """A file system of its own where we may mount one, which root may: it can be really full. Elsewhere the app and its
    children may let no file grow meanwhile (RLIMIT_FSIZE), which is the same to every writer, but not to who asks
    beforehand how much is free."""

    def __init__(self, folder: Path, megabytes: int):
        self.folder = folder / "disk"
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "wan-ui-soak", str(self.folder)]
        try:
            self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        except OSError:
            self.mounted = False
        self.how = f"a tmpfs of {megabytes} MB, filled" if self.mounted else "no file may grow (RLIMIT_FSIZE)"

    def fill(self, app: App) -> None:
        if not self.mounted:
            return self._limit(app, 0)
        with (self.folder / "filling").open("wb", buffering=0) as file:
            for size in (2**20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self, app: App) -> None:
        if not self.mounted:
            return self._limit(app, resource.RLIM_INFINITY)
        (self.folder / "filling").unlink(missing_ok=True)

    def _limit(self, app: App, most: int) -> None:
        for process in app.all_processes():
            with contextlib.suppress(psutil.Error):
                process.rlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


@dataclass
class Sample:
    """Of a process at a moment. ended, done: jobs that had by then."""

    kind: str
    pid: int
    second: float
    bytes: int
    handles: int
    ended: int
    done: int


@dataclass
class Watch(threading.Thread):
    """Looks at the table and at the processes. states: of each job, every state it was seen in, in order."""

    app: App
    every: float
    states: dict[str, list[str]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self.over.wait(self.every):
            self.look()

    def look(self) -> None:
        for job_id, state in self.rows("SELECT id, state FROM jobs"):
            seen = self.states.setdefault(job_id, [])
            if seen[-1:] != [state]:
                seen.append(state)
        with contextlib.suppress(psutil.Error):
            processes = {"page": [psutil.Process(self.app.process.pid)], "worker": self.app.workers()}
            for kind, found in processes.items():
                for one in found:
                    with one.oneshot():
                        taken, handles = one.memory_info().rss, one.num_fds()
                    done = self.counts()["done"]
                    self.samples.append(Sample(kind, one.pid, time.monotonic(), taken, handles, self.ended(), done))

    def rows(self, query: str) -> list[tuple]:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.app.outputs}/wan_ui.sqlite?mode=ro", uri=True)) as db:
                return db.execute(query).fetchall()
        except sqlite3.Error:
            return []  # there is another look in a moment

    def counts(self) -> Counter:
        return Counter(seen[-1] for seen in list(self.states.values()))

    def ended(self) -> int:
        counts = self.counts()
        return sum(counts[state] for state in ENDED)
