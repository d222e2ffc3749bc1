"""The picture's tokens that Animate reads beside its latents: CLIP's ViT-H/14, from a file of any layout.

The original (wan/modules/clip.py) brings the whole picture to 224 pixels each way, whatever its shape, and takes what
leaves the last block but one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from wan_ui.errors import UserError
from wan_ui.files.names import last_number, rename
from wan_ui.files.parts import read_weights
from wan_ui.files.tensors import load_strict, read_pth, read_tensor
from wan_ui.files.text_file import is_pickle

HEAD = 80  # width of an attention head
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def load_clip_vision(path: Path, *, dtype: torch.dtype, device: torch.device) -> CLIPVisionModel:
    """In eval mode; every size is read off the tensors. Raises UserError."""
    if is_pickle(path):
        tensors = original_to_transformers(read_pth(path))
    else:
        infos = read_weights(path).tensors
        tensors = {name: read_tensor(path, info) for name, info in infos.items() if name.startswith("vision_model.")}
    embeddings = "vision_model.embeddings"
    try:
        width, _, patch, _ = tensors[f"{embeddings}.patch_embedding.weight"].shape
        side = round((tensors[f"{embeddings}.position_embedding.weight"].shape[0] - 1) ** 0.5)
        ffn = tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError) as error:
        words = "no CLIP vision model in the names of Wan's release or transformers'"
        raise UserError(f"{path}: {words} ({error})") from None
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=1 + last_number(tensors, r"vision_model\.encoder\.layers\.(\d+)\."),
        num_attention_heads=width // HEAD,
        image_size=side * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    prefixed = "vision_model.pre_layrnorm.weight" in model.state_dict()
    own = {name if prefixed else name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    own = {name: tensor.to(device, dtype) for name, tensor in own.items() if not name.endswith("position_ids")}
    load_strict(model, own, file=path)
    for module in model.modules():
        if hasattr(module, "position_ids"):
            module.register_buffer("position_ids", torch.arange(side * side + 1, device=device)[None], persistent=False)
    return model.eval().requires_grad_(False)


def original_to_transformers(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The vision half of XLMRobertaCLIP's tensors by the names of a CLIPVisionModel; the rest is left out."""
    layers = 1 + last_number(tensors, r"visual\.transformer\.(\d+)\.")
    model, embeddings = "vision_model", "vision_model.embeddings"
    names = {
        "visual.patch_embedding": f"{embeddings}.patch_embedding",
        "visual.cls_embedding": f"{embeddings}.class_embedding",
        "visual.pos_embedding": f"{embeddings}.position_embedding.weight",
        "visual.pre_norm": f"{model}.pre_layrnorm",
        "visual.post_norm": f"{model}.post_layernorm",
    }
    for i in range(layers):
        ours, theirs = f"visual.transformer.{i}", f"{model}.encoder.layers.{i}"
        names |= {f"{ours}.norm{k}": f"{theirs}.layer_norm{k}" for k in (1, 2)}
        names |= {f"{ours}.mlp.0": f"{theirs}.mlp.fc1", f"{ours}.mlp.2": f"{theirs}.mlp.fc2"}
        names |= {f"{ours}.attn.proj": f"{theirs}.self_attn.out_proj"}
        names |= {f"{ours}.attn.{x}": f"{theirs}.self_attn.{x}_proj" for x in "qkv"}
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith(".to_qkv"):
            for x, part in zip("qkv", tensor.chunk(3), strict=True):
                apart[f"{module.removesuffix('to_qkv')}{x}.{leaf}"] = part
        elif name in ("visual.cls_embedding", "visual.pos_embedding"):
            apart[name] = tensor.reshape(-1, tensor.shape[-1]).squeeze(0)
        elif name.startswith("visual.") and name != "visual.head":
            apart[name] = tensor
    return rename(apart, names)


@torch.inference_mode()
def encode_picture(model: CLIPVisionModel, picture: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) in -1 .. 1 -> (1, 1 + patches, width), in the model's dtype."""
    side: Any = model.config.image_size
    size = (side, side)
    pixels = F.interpolate(picture.float().cpu(), size=size, mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = ((pixels - mean) / std).to(model.device, model.dtype)
    return model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
