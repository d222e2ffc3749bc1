"""Quantise DIT weights: bf16 / GGUF / fp8 in, bf16 / scaled fp8 / GGUF Q8_0, Q5_0, Q4_0 out.

Only the linear layers of the transformer blocks are quantised (q, k, v, o of both attentions, and the
two of the feed-forward): that is where 97% of the weights are, and exactly the set that LightX2V's fp8
and GGUF kernels consume. Biases, norms, `modulation`, the patch, text and time embeddings and the head
are read at every token or scale whole channels; they stay bf16 (safetensors) or F32/F16 (GGUF).

What is read is any file that the engines can read (wan_ui/files/dit_file.py); tensors that are not the DIT's (an
all-in-one file's VAE and text encoder, markers) are left out, and a part of a split file is refused.

Names stay the original ones. GGUF files follow city96's conventions: `general.architecture = "wan"`,
and `comfy.gguf.orig_shape.<name>` for a tensor whose dimensions had to be folded (patch_embedding has
five, GGML four). K types (Q4_K ...) can be read but not written: gguf-py only dequantises them.
"""

import contextlib
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from wan_ui.errors import UserError
from wan_ui.files.dit_file import read_dit
from wan_ui.files.headers import expert_side, read_header

if TYPE_CHECKING:
    import torch

TYPES = ("bf16", "fp8", "Q8_0", "Q5_0", "Q4_0")
QUANTISED = re.compile(r"^blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])\.weight$")

# What LightX2V's fp8 and GGUF kernels consume: in S2V and Animate more than the above, which a file may keep plain.
MULTIPLIED = re.compile(
    r"^(blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.([qkvo]|[kv]_img)|ffn\.[02])"
    r"|face_adapter\.fuser_blocks\.\d+\.linear(1_kv|1_q|2)"
    r"|audio_injector\.injector\.\d+\.[qkvo])\.weight$"
)


def suffix(kind: str) -> str:
    """File name suffix for one of TYPES."""
    return ".safetensors" if kind in ("bf16", "fp8") else ".gguf"


def quantise_file(source: Path, target: Path, kind: str, *, name: str = "") -> None:
    """Write `source` (one DIT, `.safetensors` or `.gguf`) as `kind`, one of TYPES, to `target`.

    `name` is stored in the file (`general.name`); it should contain high_noise or low_noise, so that
    an exchanged pair of experts is noticed. The target appears whole or not at all, also when two
    processes write it at once. Raises UserError for a bad source, type or an unwritable target.
    """
    from wan_ui.files.tensors import float_tensors

    if kind not in TYPES:
        raise UserError(f"type: {kind!r} is not known; choose one of {', '.join(TYPES)}")
    tensors = float_tensors(source, read_dit(source))
    side = expert_side(source, read_header(source).metadata)
    name = name or "wan" + (f" {side}_noise" if side else "")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if suffix(kind) == ".safetensors":
            _write_safetensors(tensors, partial, kind, name)
        else:
            _write_gguf(tensors, partial, kind, name)
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _write_safetensors(tensors: "dict[str, torch.Tensor]", path: Path, kind: str, name: str) -> None:
    import torch
    from safetensors.torch import save_file

    from wan_ui.files.tensors import quantise_fp8

    out = {}
    for key, tensor in tensors.items():
        if kind == "fp8" and QUANTISED.match(key):
            out[key], out[f"{key}_scale"] = quantise_fp8(tensor)
        else:
            out[key] = tensor.to(torch.bfloat16)
    save_file(out, path, metadata={"general.name": name, "format": "pt"})


def _write_gguf(tensors: "dict[str, torch.Tensor]", path: Path, kind: str, name: str) -> None:
    import gguf
    import numpy as np

    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_name(name)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    for key, tensor in tensors.items():
        values = tensor.numpy()
        shape = values.shape
        if len(shape) > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", [int(n) for n in shape])
            values = values.reshape(*shape[:3], -1)
        if QUANTISED.match(key) and shape[-1] % 32 == 0:
            qtype = types[kind]
        elif values.ndim < 2 or "modulation" in key or np.abs(values).max() > 60_000:
            qtype = types.F32
        else:
            qtype = types.F16
        writer.add_tensor(key, gguf.quants.quantize(np.ascontiguousarray(values), qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
