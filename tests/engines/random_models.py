"""Small random models in the official layout, with original tensor names, written by the project's own maps.

Engine tests run on these, so that they depend neither on trained weights nor on a network. The sizes
differ from every released model's on purpose: nothing may be hard-coded.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from wan_ui.catalog import Model, Scheme, load_catalog
from wan_ui.engines.device import Choice
from wan_ui.engines.diffusers import DiffusersEngine
from wan_ui.engines.umt5 import UMT5Encoder
from wan_ui.engines.wan_classes import AutoencoderKLWan, WanTransformer3DModel
from wan_ui.families import FAMILIES
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.names import dit_name_map, inverse, rename, t5_name_map, vae_name_map
from wan_ui.files.quantise import quantise_file
from wan_ui.qa import layouts
from wan_ui.settings import ROOT

TEXT_LENGTH = 64
WORDS = "zoom in out pan left right the camera slowly sunset night fog waves rotate a cat"
DIT_CONFIG = {
    "_class_name": "WanModel", "dim": 128, "eps": 1e-6, "ffn_dim": 192, "freq_dim": 64, "model_type": "i2v",
    "num_heads": 4, "num_layers": 2, "text_len": TEXT_LENGTH, "text_dim": 64,
}  # fmt: skip


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """`module` with every parameter away from 0 and 1, so that a dropped or swapped one shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * parameter.std().nan_to_num(0).clamp_min(0.3) * torch.randn_like(parameter))
    return module.eval().requires_grad_(False)


def write_tokenizer(folder: Path) -> None:
    vocabulary = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS.split(" ")])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_text_encoder(path: Path, vocabulary: int) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, dropout_rate=0.0,
        relative_attention_num_buckets=16,
    )  # fmt: skip
    tensors = randomised(UMT5EncoderModel(config)).state_dict()
    tensors.pop("encoder.embed_tokens.weight")
    torch.save({k: v.bfloat16() for k, v in rename(tensors, inverse(t5_name_map(2))).items()}, path)


def encoder_of_transformers(encoder: UMT5Encoder) -> torch.nn.Module:
    """The same, with the same tensors, as pipelines of diffusers want it: a UMT5EncoderModel."""
    from transformers import UMT5Config, UMT5EncoderModel

    block = encoder.blocks[0]
    buckets, heads = block.pos_embedding.embedding.weight.shape
    vocabulary, width = encoder.token_embedding.weight.shape
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=block.attn.q.out_features // heads,
        d_ff=block.ffn.fc1.out_features,
        num_layers=len(encoder.blocks),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
    )
    model = UMT5EncoderModel(config).to(encoder.norm.weight)
    model.load_state_dict(rename(encoder.state_dict(), t5_name_map(len(encoder.blocks))), strict=False)
    assert model.encoder.embed_tokens.weight is model.shared.weight
    return model.eval().requires_grad_(False)


def write_dit(path: Path, in_dim: int, out_dim: int) -> dict:
    """A random DIT in bf16 safetensors with original names, and its config."""
    config = DIT_CONFIG | {"in_dim": in_dim, "out_dim": out_dim}
    model = randomised(
        WanTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=32,
            in_channels=in_dim,
            out_channels=out_dim,
            text_dim=64,
            freq_dim=64,
            ffn_dim=192,
            num_layers=2,
        )
    )
    tensors = rename(model.state_dict(), inverse(dit_name_map(2)))
    save_file({name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}, path)
    return config


def write_a14b(root: Path, channels: int = 36) -> None:
    """Two experts (Q8_0 GGUF only, as assets/wan-tiny ships), VAE, text encoder, tokenizer. channels: 16 for words
    alone."""
    write_tokenizer(root / "google/umt5-xxl")
    write_text_encoder(root / "models_t5_umt5-xxl-enc-bf16.pth", 3 + len(WORDS.split(" ")))
    vae = randomised(AutoencoderKLWan(base_dim=8, dim_mult=[1, 2, 3, 4], num_res_blocks=1))
    torch.save(rename(vae.state_dict(), inverse(vae_name_map(4, 1))), root / "Wan2.1_VAE.pth")
    for side, folder in (("high", "HighNoise"), ("low", "LowNoise")):
        (root / f"{side}_noise_model").mkdir()
        config = write_dit(root / "dit.safetensors", channels, 16) | {"model_type": "i2v" if channels == 36 else "t2v"}
        (root / f"{side}_noise_model/config.json").write_text(json.dumps(config))
        target = root / folder / f"random-{folder}-Q8_0.gguf"
        quantise_file(root / "dit.safetensors", target, "Q8_0", name=f"random {side}_noise")
    (root / "dit.safetensors").unlink()


