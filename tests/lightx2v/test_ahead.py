"""GGUF weights that are made one block ahead, against those that upstream makes at every use."""

import pytest
import torch

from tests import lora_files
from tests.lightx2v.test_fused import relative, steps  # noqa: F401 - a fixture; skips without triton
from tests.lightx2v.test_loras import shapes  # noqa: F401
from wan_ui.engines.lightx2v_ahead import Ahead
from wan_ui.engines.lightx2v_blocks import FusedBlocks
from wan_ui.request import LoraSpec


@pytest.fixture
def ahead(load):
    """An engine with GGUF weights and what makes them; `ahead.made` has the blocks whose weights were made."""
    engine = load("gguf-Q8_0")
    maker = Ahead(engine.transformers, torch.float32, "cpu")
    maker.engine, maker.begun, make = engine, [], maker._make

    def noted(block, slot):
        maker.begun.append(block)
        make(block, slot)

    maker._make = noted
    return maker


def blocks_of(engine, expert):
    return list(engine.transformers[expert].transformer_weights.blocks)


def test_the_numbers_are_upstreams_and_each_is_made_once_a_step(ahead, steps):  # noqa: F811
    engine = ahead.engine
    expected = steps(engine)
    FusedBlocks([part.transformer_infer for part in engine.transformers], ahead)
    for _ in range(2):  # the second time the buffers hold another clip's
        ahead.begun.clear()
        for ours, theirs in zip(steps(engine), expected, strict=True):
            assert relative(ours, theirs) < 1e-5
        high, low = blocks_of(engine, 0), blocks_of(engine, 1)
        # After its last block an expert begins with its first again; only a change of experts finds nothing made.
        counts = [[ahead.begun.count(block) for block in blocks] for blocks in (high, low)]
        assert counts == [[2, *[1] * (len(blocks) - 1)] for blocks in (high, low)]


def test_a_step_after_a_step_of_the_same_expert_finds_its_first_block_made(ahead):
    for expert in ahead.engine.transformers:
        expert.to_cuda()  # upstream's name for "to the compute device"
    blocks = blocks_of(ahead.engine, 0)
    for block in [*blocks, *blocks]:
        ahead.begin(block)
        for layer in ahead.layers[id(block)]:
            assert torch.equal(ahead.weight(layer), layer.get_weight(layer.weight, torch.float32))
    assert len(ahead.begun) == 1 + 2 * len(blocks)
    other = blocks_of(ahead.engine, 1)[0]
    assert all(ahead.weight(layer) is None for layer in ahead.layers[id(other)])


def test_buffers_made_by_the_doctor_serve_a_job(ahead):
    """Stages are examined in inference mode, jobs run outside it."""
    for expert in ahead.engine.transformers:
        expert.to_cuda()
    blocks = blocks_of(ahead.engine, 0)
    with torch.inference_mode():
        ahead.begin(blocks[0])
    for block in blocks[1:]:
        ahead.begin(block)
    layer = ahead.layers[id(blocks[-1])][0]
    assert torch.equal(ahead.weight(layer), layer.get_weight(layer.weight, torch.float32))


def test_with_a_lora_beside_the_weights(ahead, steps, shapes, tmp_path):  # noqa: F811
    engine, path = ahead.engine, tmp_path / "x.safetensors"
    lora_files.write(path, shapes)
    engine.set_loras([LoraSpec(str(path), 1.0)])
    expected = steps(engine)
    FusedBlocks([part.transformer_infer for part in engine.transformers], ahead)
    for ours, theirs in zip(steps(engine), expected, strict=True):
        assert relative(ours, theirs) < 1e-5
