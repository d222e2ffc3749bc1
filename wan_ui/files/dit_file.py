"""A DIT file of whatever converter, held against the model's config.json before any weight is read.

    stored = read_dit(path, side, config)      # original name -> Stored, or UserError saying what the file is

Checkpoints of one model come in many layouts: the official and Diffusers' folders of several files, ComfyUI's
prefixes and all-in-one files, fp8 with a scale per tensor, per channel, per block or none, GGUF by several
converters. What is the same for all of them, names, shapes and where the scales are, is settled here once, from the
header (and the few bytes of markers and scales), so that a file that no engine can take is refused before the loaded
model is given up. Which types an engine can take is its own check. No torch.

fp8: the weight is `X.weight` (float8) times its scale, `X.weight_scale` (LightX2V, ComfyUI) or `X.scale_weight`
(ComfyUI until 2025, musubi-tuner). A scale is one number, one per output channel, or (out, blocks) along the
input. ComfyUI's `comfy_quant` names the format; `input_scale` and `scale_input` are for 8-bit products of
activations and are not needed. Without its scale a scaled weight still loads and still runs, some hundred times too
large: weights of a trained DIT are far below 4, scaled ones fill the type's range, which a sample shows.
"""

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from wan_ui.errors import UserError
from wan_ui.files import animate_names, s2v_file
from wan_ui.files.headers import SAFETENSORS_BYTES, Header, TensorInfo, expert_side
from wan_ui.files.model_configs import read_official
from wan_ui.files.names import PREFIXES, original_dit, strip_prefix
from wan_ui.files.parts import read_weights
from wan_ui.files.sizes import told_by_tensors
from wan_ui.valid_text import valid_name

LAYERS = 1024  # most blocks of a transformer that are believed: each is twenty parameters
FLOATS = ("F64", "F32", "F16", "BF16")
FP8 = ("F8_E4M3", "F8_E5M2")
# GGML blocks that gguf-py can dequantise
GGML = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4",
    "IQ4_NL", "IQ4_XS", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
)  # fmt: skip
SCALE_LEAVES = ("weight_scale", "scale_weight")
# Leaves beside a weight that a product in full precision does not need.
MARKERS = ("comfy_quant", "input_scale", "scale_input", "scaled_fp8")
FORMATS = ("float8_e4m3fn", "float8_e5m2")  # of ComfyUI's markers
SAMPLE = 65_536  # bytes of an fp8 weight that are looked at
UNSCALED_RMS = 4.0  # weights of a trained DIT are below 1; scaled to the type's range their RMS is 50 and more
NO_TRANSFORMER = "its tensors do not make a whole Wan transformer"
REST_OF_ALL_IN_ONE = re.compile(r"^(vae|first_stage_model|text_encoders?|cond_stage_model|conditioner|clip)\.")


@dataclass(frozen=True)
class Stored:
    """One parameter as the file has it.

    name   the tensor's name in the file
    info   its type and place; Stored.shape is the parameter's shape, which info.shape may have folded
    scale  of an fp8 weight: its tensor, whose numbers are 1, out, or out x blocks; None: the weight as it is
    """

    name: str
    info: TensorInfo
    shape: tuple[int, ...]
    scale: TensorInfo | None = None

    @property
    def blocks(self) -> bool:
        """Stored in GGML blocks (Q8_0, Q4_K ...), not as plain numbers."""
        return self.info.dtype not in SAFETENSORS_BYTES

    @property
    def scale_blocks(self) -> int:
        """Number of blocks along the input that have a scale of their own; 1 for a scale per channel or tensor."""
        count = 1 if self.scale is None else math.prod(self.scale.shape)
        return 1 if count == 1 else count // self.shape[0]


def read_dit(path: Path, side: str = "", config: Path | None = None) -> dict[str, Stored]:
    """All parameters of the DIT in a file, by their original names.

    side    high | low | "" (a single DIT): an expert that says it is the other one is refused
    config  the config.json that it must be of, official or Diffusers'; None: of the sizes that its own tensors have

    Raises UserError with the file's name: damaged, a part of a split file, swapped, another model, numbers that
    cannot be told (int8, nvfp4, a missing scale).
    """
    header = read_weights(path)
    if header.metadata.get("split.count"):
        refuse_parts(path, header)
    found = expert_side(path, header.metadata)
    if side and found and found != side:
        raise UserError(
            f"{path}: this is the {found}-noise expert, expected the {side}-noise one. "
            "Are the high and low files exchanged?"
        )
    tensors = own_tensors(header)
    taken = {name for name, _ in tensors.values()}
    twice = next((name for name in header.tensors if name not in taken and strip_prefix(name) in tensors), "")
    if twice:
        first = tensors[strip_prefix(twice)][0]
        raise UserError(f"{path}: {first} and {twice} are the same parameter; use a file that holds one model")
    if config is None:
        sizes, whose = own_sizes(path, header), "by its other tensors"
        with told_by_tensors(path, NO_TRANSFORMER):
            wanted = parameters(sizes)
    else:
        wanted, whose = read_parameters(config), f"by {config}"
    if not wanted.keys() <= tensors.keys():
        _known_formats(path, header, tensors)
        _say_what_is_missing(path, header, tensors, wanted, whose)
    stored = match(path, header, tensors, wanted, whose)
    for name, parameter in stored.items():
        _numbers_are_plausible(path, name, parameter)
    return stored


