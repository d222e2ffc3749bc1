"""Name maps: bit-exact there and back, and equal to diffusers' converters where those apply."""

import json
import math
import re

import pytest
import torch
import torch.nn.functional as F

from tests.engines.random_models import encoder_of_transformers, randomised, write_text_encoder
from wan_ui.engines import animate_dit, s2v_model, text
from wan_ui.engines.dit import module_names, read_config
from wan_ui.engines.wan_classes import AutoencoderKLWan, WanTransformer3DModel
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.files import s2v_file
from wan_ui.files.animate_names import is_filter
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.model_configs import read_official
from wan_ui.files.names import dit_name_map, inverse, rename, strip_prefix, vae_name_map
from wan_ui.files.sizes import count, vae_layout
from wan_ui.files.tensors import load_strict, read_pth
from wan_ui.qa import layouts
from wan_ui.settings import ROOT

DIT = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 8, "freq_dim": 8, "ffn_dim": 16}


def assert_same(got: dict, expected: dict) -> None:
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("layers", [1, 3, 12])
def test_dit_round_trip_and_converter(layers):
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    tensors = WanTransformer3DModel(in_channels=36, num_layers=layers, **DIT).state_dict()
    original = rename(tensors, inverse(dit_name_map(layers)))
    assert "blocks.0.self_attn.q.weight" in original and "head.modulation" in original
    assert_same(rename(original, dit_name_map(layers)), tensors)
    assert_same(convert_wan_transformer_to_diffusers(dict(original)), tensors)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_full_size_transformers(family, tmp_path):
    """Names and shapes of the released files against the module that they are loaded into."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(layouts.dit_config(family)))
    arguments, _ = read_config(config)
    if family.performance:
        module = animate_dit.build(arguments, read_official(config))
    else:
        with torch.device("meta"):
            speech = family.speech and s2v_model.S2VTransformer(s2v_file.with_defaults(read_official(config)))
            module = speech or WanTransformer3DModel(**arguments)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    stored = {name: shape for name, (_, shape) in layouts.dit(read_official(config), layouts.BF16).items()}
    flat = {name: (math.prod(shape),) if is_flat(name) else shape for name, shape in stored.items()}
    assert rename(flat, module_names(stored)) == shapes
    channels = {"a14b": 36, "t2v-a14b": 16, "5b": 48}
    if family.name in channels:
        assert stored["patch_embedding.weight"] == (family.transformer.width, channels[family.name], 1, 2, 2)


def is_flat(name: str) -> bool:
    return name.startswith("motion_encoder.") and name.endswith(".bias")


def test_names_of_animate(tmp_path):
    """Those of the official model at full size."""
    stored = json.loads((ROOT / "tests/golden/of-wan22/animate-names.json").read_text())
    config = tmp_path / "config.json"
    config.write_text(json.dumps(layouts.dit_config(FAMILIES["animate-14b"])))
    counted: dict[str, list] = {}
    for name, shape in read_parameters(config).items():
        short = re.sub(r"^(blocks|face_adapter\.fuser_blocks)\.\d+\.", r"\1.*.", name)
        counted.setdefault(short, [0, list(shape)])[0] += 1
    assert counted == {name: value for name, value in stored.items() if name != "made by" and not is_filter(name)}


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model."])
def test_prefixes(prefix):
    assert strip_prefix(f"{prefix}blocks.0.ffn.0.weight") == "blocks.0.ffn.0.weight"


@pytest.mark.parametrize("dim_mult", [[1, 2, 4, 4], [1, 2, 4, 6], [1, 2, 2]])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_vae_round_trip_and_layout(dim_mult, blocks, tmp_path):
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    temporal = [False, True, True][: len(dim_mult) - 1]
    model = AutoencoderKLWan(base_dim=8, dim_mult=dim_mult, num_res_blocks=blocks, temperal_downsample=temporal)
    tensors = model.state_dict()
    names = vae_name_map(len(dim_mult), blocks)
    original = rename(tensors, inverse(names))
    assert "decoder.upsamples.0.residual.2.weight" in original and "conv2.bias" in original
    assert_same(rename(original, names), tensors)

    config, found = vae_layout(tmp_path / "vae.pth", original)
    assert found == names
    assert config == {
        "base_dim": 8, "z_dim": 16, "dim_mult": dim_mult, "num_res_blocks": blocks, "temperal_downsample": temporal,
    }  # fmt: skip
    if blocks == 2 and dim_mult == [1, 2, 4, 4]:
        assert_same(convert_wan_vae_to_diffusers(dict(original)), tensors)


def original_t5(tensors: dict, ids: torch.Tensor) -> torch.Tensor:
    """The forward of wan/modules/t5.py (encoder, relative position bias in every block), written out."""

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    def bias(table):
        buckets, far = table.shape[0] // 2, 128
        distance = torch.arange(len(ids))[None] - torch.arange(len(ids))[:, None]
        near, steps = buckets // 2, distance.abs()
        large = near + (torch.log(steps.clamp_min(1) / near) / torch.log(torch.tensor(far / near)) * (buckets - near))
        bucket = torch.where(steps < near, steps, large.long().clamp_max(buckets - 1)) + (distance > 0) * buckets
        return table[bucket].permute(2, 0, 1)

    x = tensors["token_embedding.weight"][ids]
    for i in range(count(tensors, r"blocks\.(\d+)\.")):
        block = {name.removeprefix(f"blocks.{i}."): t for name, t in tensors.items() if name.startswith(f"blocks.{i}.")}
        heads = block["pos_embedding.embedding.weight"].shape[1]
        y = norm(x, block["norm1.weight"])
        q, k, v = (F.linear(y, block[f"attn.{c}.weight"]).unflatten(-1, (heads, -1)).transpose(0, 1) for c in "qkv")
        scores = q @ k.transpose(1, 2) + bias(block["pos_embedding.embedding.weight"])  # T5 does not scale by sqrt(d)
        x = x + F.linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), block["attn.o.weight"])
        y = norm(x, block["norm2.weight"])
        gate = F.gelu(F.linear(y, block["ffn.gate.0.weight"]), approximate="tanh")
        x = x + F.linear(F.linear(y, block["ffn.fc1.weight"]) * gate, block["ffn.fc2.weight"])
    return norm(x, tensors["norm.weight"])


@pytest.mark.parametrize("length", [1, 7, 200])
@torch.inference_mode()
def test_t5_equals_the_original_forward(length, tmp_path):
    torch.manual_seed(0)
    write_text_encoder(tmp_path / "t5.pth", 50)
    model = text.load_text_encoder(tmp_path / "t5.pth", dtype=torch.float32, device=torch.device("cpu"))
    tensors = {name: tensor.float() for name, tensor in read_pth(tmp_path / "t5.pth").items()}
    ids = torch.randint(0, 50, (length,))
    expected = original_t5(tensors, ids)
    got = model(ids[None])[0]
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_t5_equals_transformers_bit_for_bit_without_padding_as_with_it(dtype, tmp_path):
    torch.manual_seed(0)
    write_text_encoder(tmp_path / "t5.pth", 50)
    model = text.load_text_encoder(tmp_path / "t5.pth", dtype=dtype, device=torch.device("cpu"))
    theirs = encoder_of_transformers(model)
    for length in (1, 9, 300):
        ids = torch.randint(1, 50, (1, length))
        got = model(ids)
        assert got.dtype == dtype and torch.equal(got, theirs(input_ids=ids).last_hidden_state)
        mask = (torch.arange(512) < length).long()[None]
        padded = theirs(input_ids=F.pad(ids, (0, 512 - length)), attention_mask=mask).last_hidden_state[:, :length]
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(got, padded, atol=tolerance, rtol=tolerance)


def test_errors_name_file_and_tensors(tmp_path):
    model = randomised(torch.nn.Linear(3, 2))
    weight, bias = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(UserError, match=r"x\.gguf.*1 tensors are missing \(first: bias\).*unexpected \(first: other\)"):
        load_strict(model, {"weight": weight, "other": bias}, file=tmp_path / "x.gguf")
    with pytest.raises(UserError, match=r"x\.gguf: tensor weight has shape \(3, 2\), expected \(2, 3\)"):
        load_strict(model, {"weight": weight.T, "bias": bias}, file=tmp_path / "x.gguf")


def test_the_layout_of_the_5b_models_vae(tmp_path):
    """layouts.vae is what a download has; every name and shape of it has a place."""
    with torch.device("meta"):
        shapes = layouts.vae(FAMILIES["5b"].vae)
        config, names = vae_layout(tmp_path / "vae.pth", {k: torch.empty(shape) for k, (_, shape) in shapes.items()})
        expected = AutoencoderKLWan(**config).state_dict()
    got = rename({name: tuple(shape) for name, (_, shape) in shapes.items()}, names)
    assert got == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert config["scale_factor_spatial"] == 16 and config["temperal_downsample"] == [False, True, True]
    assert len(config["latents_mean"]) == len(config["latents_std"]) == 48
