"""The transformer's blocks with the fused kernels of block_kernels.py around torch's products and the chosen attention.

What upstream's infer_block does in some thirty passes over the tokens is done in nine: addition, norm, modulation and
rounding to e4m3 in one, norm and rotation in one, GELU and rounding in one. Nothing is compiled for a size, so every
size starts at once; and nothing is traced, so any attention kernel fits in.

GGUF weights can be dequantised once (lightx2v_dequantised.py) or by a kernel at every use (lightx2v_gguf.py): the
products are then bf16's, with the very weights that upstream makes, or fp8's.
"""

from typing import TypedDict

import torch
import torch.nn.functional as F

from wan_ui.engines import block_kernels as kernels
from wan_ui.engines.block_kernels import Rows
from wan_ui.engines.group import here
from wan_ui.engines.lightx2v_dequantised import FP8
from wan_ui.engines.lightx2v_parallel import attend
from wan_ui.engines.lightx2v_seams import put


class Wanted(TypedDict):
    plain: bool
    levels: bool


class FusedBlocks:
    """Takes the place of infer_block on the given transformers (upstream's WanTransformerInfer)."""

    def __init__(self, transformers: list):
        from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

        self.fp8_class = MM_WEIGHT_REGISTER[FP8]
        self.group = here()
        self.turns: tuple[torch.Tensor, torch.Tensor] | None = None  # upstream's and ours
        for transformer in transformers:
            put(transformer, "infer_block", self._runner(transformer))

    def _runner(self, transformer):
        return lambda block, hidden, inputs: self.run(transformer, block, hidden, inputs)

    def run(self, infer, block, x: torch.Tensor, inputs) -> torch.Tensor:
        """One block on x (tokens, width), in place."""
        first, cross, feed = block.compute_phases[:3]
        shift, scale, gate, feed_shift, feed_scale, feed_gate = (
            part.squeeze(1) for part in infer.pre_process(first.modulation, inputs.embed0)
        )
        heads, head = infer.num_heads, infer.head_dim

        qkv = (first.self_attn_q, first.self_attn_k, first.self_attn_v)
        rows = kernels.layer_norm(x, scale, shift, eps=first.norm1.eps, modulated=True, **self.wanted(*qkv))
        turns, sent = self.as_turns(infer.cos_sin), []
        # In a group each goes to the other ranks while the next one is computed.
        for layer, norm in zip(reversed(qkv), (None, first.self_attn_norm_k, first.self_attn_norm_q), strict=True):
            part = self.product(layer, rows)
            if norm is not None:
                kernels.norm_rotate(part, norm._get_actual_weight(), turns, eps=norm.eps, head=head)
            sent.append(self.group.to_heads(part.view(-1, heads, head)))
        v, k, q = (arrived() for arrived in sent)
        attended = self.group.to_tokens(attend(first.self_attn_1, q, k, v))
        y = self.product(first.self_attn_o, self.rows(attended, first.self_attn_o))

        norm = cross.norm3
        weight, bias = norm._get_actual_weight(), norm._get_actual_bias()
        rows = kernels.layer_norm(
            x, weight, bias, eps=norm.eps, modulated=False, added=y, gate=gate, **self.wanted(cross.cross_attn_q)
        )
        q = self.product(cross.cross_attn_q, rows)
        norm = cross.cross_attn_norm_q
        kernels.norm_rotate(q, norm._get_actual_weight(), None, eps=norm.eps, head=head)
        context = inputs.context
        k = cross.cross_attn_norm_k.apply(cross.cross_attn_k.apply(context))
        v = cross.cross_attn_v.apply(context)
        attended = attend(cross.cross_attn_1, *(part.view(-1, heads, head) for part in (q, k, v)))
        y = self.product(cross.cross_attn_o, self.rows(attended, cross.cross_attn_o))

        rows = kernels.layer_norm(
            x, feed_scale, feed_shift, eps=feed.norm2.eps, modulated=True, added=y, **self.wanted(feed.ffn_0)
        )
        y = self.product(feed.ffn_0, rows)
        y = self.product(feed.ffn_2, self.rows(y, feed.ffn_2, gelu=True))
        return x.addcmul_(y, feed_gate)

    def is_fp8(self, layer) -> bool:
        return isinstance(layer, self.fp8_class)

    def wanted(self, *layers) -> Wanted:
        """Which forms of their common input these layers read: LoRAs and layers that are not fp8 take plain numbers."""
        return {
            "plain": any(getattr(layer, "lora_branch", None) or not self.is_fp8(layer) for layer in layers),
            "levels": any(self.is_fp8(layer) for layer in layers),
        }

    def rows(self, x: torch.Tensor, layer, gelu: bool = False) -> Rows:
        if self.is_fp8(layer):
            return kernels.quantise(x, gelu=gelu, plain=self.wanted(layer)["plain"])
        return Rows(plain=F.gelu(x, approximate="tanh") if gelu else x)

    def product(self, layer, rows: Rows) -> torch.Tensor:
        """The layer's output, LoRAs included; a tensor of its own."""
        if not self.is_fp8(layer):
            return layer.apply(rows.plain)
        assert rows.levels is not None and rows.scales is not None
        y = torch._scaled_mm(
            rows.levels,
            layer.weight,
            scale_a=rows.scales,
            scale_b=layer.weight_scale.t(),
            bias=layer._get_actual_bias(),
            out_dtype=layer.infer_dtype,
            use_fast_accum=True,
        )
        branch = getattr(layer, "lora_branch", None)
        return y if branch is None else branch.add(rows.plain, y)

    def as_turns(self, cos_sin: torch.Tensor) -> torch.Tensor:
        """Upstream's (tokens, 1, head / 2) complex, as block_kernels wants it; made once per clip."""
        if self.turns is None or self.turns[0] is not cos_sin:
            self.turns = cos_sin, self.pairs(cos_sin)
        return self.turns[1]

    @staticmethod
    def pairs(cos_sin: torch.Tensor) -> torch.Tensor:
        """A new tensor (tokens, head / 2, 2) float32."""
        return torch.view_as_real(cos_sin.to(torch.complex64)).squeeze(1).contiguous().clone()
