"""The scale of a LoRA's layers where it is not stored beside them: what the metadata say.

A layer's change is up @ down times alpha / rank, or times alpha / sqrt(rank) where the trainer says that it is
rank-stabilised. Kohya's trainers store alpha as a tensor. PEFT and diffusers put it into a configuration: JSON in
the metadata (with a component's name before each key: "transformer.lora_alpha"), single entries there, or
adapter_config.json beside the file; patterns give some layers another rank or alpha. A file without any of these
has alpha = rank, as every reader takes it. Where they contradict each other, or the layers' ranks, the scale cannot
be known, and a LoRA with a wrong strength looks like one that does not work: the file is refused.
"""

import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

ALPHA, RANK = ("lora_alpha", "network_alpha", "alpha"), ("r", "rank", "lora_rank", "network_dim", "lora_dim")
STABILISED = ("use_rslora", "rslora", "rs_lora")
PATTERNS = ("alpha_pattern", "rank_pattern")
OTHERS = (*PATTERNS, "use_dora", "init_lora_weights")
# Components that a key may begin with; a text encoder's own configuration is not the transformer's.
PARTS = ("", "transformer", "transformer_2", "unet", "diffusion_model", "dit", "pipe.dit", "base_model.model", "lora")
WORDS = (*ALPHA, *RANK, *STABILISED, *OTHERS)
# Ways to begin training that change the base model's weights, which the file then does not fit.
OTHER_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga", re.IGNORECASE)
# What a person or ComfyUI wrote about pictures; words of a configuration in it are not this file's.
OTHER_TEXTS = ("workflow", "prompt", "ss_tag_frequency", "ss_datasets", "ss_dataset_dirs", "ss_bucket_info")
WRITTEN = re.compile(r"""(?i)\blora_?alpha["']?\s*[:=]\s*[\d.]+""")
MAX_JSON = 1_000_000  # characters
MAX_DEPTH = 20  # of tables inside each other


@dataclass(frozen=True)
class Scales:
    """What the metadata say.

    alpha, rank    of layers that no pattern names; None: not said
    alphas, ranks  of those that one names
    problem        why no scale can be known
    lost           why the scale of a layer without an alpha tensor cannot be known
    note           what a person should know of layers without an alpha tensor
    """

    alpha: float | None = None
    rank: float | None = None
    stabilised: bool = False
    alphas: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    lost: str = ""
    note: str = ""

    def of(self, names: tuple[str, ...], rank: int, stored: bool) -> tuple[float, str]:
        """(scale of a layer of `rank` that the file calls one of `names`, why it cannot be known).

        stored  the layer has an alpha tensor, which then counts instead
        """
        if stored:
            return 0.0, "it stores an alpha, and the metadata say rank-stabilised" if self.stabilised else ""
        if self.lost:
            return 0.0, self.lost
        alpha = _pattern(self.alphas, names, self.alpha)
        if alpha is None:
            return 1.0, "the metadata say rank-stabilised, but no alpha" if self.stabilised else ""
        said = _pattern(self.ranks, names, self.rank)
        if said is not None and said != rank:
            return 0.0, f"it has rank {rank}, and the metadata, which hold its alpha, say {said:g}"
        return alpha / (math.sqrt(rank) if self.stabilised else rank), ""


def _pattern(values: dict[str, float], names: tuple[str, ...], other: float | None) -> float | None:
    """PEFT's rule: a key is a name or the end of one, from a dot on; the first that fits counts."""
    for key, value in values.items():
        if any(name == key or name.endswith(f".{key}") for name in names):
            return value
    return other


