"""Comparisons run in a child that is bounded in time and memory, and ends when nobody waits for it."""

import numpy as np
import pytest

from tests.ui.conftest import PATIENCE
from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.qa import compare
from wan_ui.ui import comparisons
from wan_ui.ui.comparisons import Comparisons


def clip_files(folder, count: int = 3) -> list[dict]:
    clips = []
    for k in range(count):
        frames = np.random.default_rng(k).integers(0, 255, (4 + k, 32, 48, 3), np.uint8)
        muxer.write_mp4(frames, folder / f"{k}.mp4", 16)
        clips.append({"path": str(folder / f"{k}.mp4"), "name": f"clip {k}", "settings": {"seed": k}})
    return clips


def test_the_child_measures_and_exports_what_this_process_would(tmp_path):
    clips = clip_files(tmp_path)
    items = [compare.Item(c["name"], muxer.read_frames(tmp_path / f"{k}.mp4")[0], 16, {}) for k, c in enumerate(clips)]
    asked = Comparisons()
    done = asked.ask("local", clips)
    assert done.ended.wait(PATIENCE) and done.state == "done", done.words
    assert [compare.Pair(**pair) for pair in done.result["pairs"]] == compare.measure(items)
    assert done.result["size"] == [48, 32] and done.result["differences"] == {"seed": ["0", "1", "2"]}
    assert asked.ask("local", clips) is done  # kept: figures alone
    exported = asked.ask("local", clips, tmp_path / "out")
    assert exported.ended.wait(PATIENCE) and exported.state == "done", exported.words
    assert set(exported.result["files"]) == {"comparison.mp4", "contact-sheet.png", "comparison.json"}
    assert str(tmp_path) not in (tmp_path / "out" / "comparison.json").read_text()
    frames, _ = muxer.read_frames(tmp_path / "out" / "comparison.mp4")
    assert frames.shape == (4, 32, 5 * 48, 3)


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    clips = clip_files(tmp_path, 2)
    (tmp_path / "1.mp4").write_bytes(b"no video")
    failed = Comparisons().ask("local", clips)
    assert (
        failed.ended.wait(PATIENCE) and failed.state == "failed" and "1.mp4 cannot be read as a video" in failed.words
    )


@pytest.mark.limit("COMPARISON_SECONDS")
@pytest.mark.parametrize(
    "bound, state, words", [("LEFT", "left", ""), ("COMPARISON_SECONDS", "failed", "compare fewer clips")]
)
def test_it_ends_when_nobody_waits_or_it_takes_too_long(monkeypatch, bound, state, words):
    monkeypatch.setattr(comparisons, "CHILD", ("-c", "import time; time.sleep(3600)"))
    asked = Comparisons()
    first = asked.ask("local", [{"path": "a"}])
    second = asked.ask("browser-x", [{"path": "b"}])
    asked.ask("browser-x", [{"path": "c"}])
    with pytest.raises(UserError, match="other comparisons are being made"):
        asked.ask("browser-x", [{"path": "d"}])
    monkeypatch.setattr(limits if bound != "LEFT" else comparisons, bound, 0.3)
    assert first.ended.wait(PATIENCE) and first.state == state and words in first.words
    assert second.ended.wait(PATIENCE)  # its turn came


def test_a_child_that_dies_is_said_and_another_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(comparisons, "CHILD", ("-c", "import os; os.abort()"))
    asked, clips = Comparisons(), clip_files(tmp_path, 2)
    dead = asked.ask("local", clips)
    assert dead.ended.wait(PATIENCE) and "exit code -6" in dead.words
    monkeypatch.setattr(comparisons, "CHILD", ("-m", "wan_ui.qa.compare_child"))
    again = asked.ask("local", clips)
    assert again is not dead and again.ended.wait(PATIENCE) and again.state == "done"


def test_clips_are_read_frame_by_frame(tmp_path):
    """However long the clips are, a handful of frames is in memory."""
    frames = np.zeros((40, 64, 64, 3), np.uint8)
    muxer.write_mp4(frames, tmp_path / "a.mp4", 16)
    stored = compare.read_item(tmp_path / "a.mp4").frames
    assert not hasattr(stored, "__len__") and sum(frame.shape == (64, 64, 3) for frame in stored) == 40
    reading = iter(stored)
    next(reading)
    reading.close()  # ends its decoder
