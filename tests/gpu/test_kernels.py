"""Each kernel that can be chosen, in LightX2V's own classes, on this GPU: products, attention, GGUF types."""

import numpy as np
import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_k_quants import (  # noqa: F401 - the same, on this device
    test_dequantised_as_by_gguf_py_and_multiplied,
    test_experts_as_in_the_diffusers_engine,
)
from wan_ui.catalog import FP8_KERNELS
from wan_ui.engines import lightx2v_kernels
from wan_ui.engines.kernel_choice import ATTENTION
from wan_ui.files.tensors import dequantise_fp8, quantise_fp8
from wan_ui.machine.hardware import installed
from wan_ui.patches import fp8_sgl
from wan_ui.patches.record import resolve

FP8, SAGE = 0.06, 0.08  # as in wan_ui.machine.probes


@pytest.fixture(params=FP8_KERNELS)
def kernel(request, lightx2v, device):
    if request.param == "fp8-triton" and not (device == "cuda" and installed(("triton",))):
        pytest.skip("triton is not installed, or has no GPU")
    if request.param == "fp8-sgl" and not installed(("sgl_kernel",)) and not resolve(fp8_sgl.PATCH):
        fp8_sgl.PATCH.apply(None)
    return request.param


@pytest.mark.parametrize("tokens", (32, 1000))
def test_fp8_products(kernel, device, tokens):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, 512, generator=generator).bfloat16()
    weight, scale = quantise_fp8(torch.randn(256, 512, generator=generator))
    stored = weight.to(device) if kernel == "fp8-triton" else weight.to(device).t()
    product = lightx2v_kernels.linear(kernel, stored, scale.to(device))
    exact = x.float() @ dequantise_fp8(weight, scale).t()
    error = ((product.apply(x.to(device)).float().cpu() - exact).norm() / exact.norm()).item()
    assert error < FP8


def latents(load, model, tmp_path, scheme):
    engine = load(scheme, torch.bfloat16)
    return engine.generate(make_request(tmp_path, model, scheme, steps=2), quiet).latents, engine.facts


def off(got, expected) -> float:
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def test_a_clip_with_each_fp8_kernel(kernel, load, model, tmp_path):
    expected, _ = latents(load, model, tmp_path, "bf16")
    got, facts = latents(load, model, tmp_path, kernel)
    assert facts["kernel"].startswith(kernel)
    assert off(got, expected) < FP8


@pytest.mark.parametrize("name", [name for name in ATTENTION if name != "torch_sdpa"])
def test_a_clip_with_each_attention(name, configured, cuda, load, model, tmp_path):
    if not installed((ATTENTION[name],)):
        pytest.skip(f"{ATTENTION[name]} is not installed")
    expected, _ = latents(load, model, tmp_path, "bf16")
    configured(lightx2v_attention=name)
    got, facts = latents(load, model, tmp_path, "bf16")
    assert facts["attention"].startswith(name)
    assert off(got, expected) < (SAGE if name.startswith("sage") else 0.02)
