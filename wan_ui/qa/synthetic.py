"""Models without a download: files with real headers and no contents, random values at the read.

`write` lays a model's files out as a download would: right names, sizes, config.json, safetensors and GGUF
headers, but what follows the header is a hole in a sparse file (of fp8 weights the scales alone are there).
`install` replaces the few functions that read tensor data, for such files only, by ones that draw the values on the
compute device; A14B (57 GB in bf16) is there in seconds. Everything behind the read is the real path: header checks,
choices by file size, patches, quantised layers, offload.

The values keep activations near 1: weights have standard deviation 1/sqrt(inputs), norms are near 1,
GGML blocks are random bytes whose scale fields are set for the same deviation. Values of weights do not
change how long anything takes (zeros would: the chip clocks higher on them).
"""

import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from wan_ui.catalog import Model, Scheme
from wan_ui.errors import UserError
from wan_ui.files import places, wav2vec
from wan_ui.files.headers import SAFETENSORS_BYTES, Header, TensorInfo, read_header, safetensors_header
from wan_ui.files.model_configs import official
from wan_ui.files.parts import all_parts
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.place import DATA
from wan_ui.qa import layouts, toy
from wan_ui.settings import Settings

if TYPE_CHECKING:
    from wan_ui.engines.base import Engine

if TYPE_CHECKING:
    import torch

MARK = "wan_ui.synthetic"  # metadata key of a file whose contents are drawn at the read
TOKENIZER = DATA / "assets" / "wan-tiny"
# Where the scale fields (float16) of a GGML block are, and how much larger the second, an offset, must be
# than the first for values around zero: half of the largest quant.
SCALES = {
    "Q8_0": ((0, 1.0),), "Q5_0": ((0, 1.0),), "Q4_0": ((0, 1.0),), "Q6_K": ((208, 1.0),),
    "Q5_K": ((0, 1.0), (2, 15.5)), "Q4_K": ((0, 1.0), (2, 7.5)),
}  # fmt: skip


# ---------------------------------------------------------------- files


def write(model: Model, scheme: Scheme, settings: Settings, engine: str, *, small: bool = False) -> None:
    """Lay out the files of a model below settings.models. An embedded model needs none. Raises UserError.

    small  at toy size (wan_ui.qa.toy)
    """
    if model.embedded:
        return
    family, text = (toy.of_family(model.family), toy.UMT5) if small else (model.family, layouts.UMT5_XXL)
    config = layouts.dit_config(family, text)
    if family.performance and small:
        config |= toy.ANIMATE
    contents: dict[str, layouts.Layout] = {
        places.T5_FILE: layouts.t5(text, fp8=False),
        family.vae.file: layouts.vae(family.vae),
    }
    if family.performance:
        contents[family.performance.clip] = layouts.clip_vision(toy.CLIP if small else layouts.CLIP_H)
    if model.t5:
        contents[model.t5.partition(":")[2]] = layouts.t5(text, fp8=True)
    configs: dict[str, dict[str, Any]] = {expert.config: config for expert in family.experts}
    if family.speech:
        folder, heard = family.speech.encoder, layouts.wav2vec_config(full=not small)
        configs |= {f"{folder}/{wav2vec.CONFIG}": heard, f"{folder}/{wav2vec.PREPARATION}": wav2vec.PREPARED}
        contents[f"{folder}/{wav2vec.WEIGHTS}"] = layouts.ear(heard)
    if model.vae:
        folder = model.vae.partition(":")[2]
        layout, configs[f"{folder}/config.json"] = layouts.diffusers_vae(family.vae)
        contents[f"{folder}/diffusion_pytorch_model.safetensors"] = layout
    experts = {
        part: (expert, number, len(all_parts(ref)))
        for ref, expert in zip(scheme.experts, family.experts, strict=True)
        for number, part in enumerate(all_parts(ref))
    }
    for ref in places.needed_files(model, scheme, engine):
        repo, _, file = ref.partition(":")
        path = settings.models / repo / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file in places.TOKENIZER_FILES:
            shutil.copyfile(TOKENIZER / file, path)
        elif ref in experts:
            expert, number, parts = experts[ref]
            layout = layouts.dit(official(config), scheme)
            if path.parent.name == "transformer":
                layout = layouts.in_diffusers_names(layout, config)
            name = f"{model.name} {'' if family.single else expert.name}".strip()
            write_hole(path, dict(list(layout.items())[number::parts]), name)
        elif ref in scheme.distill_loras:
            write_hole(path, layouts.lora(config), "distill LoRA")
        elif file in configs:
            path.write_text(json.dumps(configs[file]), encoding="utf-8")
        elif file in contents:
            write_hole(path, contents[file], file)
        else:
            raise UserError(f"synthetic: {engine} also needs {ref}, which has no layout here; use --engine lightx2v")


