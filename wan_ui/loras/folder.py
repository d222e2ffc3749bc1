"""What lies in the LoRA folders: one entry per LoRA, from safetensors headers alone.

Cheap enough to be asked at every refresh: a header is read once per (path, size, mtime), at most
MAX_HEADER bytes of it, at most MAX_FILES files are looked at, links that lead out of the folder are not
followed, and no tensor is read. What a client sends is looked up among the entries found here and never
joined to a path, so `..`, absolute paths, other cases and links lead nowhere.

The high- and the low-noise file of one LoRA become one entry where that is certain: see pairs.py.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from wan_ui.errors import UserError
from wan_ui.families import TARGETS, TRANSFORMERS, of_width, patch_channels
from wan_ui.files import comfyui
from wan_ui.files.dit_file import refuse_parts
from wan_ui.files.headers import Header, safetensors_header
from wan_ui.files.version import version
from wan_ui.loras.entry import LoraEntry
from wan_ui.loras.keys import Layout, read_layout
from wan_ui.loras.pairs import pair, target_said
from wan_ui.loras.words import tags, trigger_words
from wan_ui.place import COMMAND, DATA
from wan_ui.settings import Settings
from wan_ui.valid_text import valid_name, valid_text

SHIPPED = DATA / "assets" / "loras"  # Wan-Tiny's own, listed beside the user's folder
MAX_HEADER = 8_000_000  # bytes; a LoRA of every layer of A14B has 0.2 MB, with a training log in it a few
MAX_FILES = 2000
MAX_DEPTH = 6  # folders below the LoRA folder
COVERS = ("modelspec.thumbnail", "thumbnail", "ssmd_cover_images", "cover_image")  # a picture in the metadata
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")


def scan(folder: Path, *others: Path) -> list[LoraEntry]:
    """Every LoRA below `folder` and the others (ComfyUI's), and those that ship, by name; the first wins a name.

    A folder that is not there is empty, not an error.

    Files that cannot be used are entries too, with `problem` set. Nothing in here raises.
    """
    entries = []
    for root, shipped in (*((root, False) for root in (folder, *others)), (SHIPPED, True)):
        if shipped and folder.resolve() == SHIPPED.resolve():
            continue
        entries += pair([replace(entry, shipped=shipped) for entry in _files(root)])
    taken: set[str] = set()
    unique = []
    for entry in entries:  # the user's folder comes first and wins a name
        if entry.name not in taken:
            taken.add(entry.name)
            unique.append(entry)
    return sorted(unique, key=lambda entry: (entry.shipped, entry.name.lower()))


def available(settings: Settings) -> list[LoraEntry]:
    """Every LoRA of the LoRA folder, of the ComfyUI installations that the settings name, and those that ship."""
    return scan(settings.loras, *comfyui.folders(settings, "loras"))


def find(name: str, entries: list[LoraEntry]) -> LoraEntry:
    """The entry called `name`; a file of a pair can be named alone too. Raises UserError."""
    for entry in entries:
        if entry.name == name:
            return entry
        if entry.paired:
            for target, path in entry.files.items():
                if name == sibling(entry, path):
                    return read_file(path, name, made_for=target)
    raise UserError(
        f"loras: {valid_name(name)!r} is not in the LoRA folder; `{COMMAND} loras` lists what is there",
        field="loras",
    )


def sibling(entry: LoraEntry, path: Path) -> str:
    name = valid_name(path.name)
    return str(Path(entry.name).parent / name) if "/" in entry.name else name


def _files(root: Path) -> Iterator[LoraEntry]:
    """One entry per file below `root`, at most MAX_FILES."""
    root = root.resolve()
    count = 0
    for folder, folders, names in os.walk(root, followlinks=False):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(here.relative_to(root).parts) >= MAX_DEPTH:
            folders.clear()
        for name in sorted(names):
            path = here / name
            suffix = path.suffix.lower()
            if name.startswith(".") or (suffix != ".safetensors" and suffix not in PICKLES):
                continue
            count += 1
            if count > MAX_FILES:
                return
            shown = valid_name(path.relative_to(root).as_posix())
            if not path.resolve().is_relative_to(root):
                problem = "it is a link that leads out of the LoRA folder; put the file itself here"
                yield LoraEntry(shown, {"both": path}, problem=problem)
            else:
                yield read_file(path, shown)


def read_file(path: Path, name: str, made_for: str = "") -> LoraEntry:
    """The entry of one file, from its header. `made_for` overrides what the name says. Never raises."""
    try:
        status = path.stat()
        entry = _read(path, status.st_size, version(status), beside(path))
    except OSError as error:
        return LoraEntry(name, {"both": path}, problem=f"it cannot be read ({error.strerror})")
    if made_for and entry.made_for == "unknown":
        entry = replace(entry, made_for=made_for, made_for_why="its name, beside its other half")
    return replace(entry, name=name)


def lora_header(path: Path) -> Header:
    """Bounded header of a LoRA. Raises UserError: not safetensors (a pickle is told by content), too long, damaged."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, which may have the bytes of a pickle's beginning.
    if start[8:9] != b"{" and (start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] <= b"\x05")):
        raise UserError(
            f"{valid_name(path.name)}: it is a Python pickle, which can run code when opened; use a .safetensors file"
        )
    header = safetensors_header(path, MAX_HEADER)
    refuse_parts(path, header)
    return header


