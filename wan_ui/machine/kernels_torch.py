"""Torch's own kernels, tried one by one: attention, products, modulate, norm, rope, and compiled blocks."""

import contextlib

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import (
    TEXT,
    OfTensor,
    Pair,
    Trial,
    Unfit,
    attention,
    e4m3,
    gemm,
    modulate,
    norm,
    normal,
    relative,
    rope,
    some,
)


def _sdpa(shape: Shape, backend: str = "", keys: int = 0) -> Trial:
    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        with sdpa_kernel(getattr(SDPBackend, backend)) if backend else contextlib.nullcontext():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()

    return attention(shape, kernel, keys)


def sdpa(shape: Shape) -> Trial:
    return _sdpa(shape)


def cross_sdpa(shape: Shape) -> Trial:
    return _sdpa(shape, keys=TEXT)


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
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        result: Tensor = compiled(q, k, v)
        return result.transpose(1, 2).contiguous()

    return attention(shape, kernel)


def gemm_bf16(shape: Shape) -> Trial:
    return gemm(shape, lambda weight: lambda x: x @ weight.t())


def _scaled_mm(shape: Shape, dim: int | None) -> Trial:
    if torch.cuda.get_device_capability() < (8, 9):
        raise Unfit("this GPU does not multiply fp8")

    def kernel(weight: Tensor) -> OfTensor:
        stored, scale = e4m3(weight, dim)
        columns = scale if dim is None else scale.t()

        def run(x: Tensor) -> Tensor:
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


def modulate_torch(shape: Shape) -> Trial:
    return modulate(shape, lambda x, scale, shift: x * (1 + scale) + shift)


def norm_torch(shape: Shape) -> Trial:
    return norm(shape, lambda weight: lambda x: torch.nn.functional.rms_norm(x, (shape.width,), weight, 1e-6))


def rope_complex(shape: Shape) -> Trial:
    def turn(x: Tensor, turns: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)

    return rope(shape, lambda q, k, turns: (turn(q, turns), turn(k, turns)))


def rope_real(shape: Shape) -> Trial:
    def turn(x: Tensor, turns: Tensor) -> Tensor:
        even, odd = x.float()[..., 0::2], x.float()[..., 1::2]
        out = torch.empty_like(x)
        out[..., 0::2] = even * turns.real - odd * turns.imag
        out[..., 1::2] = even * turns.imag + odd * turns.real
        return out

    return rope(shape, lambda q, k, turns: (turn(q, turns), turn(k, turns)))


def compiled(shape: Shape) -> Trial:
    """What torch.compile fuses in a block: norm and modulation, e4m3 rounding by row, rotation, GELU and a gate."""

    def block(x: Tensor, scale: Tensor, shift: Tensor, turns: Pair) -> Tensor:
        x = torch.nn.functional.layer_norm(x.float(), (shape.width,), eps=1e-6).to(x.dtype) * (1 + scale) + shift
        pairs = x.float().view(-1, shape.heads, shape.head_dim // 2, 2)
        even, odd = pairs.unbind(-1)
        real, imag = turns
        x = torch.stack([even * real - odd * imag, even * imag + odd * real], -1).flatten(1).to(x.dtype)
        return torch.nn.functional.gelu(x, approximate="tanh") * scale + x

    def rounded(x: Tensor) -> Tensor:
        stored, size = e4m3(x, 1)
        return stored.float() * size

    x = normal(shape.tokens, shape.width, seed=1)
    scale, shift = (normal(1, shape.width, seed=seed) for seed in (2, 3))
    places = torch.arange(shape.tokens, device=x.device, dtype=torch.float32)[:, None, None]
    angles = places * 10000.0 ** -torch.linspace(0, 1, shape.head_dim // 2, device=x.device)
    turns = (angles.cos(), angles.sin())
    rows = some(shape.tokens)

    @torch.compile(dynamic=False)
    def run(x: Tensor, scale: Tensor, shift: Tensor, turns: Pair) -> Pair:
        result = block(x, scale, shift, turns)
        return result, rounded(result)

    def error_of(result: Pair) -> float:
        cosines, sines = turns
        exact = block(x[rows].float(), scale.float(), shift.float(), (cosines[rows], sines[rows]))
        return max(relative(part[rows], exact) for part in result)

    return Trial(lambda: run(x, scale, shift, turns), error_of)
