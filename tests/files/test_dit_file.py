"""Checkpoints of other people's converters: the right numbers, or what the file is and what would do."""

import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("gguf")

from tests import dit_files as files  # noqa: E402
from wan_ui.catalog import Scheme  # noqa: E402
from wan_ui.engines import lightx2v_config  # noqa: E402
from wan_ui.engines.dit import check_kept, dequantise_iq4_nl  # noqa: E402
from wan_ui.errors import UserError  # noqa: E402
from wan_ui.files.dit_file import parameters, read_dit, read_parameters, unfolds  # noqa: E402
from wan_ui.files.names import dit_name_map, rename  # noqa: E402
from wan_ui.files.tensors import dequantise_fp8, float_tensors, read_blocks, read_fp8, read_tensor  # noqa: E402

FIRST = "blocks.0.self_attn.q.weight"
FORMAT = files.said("float8_e4m3fn", full_precision_matrix_mult=True)
REST = {
    "vae.conv1.weight": torch.zeros(4, 4),
    "text_encoders.umt5xxl.transformer.shared.weight": torch.zeros(8, 4),
    "text_encoders.umt5xxl.spiece_model": torch.zeros(9, dtype=torch.uint8),
}
# name -> (tensors, the largest relative error of a weight)
SAFETENSORS = {
    "bf16": (lambda t: {k: v.bfloat16() for k, v in t.items()}, 0),
    "float32 with a prefix": (lambda t: files.prefixed(t, "diffusion_model."), 0),
    "all-in-one": (lambda t: files.prefixed(t) | REST, 0),
    "rest without a prefix": (lambda t: t | REST, 0),
    "fp8 without scales": (lambda t: files.linears(t, lambda m, w: {f"{m}.weight": w.to(files.E4M3)}), 0.04),
    "e5m2 without scales": (lambda t: files.linears(t, lambda m, w: {f"{m}.weight": w.to(files.E5M2)}), 0.08),
    "ComfyUI's old one": (
        lambda t: files.prefixed(
            files.scaled_fp8(t, "scale_weight", scale_input=torch.tensor(1.0))
            | {"scaled_fp8": torch.zeros(2, dtype=files.E4M3)}
        ),
        0.04,
    ),
    "one number in a list": (lambda t: files.scaled_fp8(t, "scale_weight", shape=(1,)), 0.04),
    "ComfyUI's new one": (
        lambda t: files.scaled_fp8(t, comfy_quant=FORMAT, input_scale=torch.tensor(0.5)),
        0.04,
    ),
    "LightX2V's": (lambda t: files.scaled_fp8(t, per="channel"), 0.04),
    "a list of channels": (lambda t: files.scaled_fp8(t, per="channel", shape=(-1,)), 0.04),
    "scales in bf16": (
        lambda t: {k: v.bfloat16() if "scale" in k else v for k, v in files.scaled_fp8(t, per="channel").items()},
        0.04,
    ),
    "Diffusers' names": (lambda t: {k: v.bfloat16() for k, v in rename(t, dit_name_map(2)).items()}, 0),
    "Diffusers' names, fp8": (lambda t: rename(files.scaled_fp8(t), dit_name_map(2)), 0.04),
    "scaled e5m2": (lambda t: files.scaled_fp8(t, "scale_weight", dtype=files.E5M2), 0.08),
    "musubi-tuner's blocks": (lambda t: files.scaled_fp8(t, "scale_weight", per="block"), 0.04),
    "partly scaled": (
        lambda t: files.scaled_fp8(t) | {FIRST: t[FIRST].to(files.E4M3), FIRST + "_scale": torch.tensor(1.0)}
        | {k: v.to(files.E4M3) for k, v in t.items() if ".ffn.0.w" in k}
        | {k.replace("weight", "weight_scale"): torch.tensor(1.0) for k in t if ".ffn.0.w" in k}
        | {k: v.bfloat16() for k, v in t.items() if ".ffn.2.w" in k}
        | {k.replace("weight", "weight_scale"): torch.tensor(1.0) for k in t if ".ffn.2.w" in k},
        0.04,
    ),
}  # fmt: skip
GGUF = {
    "Q8_0": ({}, 0.01),
    "F16": ({"kind": "F16"}, 1e-6),
    "BF16": ({"kind": "BF16"}, 0),
    "Q4_1": ({"kind": "Q4_1"}, 0.1),
    "IQ4_NL": ({"kind": "IQ4_NL"}, 0.12),
    "pig": ({"arch": "pig"}, 0.01),
    "another word": ({"arch": "cow"}, 0.01),
    "no word": ({"arch": None}, 0.01),
    "four dimensions, no note": ({"fold": "silent"}, 0.01),
    "two joined": ({"fold": "joined", "arch": None}, 0.01),
    "five dimensions": ({"fold": "none"}, 0.01),
    "a prefix": ({"prefix": True}, 0.01),
}


