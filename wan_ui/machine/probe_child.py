"""The child process that tries one kernel: python -m wan_ui.machine.probe_child.

    python -m wan_ui.machine.probe_child wan_ui.machine.kernels_torch:sdpa '[{"name": "...", "tokens": 1280, ...}]'

prints one JSON object per shape: first {"shape", "entering": true}, then its result.
"""

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import Unfit, device

WARM_UP, RUNS = 3, 10
ENOUGH_SECONDS = 3.0  # of timing


def seconds_of(run: Callable[[], object]) -> float:
    """Median of up to ten runs, by the device's own clock."""
    gpu = device() == "cuda"
    for _ in range(WARM_UP if gpu else 1):
        run()
    spent: list[float] = []
    started = time.perf_counter()
    while len(spent) < RUNS and time.perf_counter() - started < ENOUGH_SECONDS:
        if gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            run()
            end.record()
            end.synchronize()
            spent.append(start.elapsed_time(end) / 1000)
        else:
            before = time.perf_counter()
            run()
            spent.append(time.perf_counter() - before)
    return statistics.median(spent)


def measure(function: str, shape: Shape) -> dict[str, Any]:
    """{"status": "ran", "error", "seconds"}; or "absent" or "failed" with "why", and "out_of_memory" if that is it."""
    try:
        module, _, name = function.partition(":")
        trial = getattr(importlib.import_module(module), name)(shape)
        with torch.inference_mode():
            error = trial.error_of(trial.run())
            return {"status": "ran", "error": error, "seconds": seconds_of(trial.run)}
    except (Unfit, ImportError) as error:
        return {"status": "absent", "why": str(error).splitlines()[0]}
    except Exception as error:  # kernels raise anything; the table is what this is for
        words = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        full = isinstance(error, torch.OutOfMemoryError)
        return {"status": "failed", "why": words, **({"out_of_memory": True} if full else {})}


def main() -> None:
    function, shapes = sys.argv[1], [Shape(**shape) for shape in json.loads(sys.argv[2])]
    for shape in shapes:
        print(json.dumps({"shape": asdict(shape), "entering": True}), flush=True)
        print(json.dumps({"shape": asdict(shape), **measure(function, shape)}), flush=True)


if __name__ == "__main__":
    main()
