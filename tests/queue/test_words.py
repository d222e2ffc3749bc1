"""What Wan-Tiny is said to understand of a prompt, and what it is given for it."""

import random
import sys

import pytest

from tests import lora_files
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.queue.word_table import load_table
from wan_ui.queue.words import read, read_for
from wan_ui.request import LoraSpec
from wan_ui.settings import ROOT, Settings, load_settings

TABLE = load_table(ROOT / "configs" / "words" / "wan-tiny.toml")


@pytest.mark.parametrize(
    ("prompt", "said", "given"),
    [
        ("slowly zoom in, sunset light", "understood: slow zoom in, sunset", "slowly zoom in, sunset light"),
        ("The camera pans to the LEFT!", "understood: pan left", "the camera pans left"),
        ("anticlockwise rotation", "understood: turn counterclockwise", "rotate counterclockwise"),
        # Not in its training, and it gave the default for them.
        ("dim the lights", "understood: night", "night falls"),
        ("fade to black", "understood: night", "night falls"),
        ("fade to black and white", "understood: black and white", "turns black and white"),
        ("the camera slowly moves towards the house", "understood: slow zoom in; not: house", "slowly zoom in"),
        ("镜头慢慢推近，夕阳", "understood: slow zoom in, sunset", "slowly zoom in, sunset light"),
        # What it cannot do is said, and does not become a motion.
        (
            "slow zoom in at sunset, a dragon",
            "understood: slow zoom in, sunset; not: dragon",
            "slowly zoom in, sunset light",
        ),
        ("she smiles", "understood: nothing, so it makes its gentle push-in; not: smiles", "subtle motion"),
        ("it rains", "understood: nothing, so it makes its gentle push-in; not: rains", "subtle motion"),
        (
            "she turns her head",
            "understood: nothing, so it makes its gentle push-in; not: turns her head",
            "subtle motion",
        ),
        (
            "a car drives from left to right",
            "understood: nothing, so it makes its gentle push-in; not: car drives from left to right",
            "subtle motion",
        ),
        (
            "orbit around the statue",
            "understood: nothing, so it makes its gentle push-in; not: orbit around the statue",
            "subtle motion",
        ),
        ("她微笑", "understood: nothing, so it makes its gentle push-in; not: 她微笑", "subtle motion"),
        (
            "a black and white cat on the left",
            "understood: nothing, so it makes its gentle push-in; not: black, white cat on the left",
            "subtle motion",
        ),
        # No, not any more, and instead.
        ("instead of zooming in, pan left", "understood: pan left", "the camera pans left"),
        ("not at night", "understood: a gentle push-in", "subtle motion"),
        ("the camera should not move at all", "understood: no motion", "a static shot"),
        ("the fog lifts", "understood: nothing, so it makes its gentle push-in; not: fog lifts", "subtle motion"),
        ("remove the fog", "understood: nothing, so it makes its gentle push-in; not: remove the fog", "subtle motion"),
        ("I don't want any fog", "understood: a gentle push-in", "subtle motion"),
        ("no fog or night", "understood: a gentle push-in", "subtle motion"),
        (
            "make the fog go away",
            "understood: nothing, so it makes its gentle push-in; not: make the fog go away",
            "subtle motion",
        ),
        ("lights fade in", "understood: bright light", "the sun rises"),
        ("the camera moves left to right", "understood: pan right", "the camera pans right"),
        (
            "she pulls away from him",
            "understood: nothing, so it makes its gentle push-in; not: pulls away from him",
            "subtle motion",
        ),
        ("ｚｏｏｍ　ｉｎ", "understood: zoom in", "zoom in"),
        ("turn night into day", "understood: bright light", "the sun rises"),
        ("zoom in but not too fast", "understood: zoom in", "zoom in"),
        ("不要放大", "understood: no motion", "a static shot"),
        ("大雾散去", "understood: nothing, so it makes its gentle push-in; not: 大雾散去", "subtle motion"),
        # What only looks like one of its words.
        (
            "the dog shakes its head",
            "understood: nothing, so it makes its gentle push-in; not: dog shakes its head",
            "subtle motion",
        ),
        ("a frozen lake", "understood: nothing, so it makes its gentle push-in; not: frozen lake", "subtle motion"),
        ("女孩向左看", "understood: nothing, so it makes its gentle push-in; not: 女孩向左看", "subtle motion"),
        ("镜头缓慢向左移动", "understood: slow pan left", "the camera slowly pans left"),
        ("放大镜", "understood: nothing, so it makes its gentle push-in; not: 放大镜", "subtle motion"),
        # What is left of a text without spaces, and of pictures, is said as well.
        ("一只龙飞过夕阳", "understood: sunset; not: 一只龙飞过", "sunset light"),
        ("zoom in 🐉", "understood: zoom in; not: 🐉", "zoom in"),
        # One motion, one light.
        (
            "pan left then pan right",
            "understood: pan left; one at a time, so without: pan right",
            "the camera pans left",
        ),
        (
            "fog at night, zoom in and shake",
            "understood: zoom in, fog; one at a time, so without: shaking, night",
            "zoom in, the fog rolls in",
        ),
        ("no camera movement, the trees sway", "understood: swaying", "swaying in the wind"),
        ("don't zoom", "understood: no motion", "a static shot"),
        ("without fog, pan left strongly", "understood: fast pan left", "the camera strongly pans left"),
        ("animate this photo", "understood: a gentle push-in", "subtle motion"),
    ],
)
def test_a_person_is_told_what_is_made(prompt, said, given):
    reading = read(prompt, TABLE)
    assert (reading.words, reading.text) == (said, given)


