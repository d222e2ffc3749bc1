"""Weights from one layout into another, tensor for tensor: official, Diffusers, ComfyUI.

    parts = plan(source, "diffusers")          # what would be written; UserError if it cannot
    write(parts, target, report)               # whole or not at all, read back and compared

Numbers are carried over as they are stored. What a layout cannot hold is refused with what would do, unless a type is
asked for: Diffusers has no fp8 with scales, ComfyUI none with one scale per channel, and none of them GGML blocks.
One tensor is in memory at a time, but for `.pth` files, which torch writes at once, VAEs, CLIP and wav2vec2.
"""

import contextlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wan_ui.errors import UserError
from wan_ui.files import animate_names, clip_file, model_configs, s2v_file, wav2vec
from wan_ui.files.convert_folders import (
    CLIP,
    CLIP_WORDS,
    EAR,
    find_parts_inside,
    find_parts_of_model,
    look,
    model_index,
    names_in,
    small_files,
    spiece_of,
    tokenizer_files,
)
from wan_ui.files.dit_file import FP8, Stored, own_sizes, read_dit
from wan_ui.files.headers import SAFETENSORS_BYTES
from wan_ui.files.identify import TEXT, TRANSFORMER, What
from wan_ui.files.names import dit_name_map, rename, t5_name_map
from wan_ui.files.parts import read_weights
from wan_ui.files.sizes import t5_sizes, vae_layout
from wan_ui.files.text_file import Entry, is_pickle, read_text

if TYPE_CHECKING:
    import torch

LAYOUTS = ("official", "diffusers", "comfyui")
DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
SPARE = 256 * 2**20  # bytes that stay free on the disk
Report = Callable[[str, int, int], None]  # what is done, bytes done, bytes in all; reading back counts as well


@dataclass(frozen=True)
class Out:
    """A tensor to be written: safetensors' type, shape, and what makes it."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], "torch.Tensor"]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * SAFETENSORS_BYTES[self.dtype]


@dataclass(frozen=True)
class Part:
    """One file of weights.

    file    below the target; "" is the target itself
    pickled  written by torch (`.pth`), not as safetensors
    beside  what is written next to it: name -> content
    notes   what the person should know
    """

    source: Path
    file: str
    tensors: dict[str, Out]
    metadata: dict[str, str] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pickled: bool = False

    @property
    def suffix(self) -> str:
        """Of a target that is this file; "" for a folder."""
        return "" if self.file else ".pth" if self.pickled else ".safetensors"

    @property
    def nbytes(self) -> int:
        return sum(out.nbytes for out in self.tensors.values())


def plan(source: Path, to: str, dtype: str = "keep") -> list[Part]:
    """What has to be written for a file, a folder of parts, or a model's whole folder. Raises UserError."""
    if to not in LAYOUTS:
        raise UserError(f"--to: {to!r} is not known; choose one of {', '.join(LAYOUTS)}")
    if dtype != "keep" and dtype not in DTYPES:
        raise UserError(f"--dtype: {dtype!r} is not known; choose keep, {', '.join(DTYPES)}")
    if not os.path.exists(source):
        raise UserError(f"{source}: file not found")
    model, left_out = find_parts_of_model(source) if source.is_dir() else ({}, ())
    if not model:
        what = look(source)
        if what.problem:
            raise UserError(what.problem)
        model = find_parts_inside(source, what)
    if not model:
        return [_part(source, what, to, dtype, names_in(to, {"": (source, what)}, alone=True)[""], source.parent)]
    files = names_in(to, model)
    parts = [_part(path, what, to, dtype, files[role], source) for role, (path, what) in model.items()]
    parts[0] = replace(parts[0], notes=parts[0].notes + left_out)
    if to != "comfyui":
        parts[0].beside.update(tokenizer_files(source, to, parts[0].file))
    if to == "diffusers":
        up = "../" * parts[0].file.count("/")
        parts[0].beside.update({up + name: text for name, text in model_index(source, model).items()})
    return parts


def _part(path: Path, what: What, to: str, dtype: str, file: str, root: Path) -> Part:
    if what.part == TRANSFORMER:
        return _transformer(path, what, to, dtype, file)
    if what.part == TEXT:
        return _text(path, what, to, dtype, file, root)
    if what.part == CLIP:
        return _clip(path, what, to, dtype, file, root)
    if what.part == EAR:
        return _ear(path, to, dtype, file)
    return _vae(path, to, dtype, file)


