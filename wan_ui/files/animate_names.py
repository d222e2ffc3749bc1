"""What an Animate transformer has beside a WanModel: pose, face and picture; its parameters and their names.

A face is a picture of `face_size` pixels each way. The motion encoder (LIA's) halves it down to 4 and tells its
expression as a sum of 20 orthogonal directions; the face encoder makes tokens of them, four and a learned one for each
latent frame, and every fifth block of the transformer attends to those of its own frame.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wan_ui.files.names import dit_name_map, inverse, last_number, rename

MARKED = "face_adapter.0.to_k.weight"  # the same of a WanAnimateTransformer3DModel
EVERY = 5  # blocks, of which the first is followed by a face block
HEADS, TAPS, DIRECTIONS = 4, 3, 20  # of the face encoder, and of its motion
CLIP_WIDTH = 1280  # of the picture's tokens
# Official sizes: of the face's picture in pixels, of the motion encoder and of the face encoder.
SIZES = {"face_size": 512, "motion_encoder_dim": 512, "face_width": 1024, "clip_width": CLIP_WIDTH}


def is_animate(names: Iterable[str] | Mapping[str, Any]) -> bool:
    return any(name.startswith("face_adapter.") for name in names)


def face_blocks(layers: int) -> int:
    return math.ceil(layers / EVERY)


def channels(size: int, width: int) -> int:
    """Of the motion encoder where the face is `size` pixels wide."""
    return min(width, width * 32 // size)


def parameters(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what a WanAnimateModel has beside a WanModel of the same config.json."""
    sizes = {name: config.get(name, usual) for name, usual in SIZES.items()}
    dim, layers = config["dim"], config["num_layers"]
    if wrong := [name for name, size in sizes.items() if type(size) is not int or size < 1]:
        raise ValueError(f"{wrong[0]} is {sizes[wrong[0]]!r:.40}")
    face, motion, width, clip = sizes.values()
    head = dim // config["num_heads"]
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, *into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, *into), (out,)

    patch = tuple(config.get("patch_size", (1, 2, 2)))
    linear("pose_patch_embedding", dim, config["out_dim"], *patch)
    shapes |= {f"img_emb.proj.{norm}.{leaf}": (n,) for norm, n in ((0, clip), (4, dim)) for leaf in ("weight", "bias")}
    linear("img_emb.proj.1", clip, clip)
    linear("img_emb.proj.3", dim, clip)
    for block in (f"blocks.{i}.cross_attn" for i in range(layers)):
        for x in "kv":
            linear(f"{block}.{x}_img", dim, dim)
        shapes[f"{block}.norm_k_img.weight"] = (dim,)
    convs, steps = "motion_encoder.enc.net_app.convs", int(math.log2(face))
    wide = channels(face, motion)
    shapes[f"{convs}.0.0.weight"], shapes[f"{convs}.0.1.bias"] = (wide, 3, 1, 1), (1, wide, 1, 1)
    for number, size in enumerate((2**power for power in range(steps - 1, 1, -1)), start=1):
        into, out = channels(2 * size, motion), channels(size, motion)
        conv = f"{convs}.{number}"
        shapes[f"{conv}.conv1.0.weight"], shapes[f"{conv}.conv1.1.bias"] = (into, into, 3, 3), (1, into, 1, 1)
        shapes[f"{conv}.conv2.1.weight"], shapes[f"{conv}.conv2.2.bias"] = (out, into, 3, 3), (1, out, 1, 1)
        shapes[f"{conv}.skip.1.weight"] = (out, into, 1, 1)
    shapes[f"{convs}.{steps - 1}.weight"] = (motion, channels(4, motion), 4, 4)
    for layer in range(5):
        linear(f"motion_encoder.enc.fc.{layer}", motion if layer < 4 else DIRECTIONS, motion)
    shapes["motion_encoder.dec.direction.weight"] = (motion, DIRECTIONS)
    for i in range(face_blocks(layers)):
        block = f"face_adapter.fuser_blocks.{i}"
        linear(f"{block}.linear1_kv", 2 * dim, dim)
        linear(f"{block}.linear1_q", dim, dim)
        linear(f"{block}.linear2", dim, dim)
        shapes |= {f"{block}.{x}_norm.weight": (head,) for x in "qk"}
    linear("face_encoder.conv1_local.conv", HEADS * width, motion, TAPS)
    linear("face_encoder.conv2.conv", width, width, TAPS)
    linear("face_encoder.conv3.conv", width, width, TAPS)
    linear("face_encoder.out_proj", dim, width)
    shapes["face_encoder.padding_tokens"] = (1, 1, 1, dim)
    return shapes


