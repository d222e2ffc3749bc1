"""The picture's tokens that Animate reads beside its latents: CLIP's ViT-H/14, from a file of any layout.

The original (wan/modules/clip.py) brings the whole picture to 224 pixels each way, whatever its shape, and takes what
leaves the last block but one.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from wan_ui.files.clip_file import MEAN, STD, original_to_transformers, vision_config
from wan_ui.files.parts import read_weights
from wan_ui.files.tensors import load_strict, read_pth, read_tensor, shapes_alone
from wan_ui.files.text_file import is_pickle


def load_clip_vision(path: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """A CLIPVisionModel in eval mode; every size is read off the tensors. Raises UserError."""
    from transformers import CLIPVisionConfig, CLIPVisionModel  # it takes a second, and Animate alone looks

    if is_pickle(path):
        tensors = original_to_transformers(read_pth(path))
    else:
        infos = read_weights(path).tensors
        tensors = {name: read_tensor(path, info) for name, info in infos.items() if name.startswith("vision_model.")}
    sizes = vision_config(tensors, path)
    config = CLIPVisionConfig(**sizes)
    with shapes_alone():
        model = CLIPVisionModel(config)
    prefixed = "vision_model.pre_layrnorm.weight" in model.state_dict()
    own = {name if prefixed else name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
    own = {name: tensor.to(device, dtype) for name, tensor in own.items() if not name.endswith("position_ids")}
    load_strict(model, own, file=path)
    places = 1 + (sizes["image_size"] // sizes["patch_size"]) ** 2
    for module in model.modules():
        if hasattr(module, "position_ids"):
            module.register_buffer("position_ids", torch.arange(places, device=device)[None], persistent=False)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def encode_picture(model: Any, picture: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) in -1 .. 1 -> (1, 1 + patches, width), in the model's dtype."""
    side: Any = model.config.image_size
    size = (side, side)
    pixels = F.interpolate(picture.float().cpu(), size=size, mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    pixels = ((pixels - mean) / std).to(model.device, model.dtype)
    return model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
