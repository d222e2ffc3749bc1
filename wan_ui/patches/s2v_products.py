"""The layers of S2V multiply as those of every other model: quantised, with LoRAs, with the kernel that was chosen.

Symptom: S2V in fp8 or GGUF fails at the first step ("mat1 and mat2 must have the same dtype", or a GGMLTensor where a
tensor is expected); LoRAs change nothing; without the package of flash attention 3 "flash_attn3 is required"; in fp16
the voice's layers are multiplied in bf16.

Mechanism: wan_ops takes `weight` out of the weight objects and multiplies by itself, casting to bf16 whatever the run
is, and calls one attention kernel whatever the configuration says; audio_inject switches autocast to bf16. Here the
products go through the objects' own `apply`, in the run's dtype, self-attention through the block's kernel, and what
is heard, five tokens for each frame, through torch's. The few rows that scale and shift by the voice, 20 for a segment,
stay plain numbers: cuBLAS has no fp8 product of so few with a bias.

Remove when: wan_ops calls `apply` of the weights and of the attention that the configuration names.
"""

from collections.abc import Callable
from typing import Any

from wan_ui.patches.record import MARK, Patch, is_ours, owner, replace

NAME = "s2v_products"
S2V = "lightx2v.models.networks.wan.infer.s2v"
PRODUCT = f"{S2V}.wan_ops:mm_weight_autocast_nd"
ATTEND = f"{S2V}.wan_ops:s2v_self_attn_forward"
LISTEN = f"{S2V}.wan_ops:cross_attn_forward"
INJECT = f"{S2V}.audio_inject:apply_audio_inject"
PHASE = "lightx2v.models.networks.wan.weights.s2v.transformer_weights:WanS2VAudioInjectPhase.__init__"
EXACT = f"{S2V}.causal_audio_encoder:mm_weight_fp32"
# Modules that have taken some of these by name
CONSUMERS = tuple(f"{S2V}.{module}" for module in ("wan_ops", "audio_inject", "transformer_infer", "pre_infer"))


def applies(facts, scheme) -> tuple[bool, str]:
    return (True, "a voice drives the clip") if facts.driven == "voice" else (False, "no voice drives the clip")


def product(linear, x, autocast_dtype=None):
    """x (..., in) -> (..., out) in the run's dtype."""
    from lightx2v.utils.envs import GET_DTYPE

    return linear.apply(x.reshape(-1, x.shape[-1]).to(GET_DTYPE())).view(*x.shape[:-1], -1)


def attend(phase0, norm_x, seq_lens, freqs, num_heads, head_dim):
    """(1, n, width) -> the same: every token looks at all."""
    q, k, v = _heads(phase0, "self_attn_", norm_x, norm_x, head_dim)
    q, k = (y[0].to(v.dtype) for y in phase0.s2v_rope.apply(q.float(), k.float(), freqs))
    v, count = v[0], norm_x.shape[1]
    ends = _ends(count)
    y = phase0.self_attn_1.apply(
        q, k, v, cu_seqlens_q=ends, cu_seqlens_kv=ends, max_seqlen_q=count, max_seqlen_kv=count
    )
    return product(phase0.self_attn_o, y.reshape(1, count, -1))


def listen(phase1, norm_x, context, context_lens, num_heads, head_dim):
    """(b, n, width) and what is attended to (b, m, width) -> (b, n, width)."""
    import torch.nn.functional as F

    context = context.unsqueeze(0) if context.dim() == 2 else context
    prefix = "cross_attn_" if hasattr(phase1, "cross_attn_q") else ""
    q, k, v = _heads(phase1, prefix, norm_x, context, head_dim)
    if len(q) == 1:
        counts = q.shape[1], k.shape[1]
        y = phase1.cross_attn_1.apply(
            q[0], k[0], v[0],
            cu_seqlens_q=_ends(counts[0]), cu_seqlens_kv=_ends(counts[1]),
            max_seqlen_q=counts[0], max_seqlen_kv=counts[1],
        )  # fmt: skip
    else:
        y = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return product(getattr(phase1, f"{prefix}o"), y.reshape(*q.shape[:2], -1))


