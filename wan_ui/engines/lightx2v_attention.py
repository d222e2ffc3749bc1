"""FlashAttention-3 from the wheel `fa3-fwd`, as an attention class of LightX2V.

Upstream has a class for it, which looks for the module of the source build (flash_attn_interface). The wheel's
is called fa3_fwd_interface; it is for Hopper, and its function is a custom operation, so that torch.compile can
pass it by.
"""

from torch import Tensor

from wan_ui.machine.hardware import installed

NAME = "fa3_fwd"
PACKAGE = "fa3_fwd_interface"


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(batch, tokens, heads, head_dim) -> the same."""
    from fa3_fwd_interface import flash_attn_func

    result = flash_attn_func(q, k, v)
    return result[0] if isinstance(result, tuple) else result


def register() -> None:
    """Let LightX2V's configuration name it, where the wheel is. LightX2V must have been imported."""
    if not installed((PACKAGE,)):
        return
    from lightx2v.common.ops.attn.template import AttnWeightTemplate
    from lightx2v.utils.registry_factory import ATTN_WEIGHT_REGISTER

    if NAME in ATTN_WEIGHT_REGISTER:
        return

    @ATTN_WEIGHT_REGISTER(NAME)
    class Fa3FwdWeight(AttnWeightTemplate):
        def __init__(self):
            self.config = {}

        def apply(self, q, k, v, **_):
            """(tokens, heads, head_dim) -> (tokens, heads * head_dim)"""
            return flash_attention(q[None], k[None], v[None])[0].flatten(1)
