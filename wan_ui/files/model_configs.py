"""config.json of a transformer and of a VAE: the official one, Diffusers', and from one to the other.

A transformer's values are kept under the official names (dim, ffn_dim, num_heads, in_dim ...); a file without a
config.json beside it has them in its tensors, but for the number of heads, which a released model's width tells. No
torch.
"""

import json
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.families import of_width
from wan_ui.files import animate_names

# official -> Diffusers', where the value is the same
SAME = {
    "num_heads": "num_attention_heads", "in_dim": "in_channels", "out_dim": "out_channels", "text_dim": "text_dim",
    "freq_dim": "freq_dim", "ffn_dim": "ffn_dim", "num_layers": "num_layers", "cross_attn_norm": "cross_attn_norm",
    "eps": "eps", "patch_size": "patch_size",
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "text_dim": 4096, "freq_dim": 256, "cross_attn_norm": True, "eps": 1e-6, "patch_size": [1, 2, 2], "text_len": 512,
}  # fmt: skip
METADATA = "wan_ui.config"  # key of a safetensors file's metadata that holds it, where no config.json lies beside
CLASSES = {
    "animate": "WanAnimateModel",
    "s2v": "WanModel_S2V",
}  # model_type -> `_class_name`, where that is not WanModel
ANIMATE = "WanAnimateTransformer3DModel"  # Diffusers' class
# As SAME, of Animate's alone; see animate_names.SIZES.
ANIMATE_SIZES = {
    "face_size": "motion_encoder_size", "motion_encoder_dim": "motion_encoder_dim",
    "face_width": "face_encoder_hidden_dim", "clip_width": "image_dim",
}  # fmt: skip
HEAD = 128  # width of an attention head in every released model


def official(config: dict[str, Any]) -> dict[str, Any]:
    """A WanModel's config.json, from that or a WanTransformer3DModel's. Raises KeyError, TypeError for neither."""
    if "num_attention_heads" not in config:
        said = next((kind for kind, name in CLASSES.items() if config.get("_class_name") == name), "")
        return config | ({"model_type": said} if said else {})  # Animate's config.json names none
    values = {ours: config.get(theirs, DEFAULTS.get(ours)) for ours, theirs in SAME.items()}
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    if type(heads) is not int or type(width) is not int:  # a list times a number is a longer list
        raise TypeError(f"num_attention_heads is {heads!r:.40}, attention_head_dim {width!r:.40}: no two numbers")
    values["dim"] = heads * width
    if config.get("_class_name") == ANIMATE:
        values |= {ours: config[theirs] for ours, theirs in ANIMATE_SIZES.items() if config.get(theirs) is not None}
        return {"_class_name": CLASSES["animate"], "model_type": "animate", "text_len": 512} | values
    kinds = {36: "i2v", 48: "ti2v"}
    return {"_class_name": "WanModel", "model_type": kinds.get(config["in_channels"], "t2v"), "text_len": 512} | values


def for_diffusers(config: dict[str, Any]) -> dict[str, Any]:
    """A WanTransformer3DModel's config.json, from the official one."""
    values = {theirs: config.get(ours, DEFAULTS.get(ours)) for ours, theirs in SAME.items()}
    animate = config.get("model_type") == "animate"
    if animate:
        sizes = {theirs: config.get(ours, animate_names.SIZES[ours]) for ours, theirs in ANIMATE_SIZES.items()}
        face, motion = sizes["motion_encoder_size"], sizes["motion_encoder_dim"]
        widths = {str(2**p): animate_names.channels(2**p, motion) for p in range(2, face.bit_length())}
        values |= sizes | {
            "latent_channels": config["out_dim"], "added_kv_proj_dim": config["dim"], "motion_style_dim": motion,
            "motion_dim": animate_names.DIRECTIONS, "face_encoder_num_heads": animate_names.HEADS,
            "inject_face_latents_blocks": animate_names.EVERY, "motion_encoder_channel_sizes": widths,
        }  # fmt: skip
    return {
        "_class_name": ANIMATE if animate else "WanTransformer3DModel",
        "attention_head_dim": config["dim"] // config["num_heads"],
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
        "added_kv_proj_dim": None,
        "image_dim": None,
        "pos_embed_seq_len": None,
    } | values


def read_official(path: Path) -> dict[str, Any]:
    """The official values of a config.json of either layout. Raises UserError."""
    try:
        values = official(json.loads(path.read_text(encoding="utf-8")))
        check_heads(values)
        return values
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a WanModel config: {type(error).__name__}: {error}") from None


def check_heads(config: dict[str, Any]) -> None:
    """Raises ValueError where the official values name a number of heads that the width is no multiple of."""
    width, heads = config.get("dim"), config.get("num_heads", 1)
    right = type(heads) is int and heads > 0 and type(width) is int and width % heads == 0
    if "num_heads" in config and not right:
        raise ValueError(f"num_heads is {heads!r:.40} where dim is {width!r:.40}")


def said_by(texts: dict[str, Any]) -> dict[str, Any]:
    """The official values that a file's metadata hold; {} if none."""
    try:
        values = json.loads(texts.get(METADATA, "{}"))
        return values if isinstance(values, dict) else {}
    except (ValueError, TypeError, RecursionError):
        return {}


def from_tensors(sizes: dict[str, Any], path: Path) -> dict[str, Any]:
    """The official values for the sizes that a file's tensors have. Raises UserError where they cannot be told."""
    known = of_width(sizes["dim"])
    heads = sizes.get("num_heads") or (known.heads if known else sizes["dim"] // HEAD)
    if not known and "num_heads" not in sizes and (sizes["dim"] % HEAD or not heads):
        raise UserError(
            f"{path}: a transformer {sizes['dim']} wide is none of Wan's, and its tensors do not say how many "
            "attention heads it has; put its config.json beside it"
        )
    kinds = {36: "i2v", 48: "ti2v"}
    kind = kinds.get(sizes["in_dim"], "t2v")
    named = CLASSES.get(sizes.get("model_type", ""), "WanModel")
    return {"_class_name": named, "model_type": kind, "num_heads": heads} | DEFAULTS | sizes


def umt5(sizes: dict[str, int]) -> dict[str, Any]:
    """A UMT5EncoderModel's config.json, for `sizes.t5_sizes`."""
    return {
        "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "vocab_size": sizes["vocab_size"],
        "d_model": sizes["dim"], "d_kv": sizes["dim_attn"] // sizes["num_heads"], "d_ff": sizes["dim_ffn"],
        "num_layers": sizes["encoder_layers"], "num_decoder_layers": sizes["encoder_layers"],
        "num_heads": sizes["num_heads"], "relative_attention_num_buckets": sizes["num_buckets"],
        "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new",
        "is_gated_act": True, "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "scalable_attention": True,
        "tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    }  # fmt: skip
