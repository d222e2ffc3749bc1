"""What the next clip will take of memory, told by earlier ones, and what of this machine's is taken."""

from collections import namedtuple
from dataclasses import replace

import pytest

from tests.job_requests import job_request
from wan_ui.catalog import load_catalog
from wan_ui.machine import memory
from wan_ui.machine.gpus import Look
from wan_ui.queue.jobs import Job
from wan_ui.queue.memory_needed import measured
from wan_ui.queue.roster import WorkerRow
from wan_ui.request import Result
from wan_ui.settings import Settings
from wan_ui.ui import memory_part
from wan_ui.ui.view import View

SMALL, LARGE = 256 * 256 * 17, 256 * 256 * 33


def job(frames: int = 17, state: str = "done", **took) -> Job:
    scheme = took.pop("scheme", "bf16")
    return Job("a", "local", state, job_request(frames=frames, scheme=scheme), 0.0, result=Result(memory=took))


@pytest.mark.parametrize(
    "jobs, pixels, gpu, expected",
    [
        ([], SMALL, False, None),
        ([job(host_peak=1.5)], SMALL, False, 1.5),
        ([job(host_peak=1.5)], LARGE, False, None),  # of a larger one that says nothing
        ([job(33, host_peak=2.5)], SMALL, False, 2.5),
        ([job(33, host_peak=2.5), job(host_peak=1.5)], SMALL, False, 1.5),
        ([job(host_peak=2.5), job(host_peak=1.5)], SMALL, False, 1.5),  # after a large one, and before it
        ([job(host_peak=1.5, scheme="fp8")], SMALL, False, None),
        ([job(host_peak=1.5, state="failed")], SMALL, False, None),
        ([job()], SMALL, False, None),
        ([job(host_peak=1.5, gpu_peak=20.0, gpu_context=0.5)], SMALL, True, 20.5),
        ([job(host_peak=1.5)], SMALL, True, None),
    ],
)
def test_the_smallest_clip_that_was_as_large_tells(jobs, pixels, gpu, expected):
    assert measured(jobs, "wan-tiny", "bf16", pixels, gpu) == expected


def test_the_line_above_generate_says_it_before_the_run(monkeypatch):
    monkeypatch.setattr(memory, "host", lambda: (6.0, 24.0))
    model = load_catalog(Settings().catalog)["wan-tiny"]
    asked = (View(form={"size": "256x256", "frames": 17}), model, model.scheme("bf16"))
    here = [WorkerRow("cpu0", "CPU", "ready")]
    assert memory_part.needs(*asked, [job(host_peak=1.46)], here, Settings()) == "needs about 1.5 of 24 GiB of memory"
    assert memory_part.needs(*asked, [], here, Settings()) == ""
    gpu = [replace(here[0], gpu_total=16.0)]
    took = [job(gpu_peak=20.0, gpu_context=0.5)]
    words = memory_part.needs(*asked, took, gpu, Settings())
    assert words == "needs about 20.5 of 16 GiB on the GPU; it may not fit"
    words = memory_part.needs(*asked, took, gpu, replace(Settings(), gpu_gib=12))
    assert "of 12 GiB" in words


def test_a_large_model_that_has_not_run_here_is_told_by_its_files():
    model = load_catalog(Settings().catalog)["i2v-a14b"]
    rows = [WorkerRow("gpu0", "H100", "none", gpu_total=80.0)]
    words = memory_part.needs(View(form={"size": "832x480"}), model, model.scheme("fp8"), [], rows, Settings())
    number = float(words.split()[2])
    assert words.endswith("of 80 GiB on the GPU") and 15 < number < 40, words


def test_in_a_container_its_own_limit_counts(monkeypatch, tmp_path):
    seen = namedtuple("seen", "total available")(32 * 2**30, 20 * 2**30)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: seen)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.host() == (12.0, 32.0)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.host() == (12.0, 32.0)
    (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{5 * 2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {2 * 2**30}\n")  # a cache that is given back
    assert memory.host() == (3.0, 8.0)


def test_the_one_worker_can_be_unloaded_and_none_that_has_nothing():
    row, looks = WorkerRow("gpu0", "H100", "ready", memory=3.2), [Look((6.0, 24.0))]
    shown = memory_part.memory_html([row], looks)
    assert "6.0 of 24.0 GiB" in shown and "takes 3.2 GiB" in shown
    assert 'data-do="unload_worker" data-worker="gpu0"' in shown
    assert "unload_worker" not in memory_part.memory_html([replace(row, state="none")], looks)
    assert "unload_worker" not in memory_part.memory_html([row, row], looks)  # they have cards of their own
