"""What is on by default against the same scheme without it: the clip of Wan-Tiny stays within 45 dB."""

import pytest
import torch

from tests.lightx2v.jobs import make_request, quiet
from tests.lightx2v.test_fused import psnr

LEVERS = {
    "vae": {"lightx2v_plain": "vae"},
    "decoder": {"lightx2v_plain": "decoder"},
    "blocks": {"lightx2v_plain": "blocks", "lightx2v_compile": "off"},
    "products": {"lightx2v_plain": "products"},
    "attention": {"lightx2v_attention": "torch_sdpa"},
}


@pytest.mark.parametrize("scheme", ("bf16", "fp8", "gguf-Q8_0"))
def test_each_lever_alone_keeps_the_frames(load, configured, cuda, model, tmp_path, scheme):
    width, height = model.sizes[0]
    sampling = {"frames": model.default_frames, "steps": model.default_steps}
    request = make_request(tmp_path, model, scheme, width=width, height=height, **sampling)
    configured()
    fast, found = load(scheme, torch.bfloat16).generate(request, quiet), {}
    for lever, without in LEVERS.items():
        if lever == "products" and not scheme.startswith("gguf"):
            continue
        configured(**without)
        found[lever] = round(psnr(fast.frames, load(scheme, torch.bfloat16).generate(request, quiet).frames), 2)
    print(scheme, found)
    assert min(found.values()) > 45, found
