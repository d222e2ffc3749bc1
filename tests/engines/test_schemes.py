"""Every way of storing an expert, dequantised at load and kept as stored, against its float32 weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.engines.random_models import make_engine, quiet, write_dit
from wan_ui.engines import dit
from wan_ui.errors import UserError
from wan_ui.files.quantise import TYPES, quantise_file, suffix

CPU = torch.device("cpu")
# Relative error of one forward in float32 arithmetic: of the stored numbers alone.
BOUNDS = {"bf16": 0.01, "fp8": 0.02, "Q8_0": 0.004, "Q5_0": 0.033, "Q4_0": 0.067}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A random DIT in bf16 with its config beside it."""
    folder = tmp_path_factory.mktemp("dit")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = write_dit(folder / "dit_high_noise.safetensors", 36, 16)
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "dit_high_noise.safetensors"


def load(path: Path, config: Path, *, side="high", quantised=False, dtype=torch.float32):
    return dit.load_expert(path, config, side, dtype=dtype, device=CPU, quantised=quantised)


@torch.inference_mode()
def forward(model, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 36, 3, 8, 8, generator=generator).to(dtype)
    text = torch.randn(1, 64, 64, generator=generator).to(dtype)
    return model(hidden_states=x, timestep=torch.tensor([900.0]), encoder_hidden_states=text, return_dict=False)[
        0
    ].float()


