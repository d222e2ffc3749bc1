"""Reading the official layout: sizes come from the files, and what is wrong is named."""

import io
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wan_ui.errors import UserError
from wan_ui.lipsync.files import PARSER, find_weights
from wan_ui.lipsync.musetalk import face_pixels, load_musetalk, load_vae, read_tensors
from wan_ui.lipsync.parsing import BiSeNet, LandmarkParser, load_parser

CPU = torch.device("cpu")


@pytest.fixture
def copy(weights, tmp_path):
    return shutil.copytree(weights, tmp_path / "musetalk")


def load(folder):
    return load_musetalk(folder, CPU, torch.float32)


def test_sizes_come_from_the_files(weights):
    musetalk = load(weights)
    assert (musetalk.side, musetalk.layers, musetalk.width) == (64, 3, 24)
    states = musetalk.hear(np.zeros(1000, np.float32))
    assert states.shape == (100, 3, 24)
    last = musetalk.encoder.layer_norm(musetalk.encoder.layers[1](states[None, :, 1]))[0]
    assert torch.allclose(states[:, 2], last, atol=1e-5)  # the last one is the normalised one


@pytest.mark.parametrize(
    "file, name, value, words",
    [
        ("config", "d_model", "24", "d_model is '24', expected a whole number"),
        ("config", "encoder_layers", True, "encoder_layers is True, expected a whole number"),
        ("config", "encoder_ffn_dim", 0, "encoder_ffn_dim is 0, expected a whole number"),
        ("config", "encoder_attention_heads", 5, "d_model 24 is not a multiple of encoder_attention_heads 5"),
        ("config", "activation_function", "relu", "activation_function is relu; Whisper's is gelu"),
        ("preprocessor_config", "chunk_length", 2.5, "chunk_length is 2.5, expected a whole number"),
        ("preprocessor_config", "hop_length", 80, "a segment of 400 steps of 80 numbers does not fit"),
        ("preprocessor_config", "feature_size", 128, "a segment of 200 steps of 128 numbers does not fit"),
    ],
)
def test_whisper_s_numbers_are_those_of_a_whisper(copy, file, name, value, words):
    path = copy / f"whisper/{file}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(UserError, match=f"whisper/{file}.json: {re.escape(words)}"):
        load(copy)


def test_missing_files_are_listed(copy):
    (copy / "musetalkV15/unet.pth").unlink()
    (copy / "whisper/config.json").unlink()
    with pytest.raises(UserError, match=r"musetalkV15/unet.pth, whisper/config.json"):
        load(copy)
    assert len(find_weights(copy)[1]) == 2


def test_safetensors_are_preferred(copy):
    state = torch.load(copy / "musetalkV15/unet.pth", weights_only=True)
    save_file({name: tensor + 1 for name, tensor in state.items()}, copy / "musetalkV15/unet.safetensors")
    unet = load(copy).unet.state_dict()
    assert all(torch.equal(unet[name], state[name] + 1) for name in state)


