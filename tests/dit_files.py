"""A very small random DIT, and the layouts in which converters write it. Nothing is copied from any converter."""

import json
import re

import torch
from safetensors.torch import save_file

from wan_ui.files.dit_file import parameters

CONFIG = {
    "dim": 64, "ffn_dim": 96, "num_layers": 2, "num_heads": 2, "in_dim": 36, "out_dim": 16, "text_dim": 32,
    "freq_dim": 32, "eps": 1e-6,
}  # fmt: skip
LINEAR = re.compile(r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])\.weight$")
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Float32, by original names; exact in bf16."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).bfloat16().float()
        for name, shape in parameters(CONFIG).items()
    }


def write_config(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def linears(tensors: dict, change) -> dict:
    """`change(module, weight)` -> the tensors that take the place of each linear layer's weight in the blocks."""
    found = {}
    for name, tensor in tensors.items():
        if LINEAR.match(name):
            found |= change(name.removesuffix(".weight"), tensor)
        else:
            found[name] = tensor.bfloat16()
    return found


def scaled(weight, scale, dtype=E4M3):
    return (weight / scale).to(dtype)


def scaled_fp8(tensors: dict, leaf="weight_scale", per="tensor", dtype=E4M3, shape=None, **beside) -> dict:
    """One scale per tensor, channel (row) or block of 16 inputs; `beside`: leaf -> tensor, written beside each."""
    largest = 448.0 if dtype == E4M3 else 57344.0

    def change(module, weight):
        parts = weight.reshape(len(weight), -1, 16) if per == "block" else weight
        scale = parts.abs().max() if per == "tensor" else parts.abs().amax(dim=-1, keepdim=True)
        scale = scale / largest
        stored = scaled(parts, scale, dtype).reshape(weight.shape)
        more = {f"{module}.{name}": tensor.clone() for name, tensor in beside.items()}
        return {f"{module}.weight": stored, f"{module}.{leaf}": scale if shape is None else scale.reshape(shape)} | more

    return linears(tensors, change)


def said(form: str, **more) -> torch.Tensor:
    """ComfyUI's words beside a weight."""
    return torch.tensor(list(json.dumps({"format": form, **more}).encode()), dtype=torch.uint8)


def prefixed(tensors: dict, prefix="model.diffusion_model.") -> dict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def save(path, tensors: dict, metadata=None):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    return path


def iq4_nl(values):
    """(rows, n x 32) float32 numpy -> bytes: the nearest of 16 levels, one fp16 scale for 32 numbers."""
    import numpy as np

    levels = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
    parts = values.reshape(-1, 32)
    scale = (np.abs(parts).max(1, keepdims=True) / 113).astype(np.float16)
    index = np.abs((parts / scale.astype(np.float32))[..., None] - levels).argmin(-1).astype(np.uint8)
    return np.concatenate([scale.view(np.uint8), index[:, :16] | (index[:, 16:] << 4)], 1).reshape(len(values), -1)


def save_gguf(path, tensors: dict, kind="Q8_0", arch="wan", fold="noted", metadata=lambda writer: None):
    """fold: noted (four dimensions and ComfyUI-GGUF's note), silent (without it), joined (the first two), none."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, arch or "x")
    if arch is None:
        del writer.kv_data[0]["general.architecture"]
    metadata(writer)
    for name, tensor in tensors.items():
        values = tensor.numpy()
        shape = values.shape
        if len(shape) == 5 and fold != "none":
            if fold == "noted":
                writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
            values = values.reshape(-1, *shape[2:]) if fold == "joined" else values.reshape(*shape[:3], -1)
        if not re.search(LINEAR.pattern, name):
            writer.add_tensor(name, values.astype(np.float32))
        elif kind == "IQ4_NL":
            writer.add_tensor(name, iq4_nl(values), raw_dtype=gguf.GGMLQuantizationType.IQ4_NL)
        else:
            qtype = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(values, qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