def read_scales(metadata: dict[str, str], beside: str, second: bool, flat: bool) -> Scales:
    """What the metadata, or `beside` (the text of adapter_config.json), say. Never raises.

    second  the keys say transformer_2
    flat    kohya's key names
    """
    found: dict[str, dict[str, Any]] = {}
    written = ""
    for key, text in metadata.items():
        if key in OTHER_TEXTS:
            continue
        text = text.lstrip("\ufeff \n\r\t")
        if text.startswith('"'):  # JSON in a text of JSON
            text = _text(text)
        part, _, name = key.rpartition(".")
        _collect(found, part, {name: text})
        if not text.startswith(("{", "[")):
            written = written or (key if WRITTEN.search(text[:MAX_JSON]) else "")
        elif re.search(r"lora_alpha|rs_?lora|alpha_pattern|use_dora|init_lora_weights", text[:MAX_JSON]):
            config = _json(text)
            if config is None:
                return Scales(problem=f"its metadata ({key[:40]}) cannot be read, so that its strength is not known")
            _collect(found, "", config)
    if not found and beside:
        config = _json(beside)
        if config is None:
            return Scales(problem="adapter_config.json beside it cannot be read, so that its strength is not known")
        _collect(found, "", config)
    parts = [part for part in found if (part == "transformer_2") is second] or list(found)
    if any(found[part] != found[parts[0]] for part in parts[1:]):
        return Scales(
            problem=f"its metadata hold different scales ({', '.join(parts)}); which is meant cannot be known"
        )
    scales = _of(found[parts[0]] if parts else {}, metadata, flat)
    if written and not scales.problem and scales.alpha is None and not scales.alphas:
        lost = f"its metadata ({written[:40]}) hold a lora_alpha in a form that is not read"
        return replace(scales, lost=lost)
    return scales


def _collect(found: dict[str, dict[str, Any]], part: str, config: dict[str, Any], depth: int = 0) -> None:
    """Sort WORDS by component: "transformer.lora_alpha" and {"transformer": {"lora_alpha": ...}} are the same."""
    for key, value in config.items():
        prefix, _, name = str(key).rpartition(".")
        name = name.lower()
        place = prefix or part
        tables = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else [value]
        if isinstance(value, (dict, list)) and name not in WORDS:
            for table in tables if depth < MAX_DEPTH else ():
                _collect(found, name if name in PARTS else place, table, depth + 1)
        elif name in WORDS and place in PARTS and value not in (None, "", "None", "null"):
            found.setdefault(place, {})[name] = value


def _of(config: dict[str, Any], metadata: dict[str, str], flat: bool) -> Scales:
    if OTHER_BASE.search(str(config.get("init_lora_weights", ""))[:40]):
        return Scales(problem="it was trained on changed base weights (init_lora_weights); use a converted one")
    try:
        if _truth(config.get("use_dora")):
            return Scales(problem="its metadata say that it is a DoRA, which is not supported; use a plain LoRA")
        scales = Scales(
            alpha=next((_number(config[name]) for name in ALPHA if name in config), None),
            rank=next((_number(config[name]) for name in RANK if name in config), None),
            stabilised=any(_truth(config.get(name)) for name in STABILISED),
            alphas=_numbers(config.get("alpha_pattern")),
            ranks=_numbers(config.get("rank_pattern")),
        )
    except ValueError as error:
        return Scales(problem=f"its metadata say {error}, so that its strength is not known")
    if scales.alpha is not None or scales.alphas:
        return scales
    return _kohya(scales, metadata, flat)


def _kohya(scales: Scales, metadata: dict[str, str], flat: bool) -> Scales:
    """Kohya's trainers write ss_network_alpha beside the tensors; it counts for nothing but to notice a lost one."""
    try:
        alpha, rank = (_number(metadata.get(name, "")) for name in ("ss_network_alpha", "ss_network_dim"))
    except ValueError:
        return scales
    if alpha == rank:
        return scales
    said = f"its metadata say alpha {alpha:g} of rank {rank:g}"
    if flat:
        return replace(scales, lost=f"{said}, but the layer's alpha is missing")
    return replace(scales, note=f"{said}; without alpha tensors its strength is taken to be in the weights")


def _json(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_JSON:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(config, list):
        config = {"": config}
    return config if isinstance(config, dict) else None


def _text(text: str) -> str:
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return inner if isinstance(inner, str) else text


def _number(value: Any) -> float:
    """Raises ValueError with the value."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{str(value)[:40]!r} where a number belongs")
    return number


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1", "yes")
    return value is True or value == 1


def _numbers(pattern: Any) -> dict[str, float]:
    """A pattern's literal names -> numbers. Raises ValueError for regular expressions, which could mean any layer."""
    if isinstance(pattern, str):
        pattern = _json(pattern)
        if pattern is None:
            raise ValueError("a pattern that cannot be read")
    if pattern is not None and not isinstance(pattern, dict):
        raise ValueError("a pattern that is no table")
    found = {}
    for key, value in (pattern or {}).items():
        literal = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
        literal = re.sub(r"^(?:transformer(?:_2)?|diffusion_model|base_model\.model)\.", "", literal)
        if not re.fullmatch(r"[\w.]+", literal):
            raise ValueError(f"the pattern {key[:40]!r}")
        found[literal] = _number(value)
    return found
