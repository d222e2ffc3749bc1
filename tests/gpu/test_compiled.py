"""The blocks through torch.compile's own compiler, against the same blocks as they are."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet

ALLOWED = {"bf16": 0.02, "fp8": 0.06, "gguf-Q8_0": 0.02}  # other roundings, of bf16 and of e4m3


@pytest.mark.parametrize("scheme", ALLOWED)
def test_the_clip_of_blocks_that_are_not_compiled(configured, load, model, tmp_path, scheme):
    request = make_request(tmp_path, model, scheme)
    configured(lightx2v_compile="off")
    plain = load(scheme, torch.bfloat16).generate(request, quiet)
    configured(lightx2v_compile="on")
    engine = load(scheme, torch.bfloat16)
    assert engine.facts["compile"].startswith("on")
    clip = engine.generate(request, quiet)
    assert clip.facts["compile"].startswith("on"), "it was given up"
    assert np.linalg.norm(clip.latents - plain.latents) < ALLOWED[scheme] * np.linalg.norm(plain.latents)
    again = engine.generate(request, quiet)
    assert np.array_equal(again.latents, clip.latents)
