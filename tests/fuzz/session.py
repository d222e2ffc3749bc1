"""Fuzzing one target for long, in a process that may crash: bounded memory, bounded time for each input."""

import logging
import multiprocessing
import resource
import time
import traceback
from pathlib import Path

from tests.fuzz.finds import BATCH, MEMORY, input_of, keep, try_one
from tests.fuzz.targets import TARGETS

HUNG = 900.0  # seconds without a next input: the child waits for something, or nobody lets it compute
TELL = 60.0  # seconds between two lines of how far it is
SLICE = 20  # batches that Hypothesis is asked for at once


def fuzz(name: str, inputs: int, minutes: float, seed: int) -> dict:
    """Until so many inputs, or minutes, are over; a process that is ended by an input is followed by another."""
    most = inputs or (0 if minutes else TARGETS[name].full)
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    done, finds, started, round_ = 0, [], time.monotonic(), 0
    said = started
    context = multiprocessing.get_context("spawn")
    while (not most or done < most) and time.monotonic() < end:
        now, ready = context.Array("q", [0, 0, 0]), context.Queue()  # batch, number in it, inputs done
        arguments = (name, most - done if most else 0, end, f"{seed}-{round_}", now, ready)
        child = context.Process(target=_work, args=arguments)
        child.start()
        last, since = (0, 0, 0), time.monotonic()
        while child.is_alive():
            child.join(0.5)
            if time.monotonic() > said + TELL:
                said = time.monotonic()
                print(f"{name}: {done + now[2]} inputs after {said - started:.0f} s", flush=True)
            if tuple(now) != last:
                last, since = tuple(now), time.monotonic()
            elif time.monotonic() - since > HUNG:
                child.kill()
        while not ready.empty():
            finds.append(ready.get())
        done += now[2]
        if child.exitcode:
            content = input_of(name, now[0], now[1])
            words = f"the process ended with {child.exitcode}"
            finds.append([str(keep(name, content)), words])
            print(f"{name}: {words}", flush=True)
            if not now[2]:
                break  # it does not even begin
        round_ += 1
    seconds = time.monotonic() - started
    print(f"{name}: {done} inputs in {seconds:.0f} s, {len(finds)} finds", flush=True)
    return {"name": name, "inputs": done, "seconds": round(seconds), "finds": finds}


def _work(name: str, most: int, end: float, seed: str, now, ready) -> None:
    from hypothesis import HealthCheck, Phase, given, settings, strategies
    from hypothesis import seed as seeded

    _bound()
    logging.getLogger("wan_ui").setLevel(logging.CRITICAL)
    seen: set[str] = set()

    def over() -> bool:
        return time.monotonic() > end or bool(most and now[2] >= most)

    def run(start: int) -> None:
        for number in range(BATCH):
            if over():
                return
            now[0], now[1] = start, number
            content = input_of(name, start, number)
            if (error := try_one(name, content)) is not None:
                place = _place(error)
                if place not in seen:
                    seen.add(place)
                    words = f"{place}: {str(error)[:200]}"
                    ready.put([str(keep(name, content)), words])
                    print(f"{name}: {words}", flush=True)
            now[2] += 1

    some = settings(
        max_examples=SLICE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    number = 0
    while not over():
        some(seeded(f"{seed}-{number}")(given(strategies.integers(0, 2**62))(run)))()
        number += 1


def _bound() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/wan_ui/" in frame.filename] or frames
    return f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"
