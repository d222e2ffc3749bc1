"""What is done with frames: those between, loops, joins, parts, speed, sound, other files."""

import itertools
import wave
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image

from wan_ui.afterwork.between import FlowBetween, more_frames, same_scene
from wan_ui.afterwork.change import Change
from wan_ui.afterwork.loops import seamless
from wan_ui.changes import Changes, read_changes, stored_changes
from wan_ui.errors import Cancelled, UserError
from wan_ui.media import muxer, soundtrack
from wan_ui.settings import ROOT, Settings

PHOTO = np.asarray(Image.open(ROOT / "assets" / "examples" / "astronaut.jpg").convert("RGB"))
CAT = np.asarray(Image.open(ROOT / "assets" / "examples" / "cat.jpg").convert("RGB"))


def view(photo: np.ndarray, x: float, y: float, width: int = 160, height: int = 96) -> np.ndarray:
    """A window of the photo at half its size."""
    place = np.array([[2, 0, x], [0, 2, y]], np.float32)
    return cv2.warpAffine(photo, place, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def moving(time: float) -> np.ndarray:
    """A round piece of another photo goes to the right before a background that goes to the left."""
    back, front = view(PHOTO, 60 + 6 * time, 40), view(CAT, 90 - 12 * time, 40)
    mask = np.zeros((96, 160), np.float32)
    cv2.circle(mask, (round((70 + 6 * time) * 16), 48 * 16), 24 * 16, 1.0, -1, cv2.LINE_AA, 4)
    return (back * (1 - mask[..., None]) + front * mask[..., None] + 0.5).astype(np.uint8)


def psnr(made: np.ndarray, right: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((made.astype(float) - right) ** 2), 1e-9))


def blend(first, second, time):
    return (first + time * (second.astype(float) - first)).astype(np.uint8)


@pytest.mark.parametrize("time", [0.25, 0.5])
def test_flow_beats_blending_by_far_also_where_something_is_hidden(time):
    first, second, right = moving(0), moving(1), moving(time)
    made = FlowBetween().at(first, second, time)
    assert psnr(made, right) > psnr(blend(first, second, time), right) + 5


def test_frames_come_between_and_none_across_a_cut():
    shots = [moving(0), moving(1), view(CAT, 0, 0), view(CAT, 4, 0)]
    assert [same_scene(*pair) for pair in itertools.pairwise(shots)] == [True, False, True]
    made = list(more_frames(shots, 2, FlowBetween()))
    assert len(made) == 7
    assert [place for place, frame in enumerate(made) if any(frame is shot for shot in shots)] == [0, 2, 3, 4, 6]
    assert made[3] is shots[1], "the frame before the cut stays"


@pytest.mark.parametrize("count, seam", [(40, 8), (20, 8), (4, 8), (2, 8), (1, 8)])
def test_a_seamless_loop_has_no_step(count, seam):
    frames = [view(PHOTO, 3 * place, 40, 64, 48) for place in range(count)]
    made = list(seamless(iter(frames), seam, FlowBetween()))
    used = seam if count >= 3 * seam else count // 3
    assert len(made) == count - used
    if used:
        assert np.abs(made[-1].astype(int) - made[0]).mean() < 1.5 * np.abs(frames[0].astype(int) - frames[-1]).mean()
        assert made[0] is frames[used]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """12 and 6 frames at 8 a second; the first has sound: a tone that gets louder."""
    folder = tmp_path_factory.mktemp("clips")
    rise = np.linspace(0, 0.8, 72_000) * np.sin(np.arange(72_000) * 2 * np.pi * 440 / 48_000)
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((rise * 32767).astype("<i2").tobytes())
    levels = np.arange(12)[:, None, None, None] * 20 + 10
    frames = np.broadcast_to(levels, (12, 48, 64, 3)).astype(np.uint8)
    muxer.write_mp4(frames, folder / "first.mp4", 8, {"prompt": "x"}, folder / "tone.wav")
    muxer.write_mp4(frames[::2, :, :48], folder / "second.mp4", 8)
    return folder


def change(clips, folder, names=("first.mp4",), report=lambda progress: None, **asked):
    made = Change([clips / name for name in names], read_changes(asked, "first"), 12, Settings(), report)
    made = made.make(folder, {"prompt": "x"})
    frames, fps = muxer.read_frames(folder / made.clip)
    assert (len(frames), fps) == (made.frames, min(made.fps, 60)), "strangers' clips are read at 60 a second at most"
    return made, frames[:, 20, 20, 0].astype(int)


def test_a_part_at_another_speed_keeps_its_sound(clips, tmp_path):
    made, levels = change(clips, tmp_path, start=0.5, end=1.25, speed=0.5)
    assert np.abs(levels - [90, 110, 130, 150, 170, 190]).max() <= 3 and made.fps == 4
    soundtrack.write([soundtrack.Piece(tmp_path / made.clip, 0, 1.5, 0)], 1, tmp_path / "out.wav")
    with wave.open(str(tmp_path / "out.wav")) as file:
        samples = np.frombuffer(file.readframes(72_000), "<i2").reshape(-1, 2)[:, 0] / 32768
    thirds = [np.abs(part).max() for part in np.split(samples, 3)]
    assert np.abs(np.array(thirds) - [0.29, 0.38, 0.47]).max() < 0.03, "from 0.5 s to 1.25 s of the rise"
    spectrum = np.abs(np.fft.rfft(samples[24_000:48_000]))
    assert abs(np.argmax(spectrum) * 2 - 440) < 12, "as high as it was"
    tags = muxer.read_metadata(tmp_path / made.clip)
    assert tags["facts"]["changed_from"] == "first" and tags["frames"] == 6 and tags["prompt"] == "x"


