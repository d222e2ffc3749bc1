"""What the form shows and sends of motion, guidance and solver, for weights with a choice and for those without."""

from pathlib import Path

import pytest

from wan_ui.catalog import load_catalog
from wan_ui.recipes import NEGATIVE
from wan_ui.settings import ROOT
from wan_ui.ui import form, recipe_part
from wan_ui.ui.handlers import filling
from wan_ui.ui.view import View


@pytest.fixture
def catalog():
    return load_catalog(Path(ROOT / "configs/catalog.toml"))


def test_only_what_changes_something_is_shown(catalog):
    model = catalog["i2v-a14b"]
    assert recipe_part.offered("fast", model.recipes["fast"]) == ()
    assert recipe_part.offered("more", model.recipes["more"]) == ("negative", "guidance")
    full = recipe_part.offered("full", model.recipes["full"])
    assert full == ("negative", "guidance", "guidance_low", "shift", "solver", "cache")
    assert "guidance_low" not in recipe_part.offered("full", catalog["ti2v-5b-full"].recipes["full"])
    tiny = catalog["wan-tiny"]
    assert recipe_part.motion_html(tiny, tiny.scheme(""), "fast") == ""
    assert "leave the choice" in recipe_part.motion_html(model, model.scheme("fp8"), "fast")
    assert "twice the time" in recipe_part.motion_html(model, model.scheme("gguf-Q8_0"), "more")


def test_what_is_hidden_is_not_sent(catalog):
    recipes = catalog["i2v-a14b"].recipes
    held = {"negative": "blur", "guidance": 4, "guidance_low": 3, "shift": 7, "solver": "euler", "cache": "magcache"}
    assert recipe_part.to_send(held, "fast", recipes["fast"]) == {"motion": "fast"}
    assert recipe_part.to_send(held, "more", recipes["more"]) == {
        "motion": "more",
        "negative": "blur",
        "guidance": (4,),
    }
    assert recipe_part.to_send(held, "full", recipes["full"]) == {
        "motion": "full", "negative": "blur", "guidance": (4, 3), "shift": 7, "solver": "euler", "cache": "magcache",
    }  # fmt: skip
    alone = recipe_part.to_send(held | {"guidance": 1, "guidance_low": 1}, "full", recipes["full"])
    assert "negative" not in alone, "without guidance it would be refused"


def test_the_line_says_what_differs(catalog):
    recipe = catalog["i2v-a14b"].recipes["full"]
    assert recipe_part.words({}, "full", recipe) == ["guidance 3.5", "UniPC"]
    held = {"guidance": 4, "guidance_low": 3, "shift": 7.0, "solver": "dpm++", "cache": "magcache"}
    assert recipe_part.words(held, "full", recipe) == ["guidance 4, 3", "DPM++", "shift 7", "MagCache"]
    assert recipe_part.words(held, "fast", catalog["i2v-a14b"].recipes["fast"]) == []


def test_a_motion_brings_its_values_and_a_clip_its_own(catalog):
    model = catalog["i2v-a14b"]
    view = View(model=model.name, scheme="gguf-Q8_0")
    answer = filling.fill_recipe(view, model, "full")
    assert view.form["steps"] == 40 and view.form["negative"] == NEGATIVE and answer["steps"]["maximum"] == 50
    assert answer["recipe_part"]["visible"] and view.form["guidance_low"] == 3.5
    stored = {"motion": "full", "steps": 30, "guidance": [4.0, 3.0], "negative": "fog", "shift": 8.0, "solver": "dpm++"}
    taken = filling.offered(stored | {"size": "480x480", "cache": "nonsense"})
    filling.fill_recipe(
        view, model, taken["motion"], taken["steps"], **{k: taken[k] for k in form.RECIPE[1:] if k in taken}
    )
    held = {
        name: view.form[name] for name in ("steps", "guidance", "guidance_low", "negative", "shift", "solver", "cache")
    }
    assert held == {
        "steps": 30, "guidance": 4.0, "guidance_low": 3.0, "negative": "fog", "shift": 8.0, "solver": "dpm++",
        "cache": "off",
    }  # fmt: skip
    filling.fill_recipe(View(model=model.name, scheme="fp8"), model, "full")  # distilled weights: the usual way
    fast = View(model=model.name, scheme="fp8")
    answer = filling.fill_recipe(fast, model, "full")
    assert fast.form["motion"] == "fast" and fast.form["steps"] == 4 and not answer["recipe_part"]["visible"]
