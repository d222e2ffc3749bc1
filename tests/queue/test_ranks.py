"""A worker whose clip several processes share, with Wan-Tiny: what one of them does ends or stops all."""

import os
import signal
from dataclasses import replace

import pytest
from PIL import Image

from tests.job_requests import job_request
from wan_ui.errors import Cancelled, WorkerDied
from wan_ui.machine.nvml import Gpu
from wan_ui.queue import local
from wan_ui.queue.ranks import Ranks
from wan_ui.queue.worker import Worker
from wan_ui.settings import load_settings

GPUS = [Gpu(f"GPU-{number}", "H100", 80.0) for number in range(5)]


@pytest.fixture
def make(tmp_path):
    """make(worker, act) -> a clip of Wan-Tiny; act(worker) is done in its second step, and cancels if it says so."""
    path = tmp_path / "picture.png"
    Image.new("RGB", (96, 64), (180, 90, 40)).save(path)
    request = job_request(
        image=str(path), model="wan-tiny", scheme="", engine="diffusers", width=96, height=64, frames=5, steps=4
    )

    def run(worker, act=lambda worker: False):
        acted, cancel = [], []

        def progress(entered):
            if (entered.stage, entered.step) == ("denoise", 2) and not acted:
                acted.append(entered)
                cancel.append(act(worker))

        return worker.generate(request, tmp_path, progress, lambda: any(cancel))

    return run


@pytest.fixture
def group(tmp_path):
    values = load_settings({"WAN_UI_OUTPUTS": str(tmp_path / "outputs")})
    worker = Worker(replace(values, threads=1, stage_timeout=300), size=2)
    yield worker
    worker.stop()


def test_one_that_ends_or_stops_ends_all_and_the_next_clip_is_made_by_new_ones(group, make):
    first = make(group)
    processes = list(group.ranks.processes)
    with pytest.raises(Cancelled):
        make(group, lambda worker: True)
    assert make(group).latents_sha256 == first.latents_sha256
    assert group.ranks.processes == processes, "a cancel is agreed on, and costs no process"
    with pytest.raises(WorkerDied, match=r"rank 1 was ended by SIGKILL during denoise step 2/4"):
        make(group, lambda worker: os.kill(worker.ranks.processes[1].pid, signal.SIGKILL))
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(WorkerDied, match=r"rank 1 was stopped by a signal during denoise step 2/4"):
        make(group, lambda worker: os.kill(worker.ranks.processes[1].pid, signal.SIGSTOP))
    assert not group.alive()


def test_the_rank_that_others_wait_for_is_named():
    ranks = Ranks(3)
    assert ranks.behind() == ""
    ranks.made[:] = [7, 6, 7]
    assert ranks.behind() == " (the others wait for rank 1)"
    ranks.close()


@pytest.mark.parametrize(
    ("count", "size", "names", "words"),
    [
        (4, 2, ["gpu0+1", "gpu2+3"], ""),
        (5, 2, ["gpu0+1", "gpu2+3", "gpu4"], "so that 1 of them has a worker alone"),
        (2, 4, ["gpu0", "gpu1"], "WAN_UI_PARALLEL=4: there are 2 GPUs to use here, so that each has a worker"),
    ],
)
def test_gpus_are_shared_out_in_groups(count, size, names, words, monkeypatch):
    monkeypatch.setattr(local, "gpus", lambda: GPUS[:count])
    places, troubles = local.places_here(replace(load_settings({}), gpus="all", parallel=size))
    assert [place.name for place in places] == names
    assert places[0].environment()["CUDA_VISIBLE_DEVICES"].split(",") == [gpu.uuid for gpu in places[0].gpus]
    assert words in " ".join(troubles) and bool(troubles) == bool(words)
