"""Step caches: which steps are left out, what takes the blocks' place, and when there is no cache."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engines.random_models import make_engine, quiet
from tests.engines.test_undistilled import full
from wan_ui.catalog import load_catalog
from wan_ui.engines import schedule, step_cache
from wan_ui.engines.step_cache import MagCache, TeaCache, make_step_cache
from wan_ui.settings import settings

FIFTY_STEPS_OF_5B = [10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29, 31, 33, 35, 37, 39, 41, 49]
# (table, task, steps, shift, boundary) -> steps that `magcache_forward` of MagCache4Wan2.2 at df81cb1 leaves out with
# its defaults (threshold 0.04, K 2, retention 0.2), the same for both halves.
OFFICIAL = {
    ("i2v-a14b", "i2v", 40, 5.0, 0.9): [20, 21, 23, 25, 27, 29, 31],
    ("i2v-a14b", "i2v", 25, 5.0, 0.9): [12, 13, 15, 17, 19],
    ("t2v-a14b", "t2v", 40, 12.0, 0.875): [5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 29, 31, 33],
    ("ti2v-5b", "i2v", 50, 5.0, 0.0): FIFTY_STEPS_OF_5B,
    ("ti2v-5b", "t2v", 50, 5.0, 0.0): FIFTY_STEPS_OF_5B,  # without a picture it leaves out the same steps
    ("ti2v-5b", "i2v", 30, 5.0, 0.0): [6, 7, 9, 10, 12, 13, 15, 16, 18, 20, 22, 24, 29],
}


@pytest.mark.parametrize("name, task, steps, shift, boundary", OFFICIAL)
def test_magcache_leaves_out_what_its_authors_do(name, task, steps, shift, boundary):
    numbers = step_cache._numbers()["magcache"][name][task]
    times = [int(1000 * sigma) for sigma in schedule.unipc_sigmas(steps, shift)[:-1]]
    plan = step_cache.mag_plan([schedule.expert_index(time, boundary) for time in times], **numbers)
    assert [k for k, skipped in enumerate(plan) if skipped] == OFFICIAL[name, task, steps, shift, boundary]


def test_nothing_is_left_out_over_the_change_of_experts():
    numbers = {"threshold": 9.0, "longest": 99, "keep": 0.0, "high": True, "ratios": [1.0] * 18}
    plan = step_cache.mag_plan([0] * 5 + [1] * 5, **numbers)
    assert [k for k, skipped in enumerate(plan) if not skipped] == [0, 5]


@pytest.fixture
def engine(a14b):
    """Random experts whose steps may be left out as those of I2V-A14B."""
    engine = make_engine(a14b, dtype=torch.float32)
    recipes = load_catalog(settings().catalog)["i2v-a14b"].recipes
    engine.model = replace(a14b, recipes=recipes)
    return engine


def counted(engine, request):
    """The clip, and how many forwards of the first block of each expert it took."""
    calls = [0, 0]

    def count(side):
        def hook(*_):
            calls[side] += 1

        return hook

    hooks = [expert.blocks[0].register_forward_hook(count(side)) for side, expert in enumerate(engine.experts)]
    try:
        return engine.generate(request, quiet), calls
    finally:
        for hook in hooks:
            hook.remove()


def test_blocks_are_spared(engine, a14b, make_request):
    job = full(make_request, a14b, steps=20, cache="magcache", frames=5)
    clip, calls = counted(engine, job)
    plain, all_calls = counted(engine, full(make_request, a14b, steps=20, frames=5))
    assert all_calls == [8, 12] and calls == [8, 9], "three low-noise steps are left out, both halves in one pass"
    assert clip.facts["step cache"] == "MagCache: 3 of 20 steps left out" and "step cache" not in plain.facts
    difference = np.abs(clip.latents - plain.latents).mean() / np.abs(plain.latents).mean()
    assert 1e-4 < difference < 0.2, "another clip, but nearly the same"


def test_two_passes_leave_out_the_same_steps(engine, a14b, make_request, monkeypatch):
    job = full(make_request, a14b, steps=20, cache="magcache", frames=5)
    together = engine.generate(job, quiet)
    monkeypatch.setattr("wan_ui.engines.diffusers.choose_passes", lambda *_: step_cache_passes)
    apart, calls = counted(engine, job)
    assert calls == [16, 18]
    np.testing.assert_allclose(apart.latents, together.latents, atol=1e-4)


class step_cache_passes:
    value, text = "two", "two (test)"


def test_teacache_adds_up_the_change_of_the_embedding():
    steps = [schedule.Step(1.0, 0.9, 1000.0, 0)] * 6
    cache = TeaCache(steps, {"threshold": 0.25, "coefficients": [1.0, 0.0]})
    ran = []
    for k, size in enumerate([1.0, 1.1, 1.21, 1.331, 1.4641, 1.4641]):  # each 10% more than the one before
        cache.enter(k)
        tokens = torch.full((2,), float(k))
        result = cache.around(0, tokens, torch.full((3,), size), lambda k=k, tokens=tokens: ran.append(k) or tokens + 5)
        assert torch.equal(result, tokens + 5)
    assert ran == [0, 3, 5], "0.1, 0.2, 0.3 is over; the last step is always computed"
    assert cache.words == "TeaCache: 3 of 6 steps left out"


def test_both_caches_forget_another_experts_sum():
    steps = [schedule.Step(1.0, 0.9, 1000.0, expert) for expert in (0, 0, 1, 1)]
    for cache in (
        TeaCache(steps, {"threshold": 9.0, "coefficients": [0.0]}),
        MagCache(steps, {"threshold": 9.0, "longest": 9, "keep": 0.0, "high": True, "ratios": [1.0] * 6}),
    ):
        cache.planned = [True] * 4  # whatever the numbers say
        ran = []
        for k in range(4):
            cache.enter(k)
            cache.around(0, torch.zeros(1), torch.ones(1), lambda k=k, ran=ran: ran.append(k) or torch.ones(1))
        assert 2 in ran and 0 in ran and 1 not in ran


def test_few_steps_have_none_and_it_is_said_why():
    catalog = load_catalog(settings().catalog)
    recipe = catalog["i2v-a14b"].recipes["full"]
    steps = [schedule.Step(1.0, 0.0, 1000.0, 0)] * 8
    cache, words = make_step_cache("magcache", recipe, steps, "i2v")
    assert cache is None and words == (
        "off (MagCache was asked for: of 8 steps each is too unlike the one before; it takes 20)"
    )
    assert make_step_cache("magcache", recipe, steps * 3, "t2v") == (
        None, "off (MagCache was asked for: it was not measured for this kind of clip)"
    )  # fmt: skip
    assert make_step_cache("off", recipe, steps * 3, "i2v") == (None, "")


def test_every_table_that_the_catalog_names_is_there():
    named = 0
    for model in load_catalog(settings().catalog).values():
        for recipe in model.recipes.values():
            for cache, table in (("magcache", recipe.magcache), ("teacache", recipe.teacache)):
                assert not table or step_cache._numbers()[cache][table], (model.name, cache)
                named += bool(table)
    assert named >= 3
