"""The text encoder: prompt -> UMT5 embeddings, from the original `.pth` and a `tokenizer.json`.

The original runs 512 padded tokens and masks the padding. Masked keys get exactly zero attention, and
relative position bias knows distances only, so running the real tokens alone gives the same embeddings
for a fraction of the work; the rest of the 512 rows is zero either way.
"""

import html
import json
import re
from pathlib import Path

import ftfy
import torch
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import UMT5Config, UMT5EncoderModel

from wan_ui.errors import UserError
from wan_ui.files.headers import check_pth, damaged
from wan_ui.files.names import count, load_strict, rename, t5_names

MAPPED = 2**32  # bytes; larger files are mapped


def read_pth(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint of tensors only (weights_only=True: nothing in it is executed). Raises UserError.

    A mapped file that is cut off meanwhile ends the process with SIGBUS, so that it is copied. Only UMT5-XXL's 11 GB
    are mapped: they need not fit into memory beside everything else.
    """
    check_pth(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size > MAPPED)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError ... for damaged files
        raise damaged(path, f"torch cannot read it ({type(error).__name__})") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise damaged(path, "not a table of tensors")
    return tensors


def load_text_encoder(path: Path, *, dtype: torch.dtype, device: torch.device) -> UMT5EncoderModel:
    """The encoder in eval mode; every size is read off the tensors. Raises UserError."""
    tensors = read_pth(path)
    layers = count(tensors, r"blocks\.(\d+)\.")
    try:
        vocabulary, width = tensors["token_embedding.weight"].shape
        inner = tensors["blocks.0.attn.q.weight"].shape[0]
        buckets, heads = tensors["blocks.0.pos_embedding.embedding.weight"].shape
        feed_forward = tensors["blocks.0.ffn.fc1.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{path}: no UMT5 encoder in original Wan names ({error} is missing)") from None
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=inner // heads,
        d_ff=feed_forward,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    tensors = {name: tensor.to(device, dtype) for name, tensor in rename(tensors, t5_names(layers)).items()}
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]  # one table under two names
    load_strict(model, tensors, file=path)
    return model.eval().requires_grad_(False)


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


def _as_trained(tokenizer: Tokenizer, model: dict) -> None:
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


@torch.inference_mode()
def encode(tokenizer: Tokenizer, encoder: UMT5EncoderModel, prompt: str, length: int) -> torch.Tensor:
    """(1, length, d_model) in the encoder's dtype; rows beyond the prompt's tokens are zero."""
    ids = torch.tensor([tokenizer.encode(clean(prompt)).ids], device=encoder.device)
    hidden = encoder(input_ids=ids).last_hidden_state
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
