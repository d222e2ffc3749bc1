"""Who works in a pool, as rows for the page, `/metrics` and the command `workers`, in another process.

The app that owns the queue keeps `workers.json` in the outputs folder; without its lock that file is history.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerRow:
    """state: loading | ready | working | failed | none (nothing loaded). words: why, for people.

    job       that it runs; "" when none
    memory    GiB of host memory of its child; gpu_used, gpu_total: GiB of its GPU, 0 without one or when not known
    celsius   of its GPU; None when not known
    crashes   of its child in the middle of a job, since the app has started
    """

    name: str
    device: str
    state: str
    model: str = ""
    scheme: str = ""
    words: str = ""
    job: str = ""
    memory: float = 0.0
    gpu_used: float = 0.0
    gpu_total: float = 0.0
    celsius: int | None = None
    crashes: int = 0


def write(outputs: Path, rows: list[WorkerRow]) -> None:
    """Raises OSError."""
    part = outputs / f".workers.{os.getpid()}.part"
    part.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    part.replace(outputs / "workers.json")


def read(outputs: Path) -> list[WorkerRow]:
    """[] when there are none, or when another version wrote them."""
    try:
        return [WorkerRow(**row) for row in json.loads((outputs / "workers.json").read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
