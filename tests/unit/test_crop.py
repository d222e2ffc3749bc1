"""The crop: numbers that mean the same for every size, from every door; where it begins."""

import numpy as np
import pytest
from PIL import Image

from wan_ui import stored
from wan_ui.crop import MIDDLE, Crop, read_crop, stored_crops
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.media.images import fit
from wan_ui.request import Request
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import picture as pictures

PORTRAIT = ROOT / "assets" / "examples"


@pytest.mark.parametrize(
    ("crop", "size", "target", "box"),
    [
        (MIDDLE, (400, 200), (100, 100), (100, 0, 300, 200)),
        (Crop(0, 0), (400, 200), (100, 100), (0, 0, 200, 200)),
        (Crop(1, 1), (400, 200), (100, 100), (200, 0, 400, 200)),
        (Crop(0.25, 0.5, 2), (400, 200), (100, 100), (50, 50, 150, 150)),
        (Crop(0, 1, 4), (400, 200), (200, 100), (0, 150, 100, 200)),
        (Crop(0.9, 0.1), (100, 400), (200, 100), (0, 15, 100, 65)),
    ],
)
def test_a_box_has_the_shape_of_the_clip_and_lies_in_the_picture(crop, size, target, box):
    assert crop.box(size, target) == pytest.approx(box)
    left, top, right, bottom = crop.box(size, target)
    assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


def test_what_is_used_is_what_the_box_says():
    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (0, 0, 100, 100))
    assert np.asarray(fit(picture, 64, 64, Crop(0, 0, 2))).mean() > 245
    assert np.asarray(fit(picture, 64, 64, Crop(1, 0))).mean() < 5


@pytest.mark.parametrize(
    ("value", "crop"),
    [
        (None, MIDDLE),
        ("", MIDDLE),
        ("0.2,0.3", Crop(0.2, 0.3)),
        (" 0.2, 0.3 , 1.5 ", Crop(0.2, 0.3, 1.5)),
        ([0, 1, 8], Crop(0, 1, 8)),
        ((0.5, 0.5), MIDDLE),
    ],
)
def test_what_a_crop_may_be_said_as(value, crop):
    assert read_crop(value, "crop") == crop


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("left", "'left' is not X,Y"),
        ("0.5", "'0.5' is not X,Y"),
        ("1,2,3,4", "is not X,Y"),
        ("nan,0.5", "is not X,Y"),
        ("0.5,inf", "is not X,Y"),
        ([True, 0.5], "is not X,Y"),
        ({"x": 1}, "is not X,Y"),
        (0.5, "is not X,Y"),
        ("1.2,0.5", "1.2,0.5 is outside of the picture"),
        ("-0.1,0.5", "outside of the picture"),
        ("0.5,0.5,0.9", "zoom 0.9 is not between 1 and 8"),
        ("0.5,0.5,8.1", "zoom 8.1 is not between 1 and 8"),
        ([0.5, 0.5, 10**400], "is not X,Y"),
    ],
)
def test_what_it_may_not_be_is_named(value, words):
    with pytest.raises(UserError, match=r"^end_crop: ") as refused:
        read_crop(value, "end_crop")
    assert words in str(refused.value) and refused.value.field == "end_crop"


def test_a_stored_one_comes_back_and_one_of_anything_is_the_middle():
    request = Request("image-to-video", {"image": "a.png"}, 64, 64, 5, crops={"image": (0.2, 0.3, 1.5)})
    values = request.to_dict()
    assert values["crops"] == {"image": (0.2, 0.3, 1.5)} and Request.from_dict(values).crops == request.crops
    assert "crops" not in Request("image-to-video", {}, 64, 64, 5).public()
    for broken in ('"left"', '{"image": "left"}', '{"hat": [0.1, 0.2, 1]}', "[0.1, 0.2]"):
        read, skipped = stored.read_request(f'{{"image": "a.png", "crops": {broken}}}')
        assert read.crops == {} and "crops" in skipped
    assert stored_crops({"image": [0.2, 0.3]}) == {"image": (0.2, 0.3, 1.0)} and stored_crops(None) is None


def test_it_begins_on_the_face_and_stays_where_it_was_put(tmp_path):
    model = found.models(Settings())["wan-tiny"]
    face = np.asarray(Image.open(next(PORTRAIT.glob("*portrait*"))).convert("RGB").resize((256, 256)))
    wide = np.full((256, 1024, 3), 90, np.uint8)
    wide[:, 700:956] = face
    Image.fromarray(wide).save(tmp_path / "wide.png")
    path = str(tmp_path / "wide.png")
    crop = pictures.first_crop(path, "256x256", model)
    assert 720 < crop.x * 1024 < 930 and crop.zoom == 1
    first = pictures.of_form({}, {"picture": path, "end": path}, "256x256", model)
    assert first["picture"].crop == first["end"].crop == crop, "the same picture twice is a loop"
    own = {"picture": pictures.Cropped(path, Crop(0.1, 0.5), own=True)}
    assert pictures.of_form(own, {"picture": path}, "256x256", model)["picture"].crop == Crop(0.1, 0.5)
    assert pictures.of_form(own, {"picture": "other.png"}, "256x256", model)["picture"].crop == MIDDLE
    Image.fromarray(np.full((256, 1024, 3), 90, np.uint8)).save(tmp_path / "empty.png")
    assert pictures.first_crop(str(tmp_path / "empty.png"), "256x256", model) == MIDDLE
    kept = pictures.to_keep(own)
    assert pictures.from_kept(kept, {"picture": path})["picture"].crop == Crop(0.1, 0.5)
    assert pictures.from_kept({"picture": "left", "hat": [0, 0]}, {"picture": path}) == {}
