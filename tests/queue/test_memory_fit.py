"""After out of memory: which smaller clip is offered, what of it is stored, and that it runs."""

import json

import pytest

from tests.job_requests import job_request
from wan_ui import stored
from wan_ui.catalog import load_catalog
from wan_ui.queue import memory_fit
from wan_ui.queue.again import draft_of
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Job
from wan_ui.queue.memory_fit import Fit, what_fits
from wan_ui.queue.pipeline import Pipeline
from wan_ui.request import LoraSpec, Result
from wan_ui.settings import Settings

CATALOG = load_catalog(Settings().catalog)
FAILED = job_request(width=256, height=256, frames=33)


def made(width: int, height: int, frames: int, **result) -> Job:
    fits = result.pop("fits", {})
    state = "failed" if fits else "done"
    request = job_request(width=width, height=height, frames=frames, scheme=result.pop("scheme", "bf16"))
    return Job("a", "local", state, request, 0.0, result=Result(memory=result, fits=fits))


TOO_LARGE = Fit("machine", 192, 320, 17).stored()


@pytest.mark.parametrize(
    "jobs, of, expected",
    [
        ([made(256, 256, 25, host_peak=1.5)], "machine", Fit("machine", 256, 256, 25, 1.5)),
        ([made(192, 320, 17, host_peak=1.5)], "machine", Fit("machine", 192, 320, 17, 1.5)),  # its picture is cut anew
        # the picture's shape goes before a few frames more
        (
            [made(256, 256, 17, host_peak=1.4), made(192, 320, 33, host_peak=1.5)],
            "machine",
            Fit("machine", 256, 256, 17, 1.4),
        ),
        # what was measured for one memory says nothing of the other; about half the work is a guess
        ([made(256, 256, 25, host_peak=1.5)], "GPU", Fit("GPU", 256, 256, 17)),
        ([made(256, 256, 25, gpu_peak=10.0, gpu_context=0.5)], "GPU", Fit("GPU", 256, 256, 25, 10.5)),
        ([made(256, 256, 25, host_peak=1.5, scheme="fp8")], "machine", Fit("machine", 256, 256, 17)),
        # what did not fit before is not offered, nor what is as large
        (
            [made(256, 256, 25, fits=TOO_LARGE), made(256, 256, 25, host_peak=2.0)],
            "machine",
            Fit("machine", 256, 256, 17, 2.0),
        ),
        ([made(256, 256, 17, fits=TOO_LARGE)], "machine", Fit("machine", 320, 192, 17)),  # the next below it
        ([], "machine", Fit("machine", 256, 256, 17)),
    ],
)
def test_the_best_clip_that_was_shown_to_fit(jobs, of, expected):
    model = CATALOG["wan-tiny"]
    assert what_fits(FAILED, model, jobs, of) == expected


def test_a_shape_that_is_kept_goes_before_a_length():
    """Of a large model: 1280x720 becomes 832x480, not a square."""
    request = job_request(model="i2v-a14b", scheme="fp8", width=1280, height=720, frames=81)
    found = what_fits(request, CATALOG["i2v-a14b"], [], "GPU")
    assert (found.width, found.height, found.frames) == (832, 480, 81)
    assert memory_fit.words(found, request) == "Choose 832x480; whether that fits has not been measured here."


def test_the_smallest_clip_has_nothing_below_it():
    model = CATALOG["wan-tiny"]
    width, height = min(model.sizes, key=lambda size: size[0] * size[1])
    request = job_request(width=width, height=height, frames=min(model.frames))
    assert what_fits(request, model, [], "machine") is None
    assert "smallest clip" in memory_fit.words(None, request)


def test_weights_that_were_to_be_on_the_gpu_wait_in_ram_instead():
    request = job_request(offload="none")
    fit = memory_fit.weights_elsewhere(request, "GPU")
    assert fit == Fit("GPU", 256, 256, 17, offload="auto")
    assert memory_fit.words(fit, request).startswith("Choose Auto for where the weights are")
    assert memory_fit.weights_elsewhere(request, "machine") is None
    assert memory_fit.weights_elsewhere(job_request(), "GPU") is None


