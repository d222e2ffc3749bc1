"""Weights that are here already: in ComfyUI installations that the settings name, and in the models folder.

    found.models(settings)                  # the catalog's models, with a scheme for what was found for each
    found.stand_in(model, "vae", settings)  # a VAE, text encoder ... for a model whose own is not here

Everything is told by content (identify.py), from headers, once for each path, size and time. Which expert of a pair a
file is, nothing in it says but words. No torch.
"""

import functools
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wan_ui.catalog import Model, Scheme, load_catalog
from wan_ui.errors import UserError
from wan_ui.families import UNLIKE, Family
from wan_ui.files import comfyui, s2v_file, spiece
from wan_ui.files.convert_folders import spiece_of
from wan_ui.files.identify import TEXT, TRANSFORMER, VAE, What, identify
from wan_ui.files.model_configs import CLASSES
from wan_ui.files.parts import weights_in, weights_size
from wan_ui.files.version import version
from wan_ui.recipes import DMD
from wan_ui.settings import Settings

FRESH = 3.0  # seconds for which one look at the disk serves
MAX_FILES, MAX_DEPTH = 2000, 5
HERE = "file:"  # before a path that stands for a repository's file in a scheme
PREFIX = "found-"  # of the names of schemes
# No number in a file says that it was distilled; those who make them say so in the name.
DISTILLED = re.compile(r"(?i)lightx2v|lightning|turbo|distill|\d.?steps?|fastwan|dmd|rapid|causvid|self.?forcing")
FRESH_NOISE = re.compile(r"(?i)fastwan|dmd")
SIDE = re.compile(r"(?i)[-_ .]*(?<![a-z])(high|low)([-_ ]?noise)?(?![a-z])(_model)?|(high|low)noise")
BEST = ("bf16", "fp8", "gguf")  # of several text encoders


@dataclass(frozen=True)
class Found:
    path: Path
    what: What


def scan(settings: Settings) -> list[Found]:
    """All weights of Wan that are here. Nothing in here raises."""
    return _scan(settings, int(time.monotonic() / FRESH))


@functools.lru_cache(maxsize=2)
def _scan(settings: Settings, _: int) -> list[Found]:
    kinds = ("diffusion_models", "unet", "checkpoints", "text_encoders", "clip", "vae")
    found: dict[Path, Found] = {}
    for root in (*comfyui.folders(settings, *kinds), settings.models):
        for path in _below(root):
            if len(found) < MAX_FILES and path not in found:
                found[path] = Found(path, _known(path))
    return list(found.values())