def beside(path: Path) -> str:
    """The text of PEFT's adapter_config.json next to an adapter_model.safetensors; "" without one."""
    if path.name != "adapter_model.safetensors":
        return ""
    try:
        with (path.parent / "adapter_config.json").open("rb") as file:
            return file.read(1_000_000).decode("utf-8-sig", "replace")
    except OSError:
        return ""


@lru_cache(maxsize=2 * MAX_FILES)
def _read(path: Path, size: int, stamp: tuple[int, ...], config: str) -> LoraEntry:
    files = {"both": path}
    if path.suffix.lower() in PICKLES:
        problem = "only .safetensors files are read: a pickle can run code when opened"
        return LoraEntry(valid_name(path.name), files, problem=problem, size=size)
    try:
        header = lora_header(path)
    except UserError as error:
        shown = valid_name(str(path))
        problem = str(error).removeprefix(f"{shown}: ").removeprefix(f"{valid_name(path.name)}: ")
        return LoraEntry(valid_name(path.name), files, problem=problem, size=size)
    layout = read_layout(header, config)
    if layout.problem:
        return LoraEntry(
            valid_name(path.name), files, key_format="+".join(layout.formats), problem=layout.problem, size=size
        )
    texts = {
        valid_text(key): valid_text(value)
        for key, value in header.metadata.items()
        if isinstance(key, str) and isinstance(value, str)
    }
    size_of_model = width(header, layout)
    fits, why = _base(path, size_of_model, layout, texts)
    made_for, made_for_why = _made_for(path, layout, texts)
    return LoraEntry(
        name=valid_name(path.name),
        files=files,
        fits=fits,
        fits_why=why,
        width=size_of_model,
        ranks=layout.ranks,
        key_format="+".join(layout.formats),
        layers={"both": len(layout.layers)},
        left_out=_left_out(header, layout, fits),
        strength_note="" if all(layer.alpha for layer in layout.layers.values()) else layout.scales.note,
        trigger_words=trigger_words(texts),
        tags=tags(texts),
        notes=_notes(texts),
        cover=any(texts.get(key) for key in COVERS),
        made_for=made_for,
        made_for_why=made_for_why,
        size=size,
    )


def _left_out(header: Header, layout: Layout, fits: str) -> tuple[str, ...]:
    """What no engine will apply, by names and shapes alone, a line each."""
    image, norms, others = [], [], []
    channels = patch_channels(fits)
    for module, layer in layout.layers.items():
        if module.startswith("img_emb") or module.endswith("_img"):
            image.append(module)
        elif layer.diff_b and (re.search(r"\.norm_[qk]$", module) or module.endswith("modulation")):
            norms.append(module)
        elif module == "patch_embedding" and fits in TRANSFORMERS and (layer.down or layer.diff):
            shape = header.tensors[layer.down or layer.diff].shape
            if math.prod(shape[1:]) not in [4 * count for count in channels]:  # of 2 x 2 latents
                others.append(f"its patch embedding, made for another task (shape {shape})")
    lines = [f"{len(found)} layers {words} ({found[0]})" for found, words in (
        (image, "of Wan2.1's image attention"), (norms, "that are biases of norms, which have none here"),
    ) if found]  # fmt: skip
    lines += others
    if layout.unknown:
        lines.append(f"{len(layout.unknown)} tensors that are not of Wan's transformer ({layout.unknown[0][:120]})")
    return tuple(lines)


