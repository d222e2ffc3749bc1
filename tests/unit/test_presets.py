"""Presets: what is kept of the form, and files of strangers that say they hold some."""

import json

import pytest

from wan_ui.errors import UserError
from wan_ui.ui import form, presets

SMALL = {
    "name": "small",
    "settings": {"model": "wan-tiny", "size": "256x256", "frames": 17, "draft": False},
    "loras": [],
}


def file(**changes) -> str:
    return json.dumps({"presets": [{**SMALL, **changes}], "start": ""})


def test_a_preset_holds_the_settings_and_of_the_words_what_is_asked_for():
    held = form.read({"prompt": "a lake", "segments": "night falls", "steps": 4, "size": "auto", "picture": "/a.png"})
    held |= {"model": "wan-tiny", "scheme": "bf16"}
    loras = [{"file": "sepia.safetensors", "strength": 0.5, "target": "both"}]
    made = presets.of_form("  dusk \n walk ", held, loras, with_words=False)
    assert made == {
        "name": "dusk walk",
        "settings": {"model": "wan-tiny", "scheme": "bf16", "size": "auto", "steps": 4},
        "loras": loras,
    }
    assert presets.of_form("a", held, [], with_words=True)["settings"]["segments"] == "night falls"
    assert presets.read_file(json.dumps({"presets": [made], "start": "dusk walk"})) == {
        "presets": [made],
        "start": "dusk walk",
    }
    for name in ("", "  ", None, 3, "x" * 61):
        with pytest.raises(UserError, match=r"^presets: (give it a name|a name has at most 60)"):
            presets.of_form(name, held, [], with_words=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no file of presets"),
        ("[]", "no file of presets"),
        ("[" * 100_000, "no file of presets"),
        ("\0\x89PNG", "no file of presets"),
        ('{"presets": {}}', "no file of presets"),
        ('{"presets": []}', "there are 0 in the file"),
        ('{"presets": [7]}', "number 1 is 7"),
        (" " * 1_000_001, "1,000,001 characters"),
        (file(name=""), "number 1: name: give it a name"),
        (file(settings=3), "'small': settings: 3"),
        (file(settings={"frames": "many"}), "'small': frames: 'many' is not a whole number"),
        (file(settings={"steps": 4.5}), "'small': steps: 4.5 is not a whole number"),
        (file(settings={"steps": True}), "'small': steps: True is not a whole number"),
        (file(settings={"guidance": "high"}), "'small': guidance: 'high' is not a number"),
        (file(settings={"shift": float("inf")}), "'small': shift: inf is not a number"),
        (file(settings={"draft": "no"}), "'small': draft: 'no' is not true or false"),
        (file(settings={"size": 256}), "'small': size: 256 is not a text"),
        (file(loras="sepia"), "'small': loras: 'sepia'"),
        (file(loras=[{"strength": 1}]), "'small': loras: "),
        (json.dumps({"presets": [SMALL, SMALL]}), "two of them are called 'small'"),
        (json.dumps({"presets": [SMALL], "start": "large"}), "start: 'large' is the name of none"),
        (json.dumps({"presets": [SMALL], "start": [1]}), r"start: \[1\] is the name of none"),
    ],
)
def test_a_file_of_anything_is_refused_by_what_is_wrong_in_it(content, words):
    with pytest.raises(UserError, match=f"^presets: .*{words}") as refused:
        presets.read_file(content)
    assert refused.value.field == "presets"


def test_what_another_version_has_added_is_left_out_and_what_a_browser_kept_is_read_as_far_as_it_goes():
    later = {**SMALL, "settings": {**SMALL["settings"], "camera": "drone"}, "colour": "red"}
    assert presets.read_file(json.dumps({"presets": [later]})) == {"presets": [SMALL], "start": ""}
    assert presets.read({**later, "loras": [7]}) == SMALL
    assert presets.read({"name": "a", "settings": {"frames": "many", "steps": 3}})["settings"] == {"steps": 3}
    for broken in (None, 3, [], {"settings": {}}):
        with pytest.raises(UserError, match=r"^presets: "):
            presets.read(broken)
