"""Packages for attention, tried one by one: FlashAttention 2 and 3, SageAttention 1 to 3."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from wan_ui.machine.shapes import Shape
from wan_ui.machine.trials import TEXT, Trial, attention


def flash2(shape: Shape, keys: int = 0) -> Trial:
    from flash_attn import flash_attn_func

    return attention(shape, flash_attn_func, keys)


def _flash3(shape: Shape, function: Callable[..., Any], keys: int) -> Trial:
    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = function(q, k, v)
        result: Tensor = found[0] if isinstance(found, tuple) else found
        return result

    return attention(shape, kernel, keys)


def flash3(shape: Shape, keys: int = 0) -> Trial:
    from flash_attn_interface import flash_attn_func

    return _flash3(shape, flash_attn_func, keys)


def fa3_fwd(shape: Shape, keys: int = 0) -> Trial:
    from fa3_fwd_interface import flash_attn_func

    return _flash3(shape, flash_attn_func, keys)


def cross_flash2(shape: Shape) -> Trial:
    return flash2(shape, TEXT)


def cross_flash3(shape: Shape) -> Trial:
    return flash3(shape, TEXT)


def cross_fa3_fwd(shape: Shape) -> Trial:
    return fa3_fwd(shape, TEXT)


def sage1(shape: Shape) -> Trial:
    from sageattention import sageattn_qk_int8_pv_fp16_triton as sageattn

    return attention(shape, lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD"))


def sage2(shape: Shape) -> Trial:
    from sageattention import sageattn

    return attention(shape, lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD"))


def sage3(shape: Shape) -> Trial:
    from sageattn3 import sageattn3_blackwell

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (x.transpose(1, 2).contiguous() for x in (q, k, v))
        result: Tensor = sageattn3_blackwell(*heads_first)
        return result.transpose(1, 2).contiguous()

    return attention(shape, kernel)
