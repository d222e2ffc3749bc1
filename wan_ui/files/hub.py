"""The Hugging Face Hub as downloads see it: what a file is, and its bytes, by huggingface_hub in a child process.

Why a child: the library reads from a socket until it times out, and nothing in its interface ends that. A child is
ended, at once, and what it has written stays for the next one. It is kept for the next question, one for each that asks
at the same time. What is written is looked at by its size, so that the child says nothing of a file from Xet either.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.settings import ROOT, child_environment, proxies

LOOK = 0.2  # seconds between reports while nothing arrives: whoever listens may end the download


@dataclass(frozen=True)
class Facts:
    """Of a file at the hub. etag: its sha256, or git's hash of a small file. xet: it is in Xet's store."""

    size: int
    etag: str
    commit: str
    xet: bool = False


class Refused(Exception):
    """The hub has answered, with a status of 400 or more. gated: its licence is to be accepted first."""

    def __init__(self, status: int, gated: bool):
        super().__init__(f"HTTP {status}")
        self.status, self.gated = status, gated


class Child:
    def __init__(self) -> None:
        environment = {f"{scheme}_proxy": proxy for scheme, proxy in proxies().items()}
        environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "wan_ui.files.hub_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(environment),
            cwd=ROOT,
            encoding="utf-8",
            start_new_session=True,  # a Ctrl-C is its parent's to handle
        )
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="wan-ui-hub", daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, question: dict[str, Any], tick: Callable[[int | None], None]) -> Any:
        """tick: called with the bytes that are there as they come, with None while nothing does. Raises as `_failed`
        says, and what `tick` raises."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        while True:
            try:
                line = self.lines.get(timeout=LOOK)
            except queue.Empty:
                tick(None)
                continue
            if not line:
                raise OSError(f"the process that downloads has ended with exit code {self.process.wait()}")
            answer = json.loads(line)
            if "have" in answer:
                tick(answer["have"])
            elif "failed" in answer:
                raise _failed(answer["failed"])
            else:
                return answer["ended"]

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def _failed(said: dict[str, Any]) -> Exception:
    """Refused, a UserError for a disk that does not take what comes, or an OSError after which one may try again."""
    if said["status"]:
        return Refused(said["status"], said["gated"])
    if said["offline"]:
        return UserError("HF_HUB_OFFLINE is set, so nothing is asked of the hub; unset it to download")
    if said["disk"]:
        return UserError(os.strerror(said["errno"]), field="disk")
    return OSError(said["words"])


_idle: list[Child] = []  # children that wait for a question


@contextlib.contextmanager
def _child() -> Iterator[Child]:
    """One that nobody else speaks with. Of whatever ends badly but an answer of the hub's, nothing is left."""
    child = None
    while _idle and child is None:
        with contextlib.suppress(IndexError):  # another thread was first
            found = _idle.pop()
            if found.process.poll() is None:
                child = found
            else:
                found.end()
    child = child or Child()
    try:
        yield child
    except Refused:
        _idle.append(child)
        raise
    except BaseException:
        child.end()
        raise
    _idle.append(child)


def describe(url: str, timeout: float) -> Facts:
    """Raises Refused, OSError without a network, UserError in offline mode or where nothing is said of the file."""
    with _child() as child:
        question = {"do": "describe", "url": url, "endpoint": _endpoint(url), "timeout": timeout}
        found = child.ask(question, lambda have: None)
    etag = found["etag"] or ""
    if found["size"] is None or len(etag) not in (40, 64):
        raise UserError(f"{url}: the hub names neither size nor checksum")
    return Facts(found["size"], etag, found["commit"] or "", found["xet"])


def receive(
    url: str, part: Path, size: int, xet: bool, timeout: float, chunk: int, on_bytes: Callable[[int], None]
) -> None:
    """Append to `part`, the beginning of the file. on_bytes: told how much is there, again and again; what it raises
    ends the transfer at once. Raises as `describe`, and UserError with the field "disk"."""

    def tick(have: int | None) -> None:
        on_bytes(written(part, size) if have is None else have)

    question = {"do": "receive", "url": url, "endpoint": _endpoint(url), "part": str(part), "size": size}
    with _child() as child:
        child.ask({**question, "xet": xet, "timeout": timeout, "chunk": chunk}, tick)


def written(part: Path, size: int) -> int:
    """Bytes of the file that are there. One that was given its whole length at once has holes, which count for
    nothing."""
    try:
        found = part.stat()
    except OSError:
        return 0
    return found.st_size if found.st_size < size else min(size, found.st_blocks * 512)


def _endpoint(url: str) -> str:
    """The hub's address: what is before OWNER/REPO/resolve/."""
    return url.partition("/resolve/")[0].rsplit("/", 2)[0]
