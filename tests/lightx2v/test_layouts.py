"""The layouts of synthetic files, held against the modules that LightX2V loads the released files into."""

import json
from dataclasses import replace

import pytest
import torch

from tests.lightx2v.conftest import UPSTREAM
from wan_ui.engines.lightx2v_lora import _leaves
from wan_ui.families import FAMILIES
from wan_ui.files.places import locate
from wan_ui.patches import embedded_sizes
from wan_ui.qa import layouts
from wan_ui.settings import settings


def shapes(layout):
    return {name: tuple(shape) for name, (_, shape) in layout.items()}


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("family", "module", "sizes"), [("a14b", "vae", (96, 16)), ("5b", "vae_2_2", (160, 48))])
def test_vae(lightx2v, family, module, sizes):
    from importlib import import_module

    upstream = import_module(f"lightx2v.models.video_encoders.hf.wan.{module}")
    with torch.device("meta"):
        vae = upstream.WanVAE_(dim=sizes[0], z_dim=sizes[1], temperal_downsample=[False, True, True])
    assert shapes_of(vae) == shapes(layouts.vae(FAMILIES[family].vae))


@pytest.mark.parametrize("fp8", (False, True))
def test_text_encoder(lightx2v, fp8):
    """In small: upstream draws 11 GB of random numbers to build the whole one. Its sizes are constants of the code."""
    upstream = UPSTREAM[embedded_sizes.T5]
    sizes = {"vocabulary": 300, "dim": 64, "ffn": 96, "heads": 4, "layers": 2, "buckets": 8}
    encoder = upstream(
        encoder_only=True,
        return_tokenizer=False,
        dtype=torch.bfloat16,
        device="cpu",
        quantized=fp8,
        quant_scheme="fp8-torchao" if fp8 else None,
        vocab_size=sizes["vocabulary"],
        dim=sizes["dim"],
        dim_attn=sizes["dim"],
        dim_ffn=sizes["ffn"],
        num_heads=sizes["heads"],
        encoder_layers=sizes["layers"],
        num_buckets=sizes["buckets"],
    )
    assert shapes_of(encoder) == shapes(layouts.t5(sizes, fp8))
    assert sizes.keys() == layouts.UMT5_XXL.keys()
    assert set(layouts.UMT5_XXL.values()) <= set(upstream.__code__.co_consts)


@pytest.mark.parametrize("scheme", ("bf16", "fp8"))
def test_transformer(load, model, scheme):
    """By name; that the shapes fit is seen where random experts are run."""
    expert = load(scheme).runner.model.model[0]
    names = set()
    for group in (expert.pre_weight, expert.transformer_weights):
        for _, weight, _ in _leaves(group):
            names |= {getattr(weight, attribute, None) for attribute in ("weight_name", "bias_name", "tensor_name")}
    config = json.loads(locate(model, model.scheme(scheme), settings()).configs[0].read_text())
    expected = layouts.dit(config, replace(model.scheme(scheme), kind="bf16"))
    assert names - {None} == set(expected)
    stored = layouts.dit(config, model.scheme(scheme))
    scales = {f"{name}_scale" for name, (kind, _) in stored.items() if kind == "F8_E4M3"}
    assert set(stored) == set(expected) | scales
    assert len(scales) == (80 if scheme == "fp8" else 0)