def test_a_sound_is_laid_under_a_clip_also_under_a_loop(clips, tmp_path):
    asked = read_changes({"loop": "ping-pong"}, "second")
    made = Change([clips / "second.mp4"], asked, 10, Settings(), lambda progress: None, clips / "tone.wav")
    made = made.make(tmp_path, {})
    assert made.frames == 10 and "no mouth" in made.facts["sound"]
    soundtrack.write([soundtrack.Piece(tmp_path / made.clip, 0, 2, 0)], 1, tmp_path / "out.wav")
    with wave.open(str(tmp_path / "out.wav")) as file:
        samples = np.frombuffer(file.readframes(96_000), "<i2").reshape(-1, 2)[:, 0] / 32768
    assert np.abs(samples[48_000:59_000]).max() > 0.55 and not samples[61_000:].any(), "1.25 s of it are heard"


def test_there_and_back(clips, tmp_path):
    made, levels = change(clips, tmp_path, loop="ping-pong", end=0.5)
    assert np.abs(levels - [10, 30, 50, 70, 50, 30]).max() <= 3
    assert made.facts["sound"] == "left out of a loop" and not soundtrack.has_sound(tmp_path / made.clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "poster.jpg"]


def test_clips_are_joined_with_a_fade_or_a_cut(clips, tmp_path):
    _, levels = change(clips, tmp_path, ("first.mp4", "second.mp4"), fade=0.25, start=1)
    assert np.abs(levels - [170, 190, 143, 110, 90, 130, 170, 210]).max() <= 4
    made, levels = change(clips, tmp_path, ("second.mp4", "first.mp4", "second.mp4"), fade=0)
    assert len(levels) == 24 and made.size == (48, 48) and soundtrack.has_sound(tmp_path / made.clip)


def test_more_frames_larger_and_too_fast_to_show(clips, tmp_path):
    made, _ = change(clips, tmp_path, times="4x", upscale="2x", end=0.5)
    assert (made.frames, made.fps, made.size) == (13, 32, (128, 96))
    made, _ = change(clips, tmp_path, times=4, speed=4, end=0.5)
    assert (made.frames, made.fps) == (7, 64.0), "of 128 a second every second one"


@pytest.mark.parametrize(
    "kind, begins", [("gif", b"GIF89a"), ("webp", b"RIFF"), ("webm", b"\x1aE\xdf\xa3"), ("last", b"\x89PNG")]
)
def test_other_files(clips, tmp_path, kind, begins):
    stages = []
    made, _ = change(clips, tmp_path, report=lambda progress: stages.append(progress.stage), file=kind, quality="small")
    assert (tmp_path / made.file).read_bytes().startswith(begins) and stages[-1] == "file"
    if kind == "last":
        assert abs(int(np.asarray(Image.open(tmp_path / made.file))[20, 20, 0]) - 230) <= 3
    if kind in ("gif", "webp"):
        assert Image.open(tmp_path / made.file).n_frames >= 12 * 0.8


def test_the_frames_are_pictures_in_a_zip(clips, tmp_path):
    made, _ = change(clips, tmp_path, file="frames", end=0.5)
    with zipfile.ZipFile(tmp_path / made.file) as found:
        assert found.namelist() == [f"frame-{number:05}.png" for number in range(1, 5)]
        assert Image.open(found.open("frame-00002.png")).size == (64, 48)


def test_a_cancel_leaves_nothing_half_made(clips, tmp_path):
    def report(progress):
        if progress.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        change(clips, tmp_path, report=report, file="frames", loop="ping-pong")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "asked, field",
    [
        ({"start": -1}, "start"),
        ({"start": "soon"}, "start"),
        ({"start": 2, "end": 1}, "end"),
        ({"end": float("nan")}, "end"),
        ({"times": 3}, "times"),
        ({"times": True}, "times"),
        ({"upscale": 4}, "upscale"),
        ({"speed": 0}, "speed"),
        ({"speed": [1]}, "speed"),
        ({"loop": "round"}, "loop"),
        ({"loop": 1}, "loop"),
        ({"file": "../x"}, "file"),
        ({"quality": "none"}, "quality"),
        ({"fade": 60}, "fade"),
        ({"colour": "red"}, "changes"),
    ],
)
def test_what_cannot_be_asked_for_is_named(asked, field):
    with pytest.raises(UserError) as refused:
        read_changes(asked, "x")
    assert refused.value.field == field and field.split("s")[0] in str(refused.value)


def test_changes_are_stored_and_read_again():
    asked = read_changes({"times": "2x", "loop": "seamless", "end": "1.5", "speed": None, "file": ""}, "job")
    assert asked == Changes("job", end=1.5, times=2, loop="seamless")
    assert stored_changes(vars(asked) | {"of a later version": 1}) == asked
    assert stored_changes(None) is None and stored_changes({"times": 9}) is None
