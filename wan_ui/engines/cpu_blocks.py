"""The transformer's blocks on a CPU in float32: less work for the same numbers (see cpu_kernels.py).

prompt    Of the 512 rows of a prompt most are the padding, all of them zero: their keys are one key and their values
          one value. So attention reads the words and one row of padding, to whose score the logarithm of the number
          of such rows is added: exp(score + log n) is n times exp(score).
rotation  Two neighbouring values of a head are a complex number: one product instead of eight passes.
products  GELU is applied while the product is written.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from wan_ui.engines import cpu_kernels
from wan_ui.engines.wan_classes import GELU, WanAttnProcessor


def prepare(model: Any) -> None:
    """Let the blocks of a WanTransformer3DModel go this way. LoRAs and hooks are put on the same modules as before."""
    model.cpu_attention = attention = CpuAttention()
    for block in model.blocks:
        block.attn1.set_processor(attention)
        block.attn2.set_processor(attention)
        gelu = block.ffn.net[0]
        if type(gelu) is GELU and gelu.approximate == "tanh":
            gelu.__class__ = FusedGelu


@contextmanager
def shortened(model: Any, prompts: torch.Tensor) -> Iterator[torch.Tensor]:
    """(n, rows, width), each zero beyond its words -> as many rows as the longest has words, and one row of padding;
    meanwhile attention weighs that for all that were left out."""
    attention = getattr(model, "cpu_attention", None)
    if attention is None or not cpu_kernels.on_cpu(prompts, "prompt"):
        yield prompts
        return
    used = prompts.any(dim=-1).any(dim=0).nonzero()
    words = int(used.max()) + 1 if len(used) else 0
    padding = prompts.shape[1] - words
    if padding < 2:
        yield prompts
        return
    attention.mask = prompts.new_zeros(1, 1, 1, words + 1)
    attention.mask[..., -1] = math.log(padding)
    try:
        yield prompts[:, : words + 1]
    finally:
        attention.mask = None


def projected(
    attn: Any, hidden: torch.Tensor, turn: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Query and key, both turned, and value of self-attention: (n, tokens, heads, width) each."""
    query, key, value = attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(hidden)), attn.to_v(hidden)
    query, key, value = (part.unflatten(2, (attn.heads, -1)) for part in (query, key, value))
    return turn(query), turn(key), value


class CpuAttention(WanAttnProcessor):
    """Of all blocks of an expert. mask: what is added to the scores of the prompt's rows; None: nothing."""

    mask: torch.Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        if encoder_hidden_states is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, self.mask, rotary_emb)
        if rotary_emb is None or not cpu_kernels.on_cpu(hidden_states, "rotation"):
            return super().__call__(attn, hidden_states, None, attention_mask, rotary_emb)
        cos, sin = rotary_emb
        rotation = torch.complex(cos[..., 0::2].float(), sin[..., 1::2].float())  # (1, tokens, 1, width of a head / 2)
        query, key, value = projected(attn, hidden_states, lambda part: rotate(part, rotation))
        out = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """(1, tokens, heads, width), turned pair by pair."""
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * rotation).flatten(-2)


class FusedGelu(GELU):
    """diffusers' linear layer with GELU behind it; with a LoRA on it, or weights kept quantised, as it was."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if type(self.proj) is nn.Linear and cpu_kernels.on_cpu(hidden_states, "products"):
            return cpu_kernels.linear_gelu(hidden_states, self.proj.weight, self.proj.bias)
        return super().forward(hidden_states)