def match(
    path: Path,
    header: Header,
    tensors: dict[str, tuple[str, TensorInfo]],
    wanted: dict[str, tuple[int, ...]],
    whose: str,
) -> dict[str, Stored]:
    """Those of `tensors`, original name -> (name in the file, info), that `wanted` names, each with its scale.

    whose  in words, what `wanted` is known by. Raises UserError for shapes and types, and for what is left over.
    """
    _known_formats(path, header, tensors)
    stored, tensors = {}, dict(tensors)
    for name, shape in wanted.items():
        file_name, info = tensors.pop(name)
        if info.dtype not in (*FLOATS, *FP8, *GGML):
            raise UserError(_unreadable(path, f"{name} is stored as {info.dtype}"))
        if not unfolds(info.shape, shape):
            raise UserError(
                f"{path}: tensor {name} has shape {info.shape}, expected {shape} {whose}. "
                "Is it the file of another model?"
            )
        module = name.removesuffix(".weight")
        leaves = [f"{module}.{leaf}" for leaf in SCALE_LEAVES]
        scales = [tensors.pop(leaf) for leaf in leaves if leaf in tensors]
        if len(scales) > 1:
            raise UserError(_unreadable(path, f"{name} has two scales ({' and '.join(one for one, _ in scales)})"))
        scale = scales[0][1] if scales and name.endswith(".weight") else None
        stored[name] = Stored(file_name, info, shape, scale)
        _numbers_are_known(path, name, stored[name])
    left = [name for name in tensors if name.rpartition(".")[2] not in MARKERS and not animate_names.is_filter(name)]
    if left:
        raise UserError(
            f"{path}: {len(left)} tensors are not of this model (first: {', '.join(sorted(left)[:3])}). "
            "Is it the file of another model?"
        )
    return stored


def own_tensors(header: Header) -> dict[str, tuple[str, TensorInfo]]:
    """Original name -> (name in the file, info) of what belongs to the DIT; an all-in-one file's rest is left out."""
    prefixed = any(name.startswith(PREFIXES) for name in header.tensors)
    tensors = {
        strip_prefix(name): (name, info)
        for name, info in header.tensors.items()
        if (name.startswith(PREFIXES) if prefixed else not REST_OF_ALL_IN_ONE.match(name))
    }
    if animate_names.is_diffusers(tensors):
        return animate_names.from_diffusers(tensors, _joined)
    return original_dit(tensors)


def _joined(first: tuple[str, TensorInfo], second: tuple[str, TensorInfo]) -> tuple[str, TensorInfo]:
    (name, info), (_, other) = first, second
    shape = (info.shape[0] + other.shape[0], *info.shape[1:]) if info.shape and other.shape else info.shape
    return name, replace(info, shape=shape, then=other)


def read_parameters(config: Path) -> dict[str, tuple[int, ...]]:
    """`parameters` of a config.json, the official one or Diffusers'. Raises UserError."""
    values = read_official(config)
    try:
        return parameters(values)
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise UserError(f"{config}: not a WanModel config: {type(error).__name__}: {error}") from error


