"""Another kind of job is one record: a text-to-video task goes through intake, the table and the form's words."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wan_ui import stored
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.queue import intake
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.segments import Chain
from wan_ui.settings import Settings
from wan_ui.tasks import TASKS, fitting, offered
from wan_ui.ui import form, inputs
from wan_ui.ui.view import View


def offering(settings, tasks, family):
    """Settings whose scripted model does these tasks."""
    root = settings.catalog.parent / "scripted-model"
    for name in ("config.json", "Wan2.2_VAE.pth", "x-Q8_0.gguf"):  # of one transformer
        (root / name).touch()
    catalog = settings.catalog
    text = catalog.read_text().replace('family = "a14b"', f'family = "{family}"')
    if FAMILIES[family].single:
        text = text.replace("boundary = 0.9", "boundary = 0.0")
    catalog.write_text(text.replace("fps = 16\n", f"fps = 16\ntasks = {json.dumps(tasks)}\n"))
    load_catalog.cache_clear()
    return settings


@pytest.fixture
def settings(scripted_settings):
    """The scripted model makes clips of words alone."""
    return offering(scripted_settings, ["text-to-video"], "t2v-a14b")


@pytest.fixture
def pair(scripted_settings):
    """The scripted model takes an end picture."""
    return offering(scripted_settings, ["image-to-video", "first-last-frame"], "a14b")


@pytest.fixture
def optional(scripted_settings):
    """The scripted model may be given a picture."""
    return offering(scripted_settings, ["image-to-video", "text-to-video"], "5b")


@pytest.fixture
def pictures(tmp_path):
    """A wide one, and a tall one that is red above and blue below its middle."""
    Image.new("RGB", (192, 128), "green").save(tmp_path / "wide.png")
    tall = Image.new("RGB", (60, 120), "red")
    tall.paste("blue", (0, 60, 60, 120))
    tall.save(tmp_path / "tall.png")
    return str(tmp_path / "wide.png"), str(tmp_path / "tall.png")


def test_a_clip_of_words_alone(settings, tmp_path):
    request = resolve(Draft({"prompt": "a boat at sea"}, size="96x64"), settings, tmp_path / "job")
    assert (request.task, request.inputs, request.width, request.height) == ("text-to-video", {}, 96, 64)
    assert request.stages() == ("load", "text", "denoise", "decode", "encode")
    assert stored.read_request(json.dumps(request.to_dict())) == (request, ())
    assert resolve(Draft({"prompt": "a boat"}), settings, tmp_path / "auto").width == 64, "the first of the model's"


@pytest.mark.parametrize(
    "draft, field, words",
    [
        (Draft({}), "prompt", "say what should happen"),
        (
            Draft({"prompt": "a boat", "image": "x.png"}),
            "image",
            r"takes none, it does text to video \(t2v\); leave it out$",
        ),
        (
            Draft({"prompt": "a boat"}, task="i2v"),
            "task",
            r"does text to video \(t2v\), not image to video \(i2v\)",
        ),
    ],
)
def test_what_it_does_not_take_or_lacks_is_said(settings, tmp_path, draft, field, words):
    with pytest.raises(UserError, match=words) as caught:
        resolve(draft, settings, tmp_path / "job")
    assert caught.value.field == field and not (tmp_path / "job").exists()


def test_the_form_asks_for_no_picture(settings):
    model = load_catalog(settings.catalog)["scripted"]
    assert inputs.default_size(model) == "64x64"
    updates = inputs.model_updates(model, [], "", size="64x64", frames=5, fps=16)
    assert not updates["picture_part"]["visible"] and not updates["end_part"]["visible"]
    assert updates["voice_part"]["visible"] and updates["picture_hint"] == ""
    line = form.using_html(View(model="scripted"), model)
    assert "picture" not in line and "64 × 64" in line.replace("\u00a0", " ")


def test_what_is_given_chooses_among_the_tasks_of_a_model(settings):
    both = ("image-to-video", "text-to-video")
    assert fitting(both, {"prompt"}).name == "text-to-video"
    assert fitting(both, {"prompt", "image"}).name == "image-to-video"
    assert fitting(both, set()).name == "image-to-video", "whose picture is then asked for"
    entries = offered(TASKS[name] for name in both)
    required = {"image": False, "prompt": True, "audio": False, "segments": False}
    assert {entry.name: entry.required for entry in entries} == required


def test_both_ends_are_cropped_alike(pair, pictures, tmp_path):
    wide, tall = pictures
    draft = Draft({"image": wide, "end_image": tall, "prompt": "a boat"})
    request = resolve(draft, pair, tmp_path / "job")
    assert (request.task, request.width, request.height) == ("first-last-frame", 96, 64), "the first one's shape"
    assert set(request.inputs) == {"image", "end_image"}
    end = np.asarray(Image.open(request.inputs["end_image"]))
    assert end.shape == (64, 96, 3) and end[:30, :, 0].min() > 250 and end[34:, :, 2].min() > 250, "its middle"
    assert stored.read_request(json.dumps(request.to_dict())) == (request, ())
    assert resolve(replace(draft, task="flf2v"), pair, tmp_path / "named").task == "first-last-frame"
    assert resolve(Draft({"image": wide, "prompt": "a boat"}), pair, tmp_path / "one").task == "image-to-video"


@pytest.mark.parametrize(
    "given, task, field, words",
    [
        ("end_image", "", "image", "choose a picture first"),
        ("image", "flf2v", "end_image", "choose the picture that the clip ends at"),
        ("image end_image", "i2v", "end_image", r"image to video \(i2v\) takes none; .* choose the task flf2v"),
        ("image end_image", "t2v", "task", r"image to video \(i2v\) or first and last frame \(flf2v\), not text to"),
        ("image end_image", "fly", "task", r"'fly' is not known; choose one of image-to-video \(i2v\), "),
    ],
)
def test_half_of_a_pair_of_pictures_is_asked_for(pair, pictures, tmp_path, given, task, field, words):
    inputs = {name: pictures[0] for name in given.split()}
    with pytest.raises(UserError, match=words) as caught:
        resolve(Draft({**inputs, "prompt": "a boat"}, task=task), pair, tmp_path / "job")
    assert caught.value.field == field


def test_an_end_picture_that_cannot_be_read_is_named(pair, pictures, tmp_path):
    (tmp_path / "end.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"end_image: end\.png") as caught:
        resolve(
            Draft({"image": pictures[0], "end_image": str(tmp_path / "end.png"), "prompt": "a boat"}),
            pair,
            tmp_path / "job",
        )
    assert caught.value.field == "end_image"


def test_a_model_that_cannot_end_at_a_picture_says_which_can():
    models = load_catalog(Settings().catalog)
    draft = Draft({"image": "x.png", "end_image": "y.png", "prompt": "a boat"})
    for name in ("ti2v-5b", "wan-tiny"):
        with pytest.raises(UserError, match=f"end_image: {name} takes none, .* that takes it: i2v-a14b$"):
            intake._check_task(fitting(models[name].tasks, draft.inputs), False, draft, models[name], models)


def test_a_picture_that_is_optional(optional, pictures, tmp_path):
    model = load_catalog(optional.catalog)["scripted"]
    assert resolve(Draft({"prompt": "a boat"}), optional, tmp_path / "words").task == "text-to-video"
    assert resolve(Draft({"prompt": "a boat", "image": pictures[0]}), optional, tmp_path / "both").width == 96
    updates = inputs.model_updates(model, [], "", size="auto", frames=5, fps=16)
    assert updates["picture_part"]["visible"] and "Optional" in updates["picture_hint"]
    line = form.using_html(View(model="scripted"), model).replace("\u00a0", " ")
    assert "64 × 64" in line and "picture" not in line
    assert "shape" in form.using_html(View(model="scripted", form={"picture": "x.png"}), model)


def test_the_line_at_generate_says_where_the_clip_ends(pair):
    model = load_catalog(pair.catalog)["scripted"]
    held = {"picture": "x.png", "end": "y.png"}
    assert "ends at the second picture" in form.using_html(View(form=held), model).replace("\u00a0", " ")
    assert "no picture yet" in form.using_html(View(form={"end": "y.png"}), model).replace("\u00a0", " ")


def test_what_does_not_go_together_is_said(scripted_settings, pictures, tmp_path):
    settings = offering(scripted_settings, ["image-to-video", "first-last-frame", "continue"], "a14b")
    inputs = {"clip": "x.mp4", "end_image": pictures[1], "prompt": "a boat"}
    with pytest.raises(UserError, match=r"^clip: it does not go with end_image; take the one or the other away"):
        resolve(Draft(inputs), settings, tmp_path / "job")


def asked_of_the_engine(request, folder):
    """Task, pictures and seed of each segment."""
    chain, asked = Chain(request, folder), []
    for number in range(chain.total):
        asked.append(chain.next())
        chain.add(np.full((5, request.height, request.width, 3), 100 + number, np.uint8))
    return [(one.task, set(one.inputs), one.sampling.prompt, one.sampling.seed) for one in asked]


def test_segments_after_a_clip_of_words_alone_go_on_as_image_to_video(optional, tmp_path):
    draft = Draft({"prompt": "a boat", "segments": "a storm | calm"}, seed=4, frames=5)
    request = resolve(draft, optional, tmp_path / "job")
    assert request.task == "text-to-video" and request.inputs == {}
    (tmp_path / "job").mkdir(exist_ok=True)
    assert asked_of_the_engine(request, tmp_path / "job") == [
        ("text-to-video", set(), "a boat", 4),
        ("image-to-video", {"image"}, "a storm", 5),
        ("image-to-video", {"image"}, "calm", 6),
    ]


def test_segments_after_a_clip_with_an_end_go_on_from_there(pair, pictures, tmp_path):
    inputs = {"image": pictures[0], "end_image": pictures[1], "prompt": "a boat", "segments": "a storm"}
    request = resolve(Draft(inputs, seed=4, frames=5), pair, tmp_path / "job")
    assert asked_of_the_engine(request, tmp_path / "job") == [
        ("first-last-frame", {"image", "end_image"}, "a boat", 4),
        ("image-to-video", {"image"}, "a storm", 5),
    ]


def test_a_model_of_words_alone_says_that_it_cannot_go_on(settings, tmp_path):
    draft = Draft({"prompt": "a boat", "segments": "a storm"})
    for task in ("", "t2v"):
        with pytest.raises(UserError) as caught:
            resolve(replace(draft, task=task), settings, tmp_path / "job")
        assert caught.value.field == "segments"
        assert str(caught.value).startswith(
            "segments: scripted takes no picture, so it cannot go on from a last frame; leave them out"
        )
    model = load_catalog(settings.catalog)["scripted"]
    assert not inputs.model_updates(model, [], "", size="64x64", frames=5, fps=16)["longer"]["visible"]
    models = load_catalog(Settings().catalog)
    draft = replace(draft, task="t2v")
    with pytest.raises(
        UserError, match=r"segments: t2v-a14b takes no picture, .* or choose a model that goes on: wan-tiny.*ti2v-5b"
    ):
        intake._check_task(TASKS["text-to-video"], True, draft, models["t2v-a14b"], models)
