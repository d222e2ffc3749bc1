"""MP4 out and in again: playable everywhere, settings inside, nothing half-written."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from wan_ui import muxer
from wan_ui.errors import UserError

SETTINGS = {
    "prompt": 'a=b; c#d \\ "quoted" é\nsecond line 猫',
    "seed": 4294967295,
    "loras": [],
    "facts": {"dtype": "bf16"},
}


@pytest.fixture
def frames() -> np.ndarray:
    """17 frames of 96 x 64: a smooth gradient of pure hues that slides to the right."""
    x = np.linspace(0, 255, 96)
    row = np.stack([x, 255 - x, np.abs(x - 128)], -1)
    return np.stack([np.broadcast_to(np.roll(row, 2 * t, 0), (64, 96, 3)) for t in range(17)]).astype(np.uint8)


def probe(path) -> str:
    return subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", path], capture_output=True, text=True).stderr


def test_frames_and_settings_survive_the_round_trip(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(frames, path, 16, SETTINGS)
    assert muxer.read_metadata(path) == SETTINGS
    back, fps = muxer.read_frames(path)
    assert back.shape == frames.shape and fps == 16
    error = np.square(back.astype(float) - frames).mean()
    assert 10 * np.log10(255**2 / error) > 33
    assert list(tmp_path.iterdir()) == [path]


def test_every_browser_can_play_it(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(frames, path, 16)
    assert re.search(r"h264.*yuv420p\(tv, bt709", probe(path))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "faststart: the index comes first"


def test_a_failure_says_what_ffmpeg_said_and_leaves_nothing(tmp_path, frames, monkeypatch):
    with pytest.raises(UserError, match="No such file or directory"):
        muxer.write_mp4(frames, tmp_path / "nowhere" / "clip.mp4", 16)
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho 'encoder on strike' >&2\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(UserError, match=r"exit 7.*encoder on strike"):
        muxer.write_mp4(frames, tmp_path / "clip.mp4", 16)
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


def test_a_video_of_someone_else_has_no_settings(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(frames, path, 16)
    bare = tmp_path / "bare.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-map_metadata", "-1", "-c", "copy", bare]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(UserError, match="carries no Wan UI settings"):
        muxer.read_metadata(bare)
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(UserError, match="ffmpeg failed"):
        muxer.read_metadata(text)
