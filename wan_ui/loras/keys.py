"""LoRA key names of every trainer -> one canonical form. Pure names and shapes: no tensor is read here.

Canonical: the module's name in the original Wan checkpoint ("blocks.0.self_attn.q", "head.head",
"blocks.0.modulation"), and what the tensor is to that module:

down     (rank, in)    x -> x @ down.T; of the patch embedding (rank, channels, 1, 2, 2)
up       (out, rank)     -> ... @ up.T, times the layer's scale
up_bias  (out,)        added to the bias, times the layer's scale (PEFT's lora_bias)
alpha    scalar        the layer's scale is alpha / rank
diff     the weight's shape   added to the weight (linear layers, norms, modulation tables, patch embedding)
diff_b   (out,)        added to the bias

Trailing dimensions of 1 (layers stored as 1x1 convolutions) do not count. Scales that only the metadata tell are
read in scales.py.

Formats seen in the wild, with the tools that write them:

lightx2v        blocks.0.self_attn.q.lora_down.weight            LightX2V's extraction
kijai           diffusion_model.blocks.0.self_attn.q.lora_A.weight   ComfyUI, diffusion-pipe, ai-toolkit
model-prefix    model.diffusion_model.blocks.0...                full ComfyUI checkpoints
kohya           lora_unet_blocks_0_self_attn_q.lora_down.weight  musubi-tuner, sd-scripts; the same with
                lycoris_ and lora_transformer_: LyCORIS, SimpleTuner, OneTrainer, old ai-toolkit
peft            transformer.blocks.0.attn1.to_q.lora_A.weight, lora_A.default, base_model.model...  diffusers, PEFT
"""

import math
import re
from dataclasses import dataclass, field, replace

from wan_ui.files.headers import Header, TensorInfo
from wan_ui.loras.scales import Scales, read_scales

MAX_RANK = 2048  # above this a file is damaged or hostile; trainers stop at 512

FORMATS = ("lightx2v", "kijai", "model-prefix", "kohya", "peft")

# The first that fits counts. PEFT wraps can be nested: base_model.model.transformer....
PREFIXES = (
    ("base_model.model.", "peft"),
    ("model.diffusion_model.", "model-prefix"),
    ("diffusion_model.", "kijai"),
    ("transformer_2.", "transformer_2"),
    ("transformer2.", "transformer_2"),
    ("pipe.dit2.", "transformer_2"),
    ("dit2.", "transformer_2"),
    ("low_noise_model.", "transformer_2"),
    ("low_noise.", "transformer_2"),
    ("transformer.", "peft"),
    ("pipe.dit.", "peft"),
    ("dit.", "peft"),
    ("unet.", "peft"),
    ("model.", "model-prefix"),
    ("module.", "peft"),
)
FLAT_PREFIXES = ("lora_unet_", "lora_prior_unet_", "lora_transformer_", "lycoris_")  # dots are underscores behind these
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # torch's own, anywhere in a name
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
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_up.bias": "up_bias",
    "lora_B.bias": "up_bias",
    "alpha": "alpha",
    "lora_alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "diff_m": "diff_m",
    "w_norm": "diff",
    "b_norm": "diff_b",
}
# Methods that are not a low-rank product or a difference: refused by their name, never half-applied.
OTHER_METHODS = {
    r"dora_scale\w*|lora_magnitude_vector|magnitude": "a DoRA",
    r"lokr_\w+": "a LoKr",
    r"hada_\w+": "a LoHa",
    r"oft_\w+": "an OFT",
    r"boft_\w+": "a BOFT",
    r"lora_mid": "a LoCon with a middle layer",
    r"glora_\w+|(?:a1|a2|b1|b2|bm)\.weight": "a GLoRA",
    r"on_input|ia3_l": "an IA3",
    r"vera_lambda_[bd]": "a VeRA",
    r"lora_E|ranknum": "an AdaLoRA",
    r"lora_embedding_[AB]": "a LoRA of an embedding",
    r"hra_u|fourierft_spectrum|miss_block|bone_block|shira_weight|c3a_kernel|randlora_\w+|vblora_\w+": (
        "made by another method than LoRA"
    ),
    r"set_weight|modules_to_save(?:\.\w+)?\.(?:weight|bias)|base_layer\.(?:weight|bias)": (
        "one that replaces whole weights"
    ),
    r"weight_scale|scale_weight|input_scale|comfy_quant|scaled_fp8|absmax|quant_map": "a quantised file with scales",
}
# Tensors by other names that change a layer's strength, beside a layer or for the whole file.
OTHER_SCALES = re.compile(
    r"(?:^|[._])(?:alphas?|scal(?:e|es|ar|ars|ing)|gates?|strength|multiplier|weight_m\w*|m)(?:\.\w+)?$", re.IGNORECASE
)
OTHER_EXPERT = re.compile(
    r"(?:transformer|dit|model|unet)_?2[._]|(?:low|high)_noise|(?:^|\.)(?:low|high)\.", re.IGNORECASE
)
# diffusers' names of the modules -> the original's; the inverse of wan_ui.files.names.dit_name_map.
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
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
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
# Modules that one model alone has, in which no LoRA is applied: the first parts of their names, dotted or flat.
OWN_MODULES = {
    "Wan2.2 Animate": r"face_adapter|motion_encoder|pose_patch_embedding",
    "Wan2.2 S2V": r"casual_audio_encoder|audio_injector|cond_encoder|frame_packer|trainable_cond_mask",
    "Wan VACE": r"vace_blocks|vace_patch_embedding",
}
_OTHER_METHOD = re.compile(r"(?:^|\.)(?:" + "|".join(f"({word})" for word in OTHER_METHODS) + r")(?:\.|$)")
NUMBERS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U8")  # an alpha may be one
_FLAT_OTHER = {name.replace(".", "_"): name for name in _OTHER_MODULES} | {
    theirs.replace(".", "_"): ours for theirs, ours in OTHER_NAMES.items()
}


