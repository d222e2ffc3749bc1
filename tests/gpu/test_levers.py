"""What is on by default against the same scheme without it: the clip of Wan-Tiny stays within 45 dB."""

import numpy as np
import pytest
import torch

from tests.engines.test_gguf_kernels import random_blocks
from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_fused import psnr
from wan_ui.engines import gguf_kernels

LEAST_E4M3 = 45  # dB, against the same file exact; 46.5 and 46.8 on an H100
LEVERS = {
    "vae": {"lightx2v_plain": "vae"},
    "decoder": {"lightx2v_plain": "decoder"},
    "blocks": {"lightx2v_plain": "blocks", "lightx2v_compile": "off"},
    "products": {"lightx2v_plain": "products"},
    "dequantise": {"lightx2v_plain": "products, dequantise"},
    "graphs": {"lightx2v_plain": "graphs"},
    "attention": {"lightx2v_attention": "torch_sdpa"},
}


def test_short_steps_are_graphs_and_stay_so_through_sizes_and_loras(load, configured, cuda, model, tmp_path):
    configured()
    engine = load("bf16", torch.bfloat16)
    if not engine.graphs:
        pytest.skip(f"the blocks are not fused: {engine.facts['blocks']}")
    requests = [make_request(tmp_path, model, "bf16", width=96, height=64, frames=frames) for frames in (9, 17, 9)]
    played = [engine.generate(request, quiet).latents for request in requests]
    assert [graph.reason for graph in engine.graphs] == [""] * len(engine.graphs)
    assert all(graph.captured is not None for graph in engine.graphs)
    assert np.array_equal(played[0], played[2])
    for graph in engine.graphs:
        graph.off = True
    for request, latents in zip(requests, played, strict=True):
        plain = engine.generate(request, quiet).latents
        assert np.linalg.norm(latents - plain) < 1e-3 * np.linalg.norm(plain)


@pytest.mark.parametrize("kind", gguf_kernels.TYPES)
def test_the_kernel_that_dequantises_gives_upstreams_numbers(lightx2v, cuda, kind):
    """Equal bit for bit, whatever a block holds."""
    from gguf import GGMLQuantizationType
    from lightx2v.utils.ggml_tensor import GGMLTensor, dequantize_tensor

    blocks = torch.from_numpy(random_blocks(kind, 64, 5120)).to("cuda")
    tensor = GGMLTensor(data=blocks, orig_shape=torch.Size((64, 5120)), gguf_type=GGMLQuantizationType[kind])
    for dtype in (torch.bfloat16, torch.float16):
        found = gguf_kernels.dequantise(blocks, kind, (64, 5120), dtype)
        assert torch.equal(found, dequantize_tensor(tensor, dtype))


@pytest.mark.parametrize("scheme", ("bf16", "fp8", "gguf-Q8_0"))
def test_each_lever_alone_keeps_the_frames(load, configured, cuda, model, tmp_path, scheme):
    width, height = model.sizes[0]
    sampling = {"frames": model.default_frames, "steps": model.default_steps}
    request = make_request(tmp_path, model, scheme, width=width, height=height, **sampling)
    configured()
    fast, found = load(scheme, torch.bfloat16).generate(request, quiet), {}
    for lever, without in LEVERS.items():
        if lever in ("products", "dequantise") and not scheme.startswith("gguf"):
            continue
        configured(**without)
        found[lever] = round(psnr(fast.frames, load(scheme, torch.bfloat16).generate(request, quiet).frames), 2)
    print(scheme, found)
    assert min(found.values()) > 45, found


@pytest.mark.parametrize("scheme", ("gguf-Q8_0", "gguf-Q4_0"))
def test_products_in_e4m3_keep_the_frames(load, configured, cuda, model, tmp_path, scheme):
    """Two bytes a number fit for Wan-Tiny, so that they are asked for here."""
    width, height = model.sizes[0]
    sampling = {"frames": model.default_frames, "steps": model.default_steps}
    request = make_request(tmp_path, model, scheme, width=width, height=height, **sampling)
    configured()
    exact = load(scheme, torch.bfloat16).generate(request, quiet)
    configured(lightx2v_gguf="e4m3")
    engine = load(scheme, torch.bfloat16)
    if not engine.facts["kernel"].startswith("e4m3"):
        pytest.skip(engine.facts["kernel"])
    rounded = engine.generate(request, quiet)
    error = np.linalg.norm(rounded.latents - exact.latents) / np.linalg.norm(exact.latents)
    found = psnr(rounded.frames, exact.frames)
    print(f"{scheme} in e4m3: {found:.1f} dB, latents {error:.4f}")
    assert found > LEAST_E4M3
