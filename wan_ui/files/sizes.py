"""The sizes of a text encoder and of a VAE, read off the tensors of their files in original names."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.files.names import vae_name_map


def t5_sizes(path: Path, tensors: Mapping[str, Any]) -> dict[str, int]:
    """Of a UMT5 encoder, under the names of the original's arguments. Raises UserError."""
    try:
        buckets, heads = tensors["blocks.0.pos_embedding.embedding.weight"].shape
        return {
            "vocab_size": tensors["token_embedding.weight"].shape[0],
            "dim": tensors["token_embedding.weight"].shape[1],
            "dim_attn": tensors["blocks.0.attn.q.weight"].shape[0],
            "dim_ffn": tensors["blocks.0.ffn.fc1.weight"].shape[0],
            "num_heads": heads,
            "num_buckets": buckets,
            "encoder_layers": count(tensors, r"blocks\.(\d+)\."),
        }
    except KeyError as error:
        raise UserError(f"{path}: no UMT5 encoder in original Wan names ({error} is missing)") from None


def vae_layout(path: Path, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """AutoencoderKLWan's arguments and the name map, read off an original Wan2.1 VAE's tensors."""
    try:
        base = tensors["encoder.conv1.weight"].shape[0]
        z_dim = tensors["conv2.weight"].shape[0]
        layers = count(tensors, r"encoder\.downsamples\.(\d+)\.")
        widths, blocks, temporal = [], [], []
        run = 0
        for layer in range(layers):
            prefix = f"encoder.downsamples.{layer}"
            if f"{prefix}.residual.2.weight" in tensors:
                run += 1
                width = tensors[f"{prefix}.residual.2.weight"].shape[0]
            else:
                widths.append(width)
                blocks.append(run)
                temporal.append(f"{prefix}.time_conv.weight" in tensors)
                run = 0
        widths.append(width)
        blocks.append(run)
    except (KeyError, UnboundLocalError) as error:
        raise UserError(f"{path}: no Wan2.1 VAE in original names ({error})") from None
    if len(set(blocks)) != 1 or any(width % base for width in widths):
        raise UserError(f"{path}: VAE stages of {blocks} blocks and {widths} channels are not a Wan2.1 VAE")
    config = {
        "base_dim": base,
        "z_dim": z_dim,
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": blocks[0],
        "temperal_downsample": temporal,
    }
    return config, vae_name_map(len(widths), blocks[0])


def count(names: Iterable[str], pattern: str) -> int:
    """1 + the largest number that group 1 of `pattern` matches at the start of any of `names`; 0 if none."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)
