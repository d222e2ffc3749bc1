"""LoRA key names of every trainer -> one canonical form. Pure names and shapes: no tensor is read here.

Canonical: the module's name in the original Wan checkpoint ("blocks.0.self_attn.q", "head.head",
"blocks.0.modulation"), and what the tensor is to that module:

down    (rank, in)    x -> x @ down.T
up      (out, rank)     -> ... @ up.T, times alpha / rank
alpha   scalar        absent: alpha = rank, or what the PEFT metadata says
diff    the weight's shape   added to the weight (linear layers, norms, modulation tables, patch embedding)
diff_b  (out,)        added to the bias

Formats seen in the wild, with the tools that write them:

lightx2v        blocks.0.self_attn.q.lora_down.weight            LightX2V's extraction
kijai           diffusion_model.blocks.0.self_attn.q.lora_A.weight   ComfyUI, diffusion-pipe, ai-toolkit
model-prefix    model.diffusion_model.blocks.0...                full ComfyUI checkpoints
kohya           lora_unet_blocks_0_self_attn_q.lora_down.weight  musubi-tuner, sd-scripts
peft            transformer.blocks.0.attn1.to_q.lora_A.weight, lora_A.default, base_model.model...  diffusers, PEFT
"""

import json
import math
import re
from dataclasses import dataclass

from wan_ui.headers import Header, TensorInfo

MAX_RANK = 2048  # above this a file is damaged or hostile; trainers stop at 512

FORMATS = ("lightx2v", "kijai", "model-prefix", "kohya", "peft")

# The first that fits counts. PEFT wraps can be nested: base_model.model.transformer....
PREFIXES = (
    ("base_model.model.", "peft"),
    ("model.diffusion_model.", "model-prefix"),
    ("diffusion_model.", "kijai"),
    ("transformer_2.", "transformer_2"),
    ("transformer.", "peft"),
    ("pipe.dit.", "peft"),
    ("dit.", "peft"),
    ("unet.", "peft"),
)
LEAVES = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_down": "down",
    "lora_up": "up",
    "lora_A": "down",
    "lora_B": "up",
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "diff_m": "diff_m",
}
# Methods that are not a low-rank product or a difference: refused by their name, never half-applied.
OTHER_METHODS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "boft_": "BOFT",
    "lora_mid": "LoCon with a middle layer",
    "glora_": "GLoRA",
    "on_input": "IA3",
}
# diffusers' names of the modules -> the original's; the inverse of wan_ui.engines.checkpoints.dit_names.
BLOCK_NAMES = {
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
    **{f"attn1.to_{x}": f"self_attn.{x}" for x in "qkv"},
    **{f"attn2.to_{x}": f"cross_attn.{x}" for x in "qkv"},
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    **{f"attn1.norm_{x}": f"self_attn.norm_{x}" for x in "qk"},
    **{f"attn2.norm_{x}": f"cross_attn.norm_{x}" for x in "qk"},
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
}
OTHER_NAMES = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
_ATTENTION = [f"{a}.{x}" for a in ("self_attn", "cross_attn") for x in ("q", "k", "v", "o", "norm_q", "norm_k")]
_BLOCK_MODULES = [*_ATTENTION, "cross_attn.k_img", "cross_attn.v_img", "cross_attn.norm_k_img"]
_BLOCK_MODULES += ["ffn.0", "ffn.2", "norm3", "modulation"]
_OTHER_MODULES = ["patch_embedding", "head.head", "head.modulation", "time_projection.1"]
_OTHER_MODULES += [f"{e}_embedding.{i}" for e in ("time", "text") for i in (0, 2)]
_OTHER_MODULES += [f"img_emb.proj.{i}" for i in (0, 1, 3, 4)]
# kohya writes dots as underscores; both naming worlds occur behind lora_unet_.
_FLAT_BLOCK = {name.replace(".", "_"): name for name in _BLOCK_MODULES} | {
    theirs.replace(".", "_"): ours for theirs, ours in BLOCK_NAMES.items()
}
_OTHER_METHOD = re.compile(r"(?:^|[._])(" + "|".join(OTHER_METHODS) + ")")
_FLAT_OTHER = {name.replace(".", "_"): name for name in _OTHER_MODULES} | {
    theirs.replace(".", "_"): ours for theirs, ours in OTHER_NAMES.items()
}


@dataclass
class Layer:
    """What a file holds for one module: the names of its tensors in the file."""

    down: str = ""
    up: str = ""
    alpha: str = ""
    diff: str = ""
    diff_b: str = ""


@dataclass(frozen=True)
class Layout:
    """A LoRA file's header, understood.

    layers   canonical module name -> Layer
    formats  names from FORMATS, most frequent first
    ranks    distinct ranks, ascending
    unknown  tensor names that no rule explains
    problem  why the file cannot be used at all; "" when it can
    alpha    alpha of layers that store none: None means alpha = rank
    second   diffusers' `transformer_2.`: the file says that it is for the low-noise expert
    """

    layers: dict[str, Layer]
    formats: tuple[str, ...]
    ranks: tuple[int, ...]
    unknown: tuple[str, ...]
    problem: str = ""
    alpha: float | None = None
    second: bool = False


