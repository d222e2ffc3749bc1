"""The engine against diffusers' Wan pipelines on the same components, pictures and noise, in float32."""

import numpy as np
import pytest
import torch

from tests.engines.pipelines import run_pipeline
from tests.engines.random_models import make_engine, quiet
from wan_ui.files.places import locate
from wan_ui.tasks import TASKS


def distilled_scheduler(shift: float):
    """diffusers' own scheduler, told the even sigmas, which it then shifts itself."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    class DistilledScheduler(FlowMatchEulerDiscreteScheduler):
        def set_timesteps(self, steps, device=None, **kwargs):
            super().set_timesteps(sigmas=[1 - i / steps for i in range(steps)], device=device)

    return DistilledScheduler(shift=shift)


@pytest.mark.parametrize(
    "family, task, steps",
    [
        *(("a14b", "i2v", steps) for steps in (1, 3, 4)),
        *(("ti2v", "i2v", steps) for steps in (1, 3, 4)),
        ("a14b", "flf2v", 4),
        ("t2v", "t2v", 4),
        ("ti2v", "t2v", 4),
    ],
)
def test_equals_pipeline(family, task, steps, request, make_request, other_picture, isolated_settings):
    model = request.getfixturevalue(family)
    engine = make_engine(model, dtype=torch.float32)
    kind = next(record.stored for record in TASKS.values() if record.short == task)
    given = {"flf2v": {"end_image": str(other_picture)}, "t2v": {"image": ""}}.get(task, {})
    job = make_request(model, steps=steps, frames=9, scheme="gguf-Q8_0", kind=kind, **given)
    clip = engine.generate(job, quiet)
    tokenizer = locate(model, model.scheme("gguf-Q8_0"), isolated_settings).tokenizer

    latents = run_pipeline(engine, model, tokenizer, job, distilled_scheduler(model.shift))
    np.testing.assert_allclose(clip.latents, latents.numpy(), atol=2e-5)
    assert abs(latents).mean() > 0.1

    frames = run_pipeline(engine, model, tokenizer, job, distilled_scheduler(model.shift), "np")
    assert clip.frames.shape == (9, 64, 64, 3) and clip.frames.dtype == np.uint8
    # rounding to 8 bits can fall to either side of .5
    assert np.abs(clip.frames.astype(int) - np.round(frames * 255).astype(int)).max() <= 1


def test_the_last_picture_counts(a14b, make_request, other_picture, picture, float32_engine):
    """It is told from the first, from none, and remembered by what is in it."""
    ends = [{}, {"end_image": str(other_picture)}, {"end_image": str(picture)}, {"end_image": str(other_picture)}]
    jobs = [make_request(a14b, **end, kind="first-last-frame" if end else "generate") for end in ends]
    clips = [float32_engine.generate(job, quiet).latents for job in jobs]
    assert np.array_equal(clips[1], clips[3])
    assert min(np.abs(clips[a] - clips[b]).max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3
