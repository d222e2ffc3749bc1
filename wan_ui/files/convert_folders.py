"""A model's whole folder in each layout: which weights are in it, and what the files are called.

A role is what a set of weights is in its model: high, low or "" (a single transformer), text, vae, clip, ear.
"""

import json
from pathlib import Path
from typing import Any

from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.files import clip_file, wav2vec
from wan_ui.files.identify import LORA, TEXT, TRANSFORMER, VAE, What, identify
from wan_ui.files.names import TEXT_INSIDE, part_inside
from wan_ui.files.parts import read_weights, weights_in
from wan_ui.files.text_file import is_pickle, pickle_table

CLIP, EAR = "CLIP", "wav2vec2"  # what Animate and S2V read beside their transformer
ROLES = {TEXT: "text", VAE: "vae", CLIP: "clip", EAR: "ear"}
DEPTH = 2  # folders below a model's that are looked at
DIFFUSERS = {
    "high": "transformer", "low": "transformer_2", "": "transformer", "text": "text_encoder", "vae": "vae",
    "clip": "image_encoder",
}  # fmt: skip
OFFICIAL = {"high": "high_noise_model/", "low": "low_noise_model/", "": ""}
T5_NAME = "models_t5_umt5-xxl-enc-{}.pth"
VAE_NAMES = {16: "Wan2.1_VAE.pth", 48: "Wan2.2_VAE.pth"}
CLIP_NAME = next(family.performance.clip for family in FAMILIES.values() if family.performance)
EAR_FOLDER = next(family.speech.encoder for family in FAMILIES.values() if family.speech)
CLIP_WORDS = "xlm-roberta-large"  # the tokenizer of CLIP's text half
TOKENIZER = {"official": "google/umt5-xxl", "diffusers": "tokenizer"}
TOKENIZER_SUFFIXES = (".json", ".model")
MAX_TOKENIZER = 64_000_000  # bytes of one of its files
DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"

Model = dict[str, tuple[Path, What]]


def look(path: Path) -> What:
    """`identify`, and what only belongs to a model's folder: CLIP, and the wav2vec2 that hears a voice."""
    what = identify(path)
    if not what.problem or what.part or what.damaged:
        return what
    if is_pickle(path):
        table = pickle_table(path)
        names = [name for name in clip_file.MARKS if name.encode() in table]
    else:
        names = list(read_weights(path).tensors)
    if mark := next((name for name in clip_file.MARKS if name in names), ""):
        return What(CLIP, clip_file.MARKS[mark])
    return What(EAR) if wav2vec.MARK in (name.removeprefix(wav2vec.PREFIX) for name in names) else what


def find_parts_of_model(folder: Path) -> tuple[Model, tuple[str, ...]]:
    """Role -> its weights and what they are, and what is left out, in words. Raises UserError.

    {} for a folder that is one set of weights itself.
    """
    found: Model = {}
    left = []
    for path in _weights_below(folder, DEPTH):
        what = look(path)
        if what.part == LORA:
            left.append(f"{path} is left out: a LoRA, which belongs in a LoRA folder")
            continue
        if what.problem or not what.part:
            raise UserError(what.problem)
        role = what.side if what.part == TRANSFORMER else ROLES[what.part]
        if role in found:
            raise UserError(
                f"{folder}: {found[role][0]} and {path} are both its {_words(role)}; name the file that is meant"
            )
        found[role] = (path, what)
    if len(found) < 2:
        return {}, ()
    sides = found.keys() & {"high", "low"}
    if len(sides) == 1 or (sides and "" in found):
        missing = ({"high", "low"} - sides or {"high"}).pop()
        raise UserError(
            f"{folder}: only one expert of a pair is in it; the {missing}-noise expert is missing or does not "
            "say which it is"
        )
    return found, tuple(left)


def find_parts_inside(path: Path, what: What) -> Model:
    """The same of an all-in-one file; {} for one that holds a single set of weights."""
    roles = {TEXT: "text", VAE: "vae"}
    inside = {roles[part.part]: (path, part) for part in what.inside}
    return {"": (path, what), **inside} if inside else {}


def _words(role: str) -> str:
    return {"text": TEXT, "vae": VAE, "clip": CLIP, "ear": EAR, "": TRANSFORMER}.get(role, f"{role}-noise expert")


def _weights_below(folder: Path, depth: int) -> list[Path]:
    """Sets of weights, an index for those in parts; no hidden folders, no LoRAs' folder."""
    found = weights_in(folder)
    if depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith(".") and child.name not in ("loras", "assets", "examples"):
                found += _weights_below(child, depth - 1)
    return found


