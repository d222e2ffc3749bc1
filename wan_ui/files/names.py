"""Name maps: original Wan tensor names -> the names of the diffusers and transformers modules.

LightX2V, ComfyUI and the official release read the original names; Diffusers' folders, ComfyUI's text encoders
and GGUF text encoders carry others, which `original_*` take back. diffusers' own converters hard-code the sizes of
the released models (4 VAE stages with 2 residual blocks), and there is none for the UMT5 `.pth`, so the maps here
are built from the sizes.
A map takes a module's name (or a bare parameter's, such as `modulation`) to the other side's;
the leaf (`weight`, `bias`, `gamma`, `weight_scale`) is carried over unchanged.

tests/engines/test_name_maps.py holds them against `convert_wan_transformer_to_diffusers` and
`convert_wan_vae_to_diffusers` of diffusers 0.42.1.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
# Of ComfyUI's all-in-one files, which hold the text encoder and the VAE beside the transformer.
TEXT_INSIDE = re.compile(r"text_encoders\.[^.]+\.(transformer\.)?(?=shared\.|encoder\.|spiece_model$|scaled_fp8$)")
VAE_INSIDE = re.compile(r"vae\.")


def strip_prefix(name: str) -> str:
    """ComfyUI's files put one of PREFIXES before every name."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def part_inside(tensors: Mapping[str, Any], prefix: re.Pattern[str]) -> dict[str, Any]:
    """What has the prefix, without it; all there is where nothing has it."""
    inside = {name[match.end() :]: tensor for name, tensor in tensors.items() if (match := prefix.match(name))}
    return inside or dict(tensors)


