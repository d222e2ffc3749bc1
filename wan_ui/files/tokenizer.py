"""The tokenizer: prompts -> the ids that the original's gives, from `tokenizer.json`."""

import html
import json
import re
from pathlib import Path
from typing import Any

import ftfy
from tokenizers import Tokenizer
from tokenizers.models import Unigram

from wan_ui.files.headers import damaged


def load_tokenizer(folder: Path, length: int) -> Tokenizer:
    """The tokenizer, cutting prompts at `length` tokens; its ids are the original's. Raises UserError."""
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
    except Exception as error:  # tokenizers raises bare Exception
        raise damaged(path, f"not a tokenizer ({error})") from error
    if model["type"] == "Unigram":
        _as_trained(tokenizer, model)
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def _as_trained(tokenizer: Tokenizer, model: dict[str, Any]) -> None:
    """Unknown characters as sentencepiece, the original's slow tokenizer, writes them.

    Converters have lost the id of <unk> and the byte fallback on the way to tokenizer.json; both can be read off the
    vocabulary: a piece has its place, and pieces for the 256 bytes are only there when they are fallen back to.
    """
    places = {piece: place for place, (piece, _) in enumerate(model["vocab"])}
    unknown, in_bytes = places.get("<unk>"), all(f"<0x{byte:02X}>" in places for byte in range(256))
    if (model.get("unk_id"), bool(model.get("byte_fallback"))) != (unknown, in_bytes):
        tokenizer.model = Unigram([tuple(entry) for entry in model["vocab"]], unknown, in_bytes)


def clean(prompt: str) -> str:
    """As the original and diffusers do: mojibake and HTML entities repaired, white space collapsed."""
    prompt = ftfy.fix_text(prompt)
    text = html.unescape(html.unescape(prompt))
    return re.sub(r"\s+", " ", text).strip()
