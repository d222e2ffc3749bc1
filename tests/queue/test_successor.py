"""A clip of a model that takes no picture goes on with the model that the catalog names for it."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import SCRIPTED
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.media import muxer
from wan_ui.queue import successor
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.settings import Settings
from wan_ui.ui import longer
from wan_ui.ui.handlers import filling, restore
from wan_ui.ui.view import View

WORDS, FOLLOWING = "[words]", "[following]"


@pytest.fixture
def settings(scripted_settings):
    """Of three models "words" takes no picture; "following" goes on from its clips."""
    root = scripted_settings.catalog.parent / "scripted-model"
    text = SCRIPTED.format(root=root)
    following = text.replace("[scripted", "[following").replace('"Scripted engine', '"Following')
    words = text.replace("[scripted", "[words").replace('"Scripted engine', '"Words')
    words = words.replace('family = "a14b"', 'family = "t2v-a14b"\ntasks = ["text-to-video"]\nsuccessor = "following"')
    scripted_settings.catalog.write_text("\n".join([text, following, words]))
    load_catalog.cache_clear()
    return scripted_settings


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "old.mp4"
    muxer.write_mp4(np.full((5, 64, 64, 3), 90, np.uint8), path, 16, {"model": "words"})
    return str(path)


def away(settings):
    """The successor needs what no machine has."""
    text = settings.catalog.read_text()
    at = text.index(FOLLOWING)
    end = text.index(WORDS)
    gone = text[at:end].replace("scripted-model", "gone")
    settings.catalog.write_text(text[:at] + gone + text[end:])
    load_catalog.cache_clear()
    return settings


def test_it_goes_on_with_its_successor(settings, clip, tmp_path):
    draft = Draft({"clip": clip, "prompt": "x"}, model="words", scheme="fp8")
    request = resolve(draft, settings, tmp_path / "job")
    assert (request.task, request.sampling.model, request.sampling.scheme) == ("continue", "following", "fp8")
    named = resolve(Draft({"clip": clip, "prompt": "x"}, model="words", task="continue"), settings, tmp_path / "named")
    assert named.sampling.model == "following"
    catalog = load_catalog(settings.catalog)
    assert successor.words(catalog["words"], catalog["following"]) == (
        "Words takes no picture: Following goes on from its clip"
    )
    said, _ = longer.note_html(clip, "auto", None, catalog["following"], settings)
    assert "Words takes no picture: Following goes on from its clip." in said
    assert "takes no picture" not in longer.note_html(clip, "auto", None, catalog["scripted"], settings)[0]


def test_of_words_alone_it_is_still_its_own(settings, tmp_path):
    assert resolve(Draft({"prompt": "x"}, model="words"), settings, tmp_path / "job").sampling.model == "words"


def test_without_the_successors_files_it_is_said_which_model_can(settings, clip, tmp_path):
    with pytest.raises(UserError) as error:
        resolve(Draft({"clip": clip, "prompt": "x"}, model="words"), away(settings), tmp_path / "job")
    assert error.value.field == "model"
    assert str(error.value).startswith(
        "model: words takes no picture, so it cannot go on from a clip; following does in its place, but cannot run "
        "here: "
    )
    assert str(error.value).endswith("files missing; choose scripted, or get its files")
    far = resolve(
        Draft({"clip": clip, "prompt": "x"}, model="words"), settings, tmp_path / "far",
        elsewhere=lambda model, scheme, engine: (model, scheme) == ("following", "bf16"),
    )  # fmt: skip
    assert (far.sampling.model, far.sampling.scheme) == ("following", "bf16"), "another machine has it"


def test_weights_are_those_of_the_name_or_of_the_way_of_sampling():
    model = load_catalog(Settings().catalog)
    other = model["i2v-a14b"]
    base, distilled = other.scheme("fp8-base"), other.scheme("fp8")
    assert successor.like(other, "fp8", "", [base, distilled]) is distilled
    assert successor.like(other, "bf16", "full", [distilled, base]) is base
    assert successor.like(other, "bf16", "full", [distilled]) is distilled
    assert successor.like(other, "fp8", "", []) is None
    assert model["t2v-a14b"].successor == "i2v-a14b" and FAMILIES["t2v-a14b"].fps == other.fps


@pytest.mark.parametrize("there", [True, False])
def test_continue_beside_a_clip_changes_the_model_or_says_which_can(settings, clip, tmp_path, monkeypatch, there):
    settings = settings if there else away(settings)
    pipeline = SimpleNamespace(settings=settings, job=lambda *_: object(), silent_clip=lambda job: clip)
    for module in (restore, filling):
        monkeypatch.setattr(module, "PIPELINE", pipeline)
    monkeypatch.setattr(restore, "observe", lambda browser, view: {})
    monkeypatch.setattr(restore, "identify", lambda browser, settings: (browser, "local"))
    monkeypatch.setattr(filling, "save_file_to_cache", lambda path, folder: path)
    view = View(model="words", scheme="fp8")
    event = SimpleNamespace(_data={"job": "1"})
    monkeypatch.setattr(restore, "text_of_event", lambda event, name: "1")
    answer = restore.extend.__wrapped__({}, view, 1, event)
    if there:
        assert answer["model"] == "following" and view.model == "following" and view.form["before"] == clip
        assert answer["longer"]["open"]
    else:
        assert answer == {} and view.model == "words"
        assert view.complaint.words == (
            "model: Words takes no picture, so it cannot go on from a last frame; Following does in its place, but its "
            "files are not here; choose Scripted engine"
        )


def test_a_successor_that_is_none_is_refused_with_the_catalog(settings):
    text = settings.catalog.read_text()
    for name in ("nobody", "words"):
        settings.catalog.write_text(text.replace('successor = "following"', f'successor = "{name}"'))
        load_catalog.cache_clear()
        with pytest.raises(UserError, match=rf"\[words\]: successor '{name}' is no model that makes a clip from a pic"):
            load_catalog(settings.catalog)
