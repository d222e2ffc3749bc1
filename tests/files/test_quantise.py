"""The quantiser: what is quantised, how exactly, in which layout; and its command line."""

import runpy
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")

from safetensors.torch import save_file  # noqa: E402

from tests import dit_files  # noqa: E402
from wan_ui.errors import UserError  # noqa: E402
from wan_ui.files.dit_file import read_dit  # noqa: E402
from wan_ui.files.headers import read_header  # noqa: E402
from wan_ui.files.quantise import QUANTISED, TYPES, quantise_file, suffix  # noqa: E402
from wan_ui.files.tensors import dequantise_fp8, float_tensors, quantise_fp8  # noqa: E402
from wan_ui.settings import ROOT  # noqa: E402

# Largest error of a weight, in units of the largest weight that shares its scale.
STEP = {"bf16": 2**-8, "fp8": 2**-4, "Q8_0": 0.005, "Q5_0": 0.07, "Q4_0": 0.13}


@pytest.fixture
def source(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in dit_files.weights().items()}
    tensors["blocks.0.ffn.0.weight"] *= torch.logspace(-1, 2, 96)[:, None].bfloat16()
    tensors["blocks.0.ffn.2.weight"].zero_()
    save_file(tensors, tmp_path / "wan_high_noise.safetensors")
    return tmp_path / "wan_high_noise.safetensors", {name: tensor.float() for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", TYPES)
def test_what_comes_back(kind, source, tmp_path):
    path, expected = source
    target = tmp_path / "out" / f"x{suffix(kind)}"
    quantise_file(path, target, kind)
    header = read_header(target)
    got = float_tensors(target, read_dit(target))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].shape == tensor.shape, name
        if QUANTISED.match(name) and kind != "bf16":
            unit = tensor.abs().amax(dim=1, keepdim=True)
            assert ((got[name] - tensor).abs() <= STEP[kind] * unit + 1e-12).all(), name
            assert header.tensors[name].dtype == ("F8_E4M3" if kind == "fp8" else kind)
        else:
            torch.testing.assert_close(got[name], tensor, rtol=2**-8, atol=1e-6)
    assert "high_noise" in header.metadata["general.name"]
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_layouts(source, tmp_path):
    quantise_file(source[0], tmp_path / "x.gguf", "Q8_0")
    header = read_header(tmp_path / "x.gguf")
    assert header.metadata["general.architecture"] == "wan"
    assert header.metadata["comfy.gguf.orig_shape.patch_embedding.weight"] == [64, 36, 1, 2, 2]
    assert header.tensors["patch_embedding.weight"].shape == (64, 36, 1, 4)
    assert header.tensors["blocks.0.modulation"].dtype == "F32"

    quantise_file(source[0], tmp_path / "x.safetensors", "fp8")
    tensors = read_header(tmp_path / "x.safetensors").tensors
    assert tensors["blocks.0.ffn.0.weight_scale"].shape == (96, 1)
    assert tensors["blocks.0.ffn.0.weight_scale"].dtype == "F32"
    assert tensors["head.head.weight"].dtype == "BF16"


def test_gguf_py_reads_what_is_written(source, tmp_path):
    quantise_file(source[0], tmp_path / "x.gguf", "Q5_0")
    ours = float_tensors(tmp_path / "x.gguf", read_dit(tmp_path / "x.gguf"))
    for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors:
        theirs = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).float()
        assert torch.equal(theirs.flatten(), ours[tensor.name].flatten())


def test_fp8_keeps_small_channels_and_zeros():
    weight = torch.cat([torch.randn(3, 64) * 1e-6, torch.zeros(1, 64), torch.randn(2, 64) * 1e4])
    stored, scale = quantise_fp8(weight)
    assert stored.dtype == torch.float8_e4m3fn and scale.shape == (6, 1)
    back = dequantise_fp8(stored, scale)
    assert torch.equal(back[3], torch.zeros(64))
    assert ((back - weight).norm(dim=1) <= 0.04 * weight.norm(dim=1)).all()


def test_errors(source, tmp_path):
    with pytest.raises(UserError, match="'Q4_K' is not known; choose one of bf16"):
        quantise_file(source[0], tmp_path / "x.gguf", "Q4_K")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: no Wan DIT in original names"):
        quantise_file(tmp_path / "other.safetensors", tmp_path / "x.gguf", "Q8_0")
    quantised = dit_files.weights() | {"blocks.0.self_attn.q.weight": torch.zeros(64, 64, dtype=torch.int8)}
    dit_files.save(tmp_path / "int8.safetensors", quantised)
    with pytest.raises(UserError, match=r"int8\.safetensors: blocks\.0\.self_attn\.q\.weight is stored as I8"):
        quantise_file(tmp_path / "int8.safetensors", tmp_path / "x.gguf", "Q8_0")
    half = {name: tensor for name, tensor in dit_files.weights().items() if not name.startswith("blocks.0.")}
    dit_files.save_gguf(tmp_path / "half.gguf", half)
    with pytest.raises(UserError, match=r"half\.gguf: .*missing .*blocks\.0"):
        quantise_file(tmp_path / "half.gguf", tmp_path / "x.gguf", "Q8_0")
    dit_files.save_gguf(tmp_path / "a.gguf", half, metadata=lambda writer: writer.add_uint16("split.count", 2))
    with pytest.raises(UserError, match=r"a\.gguf: it is one part of a split file"):
        quantise_file(tmp_path / "a.gguf", tmp_path / "x.gguf", "Q8_0")
    assert not (tmp_path / "x.gguf").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        quantise_file(source[0], tmp_path / "file" / "x.gguf", "Q8_0")


def test_only_the_dit_of_an_all_in_one_file_is_written(tmp_path):
    rest = {"vae.conv1.weight": torch.zeros(4, 4), "text_encoders.t5.spiece_model": torch.zeros(9, dtype=torch.uint8)}
    scaled = dit_files.scaled_fp8(dit_files.weights(), comfy_quant=dit_files.said("float8_e4m3fn"))
    path = dit_files.save(tmp_path / "all.safetensors", dit_files.prefixed(scaled) | rest)
    quantise_file(path, tmp_path / "x.gguf", "Q8_0")
    got = float_tensors(tmp_path / "x.gguf", read_dit(tmp_path / "x.gguf"))
    assert read_header(tmp_path / "x.gguf").tensors.keys() == dit_files.weights().keys()
    for name, tensor in dit_files.weights().items():
        assert (got[name] - tensor).norm() <= 0.04 * tensor.norm(), name


def test_command_line(source, tmp_path, monkeypatch, capsys):
    script, folder = ROOT / "tools/quantise.py", tmp_path / "folder"
    command = [script, "--input", source[0].parent, "--type", "Q8_0", "--output", folder]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_header(folder / "wan_high_noise.gguf").tensors
    command[2], command[-1] = tmp_path / "absent.gguf", tmp_path / "x"
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.argv[0], run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "absent.gguf: file not found" in said and "Traceback" not in said
