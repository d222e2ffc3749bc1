"""Comparisons that pages ask for: one child process at a time, bounded in time, ended when nobody asks any more.

A page asks again every second while it waits. One that was closed asks no more, and its comparison ends.
"""

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.settings import ROOT, child_environment
from wan_ui.system import end_family

log = logging.getLogger(__name__)

LEFT = 20.0  # seconds without anybody asking after which it ends
KEPT = 32  # results: figures alone, some kB each
CHILD = ("-m", "wan_ui.qa.compare_child")


@dataclass
class Comparison:
    """state: waiting, running, done, failed, left. frames: measured so far; result: see wan_ui.qa.compare_child."""

    owner: str
    request: dict
    state: str = "waiting"
    words: str = ""
    frames: int = 0
    result: dict = field(default_factory=dict)
    asked: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")

    def end(self, state: str, words: str = "") -> None:
        self.state, self.words = state, words
        self.ended.set()


class Comparisons:
    def __init__(self):
        self._known: OrderedDict[str, Comparison] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, owner: str, clips: list[dict], folder: Path | None = None) -> Comparison:
        """The comparison of these clips, begun if it is new, with files in `folder` if that is given.

        clips: path, name and settings of each. Raises UserError when too many are waiting.
        """
        paths = [clip["path"] for clip in clips]
        key, measured = json.dumps([paths, folder and str(folder)]), json.dumps([paths, None])
        with self._lock:
            known = self._known.get(key)
            if known is None or known.state in ("failed", "left"):
                waiting = [other for other in self._known.values() if other.active]
                mine = sum(other.owner == owner for other in waiting)
                if len(waiting) >= limits.COMPARISONS or mine >= limits.COMPARISONS_PER_VISITOR:
                    raise UserError("compare: other comparisons are being made; try again when they are done")
                before = self._known.get(measured)
                pairs = before.result["pairs"] if before is not None and before.state == "done" else None
                request = {"clips": clips, "pairs": pairs, "folder": folder and str(folder)}
                known = self._known[key] = Comparison(owner, request)
                while len(self._known) > KEPT:
                    old = next((name for name, other in self._known.items() if not other.active), None)
                    if old is None:
                        break
                    del self._known[old]
            known.asked = time.monotonic()
            self._known.move_to_end(key)
            if known.active and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="wan-ui-compare", daemon=True)
                self._thread.start()
        return known

    def _run(self) -> None:
        while True:
            with self._lock:
                waiting = next((known for known in self._known.values() if known.state == "waiting"), None)
                if waiting is None:
                    self._thread = None
                    return
                waiting.state = "running"
            try:
                run(waiting)
            except Exception:
                log.exception("a comparison failed")
                waiting.end("failed", "compare: it failed because of an error in Wan UI; its log says more")


def run(comparison: Comparison) -> None:
    """In a child, until it answers, takes too long, or nobody asks any more."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, *CHILD],
            cwd=ROOT,
            env=child_environment({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            start_new_session=True,
        )
        watcher = threading.Thread(target=_watch, args=(comparison, process), daemon=True)
        watcher.start()
        assert process.stdin and process.stdout  # both are pipes
        answer: dict[str, Any] = {}
        try:
            json.dump(comparison.request, process.stdin)
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                comparison.frames = answer.get("done", comparison.frames)
        except (BrokenPipeError, ValueError):
            pass  # it was ended
        finally:
            end_family(process)
            process.stdout.close()
            code = process.wait()
        if not comparison.active:
            return
        if "result" in answer:
            comparison.result = answer["result"]
            comparison.end("done")
        elif "error" in answer:
            comparison.end("failed", answer["error"])
        else:
            errors.seek(0)
            log.error("a comparison ended with exit code %s: %s", code, errors.read()[-4000:])
            comparison.end(
                "failed", f"compare: the process that measures ended with exit code {code}; the log says more"
            )


def _watch(comparison: Comparison, process: subprocess.Popen) -> None:
    begun = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - comparison.asked > LEFT:
            comparison.end("left")
            end_family(process)
        elif time.monotonic() - begun > limits.COMPARISON_SECONDS:
            words = f"compare: it took more than {limits.COMPARISON_SECONDS / 60:.0f} minutes; compare fewer clips"
            comparison.end("failed", words)
            end_family(process)
        time.sleep(0.2)


COMPARISONS = Comparisons()
