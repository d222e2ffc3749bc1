"""The examples that ship: one of them speaks, and one that lacks a file is not shown."""

import json
import shutil

from wan_ui.catalog import load_catalog
from wan_ui.queue.speech_intake import look_for_face, voice_trouble
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import examples


def test_one_of_those_that_ship_speaks():
    (speaking,) = [example for example in examples.load_examples() if example.speaks]
    assert speaking.picture.parent == speaking.inputs["audio"].parent == ROOT / "assets" / "examples"
    model = load_catalog(Settings().catalog)["wan-tiny"]
    assert look_for_face(str(speaking.picture), "auto", model) == (True, "one face was found")
    assert not voice_trouble(str(speaking.inputs["audio"]), Settings())
    (tile,) = [tile for tile in examples._html(examples.load_examples()).split("<li>") if ">speaks<" in tile]
    assert speaking.words in tile


def test_one_that_lacks_its_voice_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    shutil.copy(ROOT / "assets" / "examples" / "portrait.jpg", tmp_path)
    with_voice = {"image": "portrait.jpg", "prompt": "she speaks", "audio": "voice.m4a"}
    (tmp_path / "examples.json").write_text(json.dumps([with_voice, {"image": "portrait.jpg", "prompt": "zoom in"}]))
    assert [example.words for example in examples.load_examples()] == ["zoom in"]
    (tmp_path / "voice.m4a").touch()
    assert [example.words for example in examples.load_examples()] == ["she speaks", "zoom in"]
