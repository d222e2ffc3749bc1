"""DWPose as rtmlib and onnxruntime run it, with two tiny networks in place of its files: loading, cropping, decoding.

`make dwpose` installs what runs them. The real files' answers are not known here.
"""

import numpy as np
import pytest

from tests.performance import onnx_models
from wan_ui.errors import UserError
from wan_ui.lipsync.choice import OFFICIAL
from wan_ui.lipsync.files import DETECTOR, POSE
from wan_ui.media import muxer
from wan_ui.performance import people, preview, skeleton, watch
from wan_ui.settings import Settings

pytest.importorskip("rtmlib", reason="rtmlib is not installed (`make dwpose`)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (`make dwpose`)")

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
PART = 16  # pixels of these 320 x 320 pictures that are one part of the detector's


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    models = tmp_path_factory.mktemp("dwpose")
    for file, write in ((DETECTOR, onnx_models.write_detector), (POSE, onnx_models.write_pose)):
        (models / OFFICIAL / file).parent.mkdir(parents=True, exist_ok=True)
        write(models / OFFICIAL / file)
    return Settings(models=models)


@pytest.fixture(scope="module")
def find(settings):
    assert people.missing(settings) == ""
    return people.load_dwpose(settings)


def scene(*persons: tuple[int, int], chairs: tuple[tuple[int, int], ...] = (), grey: int = 90) -> np.ndarray:
    """A red body in these parts of the picture, with a green dot 40 pixels right of its corner, a blue one 60 below."""
    frame = np.full((320, 320, 3), grey, np.uint8)
    for colour, places in ((GREEN, chairs), (RED, persons)):
        for column, row in places:
            frame[row * PART : (row + 1) * PART, column * PART : (column + 1) * PART] = colour
    for column, row in persons:
        x, y = column * PART, row * PART
        frame[y : y + 4, x + 40 : x + 44] = GREEN
        frame[y + 60 : y + 64, x : x + 4] = BLUE
    return frame


def test_every_point_of_a_person_is_where_it_is_in_the_frame(find):
    (one,) = find(scene((5, 4)))
    assert one.shape == (skeleton.POINTS, 3)
    x, y = 5 * PART, 4 * PART
    for first, place in ((0, (x, y)), (1, (x + 40, y)), (2, (x, y + 60))):
        assert np.abs(one[first::3, :2] - place).max() < 1.5, "through the box, the crop, half pixels and back"
    assert (one[:, 2] > 0.6).all()


def test_of_other_shapes_too(find):
    wide = np.full((320, 640, 3), 90, np.uint8)  # half as many pixels to a part: ratio 1
    wide[64:128, 160:224] = RED
    wide[64:72, 240:248], wide[120:128, 170:178] = GREEN, BLUE
    found = find(wide)
    assert found.shape[1:] == (skeleton.POINTS, 3)
    assert all(np.abs(one[1::3, :2] - (240, 64)).max() < 2 for one in found)


def test_each_person_is_found_and_nothing_else(find):
    both = find(scene((3, 4), (14, 4)))
    assert sorted(round(float(one[0, 0]) / PART) for one in both) == [3, 14]
    assert find(scene()).shape == (0, skeleton.POINTS, 3), "an empty frame has no point"
    assert len(find(scene((5, 4), chairs=((15, 12),)))) == 1, "a chair is nobody"
    assert find(scene(chairs=((15, 12),))).shape == (0, skeleton.POINTS, 3)


def test_a_performance_is_followed_and_one_of_two_or_nobody_refused(settings, tmp_path):
    def run(*frames: np.ndarray):
        path = tmp_path / "p.mp4"
        muxer.write_mp4(np.stack(frames), path, 30.0)
        report = lambda progress: None  # noqa: E731
        return watch.watch({"performance": str(path)}, (320, 320), 30.0, settings, report, tmp_path)

    tracks = run(*(scene((4 + k, 5)) for k in range(6)))
    assert tracks.pose.shape == (6, 320, 320, 3) and tracks.face.shape == (6, 512, 512, 3)
    middles = [np.flatnonzero(frame.any(axis=(0, 2))).mean() for frame in tracks.pose]
    assert np.diff(middles).mean() == pytest.approx(PART, abs=1)
    for frames, words in (
        ([scene()] * 6, "shows no person"),
        ([scene((3, 4), (14, 4))] * 6, "shows more than one person in 6 of 6 frames"),
        ([scene((4, 5))] * 6 + [scene((14, 5), grey=220)] * 6, "has a cut at 0.2 s"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            run(*frames)
        assert caught.value.field == "performance"
    muxer.write_mp4(np.stack([scene((4 + k, 5)) for k in range(6)]), tmp_path / "q.mp4", 30.0)
    picture, words = preview.sheet(tmp_path / "q.mp4", settings)
    assert picture.width > 100 and words


@pytest.mark.parametrize("damaged", [DETECTOR, POSE])
def test_a_damaged_file_is_named(settings, tmp_path, damaged):
    for file in (DETECTOR, POSE):
        target = tmp_path / OFFICIAL / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"no network" if file == damaged else (settings.models / OFFICIAL / file).read_bytes())
    with pytest.raises(UserError, match=r"performance: .*fetch it again") as caught:
        people.load_dwpose(Settings(models=tmp_path))
    assert damaged.rpartition("/")[2] in str(caught.value)
