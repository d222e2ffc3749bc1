"""The kernels that can be tried, as a table: what each needs, what error it may have, which function tries it.

The functions stand by library: torch's own in kernels_torch.py, packages for attention in kernels_attention.py,
LightX2V's and our own beside the engines. They are named, not imported: a kernel built for another GPU may end the
process instead of raising, so that each is loaded by a child (probe_child.py), which probing.py starts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """kind       attention | cross | gemm | modulate | norm | rope | compile | blocks | decoder | draft
    function   "module:name" of a function Shape -> Trial
    packages   what must be installed; tried in a child only where all are
    allowed    largest relative error against float32 that is called ok
    choice     what an engine's configuration calls it; "" when no engine can be told to take it
    cuda       whether it needs a CUDA GPU
    """

    kind: str
    name: str
    function: str
    packages: tuple[str, ...] = ()
    allowed: float = 0.01
    choice: str = ""
    cuda: bool = True


TORCH = "wan_ui.machine.kernels_torch"
PACKAGES = "wan_ui.machine.kernels_attention"
LIGHTX2V, OURS = "wan_ui.engines.lightx2v_kernels", "wan_ui.engines.fused_probes"
FP8, SAGE = 0.06, 0.08  # e4m3 on both sides costs 0.037; 8-bit scores and values about as much
DRAFT = 0.1  # e4m3 q, k, v and weights cost 0.07 where there are outliers, 0.25 if q and k are not rotated

PROBES: tuple[Probe, ...] = (
    Probe("attention", "sdpa", f"{TORCH}:sdpa", choice="torch_sdpa", cuda=False),
    Probe("attention", "sdpa flash", f"{TORCH}:sdpa_flash"),
    Probe("attention", "sdpa efficient", f"{TORCH}:sdpa_efficient"),
    Probe("attention", "sdpa cuDNN", f"{TORCH}:sdpa_cudnn"),
    Probe("attention", "sdpa math", f"{TORCH}:sdpa_math", cuda=False),
    Probe("attention", "flex", f"{TORCH}:flex", ("triton",)),
    Probe("attention", "flash-attn 2", f"{PACKAGES}:flash2", ("flash_attn",), choice="flash_attn2"),
    Probe("attention", "flash-attn 3", f"{PACKAGES}:flash3", ("flash_attn_interface",), choice="flash_attn3"),
    Probe("attention", "flash-attn 3 (fa3-fwd)", f"{PACKAGES}:fa3_fwd", ("fa3_fwd_interface",), choice="fa3_fwd"),
    Probe("attention", "SageAttention 1", f"{PACKAGES}:sage1", ("sageattention", "triton"), SAGE),
    Probe("attention", "SageAttention 2", f"{PACKAGES}:sage2", ("sageattention",), SAGE, "sage_attn2"),
    Probe("attention", "SageAttention 3", f"{PACKAGES}:sage3", ("sageattn3",), 0.15),
    Probe("cross", "sdpa", f"{TORCH}:cross_sdpa", choice="torch_sdpa", cuda=False),
    Probe("cross", "flash-attn 2", f"{PACKAGES}:cross_flash2", ("flash_attn",), choice="flash_attn2"),
    Probe("cross", "flash-attn 3", f"{PACKAGES}:cross_flash3", ("flash_attn_interface",), choice="flash_attn3"),
    Probe("cross", "flash-attn 3 (fa3-fwd)", f"{PACKAGES}:cross_fa3_fwd", ("fa3_fwd_interface",), choice="fa3_fwd"),
    Probe("gemm", "bf16", f"{TORCH}:gemm_bf16", cuda=False),
    Probe("gemm", "scaled_mm tensor-wise", f"{TORCH}:scaled_mm_tensor", allowed=FP8),
    Probe("gemm", "scaled_mm row-wise", f"{TORCH}:scaled_mm_row", allowed=FP8),
    Probe("gemm", "LightX2V fp8-torchao", f"{LIGHTX2V}:gemm_torchao", ("lightx2v",), FP8, "fp8-torchao"),
    Probe("gemm", "LightX2V fp8-triton", f"{LIGHTX2V}:gemm_triton", ("lightx2v", "triton"), FP8, "fp8-triton"),
    Probe("gemm", "LightX2V fp8-sgl", f"{LIGHTX2V}:gemm_sgl", ("lightx2v", "sgl_kernel"), FP8, "fp8-sgl"),
    Probe("modulate", "torch", f"{TORCH}:modulate_torch", choice="torch", cuda=False),
    Probe("modulate", "LightX2V triton", f"{LIGHTX2V}:modulate_triton", ("lightx2v", "triton"), choice="triton"),
    Probe("norm", "torch rms_norm", f"{TORCH}:norm_torch", choice="torch_native", cuda=False),
    Probe("norm", "LightX2V sgl-kernel", f"{LIGHTX2V}:norm_sgl", ("lightx2v", "sgl_kernel"), choice="sgl-kernel"),
    Probe("norm", "LightX2V one-pass", f"{LIGHTX2V}:norm_one_pass", ("lightx2v", "triton"), choice="one-pass"),
    Probe("rope", "torch complex", f"{TORCH}:rope_complex", choice="torch_complex_rope", cuda=False),
    Probe("rope", "torch real", f"{TORCH}:rope_real", choice="torch_real_rope", cuda=False),
    Probe("rope", "flashinfer", f"{LIGHTX2V}:rope_flashinfer", ("lightx2v", "flashinfer"), choice="flashinfer_rope"),
    Probe("compile", "torch.compile", f"{TORCH}:compiled", ("triton",), FP8, "on"),
    Probe("blocks", "fused kernels", f"{OURS}:blocks", ("triton",), FP8, "fused"),
    Probe("decoder", "fused kernels", f"{OURS}:decoder", ("triton",), choice="fused"),
    Probe("draft", "e4m3 attention", f"{OURS}:draft_attention", ("fa3_fwd_interface", "triton"), DRAFT, "fa3_e4m3"),
)  # fmt: skip