def _transformer(path: Path, what: What, to: str, dtype: str, file: str) -> Part:
    stored = read_dit(path)
    layers = int(what.config["num_layers"])
    outs, notes = _outs(path, stored, to, dtype)
    if to == "diffusers":
        if s2v_file.is_s2v(outs):
            raise UserError(f"{path}: Diffusers has no transformer for Wan2.2 S2V; choose official or comfyui")
        animate = animate_names.is_animate(outs)
        outs = animate_names.for_diffusers(outs, _halves, _flat) if animate else rename(outs, dit_name_map(layers))
    metadata = {"format": "pt"}
    if what.side:  # the new name may not say it
        metadata["general.name"] = f"{what.side}_noise"
    config = what.config or model_configs.from_tensors(own_sizes(path, read_weights(path)), path)
    beside = {}
    if to != "comfyui":
        values = config if to == "official" else model_configs.for_diffusers(config)
        beside["config.json"] = json.dumps(values, indent=2).encode()
    else:
        metadata[model_configs.METADATA] = json.dumps(config)
    return Part(path, file, outs, metadata, beside, notes)


def _text(path: Path, what: What, to: str, dtype: str, file: str, root: Path) -> Part:
    entries = read_text(path)
    sizes = t5_sizes(path, entries)
    outs, notes = _outs(path, entries, to, dtype)
    beside: dict[str, bytes] = {}
    spiece = spiece_of(path, root)
    if to != "official":
        outs = rename(outs, t5_name_map(sizes["encoder_layers"]))
    if to == "diffusers":
        beside["config.json"] = json.dumps(model_configs.umt5(sizes), indent=2).encode()
    if to == "comfyui":
        if not spiece:
            raise UserError(
                f"{path}: ComfyUI wants the tokenizer inside the text encoder's file, and there is no spiece.model "
                f"beside it; put the release's google/umt5-xxl/spiece.model at {root / 'spiece.model'}"
            )
        outs["spiece_model"] = Out("U8", (len(spiece),), lambda: _bytes(spiece))
    elif what.layout == "comfyui" and spiece:
        beside["spiece.model"] = spiece
    return Part(path, file, outs, {"format": "pt"}, beside, notes, pickled=to == "official")


def _bytes(raw: bytes) -> "torch.Tensor":
    import torch

    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _vae(path: Path, to: str, dtype: str, file: str) -> Part:
    from wan_ui.files.vae_file import read_vae

    tensors = read_vae(path)
    config, names = vae_layout(path, tensors)
    outs, notes = _outs(path, tensors, to, dtype)
    beside = {}
    if to == "diffusers":
        outs = rename(outs, names)
        stored = (path if path.is_dir() else path.parent) / "config.json"
        if stored.is_file() and b"AutoencoderKLWan" in (content := stored.read_bytes()):
            beside["config.json"] = content
        else:
            beside["config.json"] = json.dumps({"_class_name": "AutoencoderKLWan"} | config, indent=2).encode()
    return Part(path, file, outs, {"format": "pt"}, beside, notes, pickled=to == "official")


def _clip(path: Path, what: What, to: str, dtype: str, file: str, root: Path) -> Part:
    tensors, note = _stored_all(path), ""
    beside: dict[str, bytes] = {}
    if what.layout == "official" and to != "official":
        projection = tensors.get(clip_file.ORIGINAL_HEAD)
        tensors = clip_file.original_to_transformers(tensors)
        if projection is not None:
            tensors[clip_file.PROJECTION] = projection.T
        note = "CLIP's half for text, which Animate does not use, is left out"
    elif to == "official" and what.layout != "official":
        tensors = clip_file.transformers_to_original(tensors)
        note = "CLIP has its half for pictures alone, which Wan UI reads; the official code wants the release's file"
    elif to == "official" and file:  # of a model's folder
        beside = {f"{CLIP_WORDS}/{name}": content for name, content in small_files(root / CLIP_WORDS).items()}
    if to == "diffusers":
        tensors.pop(clip_file.PROJECTION, None)
        config = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "projection_dim": 1024}
        beside["config.json"] = json.dumps(config | clip_file.vision_config(tensors, path), indent=2).encode()
    outs = _as_they_are(tensors, dtype)
    return Part(path, file, outs, {"format": "pt"}, beside, (note,) if note else (), pickled=to == "official")


