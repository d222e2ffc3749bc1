"""Undistilled sampling through the real LightX2V against the diffusers engine: solvers, guidance, experts, a cache."""

from dataclasses import replace

import numpy as np
import pytest

from tests.job_requests import changed
from tests.lightx2v.jobs import make_request, quiet
from wan_ui.catalog import load_catalog
from wan_ui.settings import settings

FULL = {"motion": "full", "negative": "fog", "guidance": (4.0, 3.0), "shift": 5.0}


@pytest.mark.parametrize(
    "solver, steps, cache", [("unipc", 6, "off"), ("dpm++", 6, "off"), ("euler", 5, "off"), ("unipc", 20, "magcache")]
)
def test_whole_loops_are_alike(load, reference, model, tmp_path, solver, steps, cache):
    job = make_request(tmp_path, model, "bf16", frames=5, steps=steps)
    request = changed(job, **FULL, solver=solver, cache=cache)
    recipes = load_catalog(settings().catalog)["i2v-a14b"].recipes
    production, other = load("bf16"), reference(model, "bf16")
    for engine in (production, other):
        engine.model = replace(engine.model, recipes=recipes)  # the numbers of the cache
    ours, theirs = production.generate(request, quiet), other.generate(request, quiet)
    error = np.abs(ours.latents - theirs.latents)
    print(f"{solver}, {steps} steps, cache {cache}: largest {error.max():.1e}, mean {error.mean():.1e}")
    assert error.max() < 1e-4 * max(1, np.abs(theirs.latents).max())
    assert ours.facts.get("step cache") == theirs.facts.get("step cache")
    assert (cache == "off") == ("step cache" not in ours.facts)


def test_guidance_is_off_again_afterwards(load, model, tmp_path):
    engine = load("bf16")
    plain = make_request(tmp_path, model, "bf16", frames=5)
    before = engine.generate(plain, quiet)
    guided = engine.generate(changed(plain, **FULL, solver="unipc"), quiet)
    after = engine.generate(plain, quiet)
    assert np.array_equal(before.latents, after.latents) and not np.array_equal(before.latents, guided.latents)
