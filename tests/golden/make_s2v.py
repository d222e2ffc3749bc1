"""What the official Wan2.2 code makes of a voice: `python tests/golden/make_s2v.py CHECKOUT`.

Its own `WanS2V.generate` runs, with its WanModel_S2V, its AudioEncoder, its VAE and its solver, float32 on a CPU, on
the weights of tests/engines/s2v_models.py; tests/engines/test_s2v.py holds the engine to what each stage gave. Prompts
are encoded by our engine, which other references hold; attention is torch's, since the official kernel needs a GPU, and
what is not installed (decord, librosa, torchvision) hands on what it is given.
"""

import importlib
import subprocess
import sys
import tempfile
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention import AdaLayerNorm  # noqa: F401 - before the stand-ins, for which it would look
from PIL import Image
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.engines import s2v_models as small  # noqa: E402
from wan_ui import settings  # noqa: E402
from wan_ui.files import wav2vec  # noqa: E402
from wan_ui.qa.reference import float32_engine  # noqa: E402

TARGET = Path(__file__).parent / "of-wan22" / "speech.safetensors"
PROMPT, NEGATIVE, SEED, STEPS, GUIDANCE, SHIFT = "slowly zoom in, sunset light", "fog", 11, 3, 4.5, 3.0
POSE_FRAMES = 20  # the voice lasts 23, in two segments


def official(checkout: Path) -> types.ModuleType:
    """wan.speech2video without what it imports for files and several GPUs."""

    def package(name: str, folder: Path | None = None, **content) -> types.ModuleType:
        module = types.ModuleType(name)
        module.__path__ = [str(folder)] if folder else []
        vars(module).update(content)
        sys.modules[name] = module
        return module

    class Same:
        def __init__(self, *sizes):
            pass

        def __call__(self, value):
            return value

    def to_tensor():
        return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)

    class VideoReader:
        def __init__(self, video):
            self.frames = video.frames

        def get_avg_fps(self):
            return 16.0

        def __len__(self):
            return len(self.frames)

        def get_batch(self, indices):
            return types.SimpleNamespace(asnumpy=lambda: self.frames[indices])

    package("wan", checkout / "wan")
    for name in ("modules", "utils", "distributed"):
        package(f"wan.{name}", checkout / "wan" / name)
    transforms = package("torchvision.transforms", Resize=Same, CenterCrop=Same, ToTensor=to_tensor)
    transforms.functional = package("torchvision.transforms.functional")
    package("torchvision", transforms=transforms)
    package("decord", VideoReader=VideoReader)
    package("librosa", load=lambda samples, sr: (samples, sr))
    package("wan.modules.t5", T5EncoderModel=None)
    package("wan.distributed.fsdp", shard_model=None)
    package("wan.distributed.util", get_world_size=lambda: 1)
    names = ("distributed_attention", "gather_forward", "get_rank", "get_world_size", "sp_attn_forward")
    package("wan.distributed.sequence_parallel", sp_dit_forward=None, **dict.fromkeys(names))
    attention = importlib.import_module("wan.modules.attention")
    attention.flash_attention = lambda q, k, v, **_: torch.nn.functional.scaled_dot_product_attention(
        *(part.transpose(1, 2) for part in (q, k, v))
    ).transpose(1, 2)
    return importlib.import_module("wan.speech2video")


def listener(module: types.ModuleType):
    """The official AudioEncoder with the small wav2vec2."""
    encoder = module.AudioEncoder.__new__(module.AudioEncoder)
    encoder.model, encoder.video_rate = Wav2Vec2ForCTC(Wav2Vec2Config(**small.EAR, mask_time_prob=0.0)).eval(), 30
    own = encoder.model.wav2vec2.state_dict()
    now = {before: name for name, before in wav2vec.RENAMED.items()}
    for name, tensor in small.ear().items():
        for before, after in now.items():
            name = name.replace(before, after)
        own[name].copy_(tensor)
    prepare = Wav2Vec2FeatureExtractor(**wav2vec.PREPARED)
    encoder.processor = lambda samples, **how: prepare(samples, **how)
    return encoder