def names_in(to: str, model: Model, alone: bool = False) -> dict[str, str]:
    """Role -> the file below the target's folder; alone: "" where the target is the file itself. Raises UserError."""
    names = {}
    for role, (path, what) in model.items():
        if what.part == TRANSFORMER:
            if to == "comfyui":
                side = f"_{role}_noise" if role else ""
                name = "" if alone else f"diffusion_models/{_model_name(path, what)}{side}.safetensors"
            elif alone:
                name = DIFFUSERS_FILE
            else:
                name = (OFFICIAL[role] if to == "official" else f"{DIFFUSERS[role]}/") + DIFFUSERS_FILE
        elif what.part == EAR:
            if to == "diffusers":
                words = "Diffusers has no place for Wan2.2 S2V, its transformer or its wav2vec2"
                raise UserError(f"{path}: {words}; choose official or comfyui")
            if to == "official":
                name = wav2vec.WEIGHTS if alone else f"{EAR_FOLDER}/{wav2vec.WEIGHTS}"
            else:
                name = "" if alone else "audio_encoders/wav2vec2_large_english.safetensors"
        elif to == "diffusers":
            file = "model.safetensors" if what.part in (TEXT, CLIP) else DIFFUSERS_FILE
            name = file if alone else f"{DIFFUSERS[role]}/{file}"
        elif alone:
            name = ""
        elif what.part == CLIP:
            name = CLIP_NAME if to == "official" else "clip_vision/clip_vision_h.safetensors"
        elif what.part == TEXT:
            kind = "fp8" if what.kind == "fp8" else "bf16"
            name = T5_NAME.format(kind) if to == "official" else "text_encoders/umt5_xxl.safetensors"
        elif to == "official":
            name = VAE_NAMES.get(what.channels, "Wan_VAE.pth")
        else:
            name = f"vae/wan_{'2.2' if what.channels == 48 else '2.1'}_vae.safetensors"
        names[role] = name
    return names


def _model_name(path: Path, what: What) -> str:
    return f"wan_{what.config.get('model_type', 't2v')}_{what.config.get('dim', 0)}"


def spiece_of(path: Path, root: Path) -> bytes:
    """The sentencepiece model that goes with a text encoder: in its file (ComfyUI's), or in the model's folder."""
    if not is_pickle(path):
        info = part_inside(read_weights(path).tensors, TEXT_INSIDE).get("spiece_model")
        if info is not None:
            with info.file(path).open("rb") as file:
                file.seek(info.offset)
                return bytes(file.read(info.nbytes))
    here = path if path.is_dir() else path.parent
    for folder in (root, here, here.parent):
        for place in ("spiece.model", "tokenizer/spiece.model", "google/umt5-xxl/spiece.model"):
            if (folder / place).is_file() and (folder / place).stat().st_size < MAX_TOKENIZER:
                return (folder / place).read_bytes()
    return b""


def tokenizer_files(root: Path, to: str, first: str) -> dict[str, bytes]:
    """The tokenizer's files of a model's folder, by their names from the folder of its `first` file of weights."""
    up = "../" * first.count("/")
    folder = next((root / place for place in TOKENIZER.values() if (root / place).is_dir()), None)
    if folder is None:
        return {}
    return {f"{up}{TOKENIZER[to]}/{name}": content for name, content in small_files(folder).items()}


def small_files(folder: Path) -> dict[str, bytes]:
    """Of a tokenizer or a configuration: name -> content; {} without such a folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    mine = (file for file in files if file.suffix in TOKENIZER_SUFFIXES and file.stat().st_size < MAX_TOKENIZER)
    return {file.name: file.read_bytes() for file in mine}


def model_index(root: Path, model: Model) -> dict[str, bytes]:
    """What makes a folder a pipeline of Diffusers: model_index.json, and the scheduler's configuration."""
    transformer = next((what for role, (_, what) in model.items() if role in ("", "high")), None)
    if transformer is None:
        return {}
    kind = transformer.config.get("model_type")
    picture, animate, both = kind == "i2v", kind == "animate", "low" in model
    index: dict[str, Any] = {
        "_class_name": "WanAnimatePipeline" if animate else "WanImageToVideoPipeline" if picture else "WanPipeline",
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", f"Wan{'Animate' * animate}Transformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    if not animate:
        index |= {
            "boundary_ratio": (0.9 if picture else 0.875) if both else None,
            "expand_timesteps": kind == "ti2v",
            "transformer_2": ["diffusers", "WanTransformer3DModel"] if both else [None, None],
        }
    if picture:
        index |= {"image_encoder": [None, None], "image_processor": [None, None]}
    scheduler = {
        "_class_name": "UniPCMultistepScheduler", "flow_shift": 5.0 if kind in ("i2v", "ti2v", "animate") else 3.0,
        "num_train_timesteps": 1000, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "solver_order": 2,
        "solver_type": "bh2", "final_sigmas_type": "zero", "timestep_spacing": "linspace",
    }  # fmt: skip
    files = {"scheduler/scheduler_config.json": scheduler}
    if animate:
        index |= {
            "image_encoder": ["transformers", "CLIPVisionModel"],
            "image_processor": ["transformers", "CLIPImageProcessor"],
        }
        files["image_processor/preprocessor_config.json"] = clip_file.PREPARED
    return {
        name: json.dumps(values, indent=2).encode() for name, values in {"model_index.json": index, **files}.items()
    }