def relative_error(got, expected) -> float:
    return ((got - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def expected(source) -> torch.Tensor:
    return forward(load(source, source.parent / "config.json"))


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_error_of_one_forward(kind, quantised, source, expected, tmp_path):
    path = tmp_path / f"x{suffix(kind)}"
    quantise_file(source, path, kind)
    model = load(path, source.parent / "config.json", quantised=quantised)
    stays = (dit.Fp8Linear, dit.GgufLinear)
    assert any(isinstance(m, stays) for m in model.modules()) == (quantised and kind != "bf16")
    error = relative_error(forward(model), expected)
    assert 0 < error < BOUNDS[kind] or (kind == "bf16" and error == 0)


@pytest.mark.parametrize("kind", ["fp8", "Q8_0", "Q4_0"])
def test_kept_as_stored_equals_dequantised(kind, source, tmp_path):
    path = tmp_path / f"x{suffix(kind)}"
    quantise_file(source, path, kind)
    config = source.parent / "config.json"
    once, always = (forward(load(path, config, quantised=quantised)) for quantised in (False, True))
    torch.testing.assert_close(always, once, atol=1e-4, rtol=1e-4)


def fp8_linear(scale, dtype, inputs=5120):
    """A layer of e4m3 weights that use the whole range up to 448, each output channel with the given scale."""
    generator = torch.Generator().manual_seed(3)
    layer = dit.Fp8Linear(inputs, len(scale), dtype)
    raw = torch.randn(len(scale), inputs, generator=generator)
    layer.weight = (raw * 448 / raw.abs().amax(1, keepdim=True)).to(torch.float8_e4m3fn)
    layer.weight_scale = scale.float().view(-1, 1)
    layer.bias = torch.randn(len(scale), generator=generator).to(dtype)
    return layer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_fp8_product_is_finite_and_right_in_every_dtype(dtype):
    """Outputs below 100 whose product with the raw weights is past float16's end, and scales over the whole range."""
    scale = torch.logspace(-7, -3, 64)
    layer = fp8_linear(scale, dtype)
    x = (torch.randn(32, 5120, generator=torch.Generator().manual_seed(4)) * 3).to(dtype)
    exact = x.double() @ (layer.weight.double() * layer.weight_scale.double()).t() + layer.bias.double()
    raw = x.double() @ layer.weight.double().t()
    assert raw.abs().max() > 65504 and exact.abs().max() < 100
    got = layer(x)
    assert got.dtype == dtype and got.isfinite().all()
    error = ((got.double() - exact).norm(dim=0) / exact.norm(dim=0)).max().item()
    assert error < {torch.float16: 1e-3, torch.bfloat16: 5e-3, torch.float32: 1e-5}[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_fp8_weights_are_not_rounded(dtype):
    """Of one input at a time the output is the weight: rounded once, as it must be."""
    layer = fp8_linear(torch.tensor([3e-5, 0.00123, 0.0457, 0.99, 1.7]), dtype, inputs=64)
    layer.bias.zero_()
    exact = layer.weight.float() * layer.weight_scale
    assert torch.equal(layer(torch.eye(64, dtype=dtype)), exact.t().to(dtype))


@pytest.mark.parametrize("quantised", [False, True])
def test_comfy_fp8_with_prefix_and_scalar_scales(quantised, source, expected, tmp_path):
    quantise_file(source, tmp_path / "ours.safetensors", "fp8")
    comfy = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    exact = load_file(source)
    for name, tensor in load_file(tmp_path / "ours.safetensors").items():
        if name.endswith("weight_scale"):
            module = name.removesuffix(".weight_scale")
            weight = exact[f"{module}.weight"].float()
            scale = weight.abs().max() / 448
            comfy[f"diffusion_model.{module}.weight"] = (weight / scale).to(torch.float8_e4m3fn)
            comfy[f"diffusion_model.{module}.scale_weight"] = scale
            comfy[f"diffusion_model.{module}.scale_input"] = torch.ones(())
        elif tensor.dtype != torch.float8_e4m3fn:
            comfy[f"diffusion_model.{name}"] = tensor
    save_file(comfy, tmp_path / "comfy.safetensors")
    model = load(tmp_path / "comfy.safetensors", source.parent / "config.json", quantised=quantised)
    assert relative_error(forward(model), expected) < 0.05


@pytest.mark.parametrize("quantised", [False, True])
def test_a_scale_can_not_be_dropped(quantised, source, tmp_path):
    """facts: diffusers' single-file loader drops the scales with a warning and is wrong by 1.35."""
    quantise_file(source, tmp_path / "x.safetensors", "fp8")
    config = source.parent / "config.json"
    tensors = load_file(tmp_path / "x.safetensors")
    scale = tensors.pop("blocks.1.ffn.0.weight_scale")
    save_file(tensors, tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match=r"missing\.safetensors: the scale of blocks\.1\.ffn\.0\.weight is missing"):
        load(tmp_path / "missing.safetensors", config, quantised=quantised)

    save_file(tensors | {"blocks.1.ffn.0.weight_scale": scale[:5]}, tmp_path / "short.safetensors")
    with pytest.raises(UserError, match=r"scale of blocks\.1\.ffn\.0\.weight has shape \(5, 1\) of F32, expected 1 or"):
        load(tmp_path / "short.safetensors", config, quantised=quantised)

    save_file(load_file(source) | {"blocks.1.ffn.9.weight_scale": scale}, tmp_path / "orphan.safetensors")
    with pytest.raises(UserError, match=r"not of this model \(first: blocks\.1\.ffn\.9\.weight_scale\)"):
        load(tmp_path / "orphan.safetensors", config, quantised=quantised)


def test_exchanged_experts_are_refused(source, tmp_path):
    config = source.parent / "config.json"
    with pytest.raises(UserError, match="this is the high-noise expert, expected the low-noise one"):
        load(source, config, side="low")
    quantise_file(source, tmp_path / "renamed_low_noise.gguf", "Q8_0")  # its metadata still says high
    with pytest.raises(UserError, match="this is the high-noise expert"):
        load(tmp_path / "renamed_low_noise.gguf", config, side="low")


def test_wrong_config_and_architecture(source, tmp_path):
    config = json.loads((source.parent / "config.json").read_text())
    (tmp_path / "wide.json").write_text(json.dumps(config | {"ffn_dim": 200}))
    with pytest.raises(UserError, match=r"tensor blocks\.0\.ffn\.\S+ has shape \(192,.*\), expected \(200,.*\)"):
        load(source, tmp_path / "wide.json")
    (tmp_path / "deep.json").write_text(json.dumps(config | {"num_layers": 3}))
    with pytest.raises(UserError, match="2 blocks, expected 3"):
        load(source, tmp_path / "deep.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"bad\.json: not a WanModel config: KeyError: 'num_heads'"):
        load(source, tmp_path / "bad.json")


@pytest.mark.parametrize("scheme", ["fp8", "gguf-Q8_0", "gguf-Q5_0", "gguf-Q4_0"])
def test_engine_output_is_close_to_bf16(scheme, a14b, make_request):
    request = make_request(a14b)
    expected = make_engine(a14b, "bf16").generate(request, quiet).latents
    engine = make_engine(a14b, scheme)
    got = engine.generate(request, quiet)
    error = ((got.latents - expected) ** 2).mean() ** 0.5 / expected.std()
    assert error < 0.2
    assert got.facts["scheme"].startswith(f"{scheme} (expanded once")