def parameters(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of a WanModel. Raises KeyError, TypeError, ValueError for no such config."""
    dim, ffn, layers = _size(config["dim"]), _size(config["ffn_dim"]), _size(config["num_layers"], LAYERS)
    patch = tuple(_size(number) for number in config.get("patch_size", (1, 2, 2)))
    if len(patch) != 3:
        raise ValueError(f"patch_size has {len(patch)} numbers, not three")
    linears: dict[str, tuple[int, ...]] = {
        "patch_embedding": (dim, _size(config["in_dim"]), *patch),
        "text_embedding.0": (dim, _size(config.get("text_dim", 4096))),
        "text_embedding.2": (dim, dim),
        "time_embedding.0": (dim, _size(config.get("freq_dim", 256))),
        "time_embedding.2": (dim, dim),
        "time_projection.1": (6 * dim, dim),
        "head.head": (_size(config["out_dim"]) * math.prod(patch), dim),
    }
    shapes: dict[str, tuple[int, ...]] = {"head.modulation": (1, 2, dim)}
    for block in (f"blocks.{i}" for i in range(layers)):
        for attention in ("self_attn", "cross_attn"):
            linears |= {f"{block}.{attention}.{x}": (dim, dim) for x in "qkvo"}
            shapes |= {f"{block}.{attention}.norm_{x}.weight": (dim,) for x in "qk"}
        linears |= {f"{block}.ffn.0": (ffn, dim), f"{block}.ffn.2": (dim, ffn)}
        if config.get("cross_attn_norm", True):
            shapes |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        shapes[f"{block}.modulation"] = (1, 6, dim)
    for module, shape in linears.items():
        shapes |= {f"{module}.weight": shape, f"{module}.bias": shape[:1]}
    more = {"animate": animate_names.parameters, s2v_file.KIND: s2v_file.more_parameters}
    kind = config.get("model_type")
    return shapes | (more[kind](config) if kind in more else {})


def _size(number: Any, most: int = 2**20) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
        raise ValueError(f"a size of {str(number)[:40]}")
    return number


def own_sizes(path: Path, header: Header) -> dict[str, Any]:
    """The config.json's sizes, read off the tensors; of an Animate or S2V transformer its model_type too. Raises
    UserError."""
    with told_by_tensors(path, NO_TRANSFORMER):
        return _own_sizes(path, header)


def _own_sizes(path: Path, header: Header) -> dict[str, Any]:
    tensors = own_tensors(header)

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors or not tensors[name][1].shape:
            _say_what_is_missing(path, header, tensors, [name], "")
        return tensors[name][1].shape

    numbers = {int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d{1,4})\.", name))}
    dim, layers = shape("blocks.0.self_attn.q.weight")[0], 1 + max(numbers, default=0)
    more: dict[str, Any] = {}
    if s2v_file.is_s2v(tensors):
        with told_by_tensors(path, "a Wan2.2 S2V transformer that is not whole"):
            more = s2v_file.own_config({name: info.shape for name, (_, info) in tensors.items()}, layers)
    if animate_names.is_animate(tensors):
        names = ("motion_encoder.dec.direction", "face_encoder.conv2.conv", "img_emb.proj.1")
        known = {f"{name}.weight": shape(f"{name}.weight") for name in names}
        head = shape("face_adapter.fuser_blocks.0.q_norm.weight")[0]
        own = animate_names.own_sizes(dict.fromkeys(tensors, ()) | known)
        more = {**own, "model_type": "animate", "num_heads": dim // max(1, head)}
    sizes: dict[str, Any] = {
        "dim": dim,
        "ffn_dim": shape("blocks.0.ffn.0.weight")[0],
        "num_layers": layers,
        "text_dim": shape("text_embedding.0.weight")[-1],
        "freq_dim": shape("time_embedding.0.weight")[-1],
        "in_dim": max(1, math.prod(shape("patch_embedding.weight")) // (4 * dim)),
        "out_dim": max(1, shape("head.head.weight")[0] // 4),
    }
    return sizes | more


def unfolds(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether `stored` is `wanted` with neighbouring dimensions joined or split, or ones left out.

    GGML has four dimensions, and writers differ in how they fold the patch embedding's five.
    """

    def ends(shape: tuple[int, ...]) -> set[int]:
        return {math.prod(shape[: i + 1]) for i in range(len(shape))} | {1}

    if math.prod(stored) != math.prod(wanted):
        return False
    return ends(stored) <= ends(wanted) or ends(wanted) <= ends(stored)


def refuse_parts(path: Path, header: Header) -> None:
    """A part of a split file is refused. Raises UserError."""
    parts = header.metadata.get("split.count", 1)
    if (isinstance(parts, int) and parts > 1) or re.search(r"-\d{5}-of-\d{5}\.", path.name):
        raise UserError(
            f"{path}: it is one part of a split file; join the parts first "
            "(GGUF: llama-gguf-split --merge; safetensors: save it as one file)"
        )


def _say_what_is_missing(
    path: Path, header: Header, tensors: Collection[str], wanted: Collection[str], whose: str
) -> NoReturn:
    missing = [name for name in wanted if name not in tensors]
    blocks = {match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))}
    layers = len({name.split(".")[1] for name in wanted if name.startswith("blocks.")})
    if any(re.search(r"\.(lora_(down|up|[AB])|lokr_w\d|hada_w\d)", name) for name in tensors):
        why = "a LoRA, not a model; put it into the LoRA folder"
    elif not blocks or "patch_embedding.weight" not in tensors:
        architecture = valid_name(str(header.metadata.get("general.architecture", ""))[:40])
        words = f"; it says that its architecture is {architecture!r}" if architecture else ""
        why = f"no Wan DIT in original names or Diffusers' (no {missing[0]}{words})"
    elif layers and len(blocks) != layers:
        why = f"{len(blocks)} blocks, expected {layers} {whose}. Is it the file of another model, or a part of one?"
    else:
        why = f"{len(missing)} tensors are missing (first: {', '.join(missing[:3])}). Is it the right file, and whole?"
    raise UserError(f"{path}: {why}")


