"""Where a ComfyUI installation keeps its weights: its own folders, and those that extra_model_paths.yaml names.

The file is read as far as it can be: what is not a path is passed over, as a person's comments and half-finished
sections are. No torch.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wan_ui.settings import Settings, split_names

log = logging.getLogger(__name__)

KINDS = ("diffusion_models", "unet", "checkpoints", "text_encoders", "clip", "vae", "loras", "upscale_models")
YAML = "extra_model_paths.yaml"
MAX_YAML = 1_000_000  # bytes


def installations(settings: Settings) -> list[Path]:
    return [Path(os.path.expanduser(name)) for name in split_names(settings.comfyui)]


def folders(settings: Settings, *kinds: str) -> list[Path]:
    """The folders of these kinds that are there, of all installations that the settings name, each once."""
    found: dict[Path, None] = {}
    for root in installations(settings):
        for kind, folder in (*_own(root), *_extra(root)):
            if kind in kinds and folder.is_dir():
                found.setdefault(folder.resolve())
    return list(found)


def _own(root: Path) -> Iterator[tuple[str, Path]]:
    """`root` may be the installation, or the folder `models` in it."""
    for kind in KINDS:
        yield kind, root / "models" / kind
        yield kind, root / kind


def _extra(root: Path) -> Iterator[tuple[str, Path]]:
    file = root / YAML
    if not file.is_file() or file.stat().st_size > MAX_YAML:
        return
    import yaml

    try:
        sections = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        log.warning("%s: not read: %s", file, str(error).splitlines()[0])
        return
    for section in sections.values() if isinstance(sections, dict) else ():
        if not isinstance(section, dict):
            continue
        base = section.get("base_path")
        start = root / os.path.expandvars(os.path.expanduser(base)) if isinstance(base, str) else root
        for kind in KINDS:
            for line in _lines(section.get(kind)):
                yield kind, start / os.path.expandvars(os.path.expanduser(line))


def _lines(value: Any) -> list[str]:
    """ComfyUI takes one path a line; lists, which people write as well, are as clear."""
    values = value if isinstance(value, list) else [value]
    return [line.strip() for text in values if isinstance(text, str) for line in text.splitlines() if line.strip()]
