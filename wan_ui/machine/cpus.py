"""How many CPUs this process may really use: the cores it may run on, and no more than a container's quota.

A container started with `--cpus 2` on a machine with 64 cores sees all 64. Its quota is in files of the kernel's
control groups, of which there are two versions, and both may be mounted at once. A quota holds for all groups below
the one that has it, so each group from this process's own up to the root is asked.
"""

import math
import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def allowed_cpus(mount: Path = MOUNT, own: Path = OWN) -> int:
    """At least 1. A quota of 1.5 CPUs counts as 2: two threads get more out of it than one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota(mount, own))))


def cpu_quota(mount: Path = MOUNT, own: Path = OWN) -> float:
    """CPUs that the control groups of this process allow; inf where there is no limit."""
    quotas = [math.inf]
    for line in _text(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:  # version 2, alone or beside version 1
            for folder in _upwards(mount, group) + _upwards(mount / "unified", group):
                quotas.append(_quota(*_text(folder / "cpu.max").partition(" ")[::2]))
        elif "cpu" in controllers.split(","):
            for root in dict.fromkeys((controllers, "cpu", "cpu,cpuacct", "cpuacct,cpu")):
                for folder in _upwards(mount / root, group):
                    quotas.append(_quota(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    return min(quotas)


def _upwards(root: Path, group: str) -> list[Path]:
    """The folders of a group and of those above it. In a container the path may be the host's, and only root exists."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _quota(limit: str, period: str) -> float:
    """Both in microseconds; "max" and -1 are no limit."""
    try:
        share = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return math.inf
    return share if share > 0 else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
