"""FastVideo's text encoder, transformer and VAE against ours, on the same random tiny Wan2.1 weights, in float32.

Its weights come from the folder that `python -m wan_ui convert`'s own code made, ours from the official files.
"""

import json

import torch
from safetensors.torch import load_file

from wan_ui.engines import text, vae
from wan_ui.engines.dit import load_expert

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}
PARTS = {"text_encoder": "model", "transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def read(folder, part) -> tuple[dict, dict]:
    tensors = load_file(folder / part / f"{PARTS[part]}.safetensors")
    config = json.loads((folder / part / "config.json").read_text())
    return {name: tensor.float() for name, tensor in tensors.items()}, config


def close(ours, theirs, bound=1e-5) -> None:
    assert ours.shape == theirs.shape and ours.abs().max() > 0.01
    assert (ours - theirs).abs().max() <= bound * ours.abs().max()


def their_transformer(folder):
    from fastvideo.configs.models.dits import WanVideoConfig
    from fastvideo.configs.models.dits.wanvideo import WanVideoArchConfig
    from fastvideo.models.dits.wanvideo import WanTransformer3DModel
    from fastvideo.models.loader.utils import get_param_names_mapping

    tensors, config = read(folder, "transformer")
    sizes = (
        "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim", "freq_dim", "ffn_dim",
        "num_layers",
    )  # fmt: skip
    arch = WanVideoArchConfig(**{name: config[name] for name in sizes}, patch_size=tuple(config["patch_size"]))
    model = WanTransformer3DModel(WanVideoConfig(arch_config=arch), hf_config=config).float().eval()
    renamed = get_param_names_mapping(arch.param_names_mapping)
    model.load_state_dict({renamed(name)[0]: tensor for name, tensor in tensors.items()}, strict=True)
    return model


@torch.no_grad()
def their_velocity(model, latents, sigma: float, context):
    from fastvideo.forward_context import set_forward_context
    from fastvideo.pipelines.pipeline_batch_info import ForwardBatch

    batch = ForwardBatch(data_type="dummy")
    with set_forward_context(current_timestep=0, attn_metadata=None, forward_batch=batch):
        return model(
            hidden_states=latents, encoder_hidden_states=context, timestep=torch.tensor([1000 * sigma]).float()
        )


def our_transformer(official):
    path = official / "diffusion_pytorch_model.safetensors"
    return load_expert(path, official / "config.json", "", quantised=False, **CPU)


@torch.no_grad()
def our_velocity(model, latents, sigma: float, context):
    timestep = torch.tensor([1000 * sigma]).float()
    return model(hidden_states=latents, encoder_hidden_states=context, timestep=timestep, return_dict=False)[0]


def test_transformer(fastvideo, official, folder):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 3, 8, 12, generator=generator)
    context = torch.randn(1, 64, 64, generator=generator)
    ours, theirs = our_transformer(official), their_transformer(folder)
    for sigma in (0.999, 0.6, 0.05):
        close(our_velocity(ours, latents, sigma, context), their_velocity(theirs, latents, sigma, context))


def their_text_encoder(folder):
    from fastvideo.configs.models.encoders import T5Config
    from fastvideo.configs.models.encoders.t5 import T5ArchConfig
    from fastvideo.models.encoders.t5 import UMT5EncoderModel

    tensors, config = read(folder, "text_encoder")
    sizes = (
        "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
        "relative_attention_max_distance", "feed_forward_proj",
    )  # fmt: skip
    arch = T5ArchConfig(**{name: config[name] for name in sizes}, dropout_rate=0.0)
    model = UMT5EncoderModel(T5Config(arch_config=arch)).float().eval()
    loaded = model.load_weights(iter(tensors.items()))
    assert len(loaded) == 2 + 2 * 8  # the table, the last norm, and of both blocks all parts, q, k and v as one
    return model


def test_text_encoder(fastvideo, official, folder):
    from fastvideo.forward_context import set_forward_context

    ours = text.load_text_encoder(official / "models_t5_umt5-xxl-enc-bf16.pth", **CPU)
    theirs = their_text_encoder(folder)
    ids = torch.randint(2, 64, (1, 13), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    with torch.no_grad(), set_forward_context(current_timestep=0, attn_metadata=None):
        got = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = ours(ids)
    close(expected, got)


def their_vae(folder):
    from fastvideo.configs.models.vaes import WanVAEConfig
    from fastvideo.configs.models.vaes.wanvae import WanVAEArchConfig
    from fastvideo.models.vaes.wanvae import AutoencoderKLWan as Theirs

    tensors, config = read(folder, "vae")
    sizes = ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample")
    arch = WanVAEArchConfig(
        **{name: tuple(config[name]) if isinstance(config[name], list) else config[name] for name in sizes}
    )
    model = Theirs(WanVAEConfig(arch_config=arch, load_encoder=True, load_decoder=True)).float().eval()
    model.load_state_dict(tensors, strict=True)
    return model


def test_vae(fastvideo, official, folder):
    generator = torch.Generator().manual_seed(3)
    clip = torch.rand(1, 3, 9, 32, 48, generator=generator) * 2 - 1
    ours, theirs = vae.load_vae(official / "Wan2.1_VAE.pth", **CPU), their_vae(folder)
    with torch.no_grad():
        close(ours.encode(clip).latent_dist.mode(), theirs.encode(clip).mode())
        latents = torch.randn(1, 16, 3, 4, 6, generator=generator)
        mean, std = vae.latent_statistics(ours)
        pixels = torch.cat(list(vae.decode_pixels(ours, latents, lambda k, n: None)), dim=2)
        close(pixels.float().clamp(-1, 1), theirs.decode(latents * std + mean), 1e-4)
