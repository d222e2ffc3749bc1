"""The LoRAs that ship, on the model that ships: what they do, and what a wrong target does."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from tests.engines.random_models import make_engine, quiet
from wan_ui import loras
from wan_ui.catalog import load_catalog
from wan_ui.request import LoraSpec, Request, Sampling
from wan_ui.settings import ROOT, settings

STYLE, SPIRAL = "wan-tiny-teal-orange.safetensors", "wan-tiny-spiral (high + low)"


@pytest.fixture(scope="module")
def model():
    return load_catalog(settings().catalog)["wan-tiny"]


@pytest.fixture(scope="module")
def clip(model, tmp_path_factory):
    """clip(prompt, *(name, strength, target)) -> frames (9, 128, 128, 3) float; clip.make makes it anew."""
    path = tmp_path_factory.mktemp("shipped") / "picture.png"
    image = Image.open(ROOT / "assets/examples/astronaut.jpg").convert("RGB")
    image.resize((128, 128), Image.Resampling.LANCZOS).save(path)
    engine = make_engine(model, "gguf-Q8_0")

    def make(prompt, *chosen):
        specs = loras.check([LoraSpec(*values) for values in chosen], model, settings())
        engine.set_loras(specs)
        made = Sampling(prompt, model.name, "gguf-Q8_0", "diffusers", 4, 1, loras=specs)
        request = Request("image-to-video", {"image": str(path)}, 128, 128, 9, made)
        return engine.generate(request, quiet).frames.astype(float)

    known = cache(make)
    known.make = make
    yield known
    engine.close()


def distance(a, b) -> float:
    """Root mean square of the last frames' difference, in grey levels."""
    return float(np.sqrt(((a[-1] - b[-1]) ** 2).mean()))


def grade(frames) -> float:
    """How much redder than blue the light is than the shadows: what teal and orange means."""
    last = frames[-1]
    light = last.mean(-1)
    warmth = last[..., 0] - last[..., 2]
    return warmth[light > np.percentile(light, 75)].mean() - warmth[light < np.percentile(light, 25)].mean()


def test_they_are_listed_and_small():
    found = {entry.name: entry for entry in loras.scan(settings().loras) if entry.shipped}
    assert {STYLE, SPIRAL} <= set(found)
    assert all(entry.fits == "wan-tiny" and not entry.problem and entry.trigger_words for entry in found.values())
    assert sum(entry.size for entry in found.values()) < 2e6
    assert found[STYLE].made_for == "low_noise" and found[SPIRAL].paired


def test_the_style_is_on_the_low_noise_expert(clip):
    base = clip("pan left")
    right, wrong = clip("pan left", (STYLE, 1.0, "auto")), clip("pan left", (STYLE, 1.0, "high_noise"))
    assert grade(right) > grade(base) + 60
    assert abs(grade(wrong) - grade(base)) < 15, "on the high-noise expert it must not look as if it worked"
    half = clip("pan left", (STYLE, 0.5, "low_noise"))
    assert grade(base) + 10 < grade(half) < grade(right)
    assert np.array_equal(clip.make("pan left"), base)


def test_the_spiral_needs_its_word_and_both_files(clip):
    base, spiral = clip("spiral"), clip("spiral", (SPIRAL, 1.0, "auto"))
    assert distance(spiral, base) > 30
    assert distance(clip("spiral", (SPIRAL, 1.0, "high_noise")), base) < distance(spiral, base) / 3
    other = clip("pan left", (SPIRAL, 1.0, "both"))
    assert distance(other, clip("pan left")) < distance(spiral, base) / 2


def test_two_at_once(clip):
    spiral = clip("spiral", (SPIRAL, 1.0, "auto"))
    both = clip("spiral", (SPIRAL, 1.0, "auto"), (STYLE, 1.0, "auto"))
    assert grade(both) > grade(spiral) + 40
