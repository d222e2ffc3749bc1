"""The diffusion transformer: from one file with original names to a loaded WanTransformer3DModel.

How the weights stay in memory is a choice with a reason, made by the caller:

expanded   fp8 and GGUF weights become plain numbers of the compute dtype once, at load. The forward is
             then as fast as bf16's, and the file's rounding is still in the values. Right for a small model.
quantised  the weights stay fp8 or GGML blocks and are expanded at every forward, layer by layer: half to
             a quarter of the memory, a few percent slower. Right for 14B on a GPU.

A few tensors stay float32 whatever the compute dtype, as `from_pretrained` of diffusers keeps them
(time embedder, modulation tables, norms): they scale whole channels, and cost nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wan_ui.engines import animate_dit, s2v_model
from wan_ui.engines.wan_classes import WanTransformer3DModel
from wan_ui.errors import UserError
from wan_ui.files import animate_names, s2v_file
from wan_ui.files.dit_file import FP8, Stored, read_dit
from wan_ui.files.model_configs import read_official
from wan_ui.files.names import dit_name_map, last_number, rename
from wan_ui.files.quantise import QUANTISED
from wan_ui.files.tensors import (
    dequantise_fp8,
    load_strict,
    read_blocks,
    read_plain,
    read_scale,
    read_tensor,
    shapes_alone,
)

FLOAT32_PARTS = ("time_embedder", "scale_shift_table", "norm2", "motion_synthesis_weight")
# GGML types that a layer can stay in
KEPT_GGML = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL")
IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # its 16 levels


class Fp8Linear(nn.Module):
    """Linear whose weight stays float8: y = x @ (weight * weight_scale).T + bias.

    weight_scale, constant along an output channel, is split into a power of two and a rest in 1 .. 2. The power goes
    into the weight, which stays exact (float8 has four significant bits), so that the product is near its final size:
    of raw weights, up to 448, it is a few hundred times larger and overflows float16, whose end is 65504. The rest
    and the bias are applied to the output in float32. The output is rounded twice, the weight never.
    weight (out, in) float8, weight_scale (out, 1) float32.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: torch.Tensor
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