def _ear(path: Path, to: str, dtype: str, file: str) -> Part:
    """Every layout has transformers' file."""
    beside: dict[str, bytes] = {}
    notes: tuple[str, ...] = ()
    folder = path if path.is_dir() else path.parent
    if to == "official" and (folder / wav2vec.PREPARATION).is_file():
        wav2vec.read_config(folder)
        beside = small_files(folder)
    elif to == "official":
        wav2vec.read_infos(path, wav2vec.RELEASED)
        values = {wav2vec.CONFIG: wav2vec.RELEASED, wav2vec.PREPARATION: wav2vec.PREPARED}
        beside = {name: json.dumps(value, indent=2).encode() for name, value in values.items()}
        notes = ("no vocabulary is beside wav2vec2, which Wan UI needs none of; the official code wants the release's",)
    return Part(path, file, _as_they_are(_stored_all(path), dtype), {"format": "pt"}, beside, notes)


def _stored_all(path: Path) -> dict[str, "torch.Tensor"]:
    from wan_ui.files.tensors import read_pth, read_tensor

    if is_pickle(path):
        return read_pth(path)
    return {name: read_tensor(path, info) for name, info in read_weights(path).tensors.items()}


def _as_they_are(tensors: Mapping[str, "torch.Tensor"], dtype: str) -> dict[str, Out]:
    from wan_ui.files.tensors import DTYPES as TORCH

    names = {dtype: name for name, dtype in TORCH.items()}
    outs = {}
    for name, tensor in tensors.items():
        asked = TORCH[DTYPES[dtype]] if dtype != "keep" and tensor.is_floating_point() else tensor.dtype
        outs[name] = Out(names[asked], tuple(tensor.shape), partial(tensor.to, asked))
    return outs


def _outs(path: Path, entries: Mapping[str, Entry], to: str, dtype: str) -> tuple[dict[str, Out], tuple[str, ...]]:
    """The tensors by original names, as `to` holds them. Raises UserError for numbers that it cannot hold."""
    from wan_ui.files.tensors import DTYPES as TORCH
    from wan_ui.files.tensors import read_scale

    safetensors = {dtype: name for name, dtype in TORCH.items()}
    outs: dict[str, Out] = {}
    scaled = 0
    for name, entry in entries.items():
        scale_of_pth = name.endswith("_scale")  # of a safetensors file it is in the weight's entry
        if dtype != "keep":
            if not scale_of_pth:
                outs[name] = Out(DTYPES[dtype], tuple(entry.shape), partial(_plain, path, entries, name, dtype))
            continue
        if not isinstance(entry, Stored):
            if scale_of_pth and to != "official":
                raise UserError(f"{path}: {_cannot(to)}; --dtype bf16 writes plain numbers")
            outs[name] = Out(safetensors[entry.dtype], tuple(entry.shape), partial(_itself, entry))
            continue
        if entry.blocks:
            raise UserError(
                f"{path}: it is a GGUF file, whose blocks ({entry.info.dtype}) no {to} file holds; --dtype bf16 writes "
                f"plain numbers{' (ComfyUI-GGUF reads the file as it is)' if to == 'comfyui' else ''}"
            )
        outs[name] = Out(entry.info.dtype, entry.shape, partial(_stored, path, entry))
        if entry.scale is None:
            continue
        scaled += 1
        values = read_scale(path, entry)
        if to == "official" and entry.scale_blocks == 1:
            outs[f"{name}_scale"] = Out("F32", tuple(values.shape), partial(_itself, values))
        elif to == "comfyui" and bool((values == values.flatten()[0]).all()):
            one = values.flatten()[0].clone()
            outs[f"{name.removesuffix('.weight')}.scale_weight"] = Out("F32", (), partial(_itself, one))
        else:
            raise UserError(f"{path}: {_cannot(to)}; --dtype bf16 writes plain numbers")
    notes = []
    if scaled:
        notes.append(f"{scaled} layers stay fp8 with their scales")
    if scaled and to == "official":
        notes.append("Wan UI and LightX2V read them; the official code reads plain numbers alone (--dtype bf16)")
    if scaled and to == "comfyui":
        types = {out.dtype for out in outs.values() if out.dtype in FP8}
        if len(types) > 1:
            raise UserError(f"{path}: it holds {' and '.join(sorted(types))}, and ComfyUI takes one; use --dtype bf16")
        outs["scaled_fp8"] = Out(kind := types.pop(), (0,), partial(_marker, kind))
    return outs, tuple(notes)


