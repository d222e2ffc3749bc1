"""The text encoder: prompt -> UMT5 embeddings, from a file of any layout (wan_ui/files/text_file.py).

The original runs 512 padded tokens and masks the padding. Masked keys get exactly zero attention, and
relative position bias knows distances only, so running the real tokens alone gives the same embeddings
for a fraction of the work; the rest of the 512 rows is zero either way.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from wan_ui.engines.umt5 import UMT5Encoder
from wan_ui.files.sizes import t5_sizes
from wan_ui.files.tensors import load_strict, shapes_alone
from wan_ui.files.text_file import plain_text, read_text
from wan_ui.files.tokenizer import clean


def load_text_encoder(path: Path, *, dtype: torch.dtype, device: torch.device) -> UMT5Encoder:
    """The encoder in eval mode; every size is read off the tensors. Raises UserError."""
    entries = read_text(path)
    with shapes_alone():
        model = UMT5Encoder(**t5_sizes(path, entries))
    names = [name for name in entries if not name.endswith("_scale")]
    load_strict(model, {name: plain_text(path, entries, name).to(device, dtype) for name in names}, file=path)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def encode(tokenizer: Tokenizer, encoder: UMT5Encoder, prompt: str, length: int) -> torch.Tensor:
    """(1, length, d_model) in the encoder's dtype; rows beyond the prompt's tokens are zero."""
    ids = torch.tensor([tokenizer.encode(clean(prompt)).ids], device=encoder.norm.weight.device)
    hidden = encoder(ids)
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
