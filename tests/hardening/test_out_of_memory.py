"""A machine without a GPU whose memory ends in the middle of a job, with the real model."""

from dataclasses import replace

import pytest

from wan_ui.machine.memory import ran_out
from wan_ui.queue.draft import Draft
from wan_ui.queue.memory_fit import Fit
from wan_ui.queue.pipeline import Pipeline


@pytest.mark.hardening(18, 37)
def test_a_job_that_does_not_fit_then_one_that_does(tiny_settings, picture):
    """What would fit is said, the process goes and with it all that it held, and the next jobs are as they would be,
    also at the size that did not fit: a process whose memory ended makes no kernel for a new shape any more."""
    settings = replace(tiny_settings, threads=1)
    pipeline = Pipeline().open(settings, engine_factory="tests.hardening.tight_engine:create_engine")

    def run(prompt: str, **given):
        draft = Draft({"image": str(picture), "prompt": prompt}, seed=5, steps=1, **given)
        return pipeline.wait(pipeline.submit(draft))

    try:
        before = run("zoom in", size="192x320", frames=17)
        first = pipeline.pool["cpu0"].worker.process.pid
        job = run("zoom in, tight", size="256x256", frames=25)
        assert job.state == "failed" and "Unexpected" not in job.error
        assert job.error.startswith("The machine ran out of memory at 256x256, 25 frames (")
        measured = before.result.memory["host_peak"]
        assert job.error.endswith(f"What fits: 192x320, 17 frames; a clip as large took {measured:.1f} GiB here.")
        assert job.result.fits == Fit("machine", 192, 320, 17, measured).stored()
        again = run("zoom in", size="192x320", frames=17)
        assert again.state == "done" and again.result.latents_sha256 == before.result.latents_sha256
        assert pipeline.pool["cpu0"].worker.process.pid != first
        assert run("zoom in", size="256x256", frames=25).state == "done"
    finally:
        pipeline.close()


@pytest.mark.hardening(37)
@pytest.mark.parametrize(
    "error, where",
    [
        (MemoryError(), "machine"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            "machine",
        ),
        (OSError(12, "Cannot allocate memory"), "machine"),
        (RuntimeError("shapes do not match"), ""),
        (OSError(28, "No space left on device"), ""),
    ],
)
def test_what_says_that_memory_ran_out(error, where):
    """Of a CPU's allocator, of numpy and of the system, and of nothing else."""
    assert ran_out(error) == where
