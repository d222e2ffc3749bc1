"""What the official Wan2.2 code samples with Wan-Tiny's weights: `python tests/golden/make_sampling.py CHECKOUT`.

Its own `WanI2V.generate` runs, with its WanModel and its solvers, float32 on a CPU; the engine is held to the latents
by tests/engines/test_undistilled.py. Text and picture are encoded by our engine, whose stages are held to other
references; the VAE hands on what it is given, and attention is torch's, since the official kernel needs a GPU.
"""

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wan_ui.catalog import load_catalog  # noqa: E402
from wan_ui.files.dit_file import read_dit  # noqa: E402
from wan_ui.files.places import locate  # noqa: E402
from wan_ui.files.tensors import read_plain  # noqa: E402
from wan_ui.qa.reference import float32_engine  # noqa: E402
from wan_ui.settings import settings  # noqa: E402

TARGET = Path(__file__).parent / "of-wan22" / "sampling.safetensors"
PROMPT, NEGATIVE, SEED, SIZE, FRAMES = "slowly zoom in, sunset light", "fog", 11, 64, 5
HIGH, LOW, SHIFT, BOUNDARY = 4.0, 3.0, 5.0, 0.9
RUNS = {"unipc": 8, "dpm++": 8}  # solver -> steps


def official(checkout: Path) -> types.ModuleType:
    """wan.image2video without what it imports for files and several GPUs."""

    def package(name: str, folder: Path | None = None, **content) -> None:
        module = types.ModuleType(name)
        module.__path__ = [str(folder)] if folder else []
        vars(module).update(content)
        sys.modules[name] = module

    def to_tensor(image):
        return (
            torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            .view(*image.size[::-1], 3)
            .permute(2, 0, 1)
            .float()
            .div(255)
        )

    package("wan", checkout / "wan")
    for name in ("modules", "utils", "distributed"):
        package(f"wan.{name}", checkout / "wan" / name)
    package("torchvision")
    package("torchvision.transforms")
    package("torchvision.transforms.functional", to_tensor=to_tensor)
    sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]
    package("wan.modules.t5", T5EncoderModel=None)
    package("wan.modules.vae2_1", Wan2_1_VAE=None)
    package("wan.distributed.fsdp", shard_model=None)
    package("wan.distributed.sequence_parallel", sp_attn_forward=None, sp_dit_forward=None)
    package("wan.distributed.util", get_world_size=lambda: 1)
    model = importlib.import_module("wan.modules.model")
    model.flash_attention = lambda q, k, v, **_: torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    ).transpose(1, 2)
    return importlib.import_module("wan.image2video")


def expert(path: Path, side: str, config: Path):
    values = {name: value for name, value in json.loads(config.read_text()).items() if not name.startswith("_")}
    model = sys.modules["wan.modules.model"].WanModel(**values)
    model.load_state_dict({name: read_plain(path, kept).float() for name, kept in read_dit(path, side, config).items()})
    return model.eval().requires_grad_(False)


def main(checkout: Path) -> None:
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    model = load_catalog(settings().catalog)["wan-tiny"]
    scheme = model.scheme("gguf-Q8_0")
    engine, paths = float32_engine(model, scheme, lambda progress: None), locate(model, scheme, settings())
    module = official(checkout)  # after diffusers, which asks whether torchvision is there
    picture = Image.radial_gradient("L").resize((SIZE, SIZE)).convert("RGB")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3).numpy()
    condition = engine.encode_image(pixels, FRAMES).float()
    texts = {text: engine.encode_text(text).float() for text in (PROMPT, NEGATIVE)}

    wan = module.WanI2V.__new__(module.WanI2V)
    wan.device, wan.rank, wan.sp_size, wan.t5_cpu, wan.init_on_cpu = torch.device("cpu"), 0, 1, False, False
    wan.vae_stride, wan.patch_size, wan.num_train_timesteps, wan.boundary = (4, 8, 8), (1, 2, 2), 1000, BOUNDARY
    wan.param_dtype, wan.sample_neg_prompt = torch.float32, ""
    wan.high_noise_model, wan.low_noise_model = (
        expert(*parts) for parts in zip(paths.experts, ("high", "low"), paths.configs, strict=True)
    )

    def encode_text(prompts, device):
        return [texts[text][: int(texts[text].abs().sum(1).nonzero().max()) + 1] for text in prompts]

    encode_text.model = torch.nn.Module()
    wan.text_encoder = encode_text
    wan.vae = types.SimpleNamespace(encode=lambda videos: [condition[4:]], decode=lambda latents: latents)
    found = {}
    for solver, steps in RUNS.items():
        found[solver] = wan.generate(
            PROMPT, picture, max_area=SIZE * SIZE, frame_num=FRAMES, shift=SHIFT, sample_solver=solver,
            sampling_steps=steps, guide_scale=(LOW, HIGH), n_prompt=NEGATIVE, seed=SEED, offload_model=False,
        )  # fmt: skip
        print(solver, steps, tuple(found[solver].shape), float(found[solver].std()))
    TARGET.parent.mkdir(exist_ok=True)
    source = f"Wan-Video/Wan2.2 {commit.stdout.strip()}, WanI2V.generate, float32 on a CPU, Wan-Tiny gguf-Q8_0"
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, TARGET, {"source": source})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
