"""The blocks through torch.compile: the same clip, one graph for all blocks of both experts, no harm by a failure."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from wan_ui.engines import lightx2v_build, lightx2v_config
from wan_ui.engines.lightx2v_compile import CompiledBlocks


def refuse(graph, inputs):
    raise RuntimeError("no compiler here")


@pytest.fixture
def compiled(load, model, monkeypatch):
    """compiled("fp8", backend) -> an engine with compiled blocks. On the CPU the graph is traced, not fused."""
    choose = lightx2v_config.choose

    def make(scheme, backend):
        monkeypatch.setattr(lightx2v_config, "choose", lambda *args: replace(choose(*args), compile=True))
        monkeypatch.setattr(lightx2v_build, "CompiledBlocks", partial(CompiledBlocks, backend=backend))
        return load(scheme, torch.bfloat16)

    return make


@pytest.mark.parametrize("scheme", ("bf16", "fp8", "gguf-Q8_0"))
def test_the_same_clip_from_one_graph_per_size(load, compiled, model, tmp_path, scheme):
    request = make_request(tmp_path, model, scheme)
    plain = load(scheme, torch.bfloat16).generate(request, quiet)
    torch._dynamo.utils.counters.clear()
    engine = compiled(scheme, "aot_eager")
    seen = []
    clip = engine.generate(request, seen.append)
    assert np.array_equal(clip.latents, plain.latents) and np.array_equal(clip.frames, plain.frames)
    assert engine.compiled.reason == "" and len(engine.compiled.seen) == 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # the default size at load, then this one
    assert not torch._dynamo.utils.counters["graph_break"]
    assert ["compiling" in p.detail for p in seen if p.stage == "denoise"] == [False, True, False, False, False]


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(load, compiled, model, tmp_path):
    request = make_request(tmp_path, model, "bf16")
    plain = load("bf16", torch.bfloat16).generate(request, quiet)
    clip = compiled("bf16", refuse).generate(request, quiet)
    assert np.array_equal(clip.latents, plain.latents)
    assert "no compiler here" in clip.facts["compile"] and clip.facts["compile"].startswith("off (failed")
