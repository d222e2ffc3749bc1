"""Blocks that are played from a graph, with a stand-in that runs them again on the tensors of the capture."""

import pytest
import torch

from tests import lora_files
from tests.engines import interpreter  # noqa: F401 - skips without triton
from tests.lightx2v.test_loras import shapes  # noqa: F401
from wan_ui.engines import lightx2v_build, lightx2v_graphs
from wan_ui.engines.lightx2v_blocks import FusedBlocks
from wan_ui.engines.lightx2v_graphs import GraphedBlocks
from wan_ui.request import LoraSpec


@pytest.fixture
def engine(load):
    return load("bf16")


@pytest.fixture
def graphed(engine):
    """The engine's experts with graphs; `graphed.captures` counts."""
    fused, captures = FusedBlocks([part.transformer_infer for part in engine.transformers]), []

    def capture_on(transformer):
        def capture(run):
            captures.append(1)
            turns, cos_sin, result = fused.turns, transformer.cos_sin, run()

            def play():
                before = fused.turns, transformer.cos_sin
                fused.turns, transformer.cos_sin = turns, cos_sin  # a graph reads what it read, whatever came since
                assert run() is result
                fused.turns, transformer.cos_sin = before

            return play, result

        return capture

    infers = [part.transformer_infer for part in engine.transformers]
    engine.graphs = [GraphedBlocks(infer, fused, capture_on(infer)) for infer in infers]
    engine.captures = captures
    return engine


def step(engine, seed, width=32, height=32, frames=5, expert=0):
    generator = torch.Generator().manual_seed(seed)
    config, family = engine.runner.config, engine.model.family
    engine.set_size(width, height, frames)
    engine.plan(2)
    return engine.predict(
        torch.randn(family.vae.latents(width, height, frames), generator=generator),
        1.0 - 0.1 * seed,
        expert,
        torch.randn(config["text_len"], config.get("text_dim", 4096), generator=generator),
        torch.randn(family.condition_shape(width, height, frames), generator=generator),
    )


def without(engine, *args, **kwargs):
    for graph in engine.graphs:
        graph.off = True
    result = step(engine, *args, **kwargs)
    for graph in engine.graphs:
        graph.off = False
    return result


def same(ours, theirs):
    return torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_other_clips_of_the_same_number_of_tokens_are_played(graphed):
    """Upright and lying clips have the same shapes and other turns."""
    assert same(step(graphed, 1, 48, 32), without(graphed, 1, 48, 32))
    for seed, width, height in ((2, 48, 32), (3, 32, 48)):
        assert same(step(graphed, seed, width, height), without(graphed, seed, width, height)), (width, height)
    assert len(graphed.captures) == 1
    assert same(step(graphed, 4, expert=1), without(graphed, 4, expert=1))
    assert len(graphed.captures) == 2


def test_another_size_and_changed_loras_are_captured_anew(graphed, shapes, tmp_path):  # noqa: F811
    step(graphed, 1)
    assert same(step(graphed, 2, frames=9), without(graphed, 2, frames=9))
    assert len(graphed.captures) == 2
    graphed.set_loras([])  # as before each job
    step(graphed, 1, frames=9)
    assert len(graphed.captures) == 2, "nothing has changed"
    lora_files.write(tmp_path / "x.safetensors", shapes)
    for loras in ([LoraSpec(str(tmp_path / "x.safetensors"), 1.0)], []):
        graphed.set_loras(loras)
        assert all(graph.captured is None for graph in graphed.graphs)
        assert same(step(graphed, 2, frames=9), without(graphed, 2, frames=9))
    assert len(graphed.captures) == 4


def test_what_is_shown_block_by_block_and_long_steps_are_not_played(graphed, monkeypatch):
    seen = []
    config, family = graphed.runner.config, graphed.model.family
    graphed.set_size(32, 32, 5)
    graphed.plan(2)
    zeros = torch.zeros
    graphed.predict(
        zeros(family.vae.latents(32, 32, 5)),
        1.0,
        0,
        zeros(config["text_len"], config.get("text_dim", 4096)),
        zeros(family.condition_shape(32, 32, 5)),
        on_block=lambda index, tokens: seen.append(index),
    )
    assert len(seen) > 2
    monkeypatch.setattr(lightx2v_graphs, "SHORT", 10)
    step(graphed, 1)
    assert not graphed.captures


def test_a_capture_that_fails_costs_nothing(graphed):
    def capture(run):
        run()
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed.graphs[0].capture = capture
    assert same(step(graphed, 1), without(graphed, 1))
    assert graphed.graphs[0].reason.startswith("RuntimeError: operation not permitted")
    assert same(step(graphed, 2), without(graphed, 2))


@pytest.mark.parametrize("wrong", [False, True])
def test_the_comparison_at_load_leaves_graphs_that_are_wrong(graphed, monkeypatch, wrong):
    if wrong:
        monkeypatch.setattr(graphed.graphs[1], "capture", lambda run: ((lambda: None), run().clone()))
    lightx2v_build.compare_graphs(graphed, 32, 32, 5)
    assert graphed.graphs[0].reason == ""
    assert graphed.graphs[1].reason.startswith("a step that is played differs by") == wrong
    assert same(step(graphed, 1, expert=1), without(graphed, 1, expert=1))
