"""Wan-Tiny through LightX2V on the GPU: every scheme against the diffusers engine on the CPU, in float32."""

import numpy as np
import pytest
import torch

from tests.engines.test_wan_tiny import psnr
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_dense import dense, given_vae, test_dense_parity  # noqa: F401 - the same, on this device
from tests.lightx2v.test_engine import (  # noqa: F401
    SCHEMES,
    test_distill_loras_of_the_catalog,
    test_steps_and_sizes_change_between_jobs,
    test_text_encoder_in_fp8,
)
from tests.lightx2v.test_parity import both, errors  # noqa: F401
from tests.lightx2v.test_stages import test_every_stage_passes_in_the_production_dtype  # noqa: F401

# dB; on a CPU it is 52.4, 46.8, 52.2, 51.8 and 51.9, and twice the error is 6 dB less.
LEAST_PSNR = {"bf16": 46, "fp8": 40, "gguf-Q8_0": 45, "gguf-Q5_0": 45, "gguf-Q4_0": 45}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_clip_of_the_other_engine(load, reference, model, scheme, tmp_path):
    request = make_request(tmp_path, model, scheme)
    theirs = reference(model, scheme).generate(request, quiet)
    engine = load(scheme, torch.bfloat16)
    ours = engine.generate(request, quiet)
    quality = psnr(ours.frames, theirs.frames)
    print(f"{scheme}: {quality:.1f} dB")
    assert quality > LEAST_PSNR[scheme]
    engine.encoded.images.clear()
    engine.encoded.prompts.clear()
    again = engine.generate(request, quiet)
    assert np.array_equal(again.latents, ours.latents) and np.array_equal(again.frames, ours.frames)


@pytest.mark.parametrize("scheme", ("bf16", "gguf-Q8_0", "gguf-Q4_0"))
def test_every_stage_in_float32(both, scheme):  # noqa: F811
    """The same formulas, so the same numbers up to the order of sums."""
    found = errors(both(scheme))
    assert {stage: worst for stage, (worst, _) in found.items() if worst > 1e-3 and stage != "frames"} == {}
    assert found["frames"][0] <= 1
