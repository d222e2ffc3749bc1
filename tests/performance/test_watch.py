"""A performance becomes tracks: of one person, at the clip's rate and size; what is wrong is said with its field."""

import subprocess

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wan_ui.errors import Cancelled, UserError
from wan_ui.media import decoder, muxer
from wan_ui.performance import people, skeleton, watch
from wan_ui.settings import ROOT, Settings

SIZE = (96, 64)


def person(x: float, height: float = 50.0) -> np.ndarray:
    """Points around x, whose body is `height` pixels high."""
    draw = np.random.default_rng(1)
    points = np.concatenate([draw.uniform(-4, 4, (133, 1)) + x, draw.uniform(0, height, (133, 1)) + 5], axis=1)
    return np.concatenate([points, np.ones((133, 1))], axis=1)


def find(image: np.ndarray) -> np.ndarray:
    """A person for each red stripe of the frame's upper half: stands in for DWPose."""
    red = (image[: len(image) // 2].astype(int) @ (2, -1, -1)).mean(0) > 150
    edges = np.flatnonzero(np.diff(np.concatenate([[0], red.astype(int), [0]])))
    found = [person((a + b) / 2, 0.7 * len(image)) for a, b in edges.reshape(-1, 2) if b - a > 2]
    return np.array(found).reshape(-1, 133, 3)


def scene(size: tuple[int, int], *stripes: int, grey: int = 90) -> np.ndarray:
    image = Image.new("RGB", size, (grey, grey, grey))
    for x in stripes:
        ImageDraw.Draw(image).rectangle((x, 0, x + 9, size[1]), (230, 20, 20))
    return np.asarray(image)


def write(path, frames, fps: float = 30.0):
    muxer.write_mp4(frames, path, fps)
    return str(path)


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(models=tmp_path / "models")


def run(inputs, tmp_path, settings, report=lambda progress: None, size=SIZE):
    return watch.watch(inputs, size, 30.0, settings, report, tmp_path, load=lambda _: find)


def test_a_performance_becomes_a_pose_and_a_face(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [scene(SIZE, 20 + k) for k in range(12)])
    events = []
    tracks = run({"performance": path}, tmp_path, settings, events.append)
    assert tracks.pose.shape == (12, 64, 96, 3) and tracks.face.shape == (12, 512, 512, 3)
    assert tracks.background is None and tracks.mask is None
    assert [event.step for event in events] == list(range(1, 13)) and events[0].stage == "pose"
    middles = [np.flatnonzero(frame.any(axis=(0, 2))).mean() for frame in tracks.pose]
    assert np.diff(middles).mean() == pytest.approx(1, abs=0.3)  # it moves as the person does


def test_other_rates_and_sizes(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [scene((192, 192), 60 + k) for k in range(24)], fps=60.0)
    tracks = run({"performance": path}, tmp_path, settings)
    assert tracks.pose.shape == (12, 64, 96, 3)
    assert not tracks.pose[:, :, :10].any() and not tracks.pose[:, :, -10:].any()  # a square in the middle of black


def test_a_turned_video_is_upright(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [np.rot90(scene((64, 96), 20), 1) for _ in range(6)])
    turned = tmp_path / "turned.mp4"
    command = [decoder.executable(), "-v", "error", "-display_rotation", "-90", "-i", path, "-c", "copy", turned]
    subprocess.run(command, check=True)
    found = watch.look("performance", str(turned), settings)
    assert (found.width, found.height) == (64, 96)


@pytest.mark.parametrize(
    "frames, words",
    [
        ([scene(SIZE)] * 8, "p.mp4 shows no person that can be recognised"),
        ([scene(SIZE, 20, 60)] * 8, "p.mp4 shows more than one person in 8 of 8 frames; crop it"),
        ([scene(SIZE, 20)] * 4 + [scene(SIZE)] * 8, "shows a person in only 4 of 12 frames"),
        ([scene(SIZE, 20)] * 6 + [scene(SIZE, 60, grey=220)] * 6, "p.mp4 has a cut at 0.2 s; give one shot"),
        ([scene(SIZE, 20)] * 3, "p.mp4 has 3 frames at 30 a second; at least 5 are needed"),
    ],
)
def test_what_is_no_performance_of_one_person(frames, words, tmp_path, settings):
    path = write(tmp_path / "p.mp4", frames)
    with pytest.raises(UserError, match=words) as caught:
        run({"performance": path}, tmp_path, settings)
    assert caught.value.field == "performance"


def test_a_character_takes_the_performers_place(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [scene(SIZE, 20)] * 6)
    white = np.zeros((64, 96, 3), np.uint8)
    white[:, 15:35] = 255
    inputs = {"performance": path, "mask_video": write(tmp_path / "m.mp4", [white] * 6)}
    tracks = run(inputs, tmp_path, settings)
    assert set(np.unique(tracks.mask)) == {0, 255} and tracks.mask.shape == (6, 64, 96)
    assert not tracks.background[:, :, 17:33].any() and tracks.background[:, :, 40:].mean() > 60


def test_ready_videos_need_no_dwpose(tmp_path, settings):
    pose = write(tmp_path / "pose.mp4", [skeleton.waving(k / 4, *SIZE) for k in range(7)])
    tracks = watch.watch({"pose_video": pose}, SIZE, 30.0, settings, lambda progress: None, tmp_path)
    assert tracks.pose.shape == (7, 64, 96, 3) and tracks.face is None
    portrait = np.asarray(Image.open(ROOT / "assets/examples/portrait.jpg").convert("RGB").resize((256, 256)))
    both = {"pose_video": pose, "performance": write(tmp_path / "p.mp4", [portrait] * 7)}
    tracks = watch.watch(both, SIZE, 30.0, settings, lambda progress: None, tmp_path, load=people.load_dwpose)
    assert tracks.face.shape == (7, 512, 512, 3) and tracks.face.std() > 20


@pytest.mark.parametrize(
    "more, field, words",
    [
        ({"mask_video": ((96, 96), 6)}, "mask_video", "m.mp4 is 96 x 96, p.mp4 96 x 64; both need the same shape"),
        ({"mask_video": ((96, 64), 20)}, "mask_video", "lasts 0.67 s, p.mp4 0.20 s; both must show the same moments"),
        ({"face_video": ((96, 64), 6)}, "face_video", "is 96 x 64; a face video is square"),
        ({"pose_video": ((96, 64), 30)}, "pose_video", "lasts 1.00 s, p.mp4 0.20 s"),
    ],
)
def test_videos_that_do_not_go_together(more, field, words, tmp_path, settings):
    paths = {"performance": write(tmp_path / "p.mp4", [scene(SIZE, 20)] * 6)}
    for name, (size, count) in more.items():
        paths[name] = write(tmp_path / f"{name[0]}.mp4".replace("p.", "q."), [scene(size, 20)] * count)
    with pytest.raises(UserError, match=words) as caught:
        watch.look_at(paths, 30.0, settings)
    assert caught.value.field == field


def test_a_mask_without_a_performance_and_one_without_white(tmp_path, settings):
    black = write(tmp_path / "m.mp4", [np.zeros((64, 96, 3), np.uint8)] * 6)
    pose = write(tmp_path / "pose.mp4", [skeleton.waving(0, *SIZE)] * 6)
    with pytest.raises(UserError, match="mask_video: it says where the performer is, and no performance is given"):
        watch.look_at({"pose_video": pose, "mask_video": black}, 30.0, settings)
    path = write(tmp_path / "p.mp4", [scene(SIZE, 20)] * 6)
    with pytest.raises(UserError, match="mask_video: nothing in it is white"):
        run({"performance": path, "mask_video": black}, tmp_path, settings)


def test_without_dwpose_it_is_said_what_to_fetch(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [scene(SIZE, 20)] * 6)
    with pytest.raises(UserError, match=r"yolox_l.onnx .*download musetalk dwpose.*ready pose video") as caught:
        watch.watch({"performance": path}, SIZE, 30.0, settings, lambda progress: None, tmp_path)
    assert caught.value.field == "performance"


def test_it_can_be_cancelled_at_every_frame(tmp_path, settings):
    path = write(tmp_path / "p.mp4", [scene(SIZE, 20)] * 8)

    def report(progress):
        if progress.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        run({"performance": path}, tmp_path, settings, report)
