"""The diffusers engine's transformer in a group of ranks: each has a share of the tokens in all of the blocks.

Self-attention exchanges tokens for heads and back (group.py); all else in a block is a matter of each token by itself,
or of a token and the prompt, which every rank has.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from wan_ui.engines import cpu_kernels
from wan_ui.engines.cpu_blocks import CpuAttention, projected, rotate
from wan_ui.engines.group import Group


def prepare(model: Any, group: Group) -> None:
    """Let the self-attention of a WanTransformer3DModel exchange. Of a group of one nothing is changed."""
    for block in model.blocks if group.size > 1 else ():
        block.attn1.set_processor(SharedAttention(group))


class SharedAttention(CpuAttention):
    """Of this rank's tokens with all tokens."""

    def __init__(self, group: Group):
        super().__init__()
        self.group = group

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        assert encoder_hidden_states is None and rotary_emb is not None
        projections = projected(attn, hidden_states, lambda part: turn(part, *rotary_emb))
        clips = [self.group.attend(attend, *parts) for parts in zip(*projections, strict=True)]
        return attn.to_out[1](attn.to_out[0](torch.stack(clips).to(hidden_states.dtype)))


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(1, tokens, heads, width) by cos and sin (1, tokens, 1, width), pair by pair."""
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    if cpu_kernels.on_cpu(x, "rotation"):
        return rotate(x, torch.complex(cos.float(), sin.float()))
    left, right = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([left * cos - right * sin, left * sin + right * cos], dim=-1).flatten(-2).type_as(x)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(tokens, heads, width) -> (tokens, heads * width)"""
    q, k, v = (part.transpose(0, 1)[None] for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


@contextmanager
def shared(model: Any, group: Group) -> Iterator[None]:
    """Within, the blocks work on this rank's tokens alone."""
    if group.size == 1:
        yield
        return
    blocks = model.blocks
    model.blocks = torch.nn.ModuleList([Shared(blocks, group)])
    try:
        yield
    finally:
        model.blocks = blocks


class Shared(torch.nn.Module):
    """All blocks as one."""

    def __init__(self, blocks: Any, group: Group):
        super().__init__()
        self.blocks, self.group = blocks, group

    def forward(
        self, tokens: torch.Tensor, prompts: torch.Tensor, times: torch.Tensor, rotary: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        share, count = self.group.share, self.group.begin(tokens.shape[1])
        hidden, rotary = share(tokens, 1), tuple(share(part, 1) for part in rotary)
        if times.dim() == 4:  # each token has its own
            times = share(times, 1)
        for block in self.blocks:
            hidden = block(hidden, prompts, times, rotary)
        return self.group.whole(hidden, count, 1)