def _halves(out: Out) -> tuple[Out, Out]:
    """Along the first dimension."""
    shape = (out.shape[0] // 2, *out.shape[1:])
    first, second = (Out(out.dtype, shape, partial(_half, out, number)) for number in range(2))
    return first, second


def _half(out: Out, number: int) -> "torch.Tensor":
    return out.make().chunk(2)[number].contiguous()


def _flat(out: Out) -> Out:
    return Out(out.dtype, (math.prod(out.shape),), lambda: out.make().flatten())


def _itself(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor


def _stored(path: Path, entry: Stored) -> "torch.Tensor":
    from wan_ui.files.tensors import read_tensor

    return read_tensor(path, entry.info).reshape(entry.shape)


def _plain(path: Path, entries: Mapping[str, Entry], name: str, dtype: str) -> "torch.Tensor":
    from wan_ui.files.tensors import DTYPES as TORCH
    from wan_ui.files.text_file import plain_text

    return plain_text(path, entries, name).to(TORCH[DTYPES[dtype]])


def _marker(dtype: str) -> "torch.Tensor":
    """ComfyUI's mark of a file whose fp8 layers have a scale each."""
    import torch

    from wan_ui.files.tensors import DTYPES as TORCH

    return torch.empty(0, dtype=TORCH[dtype])


def _cannot(to: str) -> str:
    if to == "diffusers":
        return "its fp8 layers have scales, which a Diffusers folder has no place for"
    if to == "comfyui":
        return "its fp8 layers have a scale for every channel, and ComfyUI takes one for a tensor"
    return "its fp8 layers have a scale for every block of their input, which no official file has"


# ---------------------------------------------------------------- writing


def write(parts: list[Part], target: Path, report: Report) -> None:
    """Write and read back. Raises UserError: the target is there, no space, a disk that gives back other bytes."""
    if parts[0].suffix and target.suffix != parts[0].suffix:
        raise UserError(f"{target}: a file of this layout ends in {parts[0].suffix}; name it so with --out")
    if target.exists():
        raise UserError(f"{target}: it is there already; name another with --out, or move it away")
    total = sum(part.nbytes for part in parts)
    there = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(there).free
    if total + SPARE > free:
        raise UserError(
            f"{target}: {total / 1e9:.2f} GB are to be written, and {there} has {free / 1e9:.2f} GB free; "
            "make room, or name another place with --out"
        )
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    done = 0

    def told(words: str, count: int) -> None:
        nonlocal done
        done += count
        report(words, done, 2 * total)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in parts:
            path = unfinished / part.file if part.file else unfinished
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_part(part, path, target, told)
            for name, content in part.beside.items():
                beside = (path.parent / name) if part.file else target.with_name(name)
                beside = Path(os.path.normpath(beside))
                beside.parent.mkdir(parents=True, exist_ok=True)
                if not beside.exists():
                    beside.write_bytes(content)
        for part in parts:
            _check_part(part, unfinished / part.file if part.file else unfinished, target, told)
        os.replace(unfinished, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def _write_part(part: Part, path: Path, target: Path, told: Callable[[str, int], None]) -> None:
    words = f"writing {part.file or target.name}"
    if part.pickled:
        import torch

        tensors = {}
        for name, out in part.tensors.items():
            tensors[name] = out.make().contiguous().clone()
            told(words, out.nbytes)
        torch.save(tensors, path)
        return
    entries: dict[str, Any] = {"__metadata__": part.metadata}
    offset = 0
    for name, out in part.tensors.items():
        entries[name] = {"dtype": out.dtype, "shape": list(out.shape), "data_offsets": [offset, offset + out.nbytes]}
        offset += out.nbytes
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # the numbers begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for out in part.tensors.values():
            _as_bytes(out.make()).numpy().tofile(file)
            told(words, out.nbytes)
        file.flush()
        os.fsync(file.fileno())


def _check_part(part: Part, path: Path, target: Path, told: Callable[[str, int], None]) -> None:
    """Every tensor again, from the source and from what was written. Raises UserError."""
    import torch

    from wan_ui.files.tensors import read_pth, read_tensor

    pickled = read_pth(path) if part.pickled else None
    infos = {} if part.pickled else read_weights(path).tensors
    if (pickled or infos).keys() != part.tensors.keys():
        raise UserError(f"{target}: other tensors are in it than were written; the disk may be failing")
    for name, out in part.tensors.items():
        got = pickled[name] if pickled else read_tensor(path, infos[name])
        if tuple(got.shape) != out.shape or not torch.equal(_as_bytes(got), _as_bytes(out.make())):
            raise UserError(f"{target}: {name} was read back with other numbers; the disk may be failing")
        told(f"comparing {part.file or target.name}", out.nbytes)


def _as_bytes(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)
