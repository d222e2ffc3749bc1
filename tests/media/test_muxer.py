"""MP4 out and in again: playable everywhere, settings inside, nothing half-written."""

import re
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from tests.clips import back_and_forth
from wan_ui.errors import UserError
from wan_ui.media import muxer

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
    assert re.search(r"h264.*yuv420p\(tv, bt709[,)]", probe(path)), "matrix, primaries and curve are all said"
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "faststart: the index comes first"


@pytest.mark.hardening(29)
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


@pytest.mark.parametrize("stored", ["{", "[1]", "7", '"text"', "null", "[" * 3000, '{"seed": ' + "1" * 5000 + "}"])
def test_settings_that_are_damaged_are_said_to_be(tmp_path, frames, stored, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(muxer.json, "dumps", lambda *args, **options: stored)
        muxer.write_mp4(frames, tmp_path / "clip.mp4", 16, {})
    with pytest.raises(UserError, match=r"clip\.mp4 carries Wan UI settings that are damaged"):
        muxer.read_metadata(tmp_path / "clip.mp4")


@pytest.mark.hardening(35)
def test_settings_of_another_version_are_read_with_what_is_not_known(tmp_path, frames):
    values = {**SETTINGS, "hologram": "half \ud800", "facts": {"line": "a\nb = c; d\\e"}, "huge": 2**70}
    muxer.write_mp4(frames, tmp_path / "clip.mp4", 16, values)
    read = muxer.read_metadata(tmp_path / "clip.mp4")
    assert read == {**values, "hologram": "half \N{REPLACEMENT CHARACTER}", "huge": None}


def tone(path, seconds, rate=16000, channels=1, offset=0.0, codec=()):
    """A file with sound: quiet, then a 440 Hz beep in its last quarter."""
    expression = f"0.5*sin(2*PI*440*t)*gt(t\\,{seconds * 0.75})"
    source = f"aevalsrc='{'|'.join([expression] * channels)}':s={rate}:d={seconds}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-f", "lavfi", "-i", source, "-output_ts_offset", str(offset)]
    subprocess.run([*command, *codec, path], check=True, capture_output=True)
    return path


def sound_of(path) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-vn", "-ac", "1", "-ar", "16000", "-f", "s16le", "pipe:"]
    done = subprocess.run(command, check=True, capture_output=True)
    return np.frombuffer(done.stdout, np.int16) / 32768


@pytest.mark.parametrize(("fps", "seconds"), [(16, 3.0), (25, 2.02), (30000 / 1001, 3.3)])
def test_sound_and_pictures_begin_and_end_within_one_frame(tmp_path, frames, fps, seconds):
    audio = tone(tmp_path / "voice.wav", seconds)
    count = int(np.ceil(seconds * fps))
    path = tmp_path / "clip.mp4"
    assert muxer.write_mp4(back_and_forth(frames, count), path, fps, SETTINGS, audio) == count
    assert muxer.read_metadata(path) == SETTINGS
    back, rate = muxer.read_frames(path)
    assert len(back) == count and rate == pytest.approx(fps, rel=1e-4)
    heard = sound_of(path)
    assert abs(len(heard) / 16000 - seconds) < 1 / fps
    onset = np.argmax(np.abs(heard) > 0.2) / 16000
    assert onset == pytest.approx(seconds * 0.75, abs=1 / fps)
    assert re.search(r"Audio: aac", probe(path)) and re.search(r"start: 0\.0", probe(path))


def test_sound_that_begins_late_in_its_file_begins_with_the_first_frame(tmp_path, frames):
    late = tone(tmp_path / "late.mka", 2.0, offset=1.5, codec=("-c:a", "pcm_s16le"))
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(back_and_forth(frames, 32), path, 16, audio=late)
    heard = sound_of(path)
    assert np.argmax(np.abs(heard) > 0.2) / 16000 == pytest.approx(1.5, abs=1 / 16)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("v.mp3", ()),
        ("v.m4a", ()),
        ("v.ogg", ("-c:a", "libvorbis")),
        ("v.flac", ()),
        ("low.wav", ("-c:a", "pcm_u8", "-ar", "8000")),
        ("-v.wav", ("-ar", "48000")),
    ],
)
def test_every_kind_of_sound_file_keeps_its_pace(tmp_path, frames, name, codec):
    audio = tone(tmp_path / name, 2.0, rate=44100, channels=2, codec=codec)
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(back_and_forth(frames, 32), path, 16, audio=audio)
    heard = sound_of(path)
    assert abs(len(heard) / 16000 - 2) < 1 / 16
    assert np.argmax(np.abs(heard) > 0.2) / 16000 == pytest.approx(1.5, abs=1 / 16)


def test_a_loop_goes_forth_and_back(tmp_path, frames):
    looped = np.stack(list(back_and_forth(frames, 40)))
    order = [int(np.abs(frames.astype(int) - one).sum((1, 2, 3)).argmin()) for one in looped.astype(int)]
    assert order == [*range(17), *range(15, -1, -1), *range(1, 8)]
    path = tmp_path / "loop.mp4"
    assert muxer.write_mp4(back_and_forth(frames, 40), path, 16) == 40
    assert len(muxer.read_frames(path)[0]) == 40
    assert len(list(back_and_forth(frames[:1], 3))) == 3


def test_frames_are_streamed_and_a_stop_leaves_nothing(tmp_path, frames):
    """The iterator is asked for the next frame only when the last one has left, and may raise."""

    def stops():
        for index in range(1000):
            if index == 300:
                raise KeyboardInterrupt
            yield frames[index % 17]

    with pytest.raises(KeyboardInterrupt):
        muxer.write_mp4(stops(), tmp_path / "clip.mp4", 16)
    assert not list(tmp_path.iterdir())


def test_a_strangers_video_is_read_upright_even_and_cut(tmp_path, frames):
    path = tmp_path / "turned.mp4"
    source = "testsrc=size=65x48:rate=10:duration=2"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-f", "lavfi", "-i", source, "-pix_fmt", "yuv444p", "-c:v", "libx264"]
    subprocess.run([*command, path], check=True, capture_output=True)
    turned = tmp_path / "phone.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-display_rotation", "90", "-i", path, "-c", "copy", turned]
    subprocess.run(command, check=True, capture_output=True)
    back, fps = muxer.read_frames(turned)
    assert back.shape == (20, 64, 48, 3) and fps == 10
    assert muxer.read_frames(turned, limit=7)[0].shape[0] == 7


def test_what_is_no_video_is_named(tmp_path, monkeypatch):
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(UserError, match=r"video: notes\.mp4 cannot be read") as caught:
        muxer.read_frames(text)
    assert caught.value.field == "video"
    with pytest.raises(UserError, match="cannot be read"):
        muxer.read_frames(tone(tmp_path / "voice.wav", 1))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    with pytest.raises(UserError, match="cannot be read"):
        muxer.read_frames(playlist)


@pytest.mark.limit("VIDEO_BYTES")
def test_a_video_too_large_for_memory_is_refused(tmp_path, frames, monkeypatch):
    path = tmp_path / "clip.mp4"
    muxer.write_mp4(frames, path, 16)
    monkeypatch.setattr(muxer.limits, "VIDEO_BYTES", len(frames) * 96 * 64 * 3)
    assert len(muxer.read_frames(path)[0]) == len(frames)
    monkeypatch.setattr(muxer.limits, "VIDEO_BYTES", 10 * 96 * 64 * 3)
    with pytest.raises(UserError, match=r"too many frames.*at most 10"):
        muxer.read_frames(path)
    assert len(muxer.read_frames(path, limit=8)[0]) == 8
