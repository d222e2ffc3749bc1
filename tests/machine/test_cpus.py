"""How many threads: a container's quota in either version of control groups, and the cores it may run on."""

import math
import os

import pytest

from wan_ui.machine.cpus import allowed_cpus, cpu_quota


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """groups(own, files): a machine of 64 cores; the number of CPUs that `allowed_cpus` finds."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))

    def groups(own: str, files: dict[str, str]) -> int:
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return allowed_cpus(tmp_path / "fs", tmp_path / "cgroup")

    return groups


V1 = "9:name=systemd:/docker/1a\n4:cpu,cpuacct:/docker/1a\n3:cpuset:/docker/1a\n"


@pytest.mark.parametrize(
    "own, files, cpus",
    [
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),  # docker run --cpus 2, version 2
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/\n", {"cpu.max": "nonsense"}, 64),
        ("0::/\n", {}, 64),
        ("", {}, 64),
        # systemd: the slice above has the tighter limit
        (
            "0::/user.slice/a.service\n",
            {"user.slice/cpu.max": "400000 100000", "user.slice/a.service/cpu.max": "max 1"},
            4,
        ),
        # the host's path, while only the container's own group is mounted
        ("0::/../../kubepods/pod1\n", {"cpu.max": "300000 100000"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "50000"}, 5),
        (V1, {"cpu/docker/1a/cpu.cfs_quota_us": "100000", "cpu/docker/1a/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "700000", "cpu/cpu.cfs_period_us": "100000"}, 7),  # both at once
    ],
)
def test_the_quota_of_a_container_counts(groups, own, files, cpus):
    assert groups(own, files) == cpus


def test_the_cores_it_may_run_on_count_too(groups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
    assert groups("0::/\n", {"cpu.max": "max 100000"}) == 3
    assert groups("0::/\n", {"cpu.max": "200000 100000"}) == 2
    assert groups("0::/\n", {"cpu.max": "800000 100000"}) == 3


def test_no_quota_is_no_limit(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "nothing") == math.inf