def test_three_hundred_words_become_what_counts():
    filler = "a very old town with narrow streets where people sell bread and fish every morning "
    reading = read(f"{filler * 12} the camera slowly zooms out, {filler * 10} in the mist", TABLE)
    assert reading.understood == ("slow zoom out", "fog")
    assert len(reading.text.split()) <= 10


def test_the_language_it_was_trained_on_is_read_as_it_was_meant():
    """Prompts of the training's own grammar, whose meaning is known; some of its joins are ambiguous to anybody."""
    sys.path.insert(0, str(ROOT / "tools" / "wan_tiny"))
    try:
        import prompts
    finally:
        sys.path.pop(0)
    names = {
        "still": "no motion",
        "pan up": "tilt up",
        "pan down": "tilt down",
        "rotate clockwise": "turn clockwise",
        "rotate counterclockwise": "turn counterclockwise",
        "sway": "swaying",
        "shake": "shaking",
        "pulse": "pulsing",
        "bright": "bright light",
    }
    strengths = {prompts.WEAK: ("slow ", "gentle ", "slight "), prompts.STRONG: ("fast ", "strong "), 1.0: ("",)}
    rng = random.Random(7)
    wrong = []
    for _ in range(500):
        prompt, spec = prompts.sample(rng)
        wanted = []
        if spec.motion != "gentle":
            name = names.get(spec.motion, spec.motion)
            wanted.append([adverb + name for adverb in strengths[spec.motion_strength]])
        if spec.light != "none":
            name = names.get(spec.light, spec.light)
            wanted.append([adverb + name for adverb in strengths[spec.light_strength]])
        said = read(prompt, TABLE).understood
        if len(said) != len(wanted) or not all(one in may for one, may in zip(said, wanted, strict=True)):
            wrong.append((prompt, spec, said))
    assert len(wrong) <= 10, wrong


def test_every_phrase_that_is_offered_is_understood():
    for meaning in TABLE.meanings:
        for phrase in (meaning.offer, meaning.say.format(v="", n=""), meaning.say.format(v="slowly", n="slight")):
            if phrase:
                reading = read(phrase, TABLE)
                assert [meaning.name in said for said in reading.understood] == [True] and not reading.missed, phrase


def test_the_examples_ask_only_for_what_it_does():
    import json

    for example in json.loads((ROOT / "assets" / "examples" / "examples.json").read_text()):
        reading = read(example["prompt"], TABLE)
        assert reading.understood and not reading.missed and not reading.left_out, reading.words


def test_the_trigger_words_of_a_lora_stay(tmp_path):
    model = load_catalog(Settings().catalog)["wan-tiny"]
    shapes = {"blocks.0.self_attn.q.weight": (256, 256)}
    lora_files.write(tmp_path / "a.safetensors", shapes, metadata={"trigger_words": "mist portal"})
    lora_files.write(tmp_path / "b.safetensors", shapes)
    settings = load_settings({"WAN_UI_LORAS": str(tmp_path)})
    named = read_for(model, "a mist portal opens, pan left", (LoraSpec("a.safetensors"),), settings)
    assert (named.text, named.missed) == ("mist portal, the camera pans left", ("opens",))
    # It may answer to any word.
    unnamed = read_for(model, "a whirl opens, pan left", (LoraSpec("b.safetensors"),), settings)
    assert unnamed.text == "the camera pans left, whirl opens"


def test_other_models_take_any_prompt():
    model = load_catalog(Settings().catalog)["i2v-a14b"]
    assert read_for(model, "a dragon", (), Settings()) is None


def test_a_damaged_table_is_named(tmp_path):
    path = tmp_path / "words.toml"
    path.write_text("[[meaning]]\nname = 'x'\n")
    with pytest.raises(UserError, match=r"words .*words\.toml"):
        load_table(path)
