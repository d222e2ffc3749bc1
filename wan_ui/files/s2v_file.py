"""What the transformer of Wan2.2 S2V has beside Wan's own: values of its config.json, names and shapes of its tensors.

No torch.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

KIND = "s2v"  # model_type of its config.json
MARK = "casual_audio_encoder.weights"  # only such a file has it; the name is the official one
# The released config.json (wan/configs/wan_s2v_14B.py), as far as it says more than a WanModel's.
RELEASED: dict[str, Any] = {
    "adain_mode": "attn_norm", "add_last_motion": True, "audio_dim": 1024,
    "audio_inject_layers": [0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39], "cond_dim": 16, "enable_adain": True,
    "enable_framepack": True, "enable_motioner": False, "enable_tsm": False, "framepack_drop_mode": "padd",
    "num_audio_token": 4, "zero_init": True, "zero_timestep": True,
}  # fmt: skip
LAYERS = 25  # of the wav2vec2 that it hears with: its embedding and 24 blocks
FIXED = ("adain_mode", "add_last_motion", "enable_adain", "enable_framepack", "enable_motioner", "zero_timestep")


def is_s2v(names: Iterable[str] | Mapping[str, Any]) -> bool:
    return MARK in names


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what it does not say. Raises ValueError for another variant than the released one, TypeError."""
    values = {**RELEASED, "audio_layers": LAYERS, **config}
    for name in FIXED:
        if values[name] != RELEASED[name]:
            raise ValueError(f"{name} is {values[name]!r}; the released S2V has {RELEASED[name]!r}")
    places = values["audio_inject_layers"]
    if sorted(set(places)) != list(places) or not all(0 <= place < values["num_layers"] for place in places):
        raise ValueError(f"audio_inject_layers is {places!r}; it names blocks from 0 to {values['num_layers'] - 1}")
    return values


def own_config(shapes: Mapping[str, tuple[int, ...]], layers: int) -> dict[str, Any]:
    """As far as the tensors tell, names -> shapes; which blocks hear the voice they do not: the released ones."""
    width = shapes["cond_encoder.weight"][0]
    count = len([name for name in shapes if name.startswith("audio_injector.injector.") and name.endswith(".q.weight")])
    released = RELEASED["audio_inject_layers"]
    spread = released if count == len(released) and layers > released[-1] else list(range(count))
    return {
        "model_type": KIND,
        "audio_dim": shapes["casual_audio_encoder.encoder.conv1_local.conv.weight"][1],
        "num_audio_token": shapes["casual_audio_encoder.encoder.conv1_local.conv.weight"][0] // (width // 4),
        "audio_layers": math.prod(shapes[MARK]),
        "audio_inject_layers": spread,
        "cond_dim": math.prod(shapes["cond_encoder.weight"]) // (4 * width),
    }


def more_parameters(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters that a WanModel does not have. Raises KeyError, TypeError, ValueError."""
    values = with_defaults(config)
    width, heard, channels = values["dim"], values["audio_dim"], values["in_dim"]
    ear = "casual_audio_encoder.encoder"
    shapes: dict[str, tuple[int, ...]] = {
        MARK: (1, values["audio_layers"], 1, 1),
        f"{ear}.padding_tokens": (1, 1, 1, width),
        "trainable_cond_mask.weight": (3, width),
    }
    layers: dict[str, tuple[int, ...]] = {
        "cond_encoder": (width, values["cond_dim"], 1, 2, 2),
        f"{ear}.conv1_local.conv": (width // 4 * values["num_audio_token"], heard, 3),
        f"{ear}.conv1_global.conv": (width // 4, heard, 3),
        f"{ear}.conv2.conv": (width // 2, width // 4, 3),
        f"{ear}.conv3.conv": (width, width // 2, 3),
        f"{ear}.final_linear": (width, width),
        "frame_packer.proj": (width, channels, 1, 2, 2),
        "frame_packer.proj_2x": (width, channels, 2, 4, 4),
        "frame_packer.proj_4x": (width, channels, 4, 8, 8),
    }
    for place in range(len(values["audio_inject_layers"])):
        injector = f"audio_injector.injector.{place}"
        layers |= {f"{injector}.{x}": (width, width) for x in "qkvo"}
        shapes |= {f"{injector}.norm_{x}.weight": (width,) for x in "qk"}
        layers[f"audio_injector.injector_adain_layers.{place}.linear"] = (2 * width, width)
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes
