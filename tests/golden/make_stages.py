"""What the official Wan2.2 code computes with the toy models: `python tests/golden/make_stages.py CHECKOUT`.

Its own T5, WanModel and VAEs, and the whole of WanT2V.generate and WanTI2V.generate, float32 on a CPU, for T2V A14B and
TI2V 5B with the random weights of tests/engines/toy_models.py. The diffusers engine is held to the numbers by
tests/engines/test_upstream_stages.py, and LightX2V to that engine by tests/lightx2v. Attention is torch's, since the
official kernel needs a GPU.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import types
from functools import partial
from pathlib import Path

import diffusers  # noqa: F401 - looks for torchvision itself: before it is stubbed
import torch
import transformers  # noqa: F401 - the same
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from make_sampling import official  # noqa: E402

from tests.engines import toy_models as toys  # noqa: E402
from wan_ui.files.places import locate  # noqa: E402
from wan_ui.qa import synthetic, toy  # noqa: E402
from wan_ui.settings import settings  # noqa: E402


def state(path: Path) -> dict[str, torch.Tensor]:
    return {
        name: synthetic.values(path, name, info, "cpu").float() for name, info in synthetic.tensors_of(path).items()
    }


def real(name: str) -> types.ModuleType:
    """A module that make_sampling leaves out."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def expert(path: Path, config: Path):
    values = {name: value for name, value in json.loads(config.read_text()).items() if not name.startswith("_")}
    model = sys.modules["wan.modules.model"].WanModel(**values)
    model.load_state_dict(state(path))
    return model.eval().requires_grad_(False)


def text_encoder(paths, length: int):
    t5 = real("wan.modules.t5")
    sizes = toy.UMT5
    encoder = t5.T5EncoderModel.__new__(t5.T5EncoderModel)
    encoder.model = t5.T5Encoder(
        sizes["vocabulary"], sizes["dim"], sizes["dim"], sizes["ffn"], sizes["heads"], sizes["layers"],
        sizes["buckets"], shared_pos=False,
    )  # fmt: skip
    encoder.model.load_state_dict(state(paths.t5))
    encoder.model.eval().requires_grad_(False)
    encoder.tokenizer = t5.HuggingfaceTokenizer(name=str(paths.tokenizer), seq_len=length, clean="whitespace")
    return encoder


def video_vae(model, path: Path, folder: Path):
    """The official wrapper, with its own statistics, around a network of toy width."""
    sizes = toy.of_family(model.family).vae
    torch.save(state(path), folder / "vae.pth")
    if sizes.residual:
        module = real("wan.modules.vae2_2")
        module.WanVAE_ = partial(module.WanVAE_, dec_dim=sizes.decoder)
        return module.Wan2_2_VAE(c_dim=sizes.encoder, vae_pth=folder / "vae.pth", device="cpu")
    module = real("wan.modules.vae2_1")
    module._video_vae = partial(module._video_vae, dim=sizes.encoder)
    return module.Wan2_1_VAE(vae_pth=folder / "vae.pth", device="cpu")


@torch.no_grad()
def compute(name: str, folder: Path) -> dict[str, torch.Tensor]:
    model = toys.write_model(name, folder)
    paths = locate(model, model.scheme(""), settings())
    width, height = model.sizes[0]
    picture = Image.open(toys.write_picture(model, folder))
    experts = [expert(*parts) for parts in zip(paths.experts, paths.configs, strict=True)]
    encoder = text_encoder(paths, experts[0].text_len)
    vae = video_vae(model, paths.vae, folder)
    found = {}
    found["text"], found["negative"] = (encoder([text], "cpu")[0] for text in (toys.PROMPT, toys.NEGATIVE))

    made_by = real("wan.text2video").WanT2V if len(experts) > 1 else real("wan.textimage2video").WanTI2V
    wan = made_by.__new__(made_by)
    wan.device, wan.rank, wan.sp_size, wan.t5_cpu, wan.init_on_cpu = torch.device("cpu"), 0, 1, True, False
    stride = model.family.vae.stride
    wan.vae_stride, wan.patch_size, wan.num_train_timesteps = (4, stride, stride), (1, 2, 2), 1000
    wan.param_dtype, wan.sample_neg_prompt, wan.boundary = torch.float32, "", model.boundary
    wan.text_encoder = encoder
    wan.vae = types.SimpleNamespace(encode=vae.encode, decode=lambda x: x, model=vae.model)
    if len(experts) > 1:
        wan.high_noise_model, wan.low_noise_model = experts
    else:
        (wan.model,) = experts

    noise = toys.noise(model)
    tokens = noise[0].numel() // 4
    times = torch.full((1,), 1000 * toys.SIGMA)
    if model.family.condition == "first frame":
        image = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(height, width, 3)
        found["image"] = vae.encode([image.permute(2, 0, 1)[:, None].float() / 127.5 - 1])[0]
        noise[:, :1] = found["image"]
        mask = torch.ones(noise.shape[1:])
        mask[0] = 0
        times = times * mask[:, ::2, ::2].flatten()[None]
    for side, network in zip(model.family.sides, experts, strict=True):
        found[f"dit {side}".strip()] = network([noise], t=times, context=[found["text"]], seq_len=tokens)[0]
    for trial in toys.TRIALS[name]:
        values = toys.request_of(model, trial, folder)
        scales = values["guidance"]
        given = {"img": picture, "max_area": width * height} if trial.task == "image-to-video" else {}
        found[trial.name] = wan.generate(
            toys.PROMPT, **given, size=(width, height), frame_num=toys.FRAMES, shift=values["shift"],
            sample_solver=trial.solver, sampling_steps=toys.STEPS, n_prompt=toys.NEGATIVE, seed=toys.SEED,
            guide_scale=scales[::-1] if len(scales) > 1 else scales[0], offload_model=False,
        )  # fmt: skip
    pixels = vae.decode([found[toys.TRIALS[name][-1].name]])[0]
    found["decode"] = pixels[:, :, :: toys.EVERY, :: toys.EVERY]
    for stage, tensor in found.items():
        print(name, stage, tuple(tensor.shape), f"{float(tensor.std()):.3f}")
    return found


def main(checkout: Path) -> None:
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    torch.cuda.current_device = lambda: 0  # the default of an argument, asked for at import
    official(checkout)
    for name in toys.NAMES:
        with tempfile.TemporaryDirectory() as folder:
            found = compute(name, Path(folder))
        source = f"Wan-Video/Wan2.2 {commit.stdout.strip()}, float32 on a CPU, {name} at toy size"
        tensors = {stage: tensor.float().contiguous() for stage, tensor in found.items()}
        save_file(tensors, toys.STORED / f"{name}-toy.safetensors", {"source": source})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
