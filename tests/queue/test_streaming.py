"""Frames go into the MP4 while later ones are made: the same file, and what becomes of it when something ends early."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.job_requests import job_request
from wan_ui.errors import Cancelled, UserError
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.media import muxer, streaming
from wan_ui.queue.work import Work
from wan_ui.request import Clip, Progress

PARTS, EACH = 5, 4


class Engine:
    """Shows its frames part by part; `between(number)` is called before each."""

    def __init__(self, between=lambda number: None, at_the_end=None):
        self.between, self.at_the_end = between, at_the_end or {}

    def check(self, *_) -> None: ...

    def load(self, *_) -> None: ...

    def close(self) -> None: ...

    def set_loras(self, loras) -> tuple:
        return ()

    def generate(self, request, report, show=None) -> Clip:
        frames = np.random.default_rng(0).integers(0, 256, (PARTS * EACH, 64, 96, 3), dtype=np.uint8)
        latents, facts = np.zeros((1, 1, 1, 1), np.float32), {"kernel": "of the test"}
        for number in range(PARTS):
            report(Progress("decode", number + 1, PARTS))
            self.between(number)
            if show is not None:
                show(Clip(frames[number * EACH : (number + 1) * EACH], 16.0, latents, facts))
        return Clip(frames, 16.0, latents, facts | self.at_the_end)


@pytest.fixture
def run(scripted_settings, tmp_path):
    """run(engine, lightx2v_plain="") -> the folder of a job that it has made."""

    def run(engine, cancel=None, **changes):
        folder = tmp_path / f"job-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        Image.new("RGB", (96, 64)).save(folder / "input.png")
        request = job_request(
            image=str(folder / "input.png"), model="scripted", width=96, height=64, frames=PARTS * EACH
        )
        settings = replace(scripted_settings, **changes)
        choice = EngineChoice("test", "asked for")
        run.folder = folder
        work = Work(settings, lambda asked: (engine, choice), lambda answer: None, cancel or threading.Event())
        work.generate(request, folder)
        return folder

    return run


def left(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"input.png"}


def test_the_file_is_the_same_bit_for_bit_and_begins_before_the_clip_is_there(run):
    begun = []

    def between(number):
        if number == PARTS - 1:  # the last part waits until ffmpeg has begun with the first ones
            begun.extend(path.name for path in wait_for(run.folder, ".clip.part.mp4"))

    streamed = run(Engine(between))
    whole = run(Engine(), lightx2v_plain="stream")
    assert begun == [".clip.part.mp4"]
    assert (streamed / "clip.mp4").read_bytes() == (whole / "clip.mp4").read_bytes()
    assert left(streamed) == left(whole) == {"clip.mp4", "poster.jpg"}
    assert len(muxer.read_frames(streamed / "clip.mp4")[0]) == PARTS * EACH


def wait_for(folder, name, seconds=60.0):
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if found := list(folder.glob(name)):
            return found
        waiting.wait(0.02)
    raise AssertionError(f"{name} did not come")


def test_what_is_known_only_at_the_end_stands_in_the_file(run):
    folder = run(Engine(at_the_end={"compile": "off (failed)"}))
    assert muxer.read_metadata(folder / "clip.mp4")["facts"]["compile"] == "off (failed)"
    assert len(muxer.read_frames(folder / "clip.mp4")[0]) == PARTS * EACH


@pytest.mark.parametrize("when", [1, PARTS - 1])
def test_a_job_that_is_stopped_leaves_no_file_and_no_thread(run, when):
    cancel, before = threading.Event(), set(threading.enumerate())
    with pytest.raises(Cancelled):
        run(Engine(lambda number: cancel.set() if number == when else None), cancel)
    assert left(run.folder) == set() and set(threading.enumerate()) <= before


def test_an_engine_that_fails_leaves_no_file(run):
    def between(number):
        if number == 2:
            raise MemoryError("for the test")

    with pytest.raises(MemoryError):
        run(Engine(between))
    assert left(run.folder) == set()


def test_an_encoder_that_ends_early_costs_no_frames(run, monkeypatch):
    """As a full disk does: ffmpeg's words are told at the end, and the frames are kept."""

    def write_mp4(frames, path, fps, metadata):
        next(iter(frames))
        raise UserError("ffmpeg failed (exit 1): No space left on device")

    monkeypatch.setattr(streaming.muxer, "write_mp4", write_mp4)
    with pytest.raises(UserError, match=r"No space left on device\. The frames were kept in job-\d+-frames\.npz"):
        run(Engine())
    (kept,) = run.folder.glob("*.npz")
    assert np.load(kept)["frames"].shape == (PARTS * EACH, 64, 96, 3)
    assert left(run.folder) == {kept.name}


def test_a_killed_ffmpeg_is_told_with_its_exit_code(run, monkeypatch):
    import subprocess

    started, popen = [], subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    def between(number):
        if number == 3:
            wait_for(run.folder, ".clip.part.mp4")
            started[-1].kill()

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(UserError, match=r"ffmpeg failed \(exit -9\).*The frames were kept in"):
        run(Engine(between))