def width(header: Header, layout: Layout) -> int:
    """Width of the model that the LoRA was made for: what most square attention layers take. 0: cannot tell."""
    found: Counter[int] = Counter()
    for module, layer in layout.layers.items():
        if re.search(r"attn\.([qkvo]|[kv]_img)$", module):
            if layer.down:
                found[header.tensors[layer.down].shape[1]] += 1
                found[header.tensors[layer.up].shape[0]] += 1
            elif layer.diff and header.tensors[layer.diff].shape:
                found[header.tensors[layer.diff].shape[0]] += 2
        elif layer.diff and header.tensors[layer.diff].shape and re.search(r"\.norm(3|_[qk])$", module):
            found[header.tensors[layer.diff].shape[-1]] += 1
        elif layer.up and module.endswith(".ffn.2"):
            found[header.tensors[layer.up].shape[0]] += 2
        elif layer.down and module.endswith(".ffn.0"):
            found[header.tensors[layer.down].shape[1]] += 2
    return found.most_common(1)[0][0] if found else 0


def _base(path: Path, size: int, layout: Layout, texts: dict[str, str]) -> tuple[str, str]:
    """(fits, why) of a LoRA whose model is `size` wide."""
    if not size:
        return "other", "no layer tells the width of its model"
    sizes = of_width(size)
    if sizes is None:
        return "other", f"its model is {size} wide, which no model here is"
    why = f"its model is {size} wide"
    blocks = 1 + max((int(m[1]) for name in layout.layers if (m := re.match(r"blocks\.(\d+)", name))), default=0)
    if blocks > sizes.blocks:
        return "other", f"it has {blocks} blocks of width {size}, more than {sizes.title} has"
    if sizes.older:
        said = " ".join([path.name, *(texts.get(key, "") for key in MODEL_KEYS)]).lower()
        if any(name.endswith("k_img") for name in layout.layers):
            return sizes.older, f"{why}, with the image attention that Wan2.2 does not have"
        if re.search(r"wan[-_ ]?2[._]?1|wan21", said) and not re.search(r"wan[-_ ]?2[._]?2|wan22|a14b", said):
            return sizes.older, f"{why}, and its name or metadata says Wan2.1"
    return sizes.name, why


MODEL_KEYS = ("ss_base_model_version", "modelspec.architecture", "base_model", "ss_sd_model_name")


def _made_for(path: Path, layout: Layout, texts: dict[str, str]) -> tuple[str, str]:
    for key in ("expert", "wan_ui.expert", "made_for"):
        value = texts.get(key, "").lower().replace("-", "_").replace(" ", "_")
        if value in TARGETS:
            return value, f"its metadata says {key} = {value}"
    if layout.second:
        return "low_noise", "its keys say transformer_2, the low-noise expert"
    # musubi-tuner trains one expert by limiting the timesteps; the experts part at 875 or 900.
    try:
        lowest, highest = int(texts.get("ss_min_timestep", 0)), int(texts.get("ss_max_timestep", 1000))
        if lowest >= 800:
            return "high_noise", f"it was trained on timesteps from {lowest}"
        if highest <= 900:
            return "low_noise", f"it was trained on timesteps up to {highest}"
    except ValueError:
        pass
    for text, words in ((valid_name(path.stem), "its name"), (texts.get("ss_output_name", ""), "its metadata")):
        found = target_said(text)
        if found:
            return found, f"{words} says {found.replace('_', '-')}"
    return "unknown", "neither its name nor its metadata says"


def _notes(texts: dict[str, str]) -> str:
    for key in ("notes", "modelspec.description", "description", "modelspec.usage_hint", "ss_training_comment"):
        text = " ".join(texts.get(key, "").split())
        if text and text != "None":
            return text[:500]
    return ""
