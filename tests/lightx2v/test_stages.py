"""LightX2V's stages against the stored reference, and faults put into it."""

from dataclasses import replace

import pytest
import torch

from tests.qa.conftest import quiet
from wan_ui.qa import stages
from wan_ui.qa.reference import load_reference, stored_path


def examine(engine, model, scheme, healthy=None):
    stored = load_reference(stored_path(model))
    report = stages.check(
        engine, model, model.scheme(scheme), stored, "stored", quiet, None, healthy and (lambda: healthy)
    )
    print(scheme, [(stage.name, round(stage.error, 4), round(stage.tolerance, 3)) for stage in report.stages])
    return report


@pytest.mark.parametrize("scheme", ("bf16", "fp8", "gguf-Q4_0"))
def test_every_stage_passes_in_the_production_dtype(load, model, scheme):
    report = examine(load(scheme, torch.bfloat16), model, scheme)
    assert report.first_failing == "", report.stages


@pytest.fixture
def healthy(model):
    engine = stages.float32_engine(model, model.scheme("bf16"), quiet)
    yield engine
    engine.close()


def test_faults_are_localised_in_stage_and_block(load, model, healthy):
    """One load, float32; each fault is taken out again, which the last examination proves."""
    engine = load("bf16")
    scheduler, experts, vae = engine.runner.scheduler, engine.runner.model.model, engine.vae.vae

    experts.reverse()
    report = examine(engine, model, "bf16", healthy)
    assert report.first_failing == "dit high" and "another expert" in report.blocks[0].verdict
    experts.reverse()

    layer = experts[1].transformer_weights.blocks[4].compute_phases[2].ffn_0
    names = [name for name in ("weight", "pin_weight") if getattr(layer, name, None) is not None]
    right = {name: getattr(layer, name).clone() for name in names}
    for name in names:
        getattr(layer, name)[3, 3] = torch.nan
    report = examine(engine, model, "bf16", healthy)
    assert report.first_failing == "dit low" and "block 4 is the first with NaN" in report.blocks[0].verdict
    for name in names:
        getattr(layer, name).copy_(right[name])

    follow = scheduler.follow
    scheduler.follow = lambda steps, solver: follow([replace(step, expert=0) for step in steps], solver)
    assert examine(engine, model, "bf16").first_failing == "schedule"
    scheduler.follow = follow

    ends = {conv: conv.weight.data for conv in (vae.quant_conv, vae.post_quant_conv)}
    for conv, weight in ends.items():
        conv.weight.data = 1.5 * weight
    failing = examine(engine, model, "bf16")
    assert failing.first_failing == "image" and not next(s for s in failing.stages if s.name == "decode").passed
    for conv, weight in ends.items():
        conv.weight.data = weight

    assert examine(engine, model, "bf16").first_failing == ""
