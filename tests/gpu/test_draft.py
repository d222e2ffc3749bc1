"""Drafts on the GPU: the 8-bit attention at full size, and a clip that stays near the exact one."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from wan_ui.engines import fused_probes
from wan_ui.machine.hardware import installed
from wan_ui.machine.probes import DRAFT
from wan_ui.machine.shapes import Shape


@pytest.fixture
def hopper(cuda):
    if not installed(("fa3_fwd_interface",)) or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("needs fa3-fwd and a Hopper GPU")


@pytest.mark.parametrize("tokens", (1000, 18_900))
def test_e4m3_attention_with_outliers(hopper, tokens):
    trial = fused_probes.draft_attention(Shape("i2v-a14b", tokens, 40, 128, 13_824))
    assert trial.error_of(trial.run()) < DRAFT


def test_a_draft_is_near_the_exact_clip_and_the_next_is_exact(cuda, configured, load, model, tmp_path):
    configured()
    engine = load("bf16", torch.bfloat16)
    plain, draft = (make_request(tmp_path, model, "bf16", draft=draft) for draft in (False, True))
    expected, clip = (engine.generate(request, quiet) for request in (plain, draft))
    off = np.linalg.norm(clip.latents - expected.latents) / np.linalg.norm(expected.latents)
    print(clip.facts["draft"], f"{off:.4f}")
    assert off < 0.15 if engine.draft.quick else off == 0
    assert np.array_equal(engine.generate(plain, quiet).latents, expected.latents)
