"""Another kind of job is one record: a text-to-video task goes through intake, the table and the form's words."""

import json
from dataclasses import replace

import pytest

from wan_ui import stored, tasks
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.queue.intake import Draft, resolve
from wan_ui.tasks import PROMPT, STAGES, TASKS, fitting, offered
from wan_ui.ui import form, inputs
from wan_ui.ui.view import View

TEXT_TO_VIDEO = replace(
    TASKS["image-to-video"],
    name="text-to-video",
    stored="text-to-video",
    title="text to video",
    inputs=(PROMPT,),
    stages=tuple(stage for stage in STAGES if stage.name not in ("image", "lipsync")),
    shape="",
)


@pytest.fixture
def settings(scripted_settings, monkeypatch):
    """The scripted model does that task alone."""
    monkeypatch.setitem(tasks.TASKS, TEXT_TO_VIDEO.name, TEXT_TO_VIDEO)
    monkeypatch.setitem(tasks.BY_STORED, TEXT_TO_VIDEO.stored, TEXT_TO_VIDEO)
    catalog = scripted_settings.catalog
    catalog.write_text(catalog.read_text().replace("fps = 16\n", 'fps = 16\ntasks = ["text-to-video"]\n'))
    load_catalog.cache_clear()
    return scripted_settings


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
        (Draft({"prompt": "a boat", "image": "x.png"}), "image", "text to video takes none; leave it out"),
        (Draft({"prompt": "a boat"}, task="image-to-video"), "task", "scripted does text-to-video, not image-to-video"),
    ],
)
def test_what_it_does_not_take_or_lacks_is_said(settings, tmp_path, draft, field, words):
    with pytest.raises(UserError, match=words) as caught:
        resolve(draft, settings, tmp_path / "job")
    assert caught.value.field == field and not (tmp_path / "job").exists()


def test_the_form_asks_for_no_picture(settings):
    model = load_catalog(settings.catalog)["scripted"]
    assert inputs.default_size(model) == "64x64"
    updates = inputs.model_updates(model, [], "", size="64x64", frames=5, steps=4, fps=16)
    assert not updates["picture_part"]["visible"] and not updates["voice_part"]["visible"]
    line = form.using_html(View(model="scripted"), model)
    assert "picture" not in line and "64 × 64" in line.replace("\u00a0", " ")


def test_what_is_given_chooses_among_the_tasks_of_a_model(settings):
    both = ("image-to-video", "text-to-video")
    assert fitting(both, {"prompt"}).name == "text-to-video"
    assert fitting(both, {"prompt", "image"}).name == "image-to-video"
    assert fitting(both, set()).name == "image-to-video", "whose picture is then asked for"
    entries = offered(TASKS[name] for name in both)
    assert [(entry.name, entry.required) for entry in entries] == [("image", False), ("prompt", True), ("audio", False)]