@pytest.mark.hardening(11)
def test_a_pickle_with_code_is_refused(copy, tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (copy / "musetalkV15/unet.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match=r"unet.pth: cannot be read"):
        load(copy)
    assert not (tmp_path / "ran").exists()


def save_old(value, path) -> None:
    """As torch before 1.6 wrote: the official 79999_iter.pth is such a file."""
    torch.save(value, path, _use_new_zipfile_serialization=False)


@pytest.mark.hardening(11)
def test_files_of_before_torch_1_6_are_read(copy):
    state = torch.load(copy / "musetalkV15/unet.pth", weights_only=True)
    save_old(state, copy / "musetalkV15/unet.pth")
    whisper = load_file(copy / "whisper/model.safetensors")
    (copy / "whisper/model.safetensors").unlink()
    save_old(whisper, copy / "whisper/pytorch_model.bin")
    vae = load_file(copy / "sd-vae/diffusion_pytorch_model.safetensors")
    (copy / "sd-vae/diffusion_pytorch_model.safetensors").unlink()
    save_old(vae, copy / "sd-vae/diffusion_pytorch_model.bin")
    (copy / PARSER).parent.mkdir()
    net = BiSeNet()
    save_old(net.state_dict(), copy / PARSER)
    musetalk = load(copy)
    assert all(torch.equal(musetalk.unet.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(torch.equal(musetalk.vae.state_dict()[name], tensor) for name, tensor in vae.items())
    read = load_parser(copy, CPU)._net.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.hardening(11)
@pytest.mark.parametrize("part", ["whole", "inside", "beside"])
def test_an_old_file_with_code_is_refused(tmp_path, part):
    """The old format is a row of pickles: code in none of them is run."""

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "79999_iter.pth"
    if part == "whole":
        path.write_bytes(pickle.dumps(Code()))
    elif part == "inside":
        save_old({"weight": torch.zeros(3), "code": Code()}, path)
    else:
        save_old({"weight": torch.zeros(3)}, path)
        raw = path.read_bytes()
        pieces = io.BytesIO(raw)
        for _ in range(3):  # magic number, protocol, facts of the system
            pickle.load(pieces)
        path.write_bytes(raw[: pieces.tell()] + pickle.dumps(Code()) + raw[pieces.tell() :])
    with pytest.raises(UserError, match=r"79999_iter.pth: (cannot be read|holds no named tensors)"):
        read_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_old_files_are_named_whatever_they_raise(tmp_path):
    path = tmp_path / "79999_iter.pth"
    save_old({f"layer{i}.weight": torch.randn(5, i + 1) for i in range(4)}, path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        broken = bytearray(whole[: random.integers(1, len(whole) + 1)])
        broken[random.integers(len(broken))] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            tensors = read_tensors(path)
        except UserError as error:
            assert "79999_iter.pth" in str(error)
            refused += 1
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert refused > 150
    torch.save([torch.zeros(2)], path)
    with pytest.raises(UserError, match=r"holds no named tensors but a list"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["musetalkV15/unet.pth", "whisper/model.safetensors"])
def test_a_truncated_file_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:2000])
    with pytest.raises(UserError, match=name.rsplit("/")[-1]):
        load(copy)


def test_a_truncated_vae_is_named(copy):
    path = copy / "sd-vae/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="sd-vae"):
        load(copy)


def test_weights_of_another_model_are_named(copy):
    config = json.loads((copy / "musetalkV15/musetalk.json").read_text())
    (copy / "musetalkV15/musetalk.json").write_text(json.dumps({**config, "block_out_channels": [16, 48]}))
    with pytest.raises(UserError, match=r"unet.pth: .* has shape"):
        load(copy)
    (copy / "musetalkV15/musetalk.json").write_text(json.dumps({**config, "in_channels": 4}))
    with pytest.raises(UserError, match="in_channels 8"):
        load(copy)
    (copy / "musetalkV15/musetalk.json").write_text("{")
    with pytest.raises(UserError, match="not readable JSON"):
        load(copy)


def test_audio_and_unet_must_fit(copy):
    state = load_file(copy / "whisper/model.safetensors")
    config = json.loads((copy / "whisper/config.json").read_text())
    for name, tensor in state.items():
        for axis, size in enumerate(tensor.shape):
            if size == 24:
                tensor = tensor.narrow(axis, 0, 16)
        state[name] = tensor.contiguous()
    save_file(state, copy / "whisper/model.safetensors")
    (copy / "whisper/config.json").write_text(json.dumps({**config, "d_model": 16}))
    with pytest.raises(UserError, match="cross_attention_dim 24 does not fit"):
        load(copy)


def test_the_old_attention_names_of_sd_vae(copy):
    """sd-vae-ft-mse was saved as query, key, value, proj_attn; it must give the same latents."""
    before = load(copy)
    path = copy / "sd-vae/diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for name, tensor in load_file(path).items():
        for new, was in old.items():
            name = name.replace(new, was)
        state[name] = tensor
    assert any(".proj_attn." in name for name in state)
    path.unlink()
    torch.save(state, path.with_suffix(".bin"))
    found, missing = find_weights(copy)
    assert not missing
    after = load_vae(found).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.vae.state_dict().items())


def test_pixels_are_masked_before_they_are_centred():
    faces = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    whole, masked = face_pixels(faces, False), face_pixels(faces, True)
    assert whole.min() >= -1 and whole.max() <= 1 and whole.shape == (2, 3, 64, 64)
    assert (masked[:, :, 32:] == -1).all() and torch.equal(masked[:, :, :32], whole[:, :, :32])


def test_the_parser_follows_the_files(copy):
    assert isinstance(load_parser(copy, CPU), LandmarkParser)
    (copy / PARSER).parent.mkdir()
    net = BiSeNet()
    torch.save({**net.state_dict(), "conv_out16.conv_out.weight": torch.zeros(19, 64, 1, 1)}, copy / PARSER)
    assert load_parser(copy, CPU).name == "BiSeNet"
    torch.save({"conv": torch.zeros(1)}, copy / PARSER)
    with pytest.raises(UserError, match=r"79999_iter.pth: has no tensor cp\.resnet"):
        load_parser(copy, CPU)
