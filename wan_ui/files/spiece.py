"""A tokenizer.json out of a sentencepiece model: ComfyUI's text encoders carry one as the tensor `spiece_model`.

The file is a protocol buffer (sentencepiece_model.proto): pieces with a text, a score and a type, and the normaliser's
table of characters. Unigram models alone, as UMT5's is. No torch.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wan_ui.files.headers import damaged

PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of ModelProto
PIECE, SCORE, TYPE = 1, 2, 3  # of a piece
UNKNOWN, BYTE = 2, 6  # types
MODEL_TYPE, UNIGRAM = 3, 1  # of TrainerSpec
CHARSMAP = 2  # of NormalizerSpec


def tokenizer_json(raw: bytes, path: Path) -> str:
    """What `tokenizers` loads; its ids are sentencepiece's, with </s> at the end. Raises UserError."""
    pieces: list[tuple[str, float]] = []
    unknown, in_bytes, charsmap = None, False, b""
    try:
        for number, value in _fields(raw):
            if number == PIECES:
                piece = dict(_fields(value))
                text = piece[PIECE].decode("utf-8")
                kind = piece.get(TYPE, 1)
                unknown = len(pieces) if kind == UNKNOWN else unknown
                in_bytes |= kind == BYTE
                pieces.append((text, struct.unpack("<f", piece.get(SCORE, b"\0\0\0\0"))[0]))
            elif number == TRAINER and dict(_fields(value)).get(MODEL_TYPE, UNIGRAM) != UNIGRAM:
                raise damaged(path, "its tokenizer is no unigram model")
            elif number == NORMALIZER:
                charsmap = dict(_fields(value)).get(CHARSMAP, b"")
        end = next(place for place, (text, _) in enumerate(pieces) if text == "</s>")
    except (KeyError, ValueError, IndexError, struct.error, StopIteration, AttributeError, TypeError):
        raise damaged(path, "its tokenizer is not a sentencepiece model") from None
    normalizers: list[dict[str, Any]] = [
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ]
    if charsmap:
        table = base64.b64encode(charsmap).decode()
        normalizers.insert(0, {"type": "Precompiled", "precompiled_charsmap": table})
    special = [
        {
            "id": place, "content": text, "special": True,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        }
        for place, (text, _) in enumerate(pieces) if text in ("<pad>", "</s>", "<unk>")
    ]  # fmt: skip
    template = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": special,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": template,
                "pair": [*template, {"Sequence": {"id": "B", "type_id": 0}}, template[1]],
                "special_tokens": {"</s>": {"id": "</s>", "ids": [end], "tokens": ["</s>"]}},
            },
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": in_bytes},
        }
    )


TOKENIZER_CONFIG = json.dumps(
    {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
)


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message's fields: whole numbers, or bytes. Raises IndexError, ValueError."""
    place = 0
    while place < len(raw):
        key, place = _number(raw, place)
        wire = key & 7
        if wire == 0:
            value, place = _number(raw, place)
            yield key >> 3, value
            continue
        length = {1: 8, 5: 4}.get(wire, -1)
        if wire == 2:
            length, place = _number(raw, place)
        if length < 0 or place + length > len(raw):
            raise ValueError("no such field")
        yield key >> 3, raw[place : place + length]
        place += length


def _number(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
        if shift > 63:
            raise ValueError("too long a number")
