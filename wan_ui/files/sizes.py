"""The sizes of a text encoder and of a VAE, read off the tensors of their files in original names."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.files.names import last_number, vae_name_map

# Of the latents of the 5B model's VAE, per channel; diffusers knows those of the Wan2.1 VAE by itself.
WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
    -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
    0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
    0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
    0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
    0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
    0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip


@contextlib.contextmanager
def told_by_tensors(path: Path, words: str) -> Iterator[None]:
    """Sizes are read off tensors in here. Where one is missing, or has other dimensions than it must, that is a
    UserError which says with `words` what the file is not."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{path}: {words} ({error} is missing)") from None
    except (IndexError, ValueError, TypeError, ArithmeticError, UnboundLocalError):
        raise UserError(f"{path}: {words} (a tensor has other dimensions than its name says)") from None


def t5_sizes(path: Path, tensors: Mapping[str, Any]) -> dict[str, int]:
    """Of a UMT5 encoder, from its tensors by original names (or whatever has their shapes), under the names of the
    original's arguments. Raises UserError."""
    words = "no UMT5 encoder in the names of Wan's release, Diffusers, ComfyUI or llama.cpp"
    with told_by_tensors(path, words):
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


def t5_parameters(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of a UMT5 encoder of such `t5_sizes`."""
    width, inner, ffn = sizes["dim"], sizes["dim_attn"], sizes["dim_ffn"]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (sizes["vocab_size"], width),
        "norm.weight": (width,),
    }
    for block in (f"blocks.{i}" for i in range(sizes["encoder_layers"])):
        shapes |= {f"{block}.{norm}.weight": (width,) for norm in ("norm1", "norm2")}
        shapes[f"{block}.pos_embedding.embedding.weight"] = (sizes["num_buckets"], sizes["num_heads"])
        shapes |= {f"{block}.attn.{x}.weight": (inner, width) for x in "qkv"}
        shapes[f"{block}.attn.o.weight"] = (width, inner)
        shapes |= {f"{block}.ffn.{x}.weight": (ffn, width) for x in ("gate.0", "fc1")}
        shapes[f"{block}.ffn.fc2.weight"] = (width, ffn)
    return shapes


def vae_layout(path: Path, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """AutoencoderKLWan's arguments and the name map, read off an original VAE's tensors: Wan2.1's or the 5B model's."""
    residual = "encoder.downsamples.0.downsamples.0.residual.2.weight" in tensors
    with told_by_tensors(path, "no Wan VAE in the names of its release or of Diffusers"):
        stages = _grouped_stages(tensors) if residual else _flat_stages(tensors)
        base, z_dim = tensors["encoder.conv1.weight"].shape[0], tensors["conv2.weight"].shape[0]
        pixels, decoder = tensors["decoder.head.2.weight"].shape[:2]
        widths, blocks, joined = ([stage[part] for stage in stages] for part in range(3))
        uneven = any(width % base for width in widths)
    if len(set(blocks)) != 1 or uneven:
        raise UserError(f"{path}: VAE stages of {blocks} blocks and {widths} channels are not a Wan VAE")
    config = {
        "base_dim": base,
        "z_dim": z_dim,
        "dim_mult": [width // base for width in widths],
        "num_res_blocks": blocks[0],
        "temperal_downsample": joined[:-1],
    }
    if residual:
        patch = math.isqrt(pixels // 3)
        config |= {
            "is_residual": True,
            "decoder_base_dim": decoder,
            "in_channels": pixels,
            "out_channels": pixels,
            "patch_size": patch,
            "scale_factor_spatial": 8 * patch,
        }
        if z_dim == len(WAN22_MEAN):
            config |= {"latents_mean": list(WAN22_MEAN), "latents_std": list(WAN22_STD)}
    return config, vae_name_map(len(widths), blocks[0], residual)


def _flat_stages(tensors: Mapping[str, Any]) -> list[tuple[int, int, bool]]:
    """(channels, residual blocks, whether frames are joined) of each stage of a Wan2.1 encoder, one flat list."""
    found, blocks = [], 0
    for layer in range(count(tensors, r"encoder\.downsamples\.(\d+)\.")):
        prefix = f"encoder.downsamples.{layer}"
        if f"{prefix}.residual.2.weight" in tensors:
            blocks += 1
            width = tensors[f"{prefix}.residual.2.weight"].shape[0]
        else:
            found.append((width, blocks, f"{prefix}.time_conv.weight" in tensors))
            blocks = 0
    return [*found, (width, blocks, False)]


def _grouped_stages(tensors: Mapping[str, Any]) -> list[tuple[int, int, bool]]:
    """The same of a residual encoder, whose layers are grouped by stage."""
    found = []
    for stage in range(count(tensors, r"encoder\.downsamples\.(\d+)\.")):
        prefix = f"encoder.downsamples.{stage}.downsamples"
        layers = range(count(tensors, rf"encoder\.downsamples\.{stage}\.downsamples\.(\d+)\."))
        blocks = sum(f"{prefix}.{layer}.residual.2.weight" in tensors for layer in layers)
        joined = any(f"{prefix}.{layer}.time_conv.weight" in tensors for layer in layers)
        found.append((tensors[f"{prefix}.0.residual.2.weight"].shape[0], blocks, joined))
    return found


def count(names: Iterable[str], pattern: str) -> int:
    """1 + the largest number that group 1 of `pattern` matches at the start of any of `names`; 0 if none."""
    return 1 + last_number(names, pattern)