def _below(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, _ in os.walk(root, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(here.relative_to(root).parts) >= MAX_DEPTH:
            folders.clear()
        try:
            found += weights_in(here)
        except OSError:
            continue
        if len(found) > MAX_FILES:
            break
    return found


def _known(path: Path) -> What:
    try:
        return _identified(path, version(path.stat()), weights_size(path))
    except OSError as error:
        return What(problem=f"{path}: it cannot be read ({error.strerror})")


@functools.lru_cache(maxsize=MAX_FILES)
def _identified(path: Path, stamp: tuple[int, ...], together: int) -> What:
    return identify(path)


# ---------------------------------------------------------------- transformers


def models(settings: Settings) -> dict[str, Model]:
    """The catalog, with a scheme for each transformer (or pair) that was found and that it does not name itself."""
    catalog = load_catalog(settings.catalog)
    more, _ = _schemes(settings, int(time.monotonic() / FRESH))
    return {
        name: replace(model, schemes=model.schemes | {scheme.name: scheme for scheme in more.get(name, ())})
        for name, model in catalog.items()
    }


def problems(settings: Settings) -> list[str]:
    """What keeps transformers of Wan that were found from being used, a sentence each."""
    return _schemes(settings, int(time.monotonic() / FRESH))[1]


def unavailable(error: UserError, scheme: str, settings: Settings) -> UserError:
    """Why there is no such scheme, with what keeps found files from being one."""
    troubles = problems(settings) if scheme.startswith(PREFIX) else []
    return UserError(". ".join([str(error), *troubles[:3]]), field=error.field) if troubles else error


@functools.lru_cache(maxsize=2)
def _schemes(settings: Settings, now: int) -> tuple[dict[str, list[Scheme]], list[str]]:
    catalog = load_catalog(settings.catalog)
    named = _named_by(catalog, settings)
    groups: dict[tuple[Any, ...], dict[str, Found]] = {}
    troubles: list[str] = []
    for found in _scan(settings, now):
        unknown = not found.what.part and re.search("(?i)wan", found.path.name)  # called so, and nothing of Wan's
        damaged = found.what.damaged and re.search("(?i)wan", str(found.path))
        if (unknown or damaged) and found.path not in named:
            troubles.append(found.what.problem)
        if found.what.part != TRANSFORMER or found.path in named:
            continue
        if found.what.problem:
            troubles.append(found.what.problem)
            continue
        what = found.what
        said = what.config.get("model_type")
        kind = said if said in UNLIKE else ""
        key = (_title(found.path), what.kind, what.qtype, what.config["dim"], what.config["in_dim"], kind)
        groups.setdefault(key, {}).setdefault(what.side, found)
    schemes: dict[str, list[Scheme]] = {}
    for (title, *_), sides in groups.items():
        models, why = _fitting(catalog, sides, title)
        if why:
            troubles.append(why)
        for model in models:
            schemes.setdefault(model.name, []).append(_scheme(model, title, sides, settings, schemes))
    return schemes, troubles


def _fitting(catalog: dict[str, Model], sides: dict[str, Found], title: str) -> tuple[list[Model], str]:
    """The models that this transformer or pair can be, or why there is none."""
    first = next(iter(sides.values()))
    fits = [model for model in catalog.values() if not model.embedded and _fits(model.family, first.what.config)]
    if not fits:
        sizes = sorted({(model.family.transformer.title, model.family.transformer.width) for model in catalog.values()})
        known = ", ".join(f"{name} ({width})" for name, width in sizes)
        config = first.what.config
        return [], (
            f"{first.path}: a Wan transformer {config['dim']} wide of {config['num_layers']} blocks that takes "
            f"{config['in_dim']} channels, which no model of the catalog has; their widths: {known}"
        )
    motion = "fast" if DISTILLED.search(title) else "full"
    dmd = bool(FRESH_NOISE.search(title))  # sampled otherwise than the other distilled ones
    wanted = [
        model for model in fits if motion in model.recipes and (model.recipes[motion].solver == DMD) == dmd
    ] or fits[:1]
    usable = [model for model in wanted if set(model.family.sides) <= sides.keys()]
    if not usable:
        sides_wanted = wanted[0].family.sides
        missing = next(side for side in sides_wanted if side not in sides)
        words = f"{missing}-noise expert" if missing else "file without a side"
        return [], (
            f"{first.path}: one half of {wanted[0].short_title}; its {words} is not here. Put it into the same folder, "
            "with high_noise or low_noise in its name"
        )
    return usable, ""


def _fits(family: Family, config: dict[str, Any]) -> bool:
    sizes = (family.transformer.width, family.transformer.blocks, family.input_channels)
    kinds = {kind if kind in UNLIKE else "" for kind in (family.model_type, config.get("model_type"))}
    return sizes == (config["dim"], config["num_layers"], config["in_dim"]) and len(kinds) == 1


def _scheme(
    model: Model, title: str, sides: dict[str, Found], settings: Settings, there: dict[str, list[Scheme]]
) -> Scheme:
    parts = [sides[side] for side in model.family.sides]
    what, distilled = parts[0].what, bool(DISTILLED.search(title))
    base = PREFIX + re.sub(r"[^A-Za-z0-9.]+", "-", title).strip("-.")[:80]
    taken = {scheme.name for scheme in there.get(model.name, ())} | set(model.schemes)
    name = next(new for new in (base, *(f"{base}-{i}" for i in range(2, 100))) if new not in taken)
    size = f"{len(parts)} x {parts[0].what.size / 1e9:.1f} GB" if len(parts) > 1 else f"{what.size / 1e9:.1f} GB"
    loras = () if distilled else _distill_loras(model, settings)
    with_loras = " with the distill LoRA" if loras else ""
    kind = {"bf16": "plain numbers", "fp8": "fp8", "gguf": f"GGUF {what.qtype}"}[what.kind]
    refs = [HERE + str(part.path) for part in parts]
    return Scheme(
        name=name,
        title=f"Found here: {title} ({kind}, {size}){with_loras}",
        kind=what.kind,
        distilled=distilled,
        qtype=what.qtype,
        high=refs[0],
        low=refs[1] if len(refs) > 1 else "",
        lora_high=loras[0] if loras else "",
        lora_low=loras[1] if len(loras) > 1 else "",
    )


def _distill_loras(model: Model, settings: Settings) -> tuple[str, ...]:
    """Those that the catalog names for this model, where all of them are here."""
    for scheme in model.schemes.values():
        refs = scheme.distill_loras
        if refs and all((settings.models / ref.replace(":", "/", 1)).is_file() for ref in refs):
            return refs
    return ()


def _title(path: Path) -> str:
    """What a pair is called: the file's name without its side; of a folder's weights the model's folder."""
    stem = re.sub(r"(\.safetensors\.index)?\.[a-z]+$", "", path.name)
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem)
    if stem in ("diffusion_pytorch_model", "model"):
        folder = path.parent
        if folder.name in ("transformer", "transformer_2") or SIDE.search(folder.name):
            folder = folder.parent
        stem = folder.name
    return SIDE.sub("", stem).strip("-_ .") or stem


def _named_by(catalog: dict[str, Model], settings: Settings) -> set[Path]:
    refs = (ref for model in catalog.values() for scheme in model.schemes.values() for ref in scheme.experts)
    return {settings.models / ref.replace(":", "/", 1) for ref in refs}


# ---------------------------------------------------------------- what a model needs beside its transformers


def stand_in(model: Model, part: str, settings: Settings) -> Path | None:
    """What serves in place of a file of the model that is not here, or None.

    part  text | vae | tokenizer.json | tokenizer_config.json | a config.json of the model's experts
    """
    files = [found for found in scan(settings) if not found.what.problem]
    here = [*files, *(Found(found.path, what) for found in files for what in found.what.inside)]
    if part == "vae":
        channels = model.family.vae.channels
        return next((f.path for f in here if f.what.part == VAE and f.what.channels == channels), None)
    # One of its own before one inside an all-in-one file, which LightX2V cannot read.
    texts = sorted((f for f in here if f.what.part == TEXT), key=lambda f: (f not in files, BEST.index(f.what.kind)))
    if part == "text":
        return texts[0].path if texts else None
    if part in ("tokenizer.json", "tokenizer_config.json"):
        return _tokenizer([found.path for found in texts], part, settings)
    if any(f.what.part == TRANSFORMER and _fits(model.family, f.what.config) for f in here):
        return _config(model, part, settings)
    return None


def _tokenizer(texts: list[Path], name: str, settings: Settings) -> Path | None:
    for path in texts:
        folder = path.parent
        for beside in (folder / "tokenizer", folder.parent / "tokenizer", folder / "google/umt5-xxl"):
            if (beside / "tokenizer.json").is_file() and (beside / name).is_file():
                return beside / name
        try:
            raw = spiece_of(path, path.parent)
            if not raw:
                continue
            target = settings.cache / "tokenizers" / hashlib.sha256(raw).hexdigest()[:12] / name
            if not target.is_file():
                text = spiece.tokenizer_json(raw, path) if name == "tokenizer.json" else spiece.TOKENIZER_CONFIG
                _write(target, text)
            return target
        except (UserError, OSError):
            continue
    return None


def _config(model: Model, file: str, settings: Settings) -> Path:
    """The released config.json of an expert, which its family's sizes give."""
    sizes, family = model.family.transformer, model.family
    more = s2v_file.RELEASED if family.model_type == s2v_file.KIND else {}
    text = json.dumps(
        {
            **more,
            "_class_name": CLASSES.get(family.model_type, "WanModel"),
            "dim": sizes.width, "eps": 1e-6, "ffn_dim": sizes.ffn, "freq_dim": 256,
            "in_dim": family.input_channels, "model_type": family.model_type, "num_heads": sizes.heads,
            "num_layers": sizes.blocks, "out_dim": family.vae.channels, "text_len": 512,
        }
    )  # fmt: skip
    target = settings.cache / "configs" / model.name / file
    if not target.is_file() or target.read_text(encoding="utf-8") != text:
        _write(target, text)
    return target


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, target)
