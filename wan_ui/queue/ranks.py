"""The processes of a worker that makes one clip on several GPUs, and the watch over them.

The first rank is the worker's child as ever (wan_ui.queue.desk); the others follow it (wan_ui.engines.group_engine).
Every process writes the time into memory that all share, twice a second, from a thread of its own: one that has ended,
was stopped, or has not written for a while is a fault of the whole group, since all others wait for it in an exchange.
All are ended then, and the next message starts a new group.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from wan_ui import temporary
from wan_ui.engines import group
from wan_ui.engines.group_engine import Place

log = logging.getLogger(__name__)

BEAT = 0.5  # seconds between two signs of life
STOPPED = 2.0  # seconds for which a process must be seen stopped by a signal
HUNG = 30.0  # seconds without a sign of life; while it loads libraries a process may be busy for some
SETTLE = 5.0  # seconds for the first rank to say itself what has failed


@dataclass
class Seat:
    """What a rank's process is started with.

    beats   of every rank the time of its last sign of life
    made    of every rank how many exchanges it has begun
    broken  not 0: the group is to be ended after the answer
    faults  of another rank: where it tells an error of its own
    """

    place: Place
    beats: Any
    made: Any
    broken: Any
    faults: Connection | None = None

    def sit(self) -> None:
        """Give signs of life from now on, and end with the process that started this one."""
        threading.Thread(target=self._beat, name="wan-ui-beat", daemon=True).start()

    def _beat(self) -> None:
        parent = multiprocessing.parent_process()
        while True:
            self.beats[self.place.rank] = time.monotonic()
            self.made[self.place.rank] = group.here().exchanges
            time.sleep(BEAT)
            if parent is not None and not parent.is_alive():
                os._exit(0)

    def break_up(self) -> None:
        self.broken.value = 1

    def fault(self, words: str) -> None:
        if self.faults is not None:
            self.faults.send(words)


class Ranks:
    """Of one worker, from its start to its end. The first rank's process is given to `watch`."""

    def __init__(self, size: int):
        context = multiprocessing.get_context("spawn")
        self.context, self.size = context, size
        self.folder = tempfile.TemporaryDirectory(prefix="group-", dir=temporary.folder())
        self.beats = context.Array("d", size, lock=False)
        self.made = context.Array("l", size, lock=False)
        self.broken = context.Value("i", 0, lock=False)
        meeting = Path(self.folder.name) / "meeting"
        pairs = [context.Pipe() for _ in range(size - 1)]
        pipes = [context.Pipe(duplex=False) for _ in range(size - 1)]
        self.faults = [mine for mine, _ in pipes]
        self.theirs = [end for pair in pairs for end in pair] + [end for _, end in pipes]  # closed here once given
        self.seats = [Seat(Place(0, size, meeting, [mine for mine, _ in pairs]), self.beats, self.made, self.broken)]
        for rank, ((_, line), (_, faults)) in enumerate(zip(pairs, pipes, strict=True), start=1):
            self.seats.append(Seat(Place(rank, size, meeting, [line]), self.beats, self.made, self.broken, faults))
        self.processes: list[BaseProcess] = []
        self.suspected: dict[int, float] = {}  # rank -> since when it looks as if it had stopped
        self.fault: tuple[float, str] | None = None

    def start(self, first: BaseProcess, target: Any, arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
        """Start the first rank's process, and the others with `target(seat, stderr, *arguments)`."""
        now = time.monotonic()
        for rank in range(self.size):
            self.beats[rank] = now
        self.processes = [first]
        for seat in self.seats[1:]:
            stderr = str(Path(self.folder.name) / f"rank{seat.place.rank}.log")
            name = f"wan-ui-rank-{seat.place.rank}"
            self.processes.append(
                self.context.Process(
                    target=target, args=(seat, stderr, *arguments, environment), name=name, daemon=True
                )
            )
        for process in self.processes:
            process.start()
        for end in self.theirs:
            end.close()

    def alive(self) -> bool:
        return not self.broken.value and all(process.is_alive() for process in self.processes)

    def trouble(self) -> str:
        """Which rank has ended, has stopped or has failed, in words for whoever waits; "" while all is well."""
        for rank, process in enumerate(self.processes):
            if rank and process.exitcode is not None:
                return f"rank {rank} {self._end_of(rank, process.exitcode)}"
        now = time.monotonic()
        for rank, process in enumerate(self.processes):
            stopped, silent = is_stopped(process.pid), now - self.beats[rank] > HUNG
            if not (stopped or silent):
                self.suspected.pop(rank, None)
            elif now - self.suspected.setdefault(rank, now) > STOPPED:
                return f"rank {rank} " + ("was stopped by a signal" if stopped else f"gave no sign for {HUNG:.0f} s")
        for rank, pipe in enumerate(self.faults, start=1):
            if self.fault is None and pipe.poll():
                try:
                    words = str(pipe.recv())
                except (EOFError, OSError):
                    continue
                log.error("rank %d: %s", rank, words)
                self.fault = now, f"rank {rank} failed: {words.strip().splitlines()[-1]}"
        if self.fault is not None and now - self.fault[0] > SETTLE:
            return self.fault[1]
        return ""

    def behind(self) -> str:
        """Which rank the others seem to wait for, in words; "" where all have come equally far."""
        made = list(self.made)
        return "" if min(made) == max(made) else f" (the others wait for rank {made.index(min(made))})"

    def settled(self) -> str:
        """`trouble`, where another rank's end may be what the first one's error comes from: it shows a moment later."""
        until = time.monotonic() + BEAT
        while time.monotonic() < until:
            if words := self.trouble():
                return words
            time.sleep(BEAT / 10)
        return ""

    def forget(self) -> None:
        """The message is answered: a fault that came with the answer is not the next one's."""
        self.fault = None
        for rank, pipe in enumerate(self.faults, start=1):
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll():
                    log.info("rank %d: %s", rank, pipe.recv())

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def close(self) -> None:
        self.kill()
        for pipe in self.faults:
            pipe.close()
        self.folder.cleanup()

    def _end_of(self, rank: int, code: int) -> str:
        last = Path(self.folder.name) / f"rank{rank}.log"
        if last.is_file() and (stack := last.read_text(encoding="utf-8", errors="replace").strip()):
            log.error("rank %d's last words:\n%s", rank, stack)
        if code >= 0:
            return f"ended with exit code {code}"
        number = -code
        return "was ended by " + (signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}")


def is_stopped(pid: int | None) -> bool:
    """Whether a signal has stopped the process, as Ctrl-Z and debuggers do."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")
