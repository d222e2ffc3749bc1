"""The text encoder: prompt -> UMT5 embeddings, from a file of any layout (wan_ui/files/text_file.py).

The original runs 512 padded tokens and masks the padding. Masked keys get exactly zero attention, and
relative position bias knows distances only, so running the real tokens alone gives the same embeddings
for a fraction of the work; the rest of the 512 rows is zero either way.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import UMT5Config, UMT5EncoderModel

from wan_ui.files.names import rename, t5_name_map
from wan_ui.files.sizes import t5_sizes
from wan_ui.files.tensors import load_strict
from wan_ui.files.text_file import plain_text, read_text
from wan_ui.files.tokenizer import clean


def load_text_encoder(path: Path, *, dtype: torch.dtype, device: torch.device) -> UMT5EncoderModel:
    """The encoder in eval mode; every size is read off the tensors. Raises UserError."""
    entries = read_text(path)
    sizes = t5_sizes(path, entries)
    config = UMT5Config(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["dim"],
        d_kv=sizes["dim_attn"] // sizes["num_heads"],
        d_ff=sizes["dim_ffn"],
        num_layers=sizes["encoder_layers"],
        num_heads=sizes["num_heads"],
        relative_attention_num_buckets=sizes["num_buckets"],
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    names = [name for name in entries if not name.endswith("_scale")]
    tensors = {name: plain_text(path, entries, name).to(device, dtype) for name in names}
    tensors = rename(tensors, t5_name_map(sizes["encoder_layers"]))
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]  # one table under two names
    load_strict(model, tensors, file=path)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def encode(tokenizer: Tokenizer, encoder: UMT5EncoderModel, prompt: str, length: int) -> torch.Tensor:
    """(1, length, d_model) in the encoder's dtype; rows beyond the prompt's tokens are zero."""
    ids = torch.tensor([tokenizer.encode(clean(prompt)).ids], device=encoder.device)
    hidden = encoder(input_ids=ids).last_hidden_state
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
