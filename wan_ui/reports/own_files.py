"""Words without the names of a person's own files, for whoever is to read their report."""

import re
from functools import lru_cache
from pathlib import Path

from wan_ui import loras
from wan_ui.scrub import clean
from wan_ui.settings import Settings
from wan_ui.valid_text import valid_text

FILES = re.compile(
    r"(?i)[^\s'\"`/\\]+\.(safetensors|gguf|pth?|ckpt|bin|png|jpe?g|webp|gif|bmp|tiff?|hei[cf]|avif|mp4|mov|webm|mkv|avi"
    r"|wav|mp3|m4a|aac|ogg|opus|flac|toml|json|sqlite|txt)\b"
)


def clean_files(text: str, settings: Settings) -> str:
    """As `scrub.clean`, and without names of files of the person's own; those that the catalog knows stay."""
    text = valid_text(text)
    known = _catalog(settings.catalog)
    for entry in loras.available(settings):
        if not entry.shipped:
            text = text.replace(entry.name, "<lora>")
    text = clean(text, settings)
    return FILES.sub(lambda found: found[0] if found[0] in known else f"<file>.{found[1]}", text)


@lru_cache(maxsize=4)
def _catalog(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
