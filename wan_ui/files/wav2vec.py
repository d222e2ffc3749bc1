"""The wav2vec2 that hears the voice of a speech-driven clip: its folder, config.json, names and shapes. No torch.

The official folder is a copy of jonatasgrosman/wav2vec2-large-xlsr-53-english, as transformers saves it.
"""

import json
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.files.headers import TensorInfo, read_header

CONFIG, PREPARATION, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
FILES = (CONFIG, PREPARATION, WEIGHTS)
RATE = 16_000  # samples a second
PREFIX = "wav2vec2."  # of a model with a head
MARK = "encoder.pos_conv_embed.conv.bias"  # only such a network has it
LEFT_OUT = ("lm_head.", f"{PREFIX}masked_spec_embed", "masked_spec_embed")  # not needed to hear
# Weight normalisation, as torch named it until 2023 and as it does since.
RENAMED = {
    "conv.parametrizations.weight.original0": "conv.weight_g",
    "conv.parametrizations.weight.original1": "conv.weight_v",
}
RELEASED: dict[str, Any] = {
    "architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "hidden_size": 1024, "num_hidden_layers": 24,
    "num_attention_heads": 16, "intermediate_size": 4096, "conv_dim": [512] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_bias": True, "feat_extract_norm": "layer",
    "do_stable_layer_norm": True, "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16,
    "feat_extract_activation": "gelu", "hidden_act": "gelu", "layer_norm_eps": 1e-5, "vocab_size": 33,
}  # fmt: skip
PREPARED: dict[str, Any] = {"do_normalize": True, "feature_size": 1, "sampling_rate": RATE, "padding_value": 0.0}


def read_config(folder: Path) -> tuple[dict[str, Any], bool]:
    """config.json, and whether the samples are brought to mean 0 and deviation 1. Raises UserError."""
    values: list[dict[str, Any]] = []
    for name in (CONFIG, PREPARATION):
        try:
            read = json.loads((folder / name).read_text(encoding="utf-8"))
            assert isinstance(read, dict)
            values.append(read)
        except (OSError, ValueError, AssertionError, RecursionError) as error:
            raise UserError(f"{folder / name}: not the {name} of a wav2vec2 ({error})") from None
    config, preparation = values
    if config.get("model_type") != "wav2vec2" or preparation.get("sampling_rate", RATE) != RATE:
        raise UserError(f"{folder}: not a wav2vec2 for sound of {RATE} samples a second")
    if config.get("feat_extract_norm") != "layer" or not config.get("do_stable_layer_norm"):
        raise UserError(f"{folder}: not the large wav2vec2 that S2V was trained with (another kind of norm)")
    return config, bool(preparation.get("do_normalize", True))


def read_infos(path: Path, config: dict[str, Any]) -> dict[str, TensorInfo]:
    """The tensors of model.safetensors, by the names of `parameters`. Raises UserError."""
    found = {}
    for name, info in read_header(path).tensors.items():
        if name.startswith(LEFT_OUT):
            continue
        name = name.removeprefix(PREFIX)
        for now, before in RENAMED.items():
            name = name.replace(now, before)
        found[name] = info
    wanted = parameters(config)
    missing = [name for name in wanted if name not in found]
    wrong = [name for name, shape in wanted.items() if name in found and found[name].shape != shape]
    if missing or wrong:
        words = f"{len(missing)} tensors are missing (first: {missing[0]})" if missing else ""
        if wrong:
            words = (
                f"tensor {wrong[0]} has shape {found[wrong[0]].shape}, expected {wanted[wrong[0]]} by its config.json"
            )
        raise UserError(f"{path}: {words}. Is it the wav2vec2 beside it?")
    return {name: found[name] for name in wanted}


def parameters(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of a Wav2Vec2Model, without its prefix."""
    width, ffn, channels = config["hidden_size"], config["intermediate_size"], config["conv_dim"]
    taps, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    layers: dict[str, tuple[int, ...]] = {
        "feature_projection.layer_norm": (channels[-1],),
        "feature_projection.projection": (width, channels[-1]),
        "encoder.layer_norm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.pos_conv_embed.conv.weight_g": (1, 1, taps),
        "encoder.pos_conv_embed.conv.weight_v": (width, width // groups, taps),
        "encoder.pos_conv_embed.conv.bias": (width,),
    }
    for index, (inputs, outputs, kernel) in enumerate(
        zip([1, *channels], channels, config["conv_kernel"], strict=False)
    ):
        name = f"feature_extractor.conv_layers.{index}"
        shapes[f"{name}.conv.weight"] = (outputs, inputs, kernel)
        if config.get("conv_bias"):
            shapes[f"{name}.conv.bias"] = (outputs,)
        layers[f"{name}.layer_norm"] = (outputs,)
    for block in (f"encoder.layers.{index}" for index in range(config["num_hidden_layers"])):
        layers |= {f"{block}.attention.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
        layers |= {f"{block}.{norm}": (width,) for norm in ("layer_norm", "final_layer_norm")}
        layers[f"{block}.feed_forward.intermediate_dense"] = (ffn, width)
        layers[f"{block}.feed_forward.output_dense"] = (width, ffn)
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes
