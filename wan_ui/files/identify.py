"""What a file or folder of weights is, told by what is in it: names, shapes and types, not by what it is called.

    what = identify(path)      # never raises; `problem` says why it cannot be used

Reads headers alone (of a `.pth` the table of names, as bytes: nothing of a pickle is executed). No torch.
"""

import contextlib
import re
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.files import animate_names, s2v_file
from wan_ui.files.dit_file import FP8, GGML, own_sizes, own_tensors, read_dit
from wan_ui.files.headers import Header, expert_side, is_gguf
from wan_ui.files.model_configs import check_heads, from_tensors, read_official, said_by
from wan_ui.files.names import TEXT_INSIDE, VAE_INSIDE, in_diffusers_names, original_t5, original_vae, strip_prefix
from wan_ui.files.parts import read_weights, weights_size
from wan_ui.files.quantise import QUANTISED
from wan_ui.files.sizes import told_by_tensors
from wan_ui.files.text_file import is_pickle, pickle_table, stored_text
from wan_ui.valid_text import valid_name

TRANSFORMER, TEXT, VAE, LORA = "transformer", "text encoder", "VAE", "LoRA"
# Names that only other Wan transformers have, and what those are.
VARIANTS = (
    (r"vace_blocks\.", "a Wan VACE transformer"),
    (r"(face_adapter|motion_encoder|pose_patch_embedding)\.", "half of a Wan2.2 Animate transformer"),
    (r"control_adapter\.", "a Wan Fun Camera transformer"),
    (r"ref_conv\.", "a Wan Fun Control transformer"),
    (r"(img_emb|condition_embedder\.image_embedder)\.", "a Wan2.1 image-to-video transformer, which wants CLIP"),
)
# Of other programs' files: the first name that fits tells whose.
FOREIGN = (
    (r"(model\.diffusion_model\.)?double_blocks\.", "a Flux or Hunyuan transformer"),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "a Stable Diffusion 3 transformer"),
    (r"(model\.diffusion_model\.)?input_blocks\.", "a Stable Diffusion UNet"),
    (r"(vision_model|visual)\.", "a CLIP vision model"),
    (r"text_model\.|transformer\.text_model\.", "a CLIP text encoder"),
    (r"(encoder|decoder)\.(down|up)\.\d+\.block\.", "a VAE for still pictures"),
    (r"model\.layers\.\d+\.self_attn\.", "a language model"),
    (
        r"encoder\.block\.\d+\.layer\.",
        "a T5 text encoder that is no UMT5 (it lacks the biases of each block)",
    ),
)


@dataclass(frozen=True)
class What:
    """part     transformer | text encoder | VAE | LoRA | "" (none of them)
    layout   official | diffusers | comfyui: whose names and scales it has
    kind     bf16 (plain numbers) | fp8 | gguf; qtype: of GGUF, the type that most of the blocks' layers have
    config   of a transformer, the official values of its config.json, as far as they can be told
    side     high | low | "": which noise expert it says it is
    channels  of a VAE's latents
    inside   of an all-in-one file, the text encoder and the VAE that it holds beside the transformer
    problem  why it cannot be used; "" if it can
    damaged  the problem is that it is not whole, so that nobody can tell what it is
    """

    part: str = ""
    layout: str = ""
    kind: str = ""
    qtype: str = ""
    size: int = 0
    side: str = ""
    channels: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    inside: tuple["What", ...] = ()
    problem: str = ""
    damaged: bool = False


def identify(path: Path) -> What:
    """See the module's docstring."""
    try:
        if is_pickle(path):
            return _pickle(path)
        header = read_weights(path)
        own = own_tensors(header)
        if any(re.search(r"\.(lora_(down|up|[AB])|lokr_w\d|hada_w\d)(\.|$)", name) for name in header.tensors):
            return What(LORA, problem=f"{path}: a LoRA, not a model; put it into the LoRA folder")
        all_in_one = _several(header)
        if "blocks.0.self_attn.q.weight" in own:
            return replace(_transformer(path, header), inside=_inside(path, header) if all_in_one else ())
        parts = () if all_in_one else (_text, _vae)
        if what := next(filter(None, (tell(path, header) for tell in parts)), None):
            return what
        return What(problem=f"{path}: {_foreign(header)}; Wan UI reads Wan's transformers, UMT5 text encoders and VAEs")
    except UserError as error:
        return What(problem=str(error), damaged=True)
    except OSError as error:
        return What(problem=f"{path}: it cannot be read ({error.strerror})")


def is_all_in_one(path: Path) -> bool:
    """Whether it holds other parts beside a transformer, as ComfyUI's checkpoints do."""
    try:
        return not is_pickle(path) and _several(read_weights(path))
    except UserError:  # said when the file is read
        return False


def _several(header: Header) -> bool:
    return any(TEXT_INSIDE.match(name) or VAE_INSIDE.match(name) for name in header.tensors)


def _inside(path: Path, header: Header) -> tuple[What, ...]:
    """What of an all-in-one file's other parts can be used."""
    found: list[What] = []
    for tell in (_text, _vae):
        with contextlib.suppress(UserError):  # another text encoder, or half of one
            found += filter(None, [tell(path, header)])
    return tuple(found)


def _transformer(path: Path, header: Header) -> What:
    names = [strip_prefix(name) for name in header.tensors]
    known = animate_names.is_animate(names) or animate_names.is_diffusers(names)
    variant = next((what for pattern, what in VARIANTS if any(re.match(pattern, name) for name in names)), "")
    if variant and not known:
        return What(TRANSFORMER, problem=f"{path}: {variant}, which no model of the catalog runs")
    stored = read_dit(path)
    beside = (path if path.is_dir() else path.parent) / "config.json"
    sizes = own_sizes(path, header)
    config = read_official(beside) if beside.is_file() else said_by(header.metadata)
    if not _is_of(config, sizes):
        config = from_tensors(sizes, path)
    types = Counter(stored[name].info.dtype for name in stored if QUANTISED.match(name))
    usual = types.most_common(1)[0][0]
    kind = "gguf" if is_gguf(path) else "fp8" if any(dtype in FP8 for dtype in types) else "bf16"
    comfy = any(
        name.rpartition(".")[2] in ("scale_weight", "comfy_quant", "scaled_fp8") for name in header.tensors
    ) or names != list(header.tensors)  # fmt: skip
    layout = "diffusers" if in_diffusers_names(names) else "comfyui" if comfy else "official"
    return What(
        TRANSFORMER,
        layout,
        kind,
        usual if usual in GGML else "",
        weights_size(path),
        side_of(path, header),
        config=config,
    )


def _is_of(config: dict[str, Any], sizes: dict[str, Any]) -> bool:
    """Whether a config.json is that of tensors with these sizes, of which the official ones leave out what is usual."""
    usual = {**animate_names.SIZES, "audio_layers": s2v_file.LAYERS}
    said = {key: config.get(key, usual.get(key)) for key in sizes}
    if places := sizes.get("audio_inject_layers"):  # which they are no tensor tells
        named = said["audio_inject_layers"]
        said["audio_inject_layers"] = places if isinstance(named, list) and len(named) == len(places) else []
    try:
        check_heads(config)
    except ValueError:
        return False
    same = all(type(said[key]) is type(size) and said[key] == size for key, size in sizes.items())  # 1.0 is not 1
    return same and "num_heads" in config


def side_of(path: Path, header: Header) -> str:
    """high | low | "": what the file or its folder says of itself; no tensor tells one expert from the other."""
    folder = path if path.is_dir() else path.parent
    if (folder.parent / "transformer_2").is_dir() and folder.name in ("transformer", "transformer_2"):
        return "low" if folder.name == "transformer_2" else "high"  # Diffusers' pair
    said = expert_side(path, header.metadata)
    if not said:
        words = {match.lower() for match in re.findall(r"(?i)(?<![a-z])(high|low)(?![a-z])", path.stem)}
        said = words.pop() if len(words) == 1 else ""
    return said or expert_side(folder, {})


def _text(path: Path, header: Header) -> What | None:
    names = original_t5(header.tensors)
    if "token_embedding.weight" not in names or "blocks.0.pos_embedding.embedding.weight" not in names:
        return None
    stored = stored_text(path)
    types = {entry.info.dtype for name, entry in stored.items() if ".attn." in name}
    kind = "gguf" if is_gguf(path) else "fp8" if types & set(FP8) else "bf16"
    layout = "official" if "token_embedding.weight" in header.tensors else "diffusers"
    inside = any(TEXT_INSIDE.match(name) for name in header.tensors)
    if inside or "spiece_model" in header.tensors or "scaled_fp8" in header.tensors:
        layout = "comfyui"
    return What(TEXT, layout, kind, size=weights_size(path))


def _vae(path: Path, header: Header) -> What | None:
    tensors = original_vae(header.tensors)
    if "decoder.conv1.weight" not in tensors or "conv2.weight" not in tensors:
        return None
    inside = any(VAE_INSIDE.match(name) for name in header.tensors)
    layout = "comfyui" if inside else "official" if "decoder.conv1.weight" in header.tensors else "diffusers"
    with told_by_tensors(path, "no Wan VAE"):
        channels = tensors["conv2.weight"].shape[0]
    return What(VAE, layout, "bf16", size=weights_size(path), channels=channels)


def _pickle(path: Path) -> What:
    """Of a `.pth`: which names its table has."""
    if not zipfile.is_zipfile(path):
        return What(problem=f"{path}: not a torch checkpoint (no zip directory; truncated?)")
    table = pickle_table(path)
    if b"blocks.0.pos_embedding.embedding.weight" in table:
        kind = "fp8" if b"weight_scale" in table else "bf16"
        return What(TEXT, "official", kind, size=path.stat().st_size)
    if b"decoder.conv1.weight" in table and b"conv2.weight" in table:
        residual = b"downsamples.0.downsamples.0.residual" in table
        return What(VAE, "official", "bf16", size=path.stat().st_size, channels=48 if residual else 16)
    return What(problem=f"{path}: a torch checkpoint that is neither a UMT5 text encoder nor a Wan VAE")


def _foreign(header: Header) -> str:
    for pattern, words in FOREIGN:
        if any(re.match(pattern, name) for name in header.tensors):
            return words
    architecture = valid_name(str(header.metadata.get("general.architecture", ""))[:40])
    if architecture:
        return f"a GGUF file of the architecture {architecture!r}"
    first = ", ".join(valid_name(name[:60]) for name in list(header.tensors)[:2])
    return f"weights of an unknown kind (its first tensors: {first or 'none'})"