@pytest.mark.parametrize(
    "value, read",
    [
        ({"of": "GPU", "width": 192, "height": 320, "frames": 9}, Fit("GPU", 192, 320, 9).stored()),
        ({"of": "GPU", "width": 192, "height": 320, "frames": 9, "measured": 1}, Fit("GPU", 192, 320, 9, 1.0).stored()),
        (Fit("GPU", 192, 320, 9, offload="auto").stored(), Fit("GPU", 192, 320, 9, offload="auto").stored()),
        ({"of": "GPU", "width": 192, "height": 320, "frames": 9, "offload": "disk"}, Fit("GPU", 192, 320, 9).stored()),
        ({"of": "disk", "width": 192, "height": 320, "frames": 9}, {}),
        ({"of": "GPU", "width": "192", "height": 320, "frames": 9}, {}),
        ({"of": "GPU", "width": 192, "height": -320, "frames": 9}, {}),
        ({"of": "GPU"}, {}),
        ("192x320", {}),
    ],
)
def test_what_is_stored_is_read_or_named(value, read):
    result, skipped = stored.read_result(json.dumps({"fits": value, "seconds": {}}))
    assert result.fits == read and skipped == (() if read else ("fits",))


def test_a_job_once_more_asks_for_all_that_it_asked_for(tmp_path):
    loras = ({"file": "sepia.safetensors", "strength": 0.5, "target": "both"},)
    request = job_request(seed=7, steps=3, fps=16, loras=loras, draft=True, motion="fast", shift=5.0, overlap=0)
    draft = draft_of(Job("a", "local", "failed", request, 0.0), {"image": tmp_path / "x.png"}, size="192x320", frames=9)
    assert draft == Draft(
        {"image": str(tmp_path / "x.png"), "prompt": "a wave"},
        task=request.task, model="wan-tiny", scheme="bf16", engine="auto", size="192x320", frames=9, steps=3, fps=16,
        seed=7, draft=True, loras=(LoraSpec("sepia.safetensors", 0.5, "both"),), motion="fast", shift=5.0,
    )  # fmt: skip


@pytest.mark.hardening(37)
def test_what_is_offered_runs(tiny_settings, picture):
    """Nothing was measured, so half is offered; that fails as well, and what is offered then is what has run."""
    pipeline = Pipeline().open(tiny_settings, engine_factory="tests.scripted_engine:create_engine")

    def again(job: Job) -> Job:
        fit = Fit(**job.result.fits)
        changes = {"size": f"{fit.width}x{fit.height}", "frames": fit.frames}
        return pipeline.wait(pipeline.submit(draft_of(job, pipeline.input_files(job), **changes)))

    try:
        inputs = {"image": str(picture), "prompt": f"denoise=memory:{192 * 320 * 17}"}
        job = pipeline.wait(pipeline.submit(Draft(inputs, size="256x256", frames=33, seed=5)))
        assert job.state == "failed" and job.error.startswith("The machine ran out of memory at 256x256, 33 frames (")
        assert job.error.endswith("Choose 17 frames; whether that fits has not been measured here.")
        assert job.result.fits == Fit("machine", 256, 256, 17).stored()
        second = again(job)
        while second.state == "failed":
            assert second.request.width * second.request.height * second.request.frames > 192 * 320 * 17
            second = again(second)
        assert second.state == "done" and second.request.seed == 5 and not second.result.fits
        third = pipeline.wait(pipeline.submit(draft_of(job, pipeline.input_files(job))))
        size = (second.request.width, second.request.height, second.request.frames)
        assert third.result.fits == Fit("machine", *size, third.result.fits["measured"]).stored()
        assert third.result.fits["measured"] == second.result.memory["host_peak"] > 0
        assert f"What fits: {size[0]}x{size[1]}, {size[2]} frames; a clip as large took" in third.error
        assert again(third).state == "done"
    finally:
        pipeline.close()