def parse(name: str) -> tuple[str, str, str] | None:
    """Tensor name -> (format, canonical module, leaf), or None when no rule explains it."""
    if name.startswith("lora_unet_"):
        stem, _, leaf = name.partition(".")
        module = _unflatten(stem.removeprefix("lora_unet_").removeprefix("_"))
        if module is None or leaf not in LEAVES:
            return None
        return "kohya", *_place(module, LEAVES[leaf])
    written, found = name, "lightx2v"
    stripped = True
    while stripped:
        stripped = False
        for prefix, label in PREFIXES:
            if written.startswith(prefix):
                written, stripped = written.removeprefix(prefix), True
                found = label if found == "lightx2v" else found
    written = re.sub(r"\.(lora_[AB])\.[^.]+\.weight$", r".\1.weight", written)  # lora_A.<adapter>.weight
    leaf = next((leaf for leaf in LEAVES if written.endswith("." + leaf)), None)
    if leaf is None:
        return None
    module, kind = written.removesuffix("." + leaf), LEAVES[leaf]
    match = re.fullmatch(r"blocks\.(\d{1,4})(?:\.(.+))?", module)
    if match:
        inner = match[2] or ""
        if inner in BLOCK_NAMES:
            found = "peft" if found in ("lightx2v", "kijai") else found
            inner = BLOCK_NAMES[inner]
        module = f"blocks.{int(match[1])}" + (f".{inner}" if inner else "")
        known = inner in _BLOCK_MODULES or (not inner and kind == "diff_m")
    else:
        module = OTHER_NAMES.get(module, module)
        known = module in _OTHER_MODULES or (module == "head" and kind == "diff_m")
    return (found, *_place(module, kind)) if known else None


def _place(module: str, leaf: str) -> tuple[str, str]:
    """A modulation table's difference is written as `diff_m` of the block or head that holds it."""
    if leaf == "diff_m":
        return f"{module.removesuffix('.modulation')}.modulation", "diff"
    return module, leaf


def _unflatten(stem: str) -> str | None:
    match = re.fullmatch(r"blocks_(\d{1,4})_(.+)", stem)
    if match:
        inner = _FLAT_BLOCK.get(match[2])
        return f"blocks.{int(match[1])}.{inner}" if inner else None
    return _FLAT_OTHER.get(stem)


def read_layout(header: Header) -> Layout:
    """Sort a file's tensors by module. Never raises: what is wrong stands in `problem`."""
    layers: dict[str, Layer] = {}
    formats: dict[str, int] = {}
    unknown, problem = [], ""
    for name, info in header.tensors.items():
        method = _OTHER_METHOD.search(name)
        if method:
            words = OTHER_METHODS[method[1]]
            problem = problem or f"it is a {words}, which is not supported (first such key: {name}); use a plain LoRA"
            continue
        if info.dtype not in ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"):
            unknown.append(name)
            continue
        parsed = parse(name)
        if parsed is None:
            unknown.append(name)
            continue
        found, module, leaf = parsed
        formats[found] = formats.get(found, 0) + 1
        layer = layers.setdefault(module, Layer())
        if getattr(layer, leaf):
            problem = problem or f"{name} and {getattr(layer, leaf)} are both for {module}"
        setattr(layer, leaf, name)
    second = formats.pop("transformer_2", 0)
    if second and formats:
        problem = "it holds the LoRAs of both experts (transformer_2); split it into a high and a low file"
    if second:
        formats["peft"] = formats.get("peft", 0) + second
    ranks = set()
    for module, layer in list(layers.items()):
        if not (layer.down or layer.up or layer.diff or layer.diff_b):
            unknown.append(layer.alpha)
            del layers[module]
            continue
        rank, why = _rank(module, layer, header.tensors)
        problem = problem or why
        if rank:
            ranks.add(rank)
    if not layers and not problem:
        first = ", ".join(list(header.tensors)[:2])
        problem = f"none of its {len(header.tensors)} keys is known to be of a Wan LoRA" + (f" ({first})" * bool(first))
    order = tuple(sorted(formats, key=lambda key: -formats[key]))
    alpha = _peft_alpha(header.metadata)
    return Layout(layers, order, tuple(sorted(ranks)), tuple(unknown), problem, alpha, second > 0)


def _rank(module: str, layer: Layer, tensors: dict[str, TensorInfo]) -> tuple[int, str]:
    """The layer's rank (0: no low-rank part) and what is wrong with its shapes."""
    if not layer.down and not layer.up:
        return 0, ""
    if not (layer.down and layer.up):
        return 0, f"{module} has only {layer.down or layer.up}, its other half is missing"
    down, up = tensors[layer.down].shape, tensors[layer.up].shape
    if len(down) != 2 or len(up) != 2:
        return 0, f"{module}: shapes {down} and {up}; expected two dimensions each"
    if down[0] != up[1] or 0 in (*down, *up):
        return 0, f"{module}: down is {down} and up is {up}; their ranks differ"
    if down[0] > MAX_RANK:
        return 0, f"{module} has rank {down[0]:,}; at most {MAX_RANK:,} can be right"
    if layer.alpha and math.prod(tensors[layer.alpha].shape) != 1:
        return 0, f"{layer.alpha} has shape {tensors[layer.alpha].shape}, expected one number"
    return down[0], ""


def _peft_alpha(metadata: dict) -> float | None:
    """lora_alpha of PEFT's configuration, which diffusers stores as JSON in the metadata. None: alpha = rank."""
    try:
        config = json.loads(metadata["lora_adapter_metadata"])
        values = {float(value) for key, value in config.items() if key.rpartition(".")[2] == "lora_alpha"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return values.pop() if len(values) == 1 else None
