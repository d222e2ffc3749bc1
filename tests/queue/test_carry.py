"""The file of a clip carries the picture it was made of, unless it is to be left out."""

import io

import numpy as np
import pytest
from PIL import Image

from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.media import carried
from wan_ui.queue.carry import carry
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline
from wan_ui.request import Request, Result

FACTORY = "tests.scripted_engine:create_engine"


@pytest.fixture
def pipeline(scripted_settings):
    pipeline = Pipeline().open(scripted_settings, engine_factory=FACTORY, warm=False)
    yield pipeline
    pipeline.close()


def carries(pipeline, draft: Draft) -> tuple[dict[str, bytes], str]:
    job = pipeline.wait(pipeline.submit(draft))
    assert job.state == "done", job.error
    return carried.read(pipeline.clip(job)), job.id


def test_the_picture_is_carried_as_it_was_used_and_left_out_for_good(pipeline, picture, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "whose camera it was"
    with Image.open(picture) as image:
        image.convert("RGB").save(tmp_path / "photo.jpg", exif=exif, comment=b"where it was")
    asked = Draft({"image": str(tmp_path / "photo.jpg"), "prompt": "x"}, seed=5)
    files, first = carries(pipeline, asked)
    assert list(files) == ["image"] and b"it was" not in files["image"]
    used = Image.open(pipeline.picture(pipeline.job(first)))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(files["image"]))), np.asarray(used))
    files, _ = carries(pipeline, Draft(task="after-work", job=first, changes={"speed": 2}))
    assert list(files) == ["image"], "of a changed clip too"

    private = Draft(asked.inputs, seed=5, without_picture=True)
    files, second = carries(pipeline, private)
    assert files == {} and pipeline.job(second).request.public()["without_picture"] is True
    files, _ = carries(pipeline, Draft(task="after-work", job=second, changes={"speed": 2}))
    assert files == {}, "nor is it in a clip that is made of that one"
    given = str(pipeline.clip(pipeline.job(first)))
    assert list(carries(pipeline, Draft({"video": given}, task="after-work", changes={"speed": 2}))[0]) == ["image"]
    with pytest.raises(UserError, match=r"^without_picture: 'yes' is neither true nor false"):
        pipeline.submit(Draft(asked.inputs, without_picture="yes"))


@pytest.mark.limit("CARRIED_BYTES")
def test_a_picture_that_is_too_large_is_carried_as_jpeg_or_not_at_all(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "input.png")
    size = (tmp_path / "input.png").stat().st_size
    request = Request("image-to-video", {"image": str(tmp_path / "input.png")}, 64, 64, 5)
    kinds = []
    for most in (size, size - 1, 100):
        monkeypatch.setattr(limits, "CARRIED_BYTES", most)
        (tmp_path / "clip.mp4").write_bytes(b"")
        carry(request, tmp_path, Result(clip="clip.mp4"), None)
        kinds.append(carried.read(tmp_path / "clip.mp4").get("image", b"none")[:4])
    assert kinds == [b"\x89PNG", b"\xff\xd8\xff\xe0", b"none"]


def test_of_a_stranger_s_file_no_more_is_taken_than_a_clip_can_carry(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x08mdat")
    carried.append(path, {f"n{number}": b"x" for number in range(3 * carried.NAMES)})
    assert list(carried.read(path)) == [f"n{number}" for number in reversed(range(carried.NAMES))]