def _heads(phase, prefix: str, x, context, head_dim: int):
    """Queries of x, keys and values of what is attended to: (b, n, heads, head) each."""
    normed = owner(PRODUCT)[0].wan_rms_norm
    q, k, v = (product(getattr(phase, prefix + role), y) for role, y in zip("qkv", (x, context, context), strict=True))
    q, k = (normed(getattr(phase, f"{prefix}norm_{role}"), y).to(v.dtype) for role, y in (("q", q), ("k", k)))
    return tuple(y.unflatten(-1, (-1, head_dim)) for y in (q, k, v))


def _ends(count: int):
    import torch

    return torch.tensor([0, count], dtype=torch.int32)  # on the host, as upstream has them: kernels move them


def inject(block, hidden_states, pre_infer_out, config):
    """Add to the clip's own tokens (1, n, width) what each latent frame hears, if something is heard after `block`."""
    import torch.nn.functional as F

    if not hasattr(block, "audio_inject"):
        return hidden_states
    phase, own = block.audio_inject, pre_infer_out.original_seq_len
    heard, whole = pre_infer_out.merged_audio_emb[0], pre_infer_out.audio_emb_global[0, :, 0]
    frames = hidden_states[0, :own].unflatten(0, (len(heard), -1)).float()
    shift, scale = product(phase.adain_linear, F.silu(whole)).float()[:, None].chunk(2, dim=-1)
    normed = F.layer_norm(frames, (frames.shape[-1],), eps=1e-5) * (1 + scale) + shift
    heads = config["num_heads"]
    added = listen(phase, normed, heard, None, heads, config["dim"] // heads)
    hidden_states[:, :own] += added.flatten(0, 1)[None].to(hidden_states.dtype)
    return hidden_states


def apply(_runner) -> None:
    place, name = owner(EXACT)
    upstream = getattr(place, name)
    begin = owner(PHASE)[0].__init__

    def phase(self, injector_index, mm_type, config):
        from lightx2v.utils.registry_factory import MM_WEIGHT_REGISTER

        begin(self, injector_index, mm_type, config)
        layer = f"audio_injector.injector_adain_layers.{injector_index}.linear"
        self.add_module("adain_linear", MM_WEIGHT_REGISTER["Default"](f"{layer}.weight", f"{layer}.bias"))

    def in_float32(linear, input_2d):
        y, branch = upstream(linear, input_2d), getattr(linear, "lora_branch", None)
        return y if branch is None else y + branch.delta(input_2d)

    replace(NAME, PHASE, phase)
    ours: dict[str, Callable] = {PRODUCT: product, ATTEND: attend, LISTEN: listen, INJECT: inject, EXACT: in_float32}
    for target, function in ours.items():
        replace(NAME, target, function)
        _, name = owner(target)
        for consumer in CONSUMERS:
            module: Any = owner(f"{consumer}:{name}")[0]
            if hasattr(module, name):
                setattr(module, name, function)


def verify(_runner) -> str:
    assert is_ours(owner(PHASE)[0].__init__, NAME), "the layers that hear are made by upstream alone"
    names = [owner(target)[1] for target in PATCH.targets if target != PHASE]
    for consumer in CONSUMERS:
        module = owner(f"{consumer}:x")[0]
        for name in names:
            assert not hasattr(module, name) or is_ours(getattr(module, name), NAME), f"{consumer} has its own {name}"
    assert owner(f"{S2V}.transformer_infer:x")[0].apply_audio_inject.__dict__[MARK] == NAME
    return "the blocks of S2V call them"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={
        PRODUCT: ("linear", "x", "autocast_dtype"),
        ATTEND: ("phase0", "norm_x", "seq_lens", "freqs", "num_heads", "head_dim"),
        LISTEN: ("phase1", "norm_x", "context", "context_lens", "num_heads", "head_dim"),
        INJECT: ("block", "hidden_states", "pre_infer_out", "config"),
        EXACT: ("linear", "input_2d"),
        PHASE: ("self", "injector_index", "mm_type", "config"),
    },
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
