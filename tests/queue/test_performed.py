"""A clip that a performance drives: what is asked for, what is refused, and what the form says and sends."""

from dataclasses import replace

import pytest
from PIL import Image

from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.media import muxer
from wan_ui.performance import skeleton
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.recipes import PERFORMING
from wan_ui.ui import form, performance
from wan_ui.ui.handlers import filling, submit
from wan_ui.ui.view import View

CATALOG = """
[performed]
title = "Performed"
family = "animate-14b"
tasks = ["animate"]
root = "embedded:{root}"
needs_gpu = false
sizes = ["64x64", "128x64"]
frames = [{length}]
default_frames = {length}
steps = [1, 50]
default_steps = 20
guidance = [1.0]
shift = 5.0
solver = "dpm++"
boundary = 0.0
default_scheme = "gguf-Q8_0"
schemes."gguf-Q8_0" = {{ title = "Q8_0", kind = "gguf", qtype = "Q8_0", distilled = false }}
"""


@pytest.fixture
def settings(scripted_settings):
    """The scripted model follows a performance, in segments of 13 frames."""
    root = scripted_settings.catalog.parent / "scripted-model"
    for name in ("config.json", "x-Q8_0.gguf", FAMILIES["animate-14b"].performance.clip):
        (root / name).touch()
    scripted_settings.catalog.write_text(CATALOG.format(root=root, length=13))
    load_catalog.cache_clear()
    return replace(scripted_settings, model="performed")


def shorter(settings, length: int):
    root = settings.catalog.parent / "scripted-model"
    settings.catalog.write_text(CATALOG.format(root=root, length=length))
    load_catalog.cache_clear()
    return settings


@pytest.fixture
def given(tmp_path):
    Image.new("RGB", (160, 80), "teal").save(tmp_path / "hero.png")
    muxer.write_mp4([skeleton.waving(k / 20, 96, 64) for k in range(24)], tmp_path / "pose.mp4", 30.0)
    return {"image": str(tmp_path / "hero.png"), "pose_video": str(tmp_path / "pose.mp4")}


def test_the_clip_lasts_as_long_as_the_performance(settings, given, tmp_path):
    request = resolve(Draft(given), settings, tmp_path / "job")
    assert (request.task, request.width, request.height, request.frames) == ("animate", 128, 64, 24)
    made = request.sampling
    assert (made.prompt, made.given, made.overlap, made.steps, made.fps) == ("", PERFORMING, 1, 20, 30)
    assert resolve(Draft(given, overlap=5), settings, tmp_path / "other").sampling.overlap == 5


@pytest.mark.parametrize(
    "length, overlap, words",
    [
        (13, 3, r"overlap: of the 13 frames of its segments performed shares 1 or 5, not 3"),
        (9, 5, r"overlap: of the 9 frames of its segments performed shares 1, not 5"),
        (5, 5, r"overlap: of the 5 frames of its segments performed shares 1, not 5"),
        (13, "5", r"overlap: '5' is not a whole number"),
        (13, -1, r"overlap: of the 13 frames of its segments performed shares 1 or 5, not -1"),
    ],
)
def test_an_overlap_that_leaves_nothing_new_is_refused(settings, given, tmp_path, length, overlap, words):
    with pytest.raises(UserError, match=words) as error:
        resolve(Draft(given, overlap=overlap), shorter(settings, length), tmp_path / "job")
    assert error.value.field == "overlap" and not (tmp_path / "job").exists()


def test_segments_too_short_for_any_overlap_are_refused_with_the_catalog(settings, given, tmp_path):
    with pytest.raises(UserError, match=r"\[performed\]: performed: default_frames is the length of a segment"):
        resolve(Draft(given), shorter(settings, 1), tmp_path / "job")


def test_other_models_take_no_overlap(scripted_settings, picture, tmp_path):
    with pytest.raises(UserError, match="overlap: scripted makes no clips that a performance drives; leave it out"):
        resolve(Draft({"image": str(picture), "prompt": "x"}, overlap=1), scripted_settings, tmp_path / "job")


@pytest.mark.parametrize(
    "more, field, words",
    [
        ({"pose_video": ""}, "performance", "choose a video of a person first"),
        ({"pose_video": "", "performance": "hero.png"}, "performance", "hero.png cannot be read as a video"),
        ({"pose_video": "gone.mp4"}, "pose_video", "gone.mp4 does not exist"),
        ({"face_video": "pose.mp4"}, "face_video", "pose.mp4 is 96 x 64; a face video is square"),
        ({"mask_video": "pose.mp4"}, "mask_video", "no performance is given; give one, or leave this out"),
        ({"image": ""}, "image", "choose a picture first"),
        ({"end_image": "hero.png"}, "end_image", "performed takes none"),
        ({"audio": "pose.mp4"}, "audio", "performed takes none"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, given, tmp_path, more, field, words):
    more = {name: value and str(tmp_path / value) for name, value in more.items()}
    with pytest.raises(UserError, match=words) as error:
        resolve(Draft({**given, **more}), settings, tmp_path / "job")
    assert error.value.field == field and str(error.value).startswith(f"{field}: ")


def test_the_form_offers_says_and_sends_the_overlap(settings, given, monkeypatch):
    monkeypatch.setattr(submit.PIPELINE, "settings", settings, raising=False)
    model = load_catalog(settings.catalog)["performed"]
    offers = performance.overlap_offers(model)
    assert (offers["value"], [value for _, value in offers["choices"]]) == (1, [1, 5])
    view = View(model="performed", scheme="gguf-Q8_0")
    answer = filling.fill(view, "performed", **filling.offered({"overlap": 5, "size": "64x64"}))
    assert answer["overlap"]["value"] == 5 and view.form["overlap"] == 5
    view.form |= {"pose": given["pose_video"]}
    assert "5 frames shared at a seam" in form.using_html(view, model).replace("\u00a0", " ")
    held = dict.fromkeys(form.FIELDS) | {"overlap": 5, "motion": "full"}
    assert submit._draft(view, "performed", "gguf-Q8_0", held).overlap == 5
    load_catalog.cache_clear()
    short = load_catalog(shorter(settings, 9).catalog)["performed"]
    assert performance.overlap_offers(short, 5)["value"] == 1, "what is not offered is not taken over"
    usual = View(model="", scheme="")
    assert submit._draft(usual, "", "", held).overlap is None, "of a model without it nothing is sent"