def own_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The sizes that `parameters` asks for, read off the shapes of a file's tensors. Raises KeyError."""
    return {
        "face_size": 2 ** (1 + last_number(shapes, r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.")),
        "motion_encoder_dim": shapes["motion_encoder.dec.direction.weight"][0],
        "face_width": shapes["face_encoder.conv2.conv.weight"][0],
        "clip_width": shapes["img_emb.proj.1.weight"][0],
    }


def name_map(names: Iterable[str]) -> dict[str, str]:
    """Original WanAnimateModel -> wan_ui.engines.animate_dit.AnimateTransformer, for a model with these parameters."""
    names = list(names)
    layers = 1 + last_number(names, r"blocks\.(\d+)\.")
    return _name_map(layers, last_number(names, r"motion_encoder\.enc\.net_app\.convs\.(\d+)\."))


def _name_map(layers: int, convs: int) -> dict[str, str]:
    """convs: number of the motion encoder's last one"""
    image, motion, theirs = "condition_embedder.image_embedder", "motion_encoder.enc.net_app.convs", "motion_encoder"
    found = dit_name_map(layers) | {
        "pose_patch_embedding": "pose_patch_embedding",
        "img_emb.proj.0": f"{image}.norm1",
        "img_emb.proj.1": f"{image}.ff.net.0.proj",
        "img_emb.proj.3": f"{image}.ff.net.2",
        "img_emb.proj.4": f"{image}.norm2",
        f"{motion}.0.0": f"{theirs}.conv_in",
        f"{motion}.0.1": f"{theirs}.conv_in.act_fn",
        f"{motion}.{convs}": f"{theirs}.conv_out",
        "motion_encoder.dec.direction.weight": f"{theirs}.motion_synthesis_weight",
        **{f"face_encoder.{conv}.conv": f"face_encoder.{conv}" for conv in ("conv1_local", "conv2", "conv3")},
        "face_encoder.out_proj": "face_encoder.out_proj",
        "face_encoder.padding_tokens": "face_encoder.padding_tokens",
        **{f"motion_encoder.enc.fc.{i}": f"{theirs}.motion_network.{i}" for i in range(5)},
    }
    for i in range(layers):
        ours, other = f"blocks.{i}.cross_attn", f"blocks.{i}.attn2"
        found |= {f"{ours}.{x}_img": f"{other}.add_{x}_proj" for x in "kv"}
        found[f"{ours}.norm_k_img"] = f"{other}.norm_added_k"
    for i in range(1, convs):
        ours, other = f"{motion}.{i}", f"{theirs}.res_blocks.{i - 1}"
        found |= {f"{ours}.conv1.0": f"{other}.conv1", f"{ours}.conv1.1": f"{other}.conv1.act_fn"}
        found |= {f"{ours}.conv2.1": f"{other}.conv2", f"{ours}.conv2.2": f"{other}.conv2.act_fn"}
        found[f"{ours}.skip.1"] = f"{other}.conv_skip"
    for i in range(face_blocks(layers)):
        ours, other = f"face_adapter.fuser_blocks.{i}", f"face_adapter.{i}"
        found |= {f"{ours}.{part}": f"{other}.{part}" for part in ("linear1_kv", "linear1_q", "linear2")}
        found |= {f"{ours}.{x}_norm": f"{other}.{x}_norm" for x in "qk"}
    return found


def is_filter(name: str) -> bool:
    """A constant blur of the motion encoder, which some files store."""
    return re.fullmatch(r"motion_encoder\.enc\.net_app\.convs\.\d+\.(conv2|skip)\.0\.kernel", name) is not None


# ---------------------------------------------------------------- Diffusers: key and value of the face blocks are apart


def is_diffusers(names: Iterable[str] | Mapping[str, Any]) -> bool:
    return MARKED in names


def _diffusers_map(layers: int, convs: int) -> dict[str, str]:
    """Original WanAnimateModel -> WanAnimateTransformer3DModel, but for key and value."""
    found = _name_map(layers, convs)
    parts = {"linear1_q": "to_q", "linear2": "to_out", "q_norm": "norm_q", "k_norm": "norm_k"}
    for i in range(face_blocks(layers)):
        found |= {f"face_adapter.fuser_blocks.{i}.{ours}": f"face_adapter.{i}.{own}" for ours, own in parts.items()}
        del found[f"face_adapter.fuser_blocks.{i}.linear1_kv"]
    return found


def from_diffusers(tensors: Mapping[str, Any], join: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """By their original names. join: of a key and its value, one tensor."""
    layers = 1 + last_number(tensors, r"blocks\.(\d+)\.")
    convs = 2 + last_number(tensors, r"motion_encoder\.res_blocks\.(\d+)\.")
    found = rename(tensors, inverse(_diffusers_map(layers, convs)))
    for i in range(face_blocks(layers)):
        for leaf in ("weight", "bias"):
            key, value = (f"face_adapter.{i}.to_{x}.{leaf}" for x in "kv")
            if key in found and value in found:
                found[f"face_adapter.fuser_blocks.{i}.linear1_kv.{leaf}"] = join(found.pop(key), found.pop(value))
    return found


def for_diffusers(
    tensors: Mapping[str, Any], part: Callable[[Any], tuple[Any, Any]], flat: Callable[[Any], Any]
) -> dict[str, Any]:
    """From original names. part: key and value of what is both; flat: of a bias of four dimensions, one."""
    layers = 1 + last_number(tensors, r"blocks\.(\d+)\.")
    convs = last_number(tensors, r"motion_encoder\.enc\.net_app\.convs\.(\d+)\.")
    apart: dict[str, Any] = {}
    for name, tensor in tensors.items():
        block = re.fullmatch(r"face_adapter\.fuser_blocks\.(\d+)\.linear1_kv\.(weight|bias)", name)
        if block:
            for x, half in zip("kv", part(tensor), strict=True):
                apart[f"face_adapter.{block[1]}.to_{x}.{block[2]}"] = half
        elif name.startswith("motion_encoder.enc.net_app.") and name.endswith(".bias"):
            apart[name] = flat(tensor)
        else:
            apart[name] = tensor
    return rename(apart, _diffusers_map(layers, convs))