class Fp8BlockLinear(Fp8Linear):
    """The same with a scale per block along the input: weight_scale (out, blocks). Expanded at every forward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, dequantise_fp8(self.weight, self.weight_scale).to(x.dtype), self.bias)


def dequantise_iq4_nl(blocks: torch.Tensor, _block: int, _block_bytes: int, dtype: torch.dtype) -> torch.Tensor:
    """(blocks, 18 bytes) -> (blocks, 32): an fp16 scale, then the low halves of 16 bytes, then the high halves."""
    levels = torch.tensor(IQ4_NL, dtype=dtype, device=blocks.device)
    index = torch.cat([blocks[:, 2:] & 0x0F, blocks[:, 2:] >> 4], dim=1)
    return blocks[:, :2].view(torch.float16).to(dtype) * levels[index.int()]


class GgufLinear(nn.Module):
    """Linear whose weight stays in GGML blocks (uint8, (out, bytes per row)), dequantised at every forward."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, out_features: int, row_bytes: int, qtype: str, dtype: torch.dtype):
        from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions
        from gguf import GGMLQuantizationType

        super().__init__()
        self.qtype = GGMLQuantizationType[qtype]
        self.block, self.block_bytes = GGML_QUANT_SIZES[self.qtype]
        self.dequantise: Callable[..., torch.Tensor] = (
            dequantise_iq4_nl if qtype == "IQ4_NL" else dequantize_functions[self.qtype]
        )
        self.register_buffer("weight", torch.empty(out_features, row_bytes, dtype=torch.uint8))
        self.register_buffer("bias", torch.empty(out_features, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = self.weight.view(-1, self.block_bytes)
        weight = self.dequantise(blocks, self.block, self.block_bytes, dtype=torch.float32).to(x.dtype)
        return F.linear(x, weight.view(self.weight.shape[0], -1), self.bias)


def read_config(path: Path) -> tuple[dict, int]:
    """A `config.json`, official or Diffusers': WanTransformer3DModel's arguments, and the tokens a prompt is padded to.

    Raises UserError.
    """
    config = read_official(path)
    try:
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a WanModel config: {type(error).__name__}: {error}") from error


def check_kept(path: Path, stored: dict[str, Stored]) -> None:
    """Raise UserError for GGML types that this engine can only expand, which for a large model is no use."""
    for name, parameter in stored.items():
        if QUANTISED.match(name) and parameter.blocks and parameter.info.dtype not in KEPT_GGML:
            raise UserError(
                f"{path}: {name} is stored as {parameter.info.dtype}, which neither engine multiplies with for a model "
                f"of this size; choose a file of {', '.join(KEPT_GGML)}",
                field="scheme",
            )


def load_expert(
    path: Path, config: Path, side: str, *, dtype: torch.dtype, device: torch.device, quantised: bool
) -> Any:
    """One expert in eval mode on `device`.

    config     the official config.json
    side       high | low | "" (a single DIT): an expert that says it is the other one is refused
    quantised  keep fp8 and GGML weights as stored (see the module's docstring)

    Raises UserError naming the file: damaged, swapped, wrong names or shapes, numbers that cannot be told.
    """
    arguments, _ = read_config(config)
    stored, official = read_dit(path, side, config), read_official(config)
    names = module_names(stored)
    float32_parts: tuple[str, ...] = FLOAT32_PARTS
    model: Any
    if s2v_file.is_s2v(stored):
        with shapes_alone():
            model = s2v_model.S2VTransformer(s2v_file.with_defaults(official))
        float32_parts = s2v_model.FLOAT32_PARTS
    elif animate_names.is_animate(stored):
        model = animate_dit.build(arguments, official)
    else:
        with shapes_alone():
            model = WanTransformer3DModel(**arguments)
    tensors = {}
    for name, parameter in stored.items():  # cast and moved one by one, so that only one is in memory twice
        module = name.removesuffix(".weight")
        if quantised and QUANTISED.match(name) and (parameter.blocks or parameter.info.dtype in FP8):
            weight = read_blocks if parameter.blocks else read_tensor
            tensors[name] = weight(path, parameter.info).to(device)
            if not parameter.blocks:
                tensors[f"{module}.weight_scale"] = read_scale(path, parameter).to(device)
            _replace_linear(model, names[module], parameter, tensors[name], dtype)
            continue
        in_float32 = any(part in names.get(name, names.get(name.rpartition(".")[0], name)) for part in float32_parts)
        tensors[name] = read_plain(path, parameter).to(device, torch.float32 if in_float32 else dtype)
        if name.startswith("motion_encoder.") and name.endswith(".bias"):  # stored with four dimensions
            tensors[name] = tensors[name].flatten()
    load_strict(model, rename(tensors, names), file=path)
    model.to(device)  # constants that no file holds
    return model.eval().requires_grad_(False)


def module_names(parameters: Iterable[str]) -> dict[str, str]:
    """Original name of each module (or bare parameter) of a transformer with these parameters -> its name here."""
    parameters = list(parameters)
    if s2v_file.is_s2v(parameters):  # has the original names
        layers = {name.rpartition(".")[0] for name in parameters if name.endswith((".weight", ".bias"))}
        tables = {name for name in parameters if name.endswith("modulation")}
        return {name: name for name in layers | tables if name != "trainable_cond_mask"}
    if animate_names.is_animate(parameters):
        return animate_names.name_map(parameters)
    return dit_name_map(1 + last_number(parameters, r"blocks\.(\d+)\."))


def _replace_linear(model, module: str, stored: Stored, weight: torch.Tensor, dtype: torch.dtype) -> None:
    out, width = stored.shape
    with shapes_alone():
        if stored.blocks:
            model.set_submodule(module, GgufLinear(out, weight.shape[1], stored.info.dtype, dtype))
        else:
            fp8 = (Fp8Linear if stored.scale_blocks == 1 else Fp8BlockLinear)(width, out, dtype)
            fp8.weight_scale = torch.empty(out, stored.scale_blocks)
            model.set_submodule(module, fp8)