def dit_name_map(layers: int) -> dict[str, str]:
    """Original WanModel -> WanTransformer3DModel, for a DIT of `layers` blocks."""
    names = {
        "patch_embedding": "patch_embedding",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
        "head.modulation": "scale_shift_table",
    }
    block = {"modulation": "scale_shift_table", "norm3": "norm2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}
    for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2")):
        block |= {f"{ours}.{x}": f"{theirs}.to_{x}" for x in "qkv"}
        block |= {f"{ours}.o": f"{theirs}.to_out.0"}
        block |= {f"{ours}.norm_{x}": f"{theirs}.norm_{x}" for x in "qk"}
    for i in range(layers):
        names |= {f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}" for ours, theirs in block.items()}
    return names


def in_diffusers_names(names: Iterable[str]) -> bool:
    """Whether these are a WanTransformer3DModel's."""
    return any(re.match(r"blocks\.\d+\.attn1\.to_q\.", name) for name in names)


def last_number(names: Iterable[str], pattern: str) -> int:
    """The largest number below 10000 that group 1 of `pattern` matches at the start of any of `names`; -1 if none."""
    numbers = (re.match(pattern, name) for name in names)
    return max((int(match[1]) for match in numbers if match and len(match[1]) < 5), default=-1)


def original_dit(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A DIT's tensors (or whatever stands for them) by their original names, from Diffusers' or original ones."""
    if not in_diffusers_names(tensors):
        return dict(tensors)
    return rename(tensors, inverse(dit_name_map(1 + last_number(tensors, r"blocks\.(\d+)\."))))


def t5_name_map(layers: int) -> dict[str, str]:
    """Original umt5 encoder (wan/modules/t5.py) -> UMT5EncoderModel, for `layers` blocks."""
    names = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
    block = {
        "norm1": "layer.0.layer_norm",
        "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
        "norm2": "layer.1.layer_norm",
        "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
        "ffn.fc1": "layer.1.DenseReluDense.wi_1",
        "ffn.fc2": "layer.1.DenseReluDense.wo",
    } | {f"attn.{x}": f"layer.0.SelfAttention.{x}" for x in "qkvo"}
    for i in range(layers):
        names |= {f"blocks.{i}.{ours}": f"encoder.block.{i}.{theirs}" for ours, theirs in block.items()}
    return names


def gguf_t5_name_map(layers: int) -> dict[str, str]:
    """Original umt5 encoder -> the names of llama.cpp's GGUF files. The relative bias may be in block 0 only."""
    names = {"token_embedding": "token_embd", "norm": "enc.output_norm"}
    block = {
        "norm1": "attn_norm", "pos_embedding.embedding": "attn_rel_b", "norm2": "ffn_norm",
        "ffn.gate.0": "ffn_gate", "ffn.fc1": "ffn_up", "ffn.fc2": "ffn_down",
    } | {f"attn.{x}": f"attn_{x}" for x in "qkvo"}  # fmt: skip
    for i in range(layers):
        names |= {f"blocks.{i}.{ours}": f"enc.blk.{i}.{theirs}" for ours, theirs in block.items()}
    return names


def original_t5(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A UMT5 encoder's tensors by their original names, from those of transformers (Diffusers, ComfyUI), of llama.cpp
    (GGUF) or original ones. What is no weight of the encoder (ComfyUI's spiece_model, markers) is left out, and of an
    all-in-one file everything else."""
    left_out = ("spiece_model", "scaled_fp8", "encoder.embed_tokens.weight", "logit_scale")
    tensors = {name: tensor for name, tensor in part_inside(tensors, TEXT_INSIDE).items() if name not in left_out}
    for pattern, name_map in ((r"encoder\.block\.(\d+)\.", t5_name_map), (r"enc\.blk\.(\d+)\.", gguf_t5_name_map)):
        last = last_number(tensors, pattern)
        if last >= 0:
            return rename(tensors, inverse(name_map(1 + last)))
    return tensors


def original_vae(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A VAE's tensors by their original names, from AutoencoderKLWan's, an all-in-one file's or original ones."""
    tensors = part_inside(tensors, VAE_INSIDE)
    if "encoder.conv_in.weight" not in tensors:
        return tensors
    residual = "encoder.down_blocks.0.resnets.0.conv1.weight" in tensors
    stages = 1 + last_number(tensors, r"decoder\.up_blocks\.(\d+)\.")
    blocks = last_number(tensors, r"decoder\.up_blocks\.0\.resnets\.(\d+)\.")
    return rename(tensors, inverse(vae_name_map(stages, blocks, residual)))


def _residual(ours: str, theirs: str) -> dict[str, str]:
    parts = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
    parts |= {"shortcut": "conv_shortcut"}
    return {f"{ours}.{a}": f"{theirs}.{b}" for a, b in parts.items()}


def _resample(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.resample.1": f"{theirs}.resample.1", f"{ours}.time_conv": f"{theirs}.time_conv"}


def vae_name_map(stages: int, num_res_blocks: int, residual: bool = False) -> dict[str, str]:
    """Original VAE -> AutoencoderKLWan, for any number of stages and blocks.

    Wan2.1: both sides number the encoder's layers in one flat list; in the decoder the original does too,
    whereas diffusers groups them by stage. residual, the 5B model's: both sides group them by stage.
    """
    names = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        names |= {
            f"{side}.conv1": f"{side}.conv_in",
            f"{side}.head.0": f"{side}.norm_out",
            f"{side}.head.2": f"{side}.conv_out",
            f"{side}.middle.1.norm": f"{side}.mid_block.attentions.0.norm",
            f"{side}.middle.1.to_qkv": f"{side}.mid_block.attentions.0.to_qkv",
            f"{side}.middle.1.proj": f"{side}.mid_block.attentions.0.proj",
        }
        names |= _residual(f"{side}.middle.0", f"{side}.mid_block.resnets.0")
        names |= _residual(f"{side}.middle.2", f"{side}.mid_block.resnets.1")
    if residual:
        for stage in range(stages):
            down, up = f"encoder.downsamples.{stage}.downsamples", f"decoder.upsamples.{stage}.upsamples"
            for block in range(num_res_blocks):
                names |= _residual(f"{down}.{block}", f"encoder.down_blocks.{stage}.resnets.{block}")
            for block in range(num_res_blocks + 1):
                names |= _residual(f"{up}.{block}", f"decoder.up_blocks.{stage}.resnets.{block}")
            if stage != stages - 1:
                names |= _resample(f"{down}.{num_res_blocks}", f"encoder.down_blocks.{stage}.downsampler")
                names |= _resample(f"{up}.{num_res_blocks + 1}", f"decoder.up_blocks.{stage}.upsampler")
        return names
    layer = 0
    for stage in range(stages):
        for _ in range(num_res_blocks):
            names |= _residual(f"encoder.downsamples.{layer}", f"encoder.down_blocks.{layer}")
            layer += 1
        if stage != stages - 1:
            names |= _resample(f"encoder.downsamples.{layer}", f"encoder.down_blocks.{layer}")
            layer += 1
    layer = 0
    for stage in range(stages):
        for block in range(num_res_blocks + 1):
            names |= _residual(f"decoder.upsamples.{layer}", f"decoder.up_blocks.{stage}.resnets.{block}")
            layer += 1
        if stage != stages - 1:
            names |= _resample(f"decoder.upsamples.{layer}", f"decoder.up_blocks.{stage}.upsamplers.0")
            layer += 1
    return names


def inverse(names: Mapping[str, str]) -> dict[str, str]:
    """The map the other way round; used to write files with the original names."""
    return {theirs: ours for ours, theirs in names.items()}


def rename(tensors: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`tensors` with every name mapped; one that the map does not know is kept, for `tensors.load_strict` to report."""
    renamed = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if name in names:
            renamed[names[name]] = tensor
        elif module in names:
            renamed[f"{names[module]}.{leaf}"] = tensor
        else:
            renamed[name] = tensor
    return renamed