@dataclass
class Layer:
    """What a file holds for one module: the names of its tensors in the file."""

    down: str = ""
    up: str = ""
    up_bias: str = ""
    alpha: str = ""
    diff: str = ""
    diff_b: str = ""
    named: str = ""  # the module as the file calls it, without prefixes: alpha patterns use these names


@dataclass(frozen=True)
class Layout:
    """A LoRA file's header, understood.

    layers   canonical module name -> Layer
    formats  names from FORMATS, most frequent first
    ranks    distinct ranks, ascending
    unknown  tensor names that no rule explains
    problem  why the file cannot be used at all; "" when it can
    scales   what the metadata say of layers' scales
    second   diffusers' `transformer_2.`: the file says that it is for the low-noise expert
    """

    layers: dict[str, Layer]
    formats: tuple[str, ...]
    ranks: tuple[int, ...]
    unknown: tuple[str, ...]
    problem: str = ""
    scales: Scales = field(default_factory=Scales)
    second: bool = False


def parse(name: str) -> tuple[str, str, str] | None:
    """Tensor name -> (format, canonical module, leaf), or None when no rule explains it."""
    found, written, kind = _split(name)
    if not kind:
        return None
    flat = found == "kohya"
    module = _unflatten(written.replace(".", "_")) if flat else _module(written, kind)
    if module is None:
        return None
    if found in ("lightx2v", "kijai") and _module(written, kind) != written and kind != "diff_m":
        found = "peft"
    return (found, *_place(module, kind))


