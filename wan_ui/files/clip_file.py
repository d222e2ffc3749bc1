"""CLIP's ViT-H/14, which Animate sees its picture with: names and sizes in the release's file and in transformers'.

The release's `.pth` (XLMRobertaCLIP) holds both halves of CLIP, with query, key and value as one tensor. Diffusers'
folder and ComfyUI's file hold the half that sees, by transformers' names. No torch until tensors are joined.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan_ui.errors import UserError
from wan_ui.files.names import inverse, last_number, rename

if TYPE_CHECKING:
    import torch

HEAD = 80  # width of an attention head
MARKS = {  # a tensor that only such a file has -> whose names it has
    "visual.transformer.0.attn.to_qkv.weight": "official",
    "vision_model.encoder.layers.0.self_attn.q_proj.weight": "diffusers",
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PREPARED: dict[str, Any] = {  # preprocessor_config.json
    "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3,
    "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
}  # fmt: skip
MODEL, EMBEDDINGS = "vision_model", "vision_model.embeddings"
# Of the half that reads text, and what brings both to one width: (width, out) here, (out, width) there.
ORIGINAL_HEAD, PROJECTION = "visual.head", "visual_projection.weight"
# Tensors with dimensions of 1 in the release's file.
CLASS, PLACES = "visual.cls_embedding", "visual.pos_embedding"


def vision_config(tensors: Mapping[str, "torch.Tensor"], path: Path) -> dict[str, Any]:
    """The values of a CLIPVisionConfig, read off tensors by transformers' names. Raises UserError."""
    try:
        width, _, patch, _ = tensors[f"{EMBEDDINGS}.patch_embedding.weight"].shape
        side = round((tensors[f"{EMBEDDINGS}.position_embedding.weight"].shape[0] - 1) ** 0.5)
        ffn = tensors[f"{MODEL}.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        words = "no CLIP vision model in the names of Wan's release or transformers'"
        raise UserError(f"{path}: {words} ({error})") from None
    return {
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": 1 + last_number(tensors, r"vision_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // HEAD,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def _name_map(layers: int) -> dict[str, str]:
    """Modules by the release's names, query, key and value apart -> transformers'."""
    names = {
        "visual.patch_embedding": f"{EMBEDDINGS}.patch_embedding",
        CLASS: f"{EMBEDDINGS}.class_embedding",
        PLACES: f"{EMBEDDINGS}.position_embedding.weight",
        "visual.pre_norm": f"{MODEL}.pre_layrnorm",
        "visual.post_norm": f"{MODEL}.post_layernorm",
    }
    for i in range(layers):
        ours, theirs = f"visual.transformer.{i}", f"{MODEL}.encoder.layers.{i}"
        names |= {f"{ours}.norm{k}": f"{theirs}.layer_norm{k}" for k in (1, 2)}
        names |= {f"{ours}.mlp.0": f"{theirs}.mlp.fc1", f"{ours}.mlp.2": f"{theirs}.mlp.fc2"}
        names |= {f"{ours}.attn.proj": f"{theirs}.self_attn.out_proj"}
        names |= {f"{ours}.attn.{x}": f"{theirs}.self_attn.{x}_proj" for x in "qkv"}
    return names


def original_to_transformers(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The half that sees by the names of a CLIPVisionModel; the rest is left out."""
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith(".to_qkv"):
            for x, part in zip("qkv", tensor.chunk(3), strict=True):
                apart[f"{module.removesuffix('to_qkv')}{x}.{leaf}"] = part
        elif name in (CLASS, PLACES):
            apart[name] = tensor.reshape(-1, tensor.shape[-1]).squeeze(0)
        elif name.startswith("visual.") and name != ORIGINAL_HEAD:
            apart[name] = tensor
    return rename(apart, _name_map(1 + last_number(tensors, r"visual\.transformer\.(\d+)\.")))


def transformers_to_original(tensors: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """The other way; what brings the picture to the text's width comes along where it is there."""
    import torch

    layers = 1 + last_number(tensors, r"vision_model\.encoder\.layers\.(\d+)\.")
    own = {k: v for k, v in tensors.items() if k.startswith(f"{MODEL}.") and not k.endswith("position_ids")}
    apart = rename(own, inverse(_name_map(layers)))
    found: dict[str, torch.Tensor] = {}
    for name, tensor in apart.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith((".attn.q", ".attn.k", ".attn.v")):
            block = module[:-1]
            found[f"{block}to_qkv.{leaf}"] = torch.cat([apart[f"{block}{x}.{leaf}"] for x in "qkv"])
        else:
            found[name] = tensor.reshape(1, -1, tensor.shape[-1]) if name in (CLASS, PLACES) else tensor
    if PROJECTION in tensors:
        found[ORIGINAL_HEAD] = tensors[PROJECTION].T.contiguous()
    return found
