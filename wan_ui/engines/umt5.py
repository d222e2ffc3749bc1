"""UMT5's encoder, as Wan reads prompts: every block has relative positions of its own, attention is not scaled.

The names are those of Wan's release (wan/modules/t5.py), so that its tensors go in as they are. Every operation is in
the order of transformers' UMT5EncoderModel, to which it is equal bit for bit. Why not that one: to import it
takes half a second of every worker's start.

Source: Chung et al., UniMax (https://arxiv.org/abs/2304.09151); the blocks are T5 1.1's (https://arxiv.org/abs/1910.10683).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

FARTHEST = 128  # tokens apart from which on all are as far


class Norm(nn.Module):
    """Root mean square, in float32."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x * scale).to(self.weight.dtype)


class Positions(nn.Module):
    """What each head adds for a distance, by buckets."""

    def __init__(self, buckets: int, heads: int):
        super().__init__()
        self.embedding = nn.Embedding(buckets, heads)

    def forward(self, found: torch.Tensor) -> torch.Tensor:
        """(tokens, tokens), see `bucket` -> (1, heads, tokens, tokens)"""
        return self.embedding(found).permute(2, 0, 1)[None].contiguous()


def bucket(distance: torch.Tensor, buckets: int) -> torch.Tensor:
    """Half of the buckets are for tokens ahead; of each half one half for single distances, the other for ranges that
    grow with the logarithm up to FARTHEST."""
    half = buckets // 2
    exact = half // 2
    far = distance.abs()
    ranges = torch.log(far.float() / exact) / math.log(FARTHEST / exact) * (half - exact)
    ranges = (exact + ranges.clamp_min(0).to(torch.long)).clamp_max(half - 1)
    return (distance > 0) * half + torch.where(far < exact, far, ranges)


class Attention(nn.Module):
    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Gated by GELU in its tanh form, rounded after each step as the release does it."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, inner, bias=False))
        self.fc1, self.fc2 = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.gate(x)
        gate = 0.5 * gate * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (gate + 0.044715 * torch.pow(gate, 3.0))))
        return self.fc2(gate * self.fc1(x))


class Block(nn.Module):
    def __init__(self, width: int, attention: int, ffn: int, heads: int, buckets: int):
        super().__init__()
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attn, self.ffn = Attention(width, attention, heads), FeedForward(width, ffn)
        self.pos_embedding = Positions(buckets, heads)

    def forward(self, x: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), self.pos_embedding(found))
        return x + self.ffn(self.norm2(x))


class UMT5Encoder(nn.Module):
    def __init__(
        self,
        vocab_size: int,
        dim: int,
        dim_attn: int,
        dim_ffn: int,
        num_heads: int,
        num_buckets: int,
        encoder_layers: int,
    ):
        """The names of the sizes are those of the release."""
        super().__init__()
        self.buckets = num_buckets
        self.token_embedding = nn.Embedding(vocab_size, dim)
        blocks = (Block(dim, dim_attn, dim_ffn, num_heads, num_buckets) for _ in range(encoder_layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = Norm(dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) int64, none of them padding -> (batch, tokens, dim) in the dtype of the weights."""
        x, at = self.token_embedding(ids), torch.arange(ids.shape[1], device=ids.device)
        found = bucket(at[None, :] - at[:, None], self.buckets)  # the same for all blocks
        for block in self.blocks:
            x = block(x, found)
        return self.norm(x)