def _split(name: str) -> tuple[str, str, str]:
    """(format, the module as the file calls it, without prefixes, leaf); leaf "" when there is none that is known."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    # lora_A.<adapter>.weight
    name = re.sub(r"\.(lora_[AB]|lora_down|lora_up)\.(?!weight$|bias$)[^.]+\.(weight|bias)$", r".\1.\2", name)
    leaf = next((leaf for leaf in LEAVES if name.endswith("." + leaf)), None)
    if leaf is None:
        return "", name, ""
    written, found = name.removesuffix("." + leaf), "lightx2v"
    flat = next((prefix for prefix in FLAT_PREFIXES if written.startswith(prefix)), None)
    if flat:
        written = re.sub(r"^_?(?:(?:model_)?diffusion_model_|transformer_)?", "", written.removeprefix(flat))
        return "kohya", written, LEAVES[leaf]
    stripped = True
    while stripped:
        stripped = False
        for prefix, label in PREFIXES:
            if written.startswith(prefix):
                written, stripped = written.removeprefix(prefix), True
                found = label if found == "lightx2v" else found
    return found, written, LEAVES[leaf]


def _module(written: str, kind: str) -> str | None:
    """The canonical name of a module with a dotted name."""
    match = re.fullmatch(r"blocks\.(\d{1,4})(?:\.(.+))?", written)
    if match:
        inner = BLOCK_NAMES.get(match[2] or "", match[2] or "")
        known = inner in _BLOCK_MODULES or (not inner and kind == "diff_m")
        return f"blocks.{int(match[1])}" + (f".{inner}" if inner else "") if known else None
    module = OTHER_NAMES.get(written, written)
    return module if module in _OTHER_MODULES or (module == "head" and kind == "diff_m") else None


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


def read_layout(header: Header, beside: str = "") -> Layout:
    """Sort a file's tensors by module. Never raises: what is wrong stands in `problem`.

    beside  the text of PEFT's adapter_config.json in the same folder, "" without one
    """
    layers: dict[str, Layer] = {}
    formats: dict[str, int] = {}
    unknown, problem = [], ""
    for name, info in header.tensors.items():
        method = _OTHER_METHOD.search(name)
        if method:
            words = list(OTHER_METHODS.values())[(method.lastindex or 1) - 1]
            problem = problem or f"it is {words}, which is not supported (first such key: {name}); use a plain LoRA"
            continue
        parsed = parse(name)
        if parsed is None:
            unknown.append(name)
            continue
        found, module, leaf = parsed
        if info.dtype not in NUMBERS and not (leaf == "alpha" and info.dtype in WHOLE_NUMBERS):
            problem = problem or f"{name} is stored as {info.dtype}, which is not supported; use a plain LoRA"
        formats[found] = formats.get(found, 0) + 1
        layer = layers.setdefault(module, Layer(named=_split(name)[1]))
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
        if not (layer.down or layer.up or layer.up_bias or layer.diff or layer.diff_b):
            unknown.append(layer.alpha)
            del layers[module]
            continue
        rank, why = _rank(module, layer, header.tensors)
        problem = problem or why
        if rank:
            ranks.add(rank)
    problem = problem or _whole_weights(unknown, bool(layers)) or (_decisive(unknown) if layers else "")
    if not layers and not problem:
        first = ", ".join(list(header.tensors)[:2])
        unlike = f"none of its {len(header.tensors)} keys is known to be of a Wan LoRA" + (f" ({first})" * bool(first))
        problem = _owned(unknown) or unlike
    order = tuple(sorted(formats, key=lambda key: -formats[key]))
    scales = read_scales(header.metadata, beside, second > 0, "kohya" in formats)
    layout = Layout(layers, order, tuple(sorted(ranks)), tuple(unknown), "", scales, second > 0)
    return replace(layout, problem=problem or scale_problem(layout, header.tensors))


def scale_problem(layout: Layout, tensors: dict[str, TensorInfo]) -> str:
    """Why the scale of some layer cannot be known; "" when all are."""
    if layout.scales.problem:
        return layout.scales.problem
    for module, layer in layout.layers.items():
        if layer.down:
            _, why = layout.scales.of((layer.named, module), tensors[layer.down].shape[0], bool(layer.alpha))
            if why:
                return f"{module}: {why}"
    return ""


def _whole_weights(unknown: list[str], any_layers: bool) -> str:
    """A whole parameter where a difference is expected: nothing says what it is to be added to."""
    modules = {module for name in unknown if (module := _parameter(name))}
    if not modules:
        return ""
    if not any_layers:
        return "it is a whole model, not a LoRA"
    return f"it holds whole weights, not differences ({min(modules)}), which is not supported; use a plain LoRA"


def _owned(unknown: list[str]) -> str:
    """Whose own modules all of them belong to."""
    written = [_split(name)[1] for name in unknown]
    for model, modules in OWN_MODULES.items():
        if written and all(re.match(rf"(?:{modules})(?:[._]|$)", name) for name in written):
            words = "holds only layers that no other model has, and LoRAs are applied to the blocks that all share"
            return f"it is for {model}, but {words} (first: {unknown[0]}); use one that was trained on those as well"
    return ""


def _decisive(unknown: list[str]) -> str:
    """Tensors without which the rest of the file is not what its maker meant."""
    for name in unknown:
        if OTHER_SCALES.search(name):
            return f"{name} may change its strength, and what it means is not known; use a plain LoRA"
        if OTHER_EXPERT.search(name):
            return f"it holds the LoRAs of both experts ({name}); split it into a high and a low file"
    return ""


def _parameter(name: str) -> str:
    """The canonical name of a whole parameter, "" for any other tensor."""
    module, _, leaf = name.rpartition(".")
    parsed = parse(f"{module}.diff") if leaf in ("weight", "bias") else None
    return f"{parsed[1]}.{leaf}" if parsed else ""


def _rank(module: str, layer: Layer, tensors: dict[str, TensorInfo]) -> tuple[int, str]:
    """The layer's rank (0: no low-rank part) and what is wrong with its shapes."""
    if layer.alpha and math.prod(tensors[layer.alpha].shape) != 1:
        return 0, f"{layer.alpha} has shape {tensors[layer.alpha].shape}, expected one number"
    if not layer.down and not layer.up:
        return 0, f"{module} has only {layer.up_bias}, the rest is missing" if layer.up_bias else ""
    if not (layer.down and layer.up):
        return 0, f"{module} has only {layer.down or layer.up}, its other half is missing"
    down, up = tensors[layer.down].shape, tensors[layer.up].shape
    kernel = down[2:] if module == "patch_embedding" else ()
    if len(down) < 2 or len(up) < 2 or math.prod(down[2:]) != math.prod(kernel) or math.prod(up[2:]) != 1:
        return 0, f"{module}: shapes {down} and {up}; expected two dimensions each"
    if down[0] != up[1] or 0 in (*down, *up):
        return 0, f"{module}: down is {down} and up is {up}; their ranks differ"
    if down[0] > MAX_RANK:
        return 0, f"{module} has rank {down[0]:,}; at most {MAX_RANK:,} can be right"
    return down[0], ""