def decoder(path: Path):
    """The official Wan2_1_VAE with Wan-Tiny's weights, which are narrower."""
    module = importlib.import_module("wan.modules.vae2_1")
    tensors = torch.load(path, weights_only=True)
    blocks = [
        name for name in tensors if name.startswith("encoder.downsamples.") and name.endswith("residual.2.weight")
    ]
    width = tensors["encoder.conv1.weight"].shape[0]
    first = module._video_vae
    module._video_vae = lambda **how: first(
        **how, dim=width, num_res_blocks=len(blocks) // 4,
        dim_mult=[tensors[name].shape[0] // width for name in blocks[:: len(blocks) // 4]],
    )  # fmt: skip
    vae = module.Wan2_1_VAE(vae_pth=path, device="cpu")
    vae.model.float()
    return vae


def main(checkout: Path) -> None:
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        settings.use(replace(settings.settings(), models=Path(folder), cache=Path(folder) / "cache"))
        model = small.write(Path(folder))
        engine = float32_engine(model, model.scheme(""), lambda progress: None)
        texts = {text: engine.encode_text(text).float() for text in (PROMPT, NEGATIVE)}
        module = official(checkout)
        wan = module.WanS2V.__new__(module.WanS2V)
        wan.device, wan.rank, wan.t5_cpu, wan.init_on_cpu = torch.device("cpu"), 0, True, False
        wan.num_train_timesteps, wan.param_dtype, wan.sample_neg_prompt = 1000, torch.float32, ""
        wan.motion_frames, wan.drop_first_motion, wan.fps, wan.audio_sample_m = 73, True, 16, 0
        values = {name: value for name, value in small.config().items() if not name.startswith("_")}
        wan.noise_model = module.WanModel_S2V(**values).eval().requires_grad_(False)
        wan.noise_model.load_state_dict(small.transformer())
        wan.vae, wan.audio_encoder = decoder(Path(folder) / "local/s2v/Wan2.1_VAE.pth"), listener(module)
        wan.text_encoder = lambda prompts, device: [
            texts[text][: int(texts[text].abs().sum(1).nonzero().max()) + 1] for text in prompts
        ]
        picture = Path(folder) / "picture.png"
        Image.fromarray(small.picture()).save(picture)
        posed = types.SimpleNamespace(frames=small.pose(POSE_FRAMES))
        found: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            features, count = wan.encode_audio(small.voice(), small.FRAMES - 1)
            found["voice"] = features[0]
            found["pose"] = torch.cat(wan.load_pose_cond(posed, count, small.FRAMES - 1, (64, 64)))
            first = wan.noise_model.forward
            calls = []

            def forward(*given, **named):
                out = first(*given, **named)
                calls.append((given, named, out))
                return out

            wan.noise_model.forward = forward
            for name, pose in (("free", None), ("posed", posed)):
                calls.clear()
                found[name] = wan.generate(
                    PROMPT, str(picture), small.voice(), False, None, None, None, num_repeat=None, pose_video=pose,
                    max_area=64 * 64, infer_frames=small.FRAMES - 1, shift=SHIFT, sample_solver="unipc",
                    sampling_steps=STEPS, guide_scale=GUIDANCE, n_prompt=NEGATIVE, seed=SEED, offload_model=False,
                )  # fmt: skip
                found[f"{name} picture"] = calls[0][1]["ref_latents"][0]
                found[f"{name} motion"] = calls[-1][1]["motion_latents"][0]
                for step, at in (("first", 0), ("last", -2)):
                    given, named, out = calls[at]
                    found[f"{name} {step} latents"], found[f"{name} {step} time"] = given[0][0], named["t"].float()
                    found[f"{name} {step} velocity"] = out[0]
                print(name, tuple(found[name].shape), float(found[name].std()))
        source = f"Wan-Video/Wan2.2 {commit.stdout.strip()}, WanS2V.generate, float32 on a CPU, weights drawn by name"
        kept = {
            name: tensor.float().contiguous().clone() for name, tensor in found.items() if not name.endswith("pose")
        }
        for name in ("free", "posed"):  # of the frames every second one, and of the pixels every fourth
            kept[name] = kept[name][:, ::2, ::4, ::4].contiguous()
        kept["pose"] = found["pose"].float().contiguous()
        save_file(kept, TARGET, {"source": source})
        print(source, f"{TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
