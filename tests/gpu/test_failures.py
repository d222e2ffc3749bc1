"""Jobs that are stopped or run out of memory on the GPU, and the right job after each."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import live_bytes, make_request, quiet
from tests.lightx2v.test_engine import (  # noqa: F401 - the same, on this device
    test_a_failure_inside_a_block_with_block_offload,
    test_cancel_at_each_stage_then_the_next_job,
    test_closing_frees_the_weights,
    test_out_of_memory_at_a_step_then_a_right_job_with_its_own_seed,
)
from wan_ui.errors import UserError


def test_a_clip_that_does_not_fit_then_one_that_does(cuda, load, model, tmp_path):
    """A real out-of-memory error: torch may take no more than the loaded model and a little."""
    engine = load("bf16", torch.bfloat16)
    small = make_request(tmp_path, model, "bf16")
    expected = engine.generate(small, quiet)
    torch.cuda.empty_cache()
    baseline = live_bytes("cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 48 * 2**20) / total)
    try:
        with pytest.raises(UserError, match="ran out of memory at 1280x704, 81 frames"):
            engine.generate(make_request(tmp_path, model, "bf16", width=1280, height=704, frames=81), quiet)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert live_bytes("cuda") <= baseline
    again = engine.generate(small, quiet)
    assert np.array_equal(again.latents, expected.latents) and np.array_equal(again.frames, expected.frames)
    assert live_bytes("cuda") <= baseline
