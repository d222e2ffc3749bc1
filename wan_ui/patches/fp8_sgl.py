"""fp8-sgl works without its kernel library.

Symptom: "'NoneType' object has no attribute 'sgl_per_token_quant_fp8'" at the first step, minutes after
the start, with the scheme that most of LightX2V's own configs name.

Mechanism: mm_weight.py sets sgl_kernel to None where it cannot be imported (it has no wheel for SM120),
and imports `sgl_fp8_scaled_mm` by name, so that patching the wrapper's module changes nothing. Here the
weight class itself gets the two operations in plain torch: e4m3 with a scale per token, and
torch._scaled_mm with a scale per row on either side. Same file keys, same numbers as fp8-torchao.

Remove when: sgl_kernel installs on every supported GPU, or nobody asks for fp8-sgl by name.
"""

from wan_ui.patches.record import Patch, is_ours, owner, replace

NAME = "fp8_sgl"
CLASS = "lightx2v.common.ops.mm.mm_weight:MMWeightWfp8channelAfp8channeldynamicSgl"
TARGET = f"{CLASS}.apply"


def applies(facts, scheme) -> tuple[bool, str]:
    if facts.kernel != "fp8-sgl":
        return False, f"the kernel is {facts.kernel}"
    if "sgl_kernel" in facts.hardware.kernels:
        return False, "sgl_kernel is installed"
    return True, "sgl_kernel is not installed"


def quantise(x):
    """(tokens, k) -> e4m3 and a float32 scale per token."""
    import torch

    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp_min(1e-8) / 448.0
    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def product(self, input_tensor):
    import torch

    tokens, scale = quantise(input_tensor)
    out = torch._scaled_mm(
        tokens,
        self.weight,
        scale_a=scale,
        scale_b=self.weight_scale.float().reshape(1, -1),
        bias=self._get_actual_bias(),
        out_dtype=self.infer_dtype,
        use_fast_accum=True,
    )
    return out + self.apply_lora(input_tensor) if self.has_lora_branch else out


def apply(_runner) -> None:
    replace(NAME, TARGET, product)


def verify(_runner) -> str:
    import torch

    place, name = owner("lightx2v.utils.registry_factory:MM_WEIGHT_REGISTER")
    weight_class = getattr(place, name)["fp8-sgl"]
    assert is_ours(weight_class.apply, NAME), "the weight class in the registry has upstream's apply"
    from lightx2v_platform.base.global_var import AI_DEVICE

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(32, 64, generator=generator)
    tokens = torch.randn(16, 64, generator=generator)
    scale = weights.abs().amax(dim=1, keepdim=True) / 448.0
    layer = weight_class("blocks.0.ffn.0.weight", None)
    layer.weight = (weights / scale).to(torch.float8_e4m3fn).to(AI_DEVICE).t()
    layer.weight_scale, layer.bias = scale.to(AI_DEVICE), None
    got = layer.apply(tokens.to(AI_DEVICE, layer.infer_dtype)).float().cpu()
    error = ((got - tokens @ weights.t()).norm() / (tokens @ weights.t()).norm()).item()
    assert error < 0.08, f"relative error {error:.3f} against float32"
    return f"relative error {error:.3f} against float32, allowed 0.08"


PATCH = Patch(
    name=NAME,
    phase="before_init",
    targets={TARGET: ("self", "input_tensor")},
    doc=__doc__,
    applies=applies,
    apply=apply,
    verify=verify,
)
