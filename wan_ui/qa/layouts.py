"""Names, shapes and types of the tensors in the released files: what the weights would be, without the weights.

Read off the releases of Wan2.2 (Wan-AI, lightx2v, QuantStack): original names, torch order of dimensions.
tests/lightx2v holds the DIT, T5 and VAE layouts against LightX2V's own modules. A layout is
{name: (type, shape)} with the type in safetensors' or GGML's spelling (F32, BF16, F8_E4M3, Q4_K).
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from wan_ui.catalog import Scheme
from wan_ui.families import Family, Vae
from wan_ui.files import s2v_file, wav2vec
from wan_ui.files.dit_file import parameters
from wan_ui.files.model_configs import CLASSES
from wan_ui.files.names import dit_name_map, rename
from wan_ui.files.quantise import QUANTISED
from wan_ui.files.sizes import vae_layout

Layout = dict[str, tuple[str, tuple[int, ...]]]

UMT5_XXL = {"vocabulary": 256384, "dim": 4096, "ffn": 10240, "heads": 64, "layers": 24, "buckets": 32}
CLIP_H = {"width": 1280, "ffn": 5120, "layers": 32, "picture": 224, "patch": 14}
LORA_RANK = 64
BF16 = Scheme("bf16", "bf16", kind="bf16")
# The _M mixes of llama.cpp spend more bits on the values and on the second half of the feed-forward.
MIXES = {"Q4_K_M": ("Q4_K", "Q6_K"), "Q5_K_M": ("Q5_K", "Q6_K")}
MORE_BITS = (".v.weight", ".ffn.2.weight")


def dit(config: dict[str, Any], scheme: Scheme) -> Layout:
    """A transformer with the WanModel config.json `config`, stored as `scheme`."""
    layout: Layout = {}
    for name, shape in parameters(config).items():
        layout[name] = (_stored(name, shape, scheme), shape)
        if layout[name][0] == "F8_E4M3":
            layout[f"{name}_scale"] = ("F32", (shape[0], 1))
    return layout


def _stored(name: str, shape: tuple[int, ...], scheme: Scheme) -> str:
    if scheme.kind != "gguf":
        return "F8_E4M3" if scheme.kind == "fp8" and QUANTISED.match(name) else "BF16"
    if QUANTISED.match(name):
        usual, better = MIXES.get(scheme.qtype, (scheme.qtype, scheme.qtype))
        return better if name.endswith(MORE_BITS) else usual
    return "F16" if len(shape) > 1 and "modulation" not in name else "F32"


def lora(config: dict[str, Any]) -> Layout:
    """A LoRA of rank 64 on every linear layer of the blocks, as the distillation LoRAs are."""
    linear = {
        name.removesuffix(".weight"): shape
        for name, (_, shape) in dit(config, BF16).items()
        if QUANTISED.match(name)
    }  # fmt: skip
    layout: Layout = {}
    for module, (outputs, inputs) in linear.items():
        layout[f"diffusion_model.{module}.lora_down.weight"] = ("BF16", (LORA_RANK, inputs))
        layout[f"diffusion_model.{module}.lora_up.weight"] = ("BF16", (outputs, LORA_RANK))
    return layout


def t5(sizes: dict[str, int], fp8: bool) -> Layout:
    """The umt5 encoder; with `fp8` its linear layers are e4m3 with a scale per output channel."""
    width, ffn = sizes["dim"], sizes["ffn"]
    layout: Layout = {"token_embedding.weight": ("BF16", (sizes["vocabulary"], width))}
    layout["norm.weight"] = ("BF16", (width,))
    for index in range(sizes["layers"]):
        block = f"blocks.{index}"
        layout[f"{block}.pos_embedding.embedding.weight"] = ("BF16", (sizes["buckets"], sizes["heads"]))
        layout |= {f"{block}.{norm}.weight": ("BF16", (width,)) for norm in ("norm1", "norm2")}
        linear = {f"attn.{x}": (width, width) for x in "qkvo"}
        linear |= {"ffn.gate.0": (ffn, width), "ffn.fc1": (ffn, width), "ffn.fc2": (width, ffn)}
        for module, shape in linear.items():
            name = f"{block}.{module}.weight"
            layout[name] = ("F8_E4M3" if fp8 else "BF16", shape)
            if fp8:
                layout[f"{name}_scale"] = ("F32", (shape[0], 1))
    return layout


def clip_vision(sizes: dict[str, int]) -> Layout:
    """The vision half of models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth, in float16 as released."""
    width, ffn = sizes["width"], sizes["ffn"]
    places = 1 + (sizes["picture"] // sizes["patch"]) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, 3, sizes["patch"], sizes["patch"]),
        "cls_embedding": (1, 1, width),
        "pos_embedding": (1, places, width),
        "head": (width, 1024),
    }

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    norms = ["pre_norm", "post_norm"]
    for block in (f"transformer.{i}" for i in range(sizes["layers"])):
        norms += [f"{block}.norm1", f"{block}.norm2"]
        linear(f"{block}.attn.to_qkv", 3 * width, width)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.0", ffn, width)
        linear(f"{block}.mlp.2", width, ffn)
    shapes |= {f"{norm}.{leaf}": (width,) for norm in norms for leaf in ("weight", "bias")}
    return {f"visual.{name}": ("F16", shape) for name, shape in shapes.items()}


def vae(sizes: Vae) -> Layout:
    """Wan2.1_VAE.pth or Wan2.2_VAE.pth, in float32 as released."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def residual(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.residual.0.gamma"] = (inputs, 1, 1, 1)
        conv(f"{name}.residual.2", outputs, inputs, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (outputs, 1, 1, 1)
        conv(f"{name}.residual.6", outputs, outputs, 3, 3, 3)
        if inputs != outputs:
            conv(f"{name}.shortcut", outputs, inputs, 1, 1, 1)

    def ends(side: str, first: tuple[int, int], middle: int, last: tuple[int, int]) -> None:
        conv(f"{side}.conv1", *first, 3, 3, 3)
        for index in (0, 2):
            residual(f"{side}.middle.{index}", middle, middle)
        shapes[f"{side}.middle.1.norm.gamma"] = (middle, 1, 1)
        conv(f"{side}.middle.1.to_qkv", 3 * middle, middle, 1, 1)
        conv(f"{side}.middle.1.proj", middle, middle, 1, 1)
        shapes[f"{side}.head.0.gamma"] = (last[1], 1, 1, 1)
        conv(f"{side}.head.2", *last, 3, 3, 3)

    nested = sizes.residual  # layers grouped by stage; convolutions keep the width when they resample
    channels, pixels = sizes.channels, 3 * sizes.patch**2
    widths = [sizes.encoder * factor for factor in (1, 1, 2, 4, 4)]
    ends("encoder", (widths[0], pixels), widths[-1], (2 * channels, widths[-1]))
    layer = 0
    for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        for block in range(2):
            name = f"encoder.downsamples.{stage}.downsamples.{block}" if nested else f"encoder.downsamples.{layer}"
            residual(name, inputs if block == 0 else outputs, outputs)
            layer += 1
        if stage < 3:
            name = f"encoder.downsamples.{stage}.downsamples.2" if nested else f"encoder.downsamples.{layer}"
            conv(f"{name}.resample.1", outputs, outputs, 3, 3)
            if stage > 0:
                conv(f"{name}.time_conv", outputs, outputs, 3, 1, 1)
            layer += 1
    widths = [sizes.decoder * factor for factor in (4, 4, 4, 2, 1)]
    ends("decoder", (widths[0], channels), widths[0], (pixels, widths[-1]))
    layer = 0
    for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        if not nested and stage > 0:
            inputs //= 2
        for block in range(3):
            name = f"decoder.upsamples.{stage}.upsamples.{block}" if nested else f"decoder.upsamples.{layer}"
            residual(name, inputs if block == 0 else outputs, outputs)
            layer += 1
        if stage < 3:
            name = f"decoder.upsamples.{stage}.upsamples.3" if nested else f"decoder.upsamples.{layer}"
            conv(f"{name}.resample.1", outputs if nested else outputs // 2, outputs, 3, 3)
            if stage < 2:
                conv(f"{name}.time_conv", 2 * outputs, outputs, 3, 1, 1)
            layer += 1
    conv("conv1", 2 * channels, 2 * channels, 1, 1, 1)
    conv("conv2", channels, channels, 1, 1, 1)
    return {name: ("F32", shape) for name, shape in shapes.items()}


def wav2vec_config(full: bool) -> dict[str, Any]:
    """config.json of the network that hears a voice; else as small as it can be with as many layers."""
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": [32] * 7}
    return wav2vec.RELEASED | ({} if full else small)


def ear(config: dict[str, Any]) -> Layout:
    return {f"{wav2vec.PREFIX}{name}": ("F32", shape) for name, shape in wav2vec.parameters(config).items()}


def in_diffusers_names(layout: Layout, config: dict[str, Any]) -> Layout:
    """The same transformer as Diffusers' folders have it."""
    return rename(layout, dit_name_map(config["num_layers"]))


def diffusers_vae(sizes: Vae) -> tuple[Layout, dict[str, Any]]:
    """The VAE as Diffusers' folders have it, and its config.json."""
    layout = vae(sizes)
    config, names = vae_layout(Path(sizes.file), {name: Shaped(shape) for name, (_, shape) in layout.items()})
    return rename(layout, names), {"_class_name": "AutoencoderKLWan"} | config


class Shaped(NamedTuple):
    """Of a tensor, all that sizes are read off."""

    shape: tuple[int, ...]


def dit_config(family: Family, text: dict[str, int] = UMT5_XXL) -> dict[str, Any]:
    """The official config.json of each of a family's transformers. text: sizes of the text encoder."""
    sizes = family.transformer
    config = {
        "_class_name": "WanModel", "dim": sizes.width, "eps": 1e-6, "ffn_dim": sizes.ffn, "freq_dim": 256,
        "in_dim": family.input_channels, "model_type": family.model_type, "num_heads": sizes.heads,
        "num_layers": sizes.blocks, "out_dim": family.vae.channels, "text_len": 512,
    }  # fmt: skip
    if family.model_type in CLASSES:
        config["_class_name"] = CLASSES[family.model_type]
    if family.model_type == s2v_file.KIND:
        places = [place for place in s2v_file.RELEASED["audio_inject_layers"] if place < sizes.blocks]
        heard = wav2vec_config(full=text is UMT5_XXL)["hidden_size"]
        config |= s2v_file.RELEASED | {"audio_inject_layers": places, "audio_dim": heard}
    return config if text is UMT5_XXL else config | {"text_dim": text["dim"]}  # the release does not say it
