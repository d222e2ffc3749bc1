"""The kernels that can be probed, and the child process that tries one: python -m wan_ui.machine.probes.

A probe prepares inputs of a model's shape and returns what to time and how far its result is from
float32. It runs alone in its process (wan_ui.machine.probe starts it), since a kernel built for another GPU may
end the process instead of raising. Products are checked on some rows only: float32 attention over
32,760 tokens would need 170 GB for its scores.

    python -m wan_ui.machine.probes wan_ui.machine.probes:sdpa_flash '[{"name": "...", "tokens": 1280, ...}]'

prints one JSON object per shape: first {"shape", "entering": true}, then its result.
"""

import importlib
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

ROWS = 64  # of the result that are checked
WARM_UP, RUNS = 3, 10
ENOUGH_SECONDS = 3.0  # of timing


class Unfit(Exception):
    """The kernel is not for this machine or this shape; the text says why."""


@dataclass(frozen=True)
class Shape:
    """What one transformer block of a model works on.

    name    model, size and frames, for people
    tokens  latent frames times patches; width = heads * head_dim; ffn is the hidden width of the feed-forward
    """

    name: str
    tokens: int
    heads: int
    head_dim: int
    ffn: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Probe:
    """kind       attention | gemm | modulate | norm | rope | compile
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


HERE = "wan_ui.machine.probes"
FP8, SAGE = 0.06, 0.08  # e4m3 on both sides costs 0.037; 8-bit scores and values about as much

PROBES: tuple[Probe, ...] = (
    Probe("attention", "sdpa", f"{HERE}:sdpa", choice="torch_sdpa", cuda=False),
    Probe("attention", "sdpa flash", f"{HERE}:sdpa_flash"),
    Probe("attention", "sdpa efficient", f"{HERE}:sdpa_efficient"),
    Probe("attention", "sdpa cuDNN", f"{HERE}:sdpa_cudnn"),
    Probe("attention", "sdpa math", f"{HERE}:sdpa_math", cuda=False),
    Probe("attention", "flex", f"{HERE}:flex", ("triton",)),
    Probe("attention", "flash-attn 2", f"{HERE}:flash2", ("flash_attn",), choice="flash_attn2"),
    Probe("attention", "flash-attn 3", f"{HERE}:flash3", ("flash_attn_interface",), choice="flash_attn3"),
    Probe("attention", "SageAttention 1", f"{HERE}:sage1", ("sageattention", "triton"), SAGE),
    Probe("attention", "SageAttention 2", f"{HERE}:sage2", ("sageattention",), SAGE, "sage_attn2"),
    Probe("attention", "SageAttention 3", f"{HERE}:sage3", ("sageattn3",), 0.15),
    Probe("gemm", "bf16", f"{HERE}:gemm_bf16", cuda=False),
    Probe("gemm", "scaled_mm tensor-wise", f"{HERE}:scaled_mm_tensor", allowed=FP8),
    Probe("gemm", "scaled_mm row-wise", f"{HERE}:scaled_mm_row", allowed=FP8),
    Probe("gemm", "LightX2V fp8-torchao", f"{HERE}:lightx2v_torchao", ("lightx2v",), FP8, "fp8-torchao"),
    Probe("gemm", "LightX2V fp8-triton", f"{HERE}:lightx2v_triton", ("lightx2v", "triton"), FP8, "fp8-triton"),
    Probe("gemm", "LightX2V fp8-sgl", f"{HERE}:lightx2v_sgl", ("lightx2v", "sgl_kernel"), FP8, "fp8-sgl"),
    Probe("modulate", "torch", f"{HERE}:modulate_torch", choice="torch", cuda=False),
    Probe("modulate", "LightX2V triton", f"{HERE}:modulate_triton", ("lightx2v", "triton"), choice="triton"),
    Probe("norm", "torch rms_norm", f"{HERE}:norm_torch", choice="torch_native", cuda=False),
    Probe("norm", "LightX2V sgl-kernel", f"{HERE}:norm_sgl", ("lightx2v", "sgl_kernel"), choice="sgl-kernel"),
    Probe("norm", "LightX2V one-pass", f"{HERE}:norm_one_pass", ("lightx2v", "triton"), choice="one-pass"),
    Probe("rope", "torch complex", f"{HERE}:rope_complex", choice="torch_complex_rope", cuda=False),
    Probe("rope", "torch real", f"{HERE}:rope_real", choice="torch_real_rope", cuda=False),
    Probe("rope", "flashinfer", f"{HERE}:rope_flashinfer", ("lightx2v", "flashinfer"), choice="flashinfer_rope"),
    Probe("compile", "torch.compile", f"{HERE}:compiled", ("triton",), FP8, "on"),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """run makes the result; error_of says its relative error against float32."""

    run: Callable
    error_of: Callable


# ---------------------------------------------------------------- inputs and errors


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def normal(*shape: int, seed: int):
    """bf16 standard normal numbers on the device; the same on every machine for small shapes."""
    import torch

    generator = torch.Generator(device()).manual_seed(seed)
    return torch.randn(*shape, generator=generator, device=device(), dtype=torch.bfloat16)


def relative(result, expected) -> float:
    difference = (result.float() - expected.float()).norm() / expected.float().norm()
    return float(difference)


def some(count: int):
    """Rows to check, spread over all of them, the last included: a wrong tail is the commonest fault."""
    import torch

    return torch.linspace(0, count - 1, min(ROWS, count)).long().unique().to(device())


# ---------------------------------------------------------------- attention


def attention(shape: Shape, kernel: Callable) -> Trial:
    """kernel takes q, k, v (1, tokens, heads, head_dim) bf16 and gives the same shape."""
    import torch

    q, k, v = (normal(1, shape.tokens, shape.heads, shape.head_dim, seed=seed) for seed in (1, 2, 3))
    # Real keys share a part that all queries see; SageAttention subtracts it, others must bear it.
    k = k + 2 * normal(1, 1, shape.heads, shape.head_dim, seed=4)
    rows = some(shape.tokens)

    def error_of(result) -> float:
        expected = torch.empty(len(rows), shape.heads, shape.head_dim, device=q.device)
        for head in range(shape.heads):
            scores = q[0, rows, head].float() @ k[0, :, head].float().t() * shape.head_dim**-0.5
            expected[:, head] = scores.softmax(dim=-1) @ v[0, :, head].float()
        return relative(result.view(1, shape.tokens, shape.heads, shape.head_dim)[0, rows], expected)

    return Trial(lambda: kernel(q, k, v), error_of)


def _sdpa(shape: Shape, backend: str = "") -> Trial:
    import contextlib

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def kernel(q, k, v):
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(getattr(SDPBackend, backend)) if backend else contextlib.nullcontext():
            return torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2).contiguous()

    return attention(shape, kernel)


def sdpa(shape: Shape) -> Trial:
    return _sdpa(shape)


def sdpa_flash(shape: Shape) -> Trial:
    return _sdpa(shape, "FLASH_ATTENTION")


def sdpa_efficient(shape: Shape) -> Trial:
    return _sdpa(shape, "EFFICIENT_ATTENTION")


def sdpa_cudnn(shape: Shape) -> Trial:
    return _sdpa(shape, "CUDNN_ATTENTION")


def sdpa_math(shape: Shape) -> Trial:
    scores = 12 * shape.heads * shape.tokens**2  # bytes: in float32, in bf16, and the softmax
    if scores > 8 * 2**30:
        raise Unfit(f"its scores alone would take {scores / 2**30:.0f} GiB")
    return _sdpa(shape, "MATH")


def flex(shape: Shape) -> Trial:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    def kernel(q, k, v):
        heads_first = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        return compiled(*heads_first).transpose(1, 2).contiguous()

    return attention(shape, kernel)


def flash2(shape: Shape) -> Trial:
    from flash_attn import flash_attn_func

    return attention(shape, flash_attn_func)


def flash3(shape: Shape) -> Trial:
    from flash_attn_interface import flash_attn_func

    def kernel(q, k, v):
        result = flash_attn_func(q, k, v)
        return result[0] if isinstance(result, tuple) else result

    return attention(shape, kernel)


def sage1(shape: Shape) -> Trial:
    from sageattention import sageattn_qk_int8_pv_fp16_triton as sageattn

    return attention(shape, lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD"))


def sage2(shape: Shape) -> Trial:
    from sageattention import sageattn

    return attention(shape, lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD"))


def sage3(shape: Shape) -> Trial:
    from sageattn3 import sageattn3_blackwell

    def kernel(q, k, v):
        heads_first = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        return sageattn3_blackwell(*heads_first).transpose(1, 2).contiguous()

    return attention(shape, kernel)


# ---------------------------------------------------------------- products: (tokens, width) x (width, ffn)


def gemm(shape: Shape, kernel: Callable) -> Trial:
    """kernel(x, weight) with x (tokens, width) and weight (ffn, width), bf16."""
    x = normal(shape.tokens, shape.width, seed=1)
    weight = normal(shape.ffn, shape.width, seed=2) * shape.width**-0.5
    rows = some(shape.tokens)
    run = kernel(weight)
    return Trial(lambda: run(x), lambda result: relative(result[rows], x[rows].float() @ weight.float().t()))


def gemm_bf16(shape: Shape) -> Trial:
    return gemm(shape, lambda weight: lambda x: x @ weight.t())


def e4m3(x, dim: int | None):
    """x as e4m3, with a float32 scale per tensor (dim None) or along `dim`."""
    import torch

    largest = x.abs().amax() if dim is None else x.abs().amax(dim=dim, keepdim=True)
    scale = largest.float().clamp_min(1e-8) / 448.0
    return (x.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale


def _scaled_mm(shape: Shape, dim: int | None) -> Trial:
    import torch

    if torch.cuda.get_device_capability() < (8, 9):
        raise Unfit("this GPU does not multiply fp8")

    def kernel(weight):
        stored, scale = e4m3(weight, dim)
        columns = scale if dim is None else scale.t()

        def run(x):
            tokens, tokens_scale = e4m3(x, dim)
            return torch._scaled_mm(
                tokens, stored.t(), scale_a=tokens_scale, scale_b=columns, out_dtype=x.dtype, use_fast_accum=True
            )

        return run

    return gemm(shape, kernel)


def scaled_mm_tensor(shape: Shape) -> Trial:
    return _scaled_mm(shape, None)


def scaled_mm_row(shape: Shape) -> Trial:
    return _scaled_mm(shape, 1)


def _lightx2v_gemm(shape: Shape, name: str, transposed: bool) -> Trial:
    from wan_ui.engines.lightx2v_kernels import linear

    def kernel(weight):
        stored, scale = e4m3(weight, 1)
        return linear(name, stored.t() if transposed else stored, scale).apply

    return gemm(shape, kernel)


def lightx2v_torchao(shape: Shape) -> Trial:
    return _lightx2v_gemm(shape, "fp8-torchao", transposed=True)


def lightx2v_triton(shape: Shape) -> Trial:
    return _lightx2v_gemm(shape, "fp8-triton", transposed=False)


def lightx2v_sgl(shape: Shape) -> Trial:
    return _lightx2v_gemm(shape, "fp8-sgl", transposed=True)


# ---------------------------------------------------------------- modulate, norm, rope


def modulate(shape: Shape, kernel: Callable) -> Trial:
    """kernel(x, scale=, shift=): x * (1 + scale) + shift, scale and shift (1, width)."""
    x = normal(shape.tokens, shape.width, seed=1)
    scale, shift = (normal(1, shape.width, seed=seed) for seed in (2, 3))
    return Trial(
        lambda: kernel(x, scale=scale, shift=shift).reshape(x.shape),
        lambda result: relative(result, x.float() * (1 + scale.float()) + shift.float()),
    )


def modulate_torch(shape: Shape) -> Trial:
    return modulate(shape, lambda x, scale, shift: x * (1 + scale) + shift)


def modulate_triton(shape: Shape) -> Trial:
    from wan_ui.engines.lightx2v_kernels import modulate as kernel

    return modulate(shape, kernel)


def norm(shape: Shape, kernel: Callable) -> Trial:
    """kernel(x, weight): RMS norm over the width, eps 1e-6."""
    import torch

    x, weight = normal(shape.tokens, shape.width, seed=1), normal(shape.width, seed=2)
    run = kernel(weight)

    def error_of(result) -> float:
        exact = torch.nn.functional.rms_norm(x.float(), (shape.width,), weight.float(), 1e-6)
        return relative(result, exact)

    return Trial(lambda: run(x), error_of)


def norm_torch(shape: Shape) -> Trial:
    import torch

    return norm(shape, lambda weight: lambda x: torch.nn.functional.rms_norm(x, (shape.width,), weight, 1e-6))


def norm_sgl(shape: Shape) -> Trial:
    from wan_ui.engines.lightx2v_kernels import rms_norm

    return norm(shape, lambda weight: rms_norm("sgl-kernel", weight).apply)


def norm_one_pass(shape: Shape) -> Trial:
    from wan_ui.engines.lightx2v_kernels import rms_norm

    return norm(shape, lambda weight: rms_norm("one-pass", weight).apply)


def rope(shape: Shape, kernel: Callable) -> Trial:
    """kernel(q, k, turns) -> both turned; q, k (tokens, heads, head_dim), turns (tokens, 1, head_dim / 2) complex."""
    import torch

    q, k = (normal(shape.tokens, shape.heads, shape.head_dim, seed=seed) for seed in (1, 2))
    places = torch.arange(shape.tokens, device=q.device, dtype=torch.float32)[:, None, None]
    speeds = 10000.0 ** -torch.linspace(0, 1, shape.head_dim // 2, device=q.device)
    turns = torch.polar(torch.ones_like(places * speeds), places * speeds)
    rows = some(shape.tokens)

    def error_of(result) -> float:
        pairs = torch.view_as_complex(q[rows].float().reshape(len(rows), shape.heads, -1, 2))
        return relative(result[0][rows], torch.view_as_real(pairs * turns[rows]).flatten(-2))

    return Trial(lambda: kernel(q.clone(), k.clone(), turns), error_of)


def rope_complex(shape: Shape) -> Trial:
    import torch

    def turn(x, turns):
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)

    return rope(shape, lambda q, k, turns: (turn(q, turns), turn(k, turns)))


def rope_real(shape: Shape) -> Trial:
    import torch

    def turn(x, turns):
        even, odd = x.float()[..., 0::2], x.float()[..., 1::2]
        out = torch.empty_like(x)
        out[..., 0::2] = even * turns.real - odd * turns.imag
        out[..., 1::2] = even * turns.imag + odd * turns.real
        return out

    return rope(shape, lambda q, k, turns: (turn(q, turns), turn(k, turns)))


def rope_flashinfer(shape: Shape) -> Trial:
    from wan_ui.engines.lightx2v_kernels import rope as kernel

    return rope(shape, kernel("flashinfer_rope", shape.head_dim))


# ---------------------------------------------------------------- compiled blocks


def compiled(shape: Shape) -> Trial:
    """What torch.compile fuses in a block: norm and modulation, e4m3 rounding by row, rotation, GELU and a gate."""
    import torch

    def block(x, scale, shift, turns):
        x = torch.nn.functional.layer_norm(x.float(), (shape.width,), eps=1e-6).to(x.dtype) * (1 + scale) + shift
        pairs = x.float().view(-1, shape.heads, shape.head_dim // 2, 2)
        even, odd = pairs.unbind(-1)
        real, imag = turns
        x = torch.stack([even * real - odd * imag, even * imag + odd * real], -1).flatten(1).to(x.dtype)
        return torch.nn.functional.gelu(x, approximate="tanh") * scale + x

    def rounded(x):
        stored, size = e4m3(x, 1)
        return stored.float() * size

    x = normal(shape.tokens, shape.width, seed=1)
    scale, shift = (normal(1, shape.width, seed=seed) for seed in (2, 3))
    places = torch.arange(shape.tokens, device=x.device, dtype=torch.float32)[:, None, None]
    angles = places * 10000.0 ** -torch.linspace(0, 1, shape.head_dim // 2, device=x.device)
    turns = (angles.cos(), angles.sin())
    rows = some(shape.tokens)

    @torch.compile(dynamic=False)
    def run(*values):
        result = block(*values)
        return result, rounded(result)

    def error_of(result) -> float:
        inputs = (x[rows].float(), scale.float(), shift.float(), tuple(turn[rows] for turn in turns))
        exact = block(*inputs)
        return max(relative(part[rows], exact) for part in result)

    return Trial(lambda: run(x, scale, shift, turns), error_of)


# ---------------------------------------------------------------- the child


def seconds_of(run: Callable) -> float:
    """Median of up to ten runs, by the device's own clock."""
    import torch

    gpu = device() == "cuda"
    for _ in range(WARM_UP if gpu else 1):
        run()
    spent, started = [], time.perf_counter()
    while len(spent) < RUNS and time.perf_counter() - started < ENOUGH_SECONDS:
        if gpu:
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            run()
            after.record()
            after.synchronize()
            spent.append(before.elapsed_time(after) / 1000)
        else:
            before = time.perf_counter()
            run()
            spent.append(time.perf_counter() - before)
    return statistics.median(spent)


def measure(function: str, shape: Shape) -> dict:
    """{"status": "ran", "error", "seconds"}, or "absent" or "failed" with "why"."""
    import torch

    try:
        module, _, name = function.partition(":")
        trial = getattr(importlib.import_module(module), name)(shape)
        with torch.inference_mode():
            error = trial.error_of(trial.run())
            return {"status": "ran", "error": error, "seconds": seconds_of(trial.run)}
    except (Unfit, ImportError) as error:
        return {"status": "absent", "why": str(error).splitlines()[0]}
    except Exception as error:  # kernels raise anything; the table is what this is for
        return {
            "status": "failed",
            "why": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
        }


def main() -> None:
    function, shapes = sys.argv[1], [Shape(**shape) for shape in json.loads(sys.argv[2])]
    for shape in shapes:
        print(json.dumps({"shape": asdict(shape), "entering": True}), flush=True)
        print(json.dumps({"shape": asdict(shape), **measure(function, shape)}), flush=True)


if __name__ == "__main__":
    main()