def _known_formats(path: Path, header: Header, tensors: dict[str, tuple[str, TensorInfo]]) -> None:
    """ComfyUI's own words for how layers are quantised: refuse what is not fp8, by its name."""
    said = {}
    try:
        layers = json.loads(header.metadata.get("_quantization_metadata", "{}"))["layers"]
        said = {name: entry for name, entry in layers.items() if isinstance(entry, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        pass  # the tensors beside each weight say the same
    for name, (_, info) in tensors.items():
        if name.endswith(".comfy_quant") and info.nbytes <= 4096:
            try:
                entry = json.loads(read_raw(path, info).tobytes())
            except (ValueError, RecursionError):
                raise UserError(f"{path}: {name}, which says how the layer is quantised, cannot be read") from None
            said[name.removesuffix(".comfy_quant")] = entry if isinstance(entry, dict) else {}
    for name, entry in said.items():
        form = str(entry.get("format", ""))[:40]
        if form not in FORMATS or entry.get("convrot"):
            form += " with rotated weights" if entry.get("convrot") else ""
            raise UserError(
                _unreadable(path, f"{strip_prefix(name)}.weight is quantised as {form or 'an unnamed format'}")
            )


def _numbers_are_plausible(path: Path, name: str, stored: Stored) -> None:
    """Refuse a DIT's fp8 weight that has lost its scale. Raises UserError."""
    info = stored.info
    if stored.scale is None and info.dtype in FP8 and len(stored.shape) == 2 and _sample_rms(path, info) > UNSCALED_RMS:
        raise UserError(
            f"{path}: the scale of {name} is missing: its fp8 numbers are far too large for a weight. "
            "The file is damaged or was converted wrongly; fetch it again."
        )


def _numbers_are_known(path: Path, name: str, stored: Stored) -> None:
    """Refuse what cannot be turned into the right numbers. Raises UserError."""
    info, scale = stored.info, stored.scale
    if stored.blocks and scale is not None:
        raise UserError(_unreadable(path, f"{name} is stored as {info.dtype} with a scale"))
    if scale is None:
        return
    out, width = stored.shape[0], math.prod(stored.shape[1:])
    count, shape = math.prod(scale.shape), scale.shape
    per_channel = shape[:1] == (out,) and count % out == 0 and width % (count // out) == 0
    if scale.dtype not in FLOATS or not (count == 1 or per_channel) or len(stored.shape) != 2:
        raise UserError(
            _unreadable(path, f"the scale of {name} has shape {shape} of {scale.dtype}, expected 1 or {out} numbers")
        )
    if info.dtype not in FP8 and stored.scale_blocks > 1:
        raise UserError(_unreadable(path, f"{name} is stored as {info.dtype} with block scales"))
    values = _read_scale(path, scale)
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise UserError(f"{path}: the scale of {name} is not a number above 0. The file is damaged; fetch it again.")


def _unreadable(path: Path, what: str) -> str:
    return f"{path}: {what}, which no engine here reads; use a bf16, fp8 (float8_e4m3fn, float8_e5m2) or GGUF file"


def read_raw(path: Path, info: TensorInfo) -> np.ndarray:
    """A tensor's bytes, copied: a mapped file that is replaced or truncated meanwhile kills the process."""
    raw = np.fromfile(info.file(path), dtype=np.uint8, count=info.nbytes, offset=info.offset)
    return raw if info.then is None else np.concatenate([raw, read_raw(path, info.then)])


def _read_scale(path: Path, info: TensorInfo) -> np.ndarray:
    """A small tensor of one of FLOATS -> float32, flat."""
    raw = read_raw(path, info)
    if info.dtype == "BF16":
        return (raw.view("<u2").astype("<u4") << 16).view("<f4")
    return raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[info.dtype]).astype(np.float32)


def _sample_rms(path: Path, info: TensorInfo) -> float:
    """Root mean square of an fp8 tensor's first SAMPLE numbers; NaN counts as the type's largest."""
    raw = (
        np.fromfile(info.file(path), dtype=np.uint8, count=min(info.nbytes, SAMPLE), offset=info.offset).astype(int)
        & 0x7F
    )
    if not len(raw):
        return 0.0
    mantissa, bias = (3, 7) if info.dtype == "F8_E4M3" else (2, 15)
    exponent, fraction = raw >> mantissa, (raw & ((1 << mantissa) - 1)) / (1 << mantissa)
    values = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    return float(np.sqrt(np.square(values).mean()))