@pytest.fixture
def folder(tmp_path):
    files.write_config(tmp_path)
    return tmp_path


def write_gguf(path, tensors, prefix=False, **options):
    return files.save_gguf(path, files.prefixed(tensors) if prefix else tensors, **options)


def write(folder, name, tensors):
    if name in SAFETENSORS:
        return files.save(folder / "x.safetensors", SAFETENSORS[name][0](tensors)), SAFETENSORS[name][1]
    return write_gguf(folder / "x.gguf", tensors, **GGUF[name][0]), GGUF[name][1]


@pytest.mark.parametrize("name", [*SAFETENSORS, *GGUF])
def test_the_right_numbers(name, folder):
    tensors = files.weights()
    path, bound = write(folder, name, tensors)
    got = float_tensors(path, read_dit(path, "high", folder / "config.json"))
    assert got.keys() == tensors.keys()
    for key, tensor in tensors.items():
        error = (got[key] - tensor).norm() / tensor.norm()
        assert got[key].shape == tensor.shape and error <= bound, (key, error)
    assert {key: value.shape for key, value in read_dit(path).items()} == parameters(files.CONFIG)


@pytest.mark.parametrize("name", [*SAFETENSORS, *GGUF])
def test_what_lightx2v_takes(name, folder):
    """e4m3 with a scale per channel out of every fp8 file but those with scales per block, which diffusers takes."""
    tensors = files.weights()
    path, bound = write(folder, name, tensors)
    stored = read_dit(path, "high", folder / "config.json")
    kind = "gguf" if name in GGUF else "fp8" if any(s.info.dtype.startswith("F8") for s in stored.values()) else "bf16"
    scheme = Scheme("mine", "mine", kind)
    if name in ("IQ4_NL", "musubi-tuner's blocks"):
        with pytest.raises(UserError, match="--engine diffusers takes this file") as error:
            lightx2v_config.check_weights(path, stored, scheme)
        assert error.value.field == "scheme"
        return
    finer = lightx2v_config.check_weights(path, stored, scheme)
    assert finer == (2 if name == "partly scaled" else 0)
    with pytest.raises(UserError, match="the catalog says"):
        lightx2v_config.check_weights(path, stored, Scheme("x", "x", "fp8" if kind == "gguf" else "gguf"))
    for key in filter(files.LINEAR.match, stored if kind == "fp8" else ()):
        weight, scale = read_fp8(path, stored[key])
        assert weight.dtype == files.E4M3 and scale.shape == (len(weight), 1) and scale.dtype == torch.float32
        error = (dequantise_fp8(weight, scale) - tensors[key]).norm() / tensors[key].norm()
        assert error <= bound * (1.1 if "e5m2" in name else 1.0), key


def test_e5m2_loses_nothing_but_the_very_small(tmp_path):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 4, 64)[:, None]
    weight = weight.to(files.E5M2)
    path = files.save(
        tmp_path / "x.safetensors", files.weights() | {FIRST: weight, FIRST + "_scale": torch.tensor(2.0)}
    )
    got = dequantise_fp8(*read_fp8(path, read_dit(path)[FIRST]))
    largest = 2 * weight.float().abs().amax(dim=1, keepdim=True)
    assert ((got - 2 * weight.float()).abs() <= largest * 2.0**-17).all()


