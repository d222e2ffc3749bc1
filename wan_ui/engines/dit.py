"""The diffusion transformer: from one file with original names to a loaded WanTransformer3DModel.

How the weights stay in memory is a choice with a reason, made by the caller:

expanded   fp8 and GGUF weights become plain numbers of the compute dtype once, at load. The forward is
             then as fast as bf16's, and the file's rounding is still in the values. Right for a small model.
quantised  the weights stay fp8 or GGML blocks and are expanded at every forward, layer by layer: half to
             a quarter of the memory, a few percent slower. Right for 14B on a GPU.

A few tensors stay float32 whatever the compute dtype, as `from_pretrained` of diffusers keeps them
(time embedder, modulation tables, norms): they scale whole channels, and cost nothing.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from wan_ui.engines.checkpoints import dit_names, load_strict, rename, strip_prefix
from wan_ui.errors import UserError
from wan_ui.headers import Header, check_identity
from wan_ui.tensors import dequantise_fp8, is_blocks, original_shape, read_blocks, read_tensor

FLOAT32_PARTS = ("time_embedder", "scale_shift_table", "norm2")
FP8 = ("F8_E4M3", "F8_E5M2")
SCALE_LEAVES = ("weight_scale", "scale_weight")  # lightx2v's and ComfyUI's name
IGNORED_LEAVES = ("scale_input", "scaled_fp8")  # ComfyUI: activation scale (unused by bf16 math) and a marker


class Fp8Linear(nn.Module):
    """Linear whose weight stays float8: y = x @ (weight * weight_scale).T + bias.

    weight_scale, constant along an output channel, is split into a power of two and a rest in 1 .. 2. The power goes
    into the weight, which stays exact (float8 has four significant bits), so that the product is near its final size:
    of raw weights, up to 448, it is a few hundred times larger and overflows float16, whose end is 65504. The rest
    and the bias are applied to the output in float32. The output is rounded twice, the weight never.
    weight (out, in) float8, weight_scale (out, 1) float32.
    """

    # Of the power's exponent: below, the smallest e4m3 number times it would vanish in float16; above, 448 times it.
    EXPONENTS = (-15, 7)

    def __init__(self, in_features: int, out_features: int, dtype: torch.dtype):
        super().__init__()
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.float8_e4m3fn))
        self.register_buffer("weight_scale", torch.empty(out_features, 1))
        self.register_buffer("bias", torch.empty(out_features, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exponent = (torch.frexp(self.weight_scale).exponent - 1).clamp(*self.EXPONENTS)
        weight = torch.ldexp(self.weight.to(x.dtype), exponent.to(x.dtype))
        rest = torch.ldexp(self.weight_scale, -exponent).view(-1)
        return torch.addcmul(self.bias.float(), F.linear(x, weight).float(), rest).to(x.dtype)


class GgufLinear(nn.Module):
    """Linear whose weight stays in GGML blocks (uint8, (out, bytes per row)), dequantised at every forward."""

    def __init__(self, out_features: int, row_bytes: int, qtype: str, dtype: torch.dtype):
        from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions
        from gguf import GGMLQuantizationType

        super().__init__()
        self.qtype = GGMLQuantizationType[qtype]
        self.block, self.block_bytes = GGML_QUANT_SIZES[self.qtype]
        self.dequantise = dequantize_functions[self.qtype]
        self.register_buffer("weight", torch.empty(out_features, row_bytes, dtype=torch.uint8))
        self.register_buffer("bias", torch.empty(out_features, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = self.weight.view(-1, self.block_bytes)
        weight = self.dequantise(blocks, self.block, self.block_bytes, dtype=torch.float32).to(x.dtype)
        return F.linear(x, weight.view(self.weight.shape[0], -1), self.bias)


def read_config(path: Path) -> tuple[dict, int]:
    """The official WanModel `config.json`: WanTransformer3DModel's arguments, and the tokens a prompt is padded to.

    Raises UserError.
    """
    try:
        config = json.loads(path.read_text())
        arguments = {
            "patch_size": tuple(config.get("patch_size", (1, 2, 2))),
            "num_attention_heads": config["num_heads"],
            "attention_head_dim": config["dim"] // config["num_heads"],
            "in_channels": config["in_dim"],
            "out_channels": config["out_dim"],
            "text_dim": config.get("text_dim", 4096),
            "freq_dim": config.get("freq_dim", 256),
            "ffn_dim": config["ffn_dim"],
            "num_layers": config["num_layers"],
            "cross_attn_norm": config.get("cross_attn_norm", True),
            "eps": config.get("eps", 1e-6),
        }
        return arguments, config.get("text_len", 512)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a WanModel config: {type(error).__name__}: {error}") from error


def load_expert(
    path: Path, config: dict, side: str, *, dtype: torch.dtype, device: torch.device, quantised: bool
) -> WanTransformer3DModel:
    """One expert in eval mode on `device`.

    side       high | low | "" (a single DIT): an expert that says it is the other one is refused
    quantised  keep fp8 and GGML weights as stored (see the module's docstring)

    Raises UserError naming the file: damaged, another architecture, swapped, wrong names or shapes.
    """
    header = check_identity(path, side)
    with torch.device("meta"):
        model = WanTransformer3DModel(**config)
    model.rope = type(model.rope)(config["attention_head_dim"], config["patch_size"], 1024)  # its buffers must be real

    names = dit_names(config["num_layers"])
    tensors, stored = _read(path, header, names, dtype=dtype, device=device, quantised=quantised)
    for name, qtype in stored.items():
        _replace_linear(path, model, names.get(name, name), tensors[f"{name}.weight"], qtype, dtype)
    tensors = rename(tensors, names)
    load_strict(model, tensors, file=path)
    model.rope.to(device)
    return model.eval().requires_grad_(False)


def _read(path: Path, header: Header, names: dict[str, str], *, dtype, device, quantised: bool):
    """Tensors with original names, cast and moved one by one, so that only one is in memory twice.

    Also the modules whose weight was left as stored, with its type: {"blocks.0.ffn.0": "Q8_0"}.
    """
    infos = {strip_prefix(name): (name, info) for name, info in header.tensors.items()}
    scaled = any(name.endswith(SCALE_LEAVES) for name in infos)
    tensors, stored = {}, {}
    for name, (file_name, info) in infos.items():
        module, _, leaf = name.rpartition(".")
        weight = infos.get(f"{module}.weight")
        if leaf in IGNORED_LEAVES or (leaf in SCALE_LEAVES and weight and weight[1].dtype in FP8):
            continue  # a scale without an fp8 weight stays in the list, and load_strict refuses it
        keep = quantised and leaf == "weight" and name.startswith("blocks.")
        if is_blocks(info) and keep:
            tensors[name], stored[module] = read_blocks(path, info).to(device), info.dtype
            continue
        tensor = read_tensor(path, info).reshape(original_shape(header, file_name, info))
        if info.dtype in FP8:
            scale = next((infos[f"{module}.{x}"][1] for x in SCALE_LEAVES if f"{module}.{x}" in infos), None)
            if scale is None and scaled:
                raise UserError(f"{path}: {name} is fp8 but has no scale, while other tensors do. The file is damaged.")
            scale = torch.ones(1) if scale is None else read_tensor(path, scale).float()
            if scale.numel() not in (1, tensor.shape[0]):
                raise UserError(f"{path}: the scale of {name} has {scale.numel()} values, expected {tensor.shape[0]}")
            if keep:
                tensors[name], stored[module] = tensor.to(device), info.dtype
                tensors[f"{module}.weight_scale"] = scale.reshape(-1, 1).expand(tensor.shape[0], 1).to(device)
                continue
            tensor = dequantise_fp8(tensor, scale)
        target = names.get(name, names.get(module, module))
        in_float32 = any(part in target for part in FLOAT32_PARTS)
        tensors[name] = tensor.to(device, torch.float32 if in_float32 else dtype)
    return tensors, stored


def _replace_linear(path: Path, model, module: str, weight: torch.Tensor, stored: str, dtype: torch.dtype) -> None:
    try:
        linear = model.get_submodule(module)
    except AttributeError:
        raise UserError(f"{path}: {module} is not a layer of the model. Is it the right file?") from None
    if not isinstance(linear, nn.Linear):
        raise UserError(f"{path}: {module} is stored as {stored}, but is not a linear layer")
    with torch.device("meta"):
        if stored in FP8:
            new = Fp8Linear(linear.in_features, linear.out_features, dtype)
        else:
            new = GgufLinear(linear.out_features, weight.shape[1], stored, dtype)
            if weight.shape[1] // new.block_bytes * new.block != linear.in_features:
                raise UserError(
                    f"{path}: {module} has {weight.shape[1]} bytes a row, which is not {linear.in_features} {stored}"
                )
    model.set_submodule(module, new)