def write_hole(path: Path, layout: layouts.Layout, name: str) -> None:
    """A sparse file with the header for `layout`: GGUF where the name says so, else safetensors (`.pth` too)."""
    if path.suffix == ".gguf":
        _gguf_hole(path, layout, name)
        return
    entries: dict[str, Any] = {"__metadata__": {MARK: "1", "general.name": name}}
    offset = 0
    for key, (dtype, shape) in layout.items():
        end = offset + math.prod(shape) * SAFETENSORS_BYTES[dtype]
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + offset)
        for key, (dtype, shape) in layout.items():
            if key.endswith("_scale"):  # looked at before anything is read: a scale of 0 is a damaged file
                assert dtype == "F32", dtype
                file.seek(8 + len(header) + entries[key]["data_offsets"][0])
                file.write(struct.pack("<f", 1.0) * math.prod(shape))


def _gguf_hole(path: Path, layout: layouts.Layout, name: str) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "wan")
    writer.add_name(name)
    writer.add_bool(MARK, True)
    size = 0
    for key, (dtype, shape) in layout.items():
        if len(shape) > 4:  # GGML has four dimensions
            writer.add_array(f"comfy.gguf.orig_shape.{key}", list(shape))
            shape = (*shape[:3], math.prod(shape[3:]))
        qtype = gguf.GGMLQuantizationType[dtype]
        block, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
        nbytes = math.prod(shape) // block * block_bytes
        writer.add_tensor_info(key, shape, np.dtype(np.float32), nbytes, raw_dtype=qtype)
        size += math.ceil(nbytes / 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(math.ceil(path.stat().st_size / 32) * 32 + size)


@lru_cache(maxsize=16)
def header_of(path: str) -> Header | None:
    """The header of a file that `write` laid out, None for any other."""
    file = Path(path)
    if not file.is_file():
        return None
    try:
        header = safetensors_header(file) if file.suffix == ".pth" else read_header(file)
    except UserError:
        return None
    return header if MARK in header.metadata else None


def tensors_of(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file that `write` laid out."""
    header = header_of(str(path))
    if header is None:
        raise ValueError(f"{path} is no synthetic file")
    return header.tensors


# ---------------------------------------------------------------- values


def values(path: Path, name: str, info: TensorInfo, device: str) -> "torch.Tensor":
    """The tensor `name` of a synthetic file as it is stored, on `device`; the same at every read on one device."""
    import torch

    from wan_ui.files.tensors import DTYPES

    generator = torch.Generator(device).manual_seed(zlib.crc32(f"{path.name}:{name}".encode()))
    if info.dtype not in DTYPES:
        return blocks(info.dtype, info.shape, _deviation(name, info.shape), generator)
    dtype, shape = DTYPES[info.dtype], info.shape
    drawn = torch.empty(shape, device=device, dtype=torch.float32 if dtype.itemsize > 2 else torch.bfloat16)
    if name.endswith("_scale"):  # of an fp8 weight, which has deviation 100
        weight = tensors_of(path)[name.removesuffix("_scale")].shape
        scale = _deviation(name, weight) / 100
        return drawn.uniform_(0.9 * scale, 1.1 * scale, generator=generator).to(dtype)
    if dtype == torch.float8_e4m3fn:
        return drawn.normal_(0, 100, generator=generator).clamp_(-448, 448).to(dtype)
    if name.endswith(".gamma") or (".norm" in f".{name}" and name.endswith(".weight")):
        return drawn.normal_(1, 0.02, generator=generator).to(dtype)
    if name.endswith(".bias") or "modulation" in name:
        return drawn.normal_(0, 0.02, generator=generator).to(dtype)
    return drawn.normal_(0, _deviation(name, shape), generator=generator).to(dtype)


def _deviation(name: str, shape: tuple[int, ...]) -> float:
    if name.startswith("token_embedding"):
        return 1.0
    return 1 / math.sqrt(math.prod(shape[1:])) * (0.05 if ".lora_up." in name else 1)


def blocks(qtype: str, shape: tuple[int, ...], deviation: float, generator: "torch.Generator") -> "torch.Tensor":
    """Random GGML blocks, uint8 (rows, bytes per row), on the generator's device."""
    import torch
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[qtype]]
    count = math.prod(shape) // block
    device = generator.device
    raw = torch.randint(0, 256, (count, block_bytes), dtype=torch.uint8, device=device, generator=generator)
    for offset, factor in SCALES[qtype]:
        scale = torch.full((1,), factor * deviation / unit_deviation(qtype), dtype=torch.float16, device=device)
        raw[:, offset : offset + 2] = scale.view(torch.uint8)
    return raw.reshape(shape[0], -1)


@lru_cache
def unit_deviation(qtype: str) -> float:
    """Standard deviation of random blocks whose scale is 1, by gguf-py's own dequantisation."""
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[qtype]
    raw = np.random.default_rng(0).integers(0, 256, (2000, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for offset, factor in SCALES[qtype]:
        raw[:, offset : offset + 2] = np.array([factor], np.float16).view(np.uint8)
    return float(gguf.quants.dequantize(raw, kind).std())


# ---------------------------------------------------------------- seams


class OpenFile:
    """What safetensors' safe_open gives, for a synthetic file; without a device, tensors stay where they are drawn."""

    def __init__(self, path: Path, device: str | None = None):
        self.path, self.tensors, self.device = path, tensors_of(path), device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def keys(self) -> list[str]:
        return list(self.tensors)

    def get_tensor(self, name: str) -> "torch.Tensor":
        drawn = values(self.path, name, self.tensors[name], device_here())
        return drawn if self.device is None else drawn.to(self.device)


def device_here() -> str:
    """Where values are drawn: the GPU where there is one, whatever device they then go to."""
    import torch

    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def read_all(path: Path, device: str | None = None) -> "dict[str, torch.Tensor]":
    """Every tensor of a synthetic file."""
    with OpenFile(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def install() -> None:
    """Have this project's readers draw the values of synthetic files; other files are read as before."""
    from wan_ui.engines import clip_vision, dit, lora_plan, s2v_voice
    from wan_ui.files import tensors, vae_file

    stored_tensor, stored_blocks = tensors.read_tensor, tensors.read_blocks

    def read_blocks(path: Path, info: TensorInfo) -> "torch.Tensor":
        file = info.file(path)
        if header_of(str(file)) is None:
            return stored_blocks(path, info)
        return values(file, _names(str(file))[info.offset], info, device_here())

    def read_tensor(path: Path, info: TensorInfo) -> "torch.Tensor":
        if header_of(str(info.file(path))) is None:
            return stored_tensor(path, info)
        drawn = read_blocks(path, info)
        if not tensors.is_blocks(info):
            return drawn
        import gguf
        import torch

        plain = gguf.quants.dequantize(drawn.cpu().numpy(), gguf.GGMLQuantizationType[info.dtype])
        return torch.from_numpy(plain).reshape(info.shape)

    for module in (tensors, dit, lora_plan, vae_file, clip_vision, s2v_voice):
        vars(module)["read_tensor"] = read_tensor
    for module in (tensors, dit):
        vars(module)["read_blocks"] = read_blocks
    stored_pth = tensors.read_pth

    def read_pth(path: Path) -> "dict[str, torch.Tensor]":
        return stored_pth(path) if header_of(str(path)) is None else read_all(path)

    for module in (tensors, vae_file, clip_vision):
        vars(module)["read_pth"] = read_pth


@lru_cache(maxsize=16)
def _names(path: str) -> dict[int, str]:
    return {info.offset: name for name, info in tensors_of(Path(path)).items()}


def install_lightx2v() -> None:
    """The same for LightX2V's readers; it must have been imported. Called for stock and for patched runs."""
    from wan_ui.engines.lightx2v_readers import wrap_readers

    def opening(original: Callable[..., Any]) -> Callable[..., Any]:
        def safe_open(path: str, framework: str, device: str | None = None) -> Any:
            if header_of(str(path)) is None:
                return original(path, framework, **({} if device is None else {"device": device}))
            return OpenFile(Path(path), device)

        return safe_open

    def loading(original: Callable[..., Any]) -> Callable[..., Any]:
        def load_weights(path: str, cpu_offload: bool = False, **kwargs: Any) -> Any:
            if header_of(str(path)) is None:
                return original(path, cpu_offload, **kwargs)
            return read_all(Path(path), "cpu" if cpu_offload else None)  # host memory is what offloading pins

        return load_weights

    wrap_readers(opening, loading)


def create_engine(name: str) -> "tuple[Engine, EngineChoice]":
    """As wan_ui.engines.create.create_engine, reading synthetic files too: the worker's factory for `bench`."""
    from wan_ui.engines import create

    engine, choice = create.create_engine(name)
    install()
    if type(engine).__name__ == "LightX2VEngine":
        from wan_ui.engines import lightx2v

        start_runner = lightx2v.start_runner

        def start(*args):
            install_lightx2v()
            return start_runner(*args)

        lightx2v.start_runner = start
    return engine, replace(choice, why=f"{choice.why}, synthetic weights")