REFUSED = {
    "no scale left": (lambda t: {k: v for k, v in files.scaled_fp8(t).items() if "scale" not in k}, "is missing"),
    "one scale missing": (
        lambda t: {k: v for k, v in files.scaled_fp8(t).items() if k != FIRST + "_scale"},
        f"scale of {FIRST} is missing",
    ),
    "int8": (lambda t: t | {FIRST: torch.zeros(64, 64, dtype=torch.int8)}, "stored as I8"),
    "ComfyUI's int8": (lambda t: files.scaled_fp8(t, comfy_quant=files.said("int8_tensorwise")), "int8_tensorwise"),
    "rotated": (lambda t: files.scaled_fp8(t, comfy_quant=files.said("float8_e4m3fn", convrot=True)), "rotated"),
    "nvfp4": (
        lambda t: t | {FIRST: torch.zeros(64, 32, dtype=torch.uint8), FIRST + "_scale": torch.ones(64, 4)},
        "stored as U8",
    ),
    "mxfp8": (
        lambda t: files.scaled_fp8(t) | {FIRST + "_scale": torch.ones(64, 2, dtype=torch.uint8)},
        "of U8, expected 1 or 64",
    ),
    "a scale per input": (
        lambda t: files.scaled_fp8(t) | {FIRST + "_scale": torch.ones(1, 64)},
        r"has shape \(1, 64\)",
    ),
    "a short scale": (lambda t: files.scaled_fp8(t) | {FIRST + "_scale": torch.ones(5)}, "expected 1 or 64"),
    "a scale of NaN": (lambda t: files.scaled_fp8(t) | {FIRST + "_scale": torch.tensor(float("nan"))}, "above 0"),
    "a scale of 0": (lambda t: files.scaled_fp8(t) | {FIRST + "_scale": torch.tensor(0.0)}, "above 0"),
    "two scales": (
        lambda t: files.scaled_fp8(t) | {"blocks.0.self_attn.q.scale_weight": torch.tensor(0.5)},
        "has two scales",
    ),
    "two models": (
        lambda t: files.prefixed(t) | files.prefixed(files.weights(1), "diffusion_model."),
        "are the same parameter",
    ),
    "a LoRA": (lambda t: {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": t[FIRST]}, "a LoRA, not a model"),
    "transposed": (lambda t: t | {"blocks.1.ffn.0.weight": torch.zeros(64, 96)}, r"has shape \(64, 96\)"),
    "no patch embedding": (lambda t: {k: v for k, v in t.items() if k != "patch_embedding.weight"}, "no patch_emb"),
    "one bias missing": (lambda t: {k: v for k, v in t.items() if k != "head.head.bias"}, r"1 tensors.*head.head.bias"),
    "half of the blocks": (lambda t: {k: v for k, v in t.items() if "blocks.1." not in k}, "1 blocks, expected 2"),
    "Wan2.1's image attention": (
        lambda t: t | {"blocks.0.cross_attn.k_img.weight": torch.zeros(64, 64)},
        "not of this model .*k_img",
    ),
    "no DIT": (lambda t: {"x": torch.zeros(2)}, "no Wan DIT in original names"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name, folder):
    change, words = REFUSED[name]
    path = files.save(folder / "x.safetensors", change(files.weights()))
    with pytest.raises(UserError, match=rf"x\.safetensors: .*{words}"):
        read_dit(path, "high", folder / "config.json")


def test_parts_and_exchanged_experts_are_refused(folder):
    def split(writer):
        writer.add_uint16("split.count", 2)

    tensors = files.weights()
    path = files.save_gguf(folder / "a.gguf", tensors, metadata=split)
    with pytest.raises(UserError, match="one part of a split file; join the parts first"):
        read_dit(path)
    path = files.save(folder / "dit-00001-of-00002.safetensors", tensors)
    with pytest.raises(UserError, match="one part of a split file"):
        read_dit(path)
    path = files.save(folder / "x.safetensors", tensors, {"general.name": "wan low_noise"})
    with pytest.raises(UserError, match="this is the low-noise expert, expected the high-noise one"):
        read_dit(path, "high", folder / "config.json")


def test_metadata_of_comfyui_names_the_format(folder):
    layers = {"layers": {"blocks.0.self_attn.q": {"format": "nvfp4"}}}
    path = files.save(folder / "x.safetensors", files.weights(), {"_quantization_metadata": json.dumps(layers)})
    with pytest.raises(UserError, match="quantised as nvfp4"):
        read_dit(path)
    path = files.save(folder / "x.safetensors", files.weights(), {"_quantization_metadata": "[" * 100_000})
    assert read_dit(path)


@pytest.mark.parametrize(
    ("stored", "wanted", "fits"),
    [
        ((256, 36, 1, 2, 2), (256, 36, 1, 2, 2), True),
        ((256, 36, 1, 4), (256, 36, 1, 2, 2), True),
        ((9216, 1, 2, 2), (256, 36, 1, 2, 2), True),
        ((6, 256), (1, 6, 256), True),
        ((256, 64), (64, 256), False),
        ((36, 256, 1, 2, 2), (256, 36, 1, 2, 2), False),
        ((256, 35, 1, 2, 2), (256, 36, 1, 2, 2), False),
    ],
)
def test_folded_shapes(stored, wanted, fits):
    assert unfolds(stored, wanted) is fits


@pytest.mark.parametrize(
    "changes", [{"num_layers": 10**9}, {"dim": -1}, {"in_dim": 1.5}, {"dim": True}, {"ffn_dim": "x"}, {"patch_size": 2}]
)
def test_bad_configs(changes, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(files.CONFIG | changes))
    with pytest.raises(UserError, match=r"c\.json: not a WanModel config"):
        read_parameters(tmp_path / "c.json")
    (tmp_path / "c.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"c\.json: not a WanModel config"):
        read_parameters(tmp_path / "c.json")


def test_types_that_a_large_model_cannot_keep(folder):
    path = files.save_gguf(folder / "x.gguf", files.weights(), "IQ4_NL")
    stored = read_dit(path)
    check_kept(path, stored)
    blocks = read_blocks(path, stored[FIRST].info).view(-1, 18)
    got = dequantise_iq4_nl(blocks, 32, 18, torch.float32).view(64, 64)
    assert torch.equal(got, read_tensor(path, stored[FIRST].info))
    other = replace(stored[FIRST], info=replace(stored[FIRST].info, dtype="IQ3_XXS"))
    with pytest.raises(UserError, match="stored as IQ3_XXS, which neither engine"):
        check_kept(path, stored | {FIRST: other})