def write_5b(root: Path) -> None:
    """One DIT (Q8_0), the 48-channel residual VAE in Diffusers format, text encoder, tokenizer."""
    write_tokenizer(root / "google/umt5-xxl")
    write_text_encoder(root / "models_t5_umt5-xxl-enc-bf16.pth", 3 + len(WORDS.split(" ")))
    vae = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=16, z_dim=48, dim_mult=[1, 2, 2, 2], num_res_blocks=1, is_residual=True,
        in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16, temperal_downsample=[False, True, True],
        latents_mean=torch.linspace(-1, 1, 48).tolist(), latents_std=torch.linspace(0.5, 2, 48).tolist(),
    )  # fmt: skip
    randomised(vae).save_pretrained(root / "vae")
    (root / "config.json").write_text(json.dumps(write_dit(root / "dit.safetensors", 48, 48) | {"model_type": "ti2v"}))
    quantise_file(root / "dit.safetensors", root / "dit-Q8_0.gguf", "Q8_0", name="random 5B")


def quiet(progress) -> None:
    pass


def make_engine(model: Model, scheme: str = "", dtype: torch.dtype | None = None) -> DiffusersEngine:
    """A loaded engine, computing in `dtype` instead of the automatic choice if given."""
    engine = DiffusersEngine()
    with pytest.MonkeyPatch.context() as patch:
        if dtype is not None:
            patch.setattr("wan_ui.engines.diffusers.choose_dtype", lambda device: Choice(dtype, "test"))
        engine.load(model, model.scheme(scheme), quiet)
    return engine


ANIMATE_CONFIG = {
    "_class_name": "WanAnimateModel", "dim": 128, "eps": 1e-6, "ffn_dim": 192, "freq_dim": 64, "in_dim": 36,
    "num_heads": 4, "num_layers": 6, "out_dim": 16, "text_dim": 64, "text_len": 512,
    "face_size": 32, "motion_encoder_dim": 48, "face_width": 40, "clip_width": 160,
}  # fmt: skip


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Values that keep activations near 1, and none of which is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) == 1 and "norm" in name and name.endswith("weight"):
            tensors[name] = 1 + 0.1 * drawn
        elif name.startswith("motion_encoder.") and name.endswith("weight"):
            tensors[name] = drawn  # its layers divide by the root of their inputs
        else:
            tensors[name] = drawn * (0.1 if drawn.dim() < 2 or "modulation" in name else shape[1:].numel() ** -0.5)
    return tensors


def write_animate(root: Path) -> None:
    """One Animate transformer (bf16), the Wan2.1 VAE, CLIP, text encoder, tokenizer: the official layout."""
    write_tokenizer(root / "google/umt5-xxl")
    write_text_encoder(root / "models_t5_umt5-xxl-enc-bf16.pth", 3 + len(WORDS.split(" ")))
    vae = randomised(AutoencoderKLWan(base_dim=8, dim_mult=[1, 2, 3, 4], num_res_blocks=1))
    torch.save(rename(vae.state_dict(), inverse(vae_name_map(4, 1))), root / "Wan2.1_VAE.pth")
    (root / "config.json").write_text(json.dumps(ANIMATE_CONFIG))
    shapes = {name: torch.Size(shape) for name, shape in read_parameters(root / "config.json").items()}
    tensors = {name: tensor.bfloat16() for name, tensor in random_tensors(shapes, 5).items()}
    tensors["motion_encoder.enc.net_app.convs.1.skip.0.kernel"] = torch.ones(4, 4)  # as the release has them
    save_file(tensors, root / "animate.safetensors")
    sizes = {"width": 160, "ffn": 200, "layers": 3, "picture": 28, "patch": 14}
    clip = {name: torch.Size(shape) for name, (_, shape) in layouts.clip_vision(sizes).items()}
    clip |= {"log_scale": torch.Size(()), "textual.head.0.weight": torch.Size((4, 4))}
    torch.save(random_tensors(clip, 6), root / FAMILIES["animate-14b"].performance.clip)


def animate_model(models: Path) -> Model:
    """`write_animate` below a models folder, and the catalog's model of it; segments of 9 frames."""
    root = models / "local/random-animate"
    root.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        write_animate(root)
    model = load_catalog(ROOT / "configs/catalog.toml")["wan21-t2v-1b"]
    scheme = Scheme("bf16", "bf16", "bf16", distilled=False, high="local/random-animate:animate.safetensors")
    return replace(
        model, name="random-animate", root="local/random-animate", family=FAMILIES["animate-14b"], tasks=("animate",),
        needs_gpu=False, sizes=((64, 64), (48, 64)), frames=(9,), default_frames=9, shift=5.0, fps=30,
        schemes={scheme.name: scheme},
    )  # fmt: skip
