"""diffusers' own pipelines on the networks of an engine: what ours must equal."""

import torch
from PIL import Image

from tests.engines.random_models import encoder_of_transformers

PICTURES = {"image": "image", "last_image": "end_image"}  # theirs -> ours


def run_pipeline(engine, model, tokenizer_folder, request, scheduler, output_type="latent"):
    from diffusers import WanImageToVideoPipeline, WanPipeline
    from transformers import PreTrainedTokenizerFast

    made = request.sampling
    pictures = {name: Image.open(request.inputs[given]) for name, given in PICTURES.items() if given in request.inputs}
    pipeline = (WanImageToVideoPipeline if pictures else WanPipeline)(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(tokenizer_folder),
        text_encoder=encoder_of_transformers(engine.encoder),
        vae=engine.vae,
        scheduler=scheduler,
        transformer=engine.experts[0],
        transformer_2=engine.experts[1] if len(engine.experts) > 1 else None,
        boundary_ratio=model.boundary or None,
        expand_timesteps=model.family.condition == "first frame",
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        **pictures,
        prompt=made.prompt,
        negative_prompt=made.negative,
        width=request.width,
        height=request.height,
        num_frames=request.frames,
        num_inference_steps=made.steps,
        guidance_scale=made.guidance[0] if made.guidance else 1.0,
        guidance_scale_2=made.guidance[1] if len(made.guidance) > 1 else None,
        generator=torch.Generator("cpu").manual_seed(made.seed),
        max_sequence_length=engine.text_length,
        output_type=output_type,
    ).frames[0]
