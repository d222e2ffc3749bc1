"""The engine against diffusers' WanImageToVideoPipeline on the same components, picture and noise, in float32."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from PIL import Image
from transformers import PreTrainedTokenizerFast

from tests.engines.random_models import make_engine, quiet
from wan_ui.files.places import locate


class DistilledScheduler(FlowMatchEulerDiscreteScheduler):
    """diffusers' own scheduler, told the even sigmas, which it then shifts itself."""

    def set_timesteps(self, num_inference_steps, device=None, **kwargs):
        super().set_timesteps(sigmas=[1 - i / num_inference_steps for i in range(num_inference_steps)], device=device)


def run_pipeline(engine, model, tokenizer_folder, request, output_type):
    pipeline = WanImageToVideoPipeline(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(tokenizer_folder),
        text_encoder=engine.encoder,
        vae=engine.vae,
        scheduler=DistilledScheduler(shift=model.shift),
        transformer=engine.experts[0],
        transformer_2=engine.experts[1] if len(engine.experts) > 1 else None,
        boundary_ratio=model.boundary or None,
        expand_timesteps=model.family.condition == "first frame",
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        image=Image.open(request.inputs["image"]),
        prompt=request.sampling.prompt,
        width=request.width,
        height=request.height,
        num_frames=request.frames,
        num_inference_steps=request.sampling.steps,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(request.sampling.seed),
        max_sequence_length=engine.text_length,
        output_type=output_type,
    ).frames[0]


@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("family", ["a14b", "ti2v"])
def test_equals_pipeline(family, steps, request, make_request, isolated_settings):
    model = request.getfixturevalue(family)
    engine = make_engine(model, dtype=torch.float32)
    job = make_request(model, steps=steps, frames=9, scheme="gguf-Q8_0")
    clip = engine.generate(job, quiet)
    tokenizer = locate(model, model.scheme("gguf-Q8_0"), isolated_settings).tokenizer

    latents = run_pipeline(engine, model, tokenizer, job, "latent")
    np.testing.assert_allclose(clip.latents, latents.numpy(), atol=2e-5)
    assert abs(latents).mean() > 0.1

    frames = run_pipeline(engine, model, tokenizer, job, "np")
    assert clip.frames.shape == (9, 64, 64, 3) and clip.frames.dtype == np.uint8
    # rounding to 8 bits can fall to either side of .5
    assert np.abs(clip.frames.astype(int) - np.round(frames * 255).astype(int)).max() <= 1
