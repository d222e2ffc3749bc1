"""GGUF weights that get their numbers from one kernel, against those that upstream makes."""

import torch

from tests import lora_files
from tests.lightx2v.test_fused import relative, steps  # noqa: F401 - a fixture; skips without triton
from tests.lightx2v.test_loras import shapes  # noqa: F401
from wan_ui.engines import gguf_kernels, lightx2v_gguf
from wan_ui.engines.lightx2v_blocks import FusedBlocks
from wan_ui.request import LoraSpec


def test_a_step_with_the_kernel_and_a_lora_beside_is_upstreams(load, steps, shapes, tmp_path, monkeypatch):  # noqa: F811
    engine, path, kinds = load("gguf-Q5_0"), tmp_path / "x.safetensors", []
    lora_files.write(path, shapes)
    engine.set_loras([LoraSpec(str(path), 1.0)])
    expected, dequantise = steps(engine), gguf_kernels.dequantise

    def counted(data, kind, shape, dtype):
        kinds.append(kind)
        return dequantise(data, kind, shape, dtype)

    monkeypatch.setattr(gguf_kernels, "dequantise", counted)
    words = lightx2v_gguf.quicken(engine.transformers, torch.float32, "cpu")
    assert words == "Q5_0 by one kernel (right when tried on this card)"
    FusedBlocks([part.transformer_infer for part in engine.transformers])
    kinds.clear()
    for ours, theirs in zip(steps(engine), expected, strict=True):
        assert relative(ours, theirs) < 1e-5
    layers = [
        layer
        for expert in engine.transformers
        for block in expert.transformer_weights.blocks
        for phase in block.compute_phases
        for layer in phase._modules.values()
        if lightx2v_gguf.kind_of(getattr(layer, "weight", None)) != "plain"
    ]
    assert kinds == ["Q5_0"] * len(layers) and layers


def test_a_kernel_with_other_numbers_is_left(load, steps, monkeypatch):  # noqa: F811
    engine = load("gguf-Q8_0")
    expected = steps(engine)
    monkeypatch.setattr(gguf_kernels, "dequantise", lambda data, kind, shape, dtype: torch.zeros(shape, dtype=dtype))
    words = lightx2v_gguf.quicken(engine.transformers, torch.float32, "cpu")
    assert words == "Q8_0 as upstream does it: its numbers are others"
    for ours, theirs in zip(steps(engine), expected, strict=True):
        assert torch.equal(ours, theirs)
