"""FastVideo's whole pipelines against our engine: words in, frames out, with the same seed and random tiny weights.

It loads the converted folder by its own loaders, as a user's FastVideo does. WanPipeline samples Wan2.1 with UniPC and
guidance, WanDMDPipeline in FastWan's three steps. Its loop casts to bfloat16 by a constant; here that is float32, so
that what differs is the code and not the rounding.
"""

import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from wan_ui import settings
from wan_ui.catalog import Scheme, load_catalog
from wan_ui.engines import schedule
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.qa.compare import ssim
from wan_ui.request import Request
from wan_ui.settings import ROOT

WIDTH, HEIGHT, FRAMES, SEED, SHIFT = 96, 64, 9, 7, 8.0
PROMPT, NEGATIVE = "zoom in slowly", "fog waves"


@pytest.fixture(scope="module")
def model(official):
    before = settings.settings()
    settings.use(replace(before, threads=1, models=official.parents[1]))
    found = load_catalog(ROOT / "configs/catalog.toml")["wan21-t2v-1b"]
    scheme = Scheme("bf16", "bf16", "bf16", high="random/official:diffusion_pytorch_model.safetensors")
    yield replace(
        found, root="random/official", needs_gpu=False, sizes=((WIDTH, HEIGHT),), frames=(FRAMES,),
        schemes={scheme.name: scheme},
    )  # fmt: skip
    settings.use(before)


@pytest.fixture(scope="module")
def engine(fastvideo, model):
    engine = DiffusersEngine()
    engine.load(model, model.scheme(""), lambda progress: None)
    yield engine
    engine.close()


def ours(engine, **sampling) -> np.ndarray:
    values = {
        "task": "text-to-video", "prompt": PROMPT, "model": engine.loaded.name, "scheme": "bf16", "motion": "full",
        "engine": "diffusers", "width": WIDTH, "height": HEIGHT, "frames": FRAMES, "seed": SEED, "shift": SHIFT,
    }  # fmt: skip
    return engine.generate(Request.from_dict(values | sampling), lambda progress: None).frames


def theirs(pipeline, folder, monkeypatch, **batch) -> np.ndarray:
    from fastvideo.configs.pipelines.wan import FastWan2_1_T2V_480P_Config
    from fastvideo.fastvideo_args import FastVideoArgs
    from fastvideo.pipelines.pipeline_batch_info import ForwardBatch
    from fastvideo.pipelines.stages import denoising

    in_float32 = types.ModuleType("torch")
    vars(in_float32).update(vars(torch) | {"bfloat16": torch.float32})
    monkeypatch.setattr(denoising, "torch", in_float32)
    config = FastWan2_1_T2V_480P_Config(flow_shift=SHIFT, dit_precision="fp32", vae_decode_precision="fp32")
    args = FastVideoArgs.from_kwargs(
        model_path=str(folder), pipeline_config=config, num_gpus=1, disable_autocast=True, use_fsdp_inference=False,
        dit_cpu_offload=False, dit_layerwise_offload=False, vae_cpu_offload=False, text_encoder_cpu_offload=False,
        pin_cpu_memory=False,
    )  # fmt: skip
    whole = pipeline(str(folder), args)
    whole.post_init()
    values = ForwardBatch(
        data_type="video", prompt=PROMPT, seed=SEED, width=WIDTH, height=HEIGHT, num_frames=FRAMES, **batch
    )
    frames = whole.forward(values, args).output[0]
    return (frames.float().permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Least SSIM of a frame."""
    assert a.shape == b.shape == (FRAMES, HEIGHT, WIDTH, 3) and a.std() > 5
    return min(ssim(*pair) for pair in zip(a, b, strict=True))


def test_wan_pipeline(engine, folder, monkeypatch):
    from fastvideo.pipelines.basic.wan.wan_pipeline import WanPipeline

    expected = theirs(
        WanPipeline, folder, monkeypatch, negative_prompt=NEGATIVE, guidance_scale=6.0, num_inference_steps=8
    )
    sampling = {"solver": "unipc", "steps": 8, "guidance": (6.0,), "negative": NEGATIVE}
    # Its grid begins at 0.9997, the official one, which is ours, at 0.999.
    assert likeness(ours(engine, **sampling), expected) >= 0.98
    assert likeness(ours(engine, **sampling, seed=SEED + 1), expected) < 0.5


def test_fastwan_in_three_steps(engine, folder, monkeypatch):
    from fastvideo.pipelines.basic.wan.wan_dmd_pipeline import WanDMDPipeline

    expected = theirs(WanDMDPipeline, folder, monkeypatch, num_inference_steps=3)
    sampling = {"solver": "dmd", "steps": 3, "motion": "fast"}
    assert likeness(ours(engine, **sampling), expected) < 0.5
    # It draws noise frame by frame, we channel by channel.
    drawn = schedule.noises

    def frame_by_frame(seed, shape):
        channels, frames, *rest = shape
        return (noise.transpose(0, 1) for noise in drawn(seed, (frames, channels, *rest)))

    monkeypatch.setattr(schedule, "noises", frame_by_frame)
    monkeypatch.setattr("wan_ui.engines.solvers.noises", frame_by_frame)
    assert likeness(ours(engine, **sampling), expected) >= 0.98
