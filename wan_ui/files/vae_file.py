"""A VAE's file of whatever converter, by original names: the release's `.pth`, ComfyUI's file, Diffusers' folder."""

from pathlib import Path

import torch

from wan_ui.files.names import original_vae
from wan_ui.files.parts import read_weights
from wan_ui.files.tensors import read_pth, read_tensor
from wan_ui.files.text_file import is_pickle


def read_vae(path: Path) -> dict[str, torch.Tensor]:
    """All tensors as stored, by original names. Raises UserError for a file that is damaged or no VAE's."""
    if is_pickle(path):
        return original_vae(read_pth(path))
    return {name: read_tensor(path, info) for name, info in original_vae(read_weights(path).tensors).items()}
