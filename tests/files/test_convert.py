"""Converting between layouts: bit for bit there and back, whole or not at all, and what is lost is said."""

import errno
import json
import os
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests import dit_files  # noqa: E402
from tests.engines.random_models import randomised, write_text_encoder, write_tokenizer  # noqa: E402
from tests.files.test_layouts import save_parts  # noqa: E402
from wan_ui.__main__ import main  # noqa: E402
from wan_ui.engines.wan_classes import AutoencoderKLWan  # noqa: E402
from wan_ui.errors import UserError  # noqa: E402
from wan_ui.files import convert  # noqa: E402
from wan_ui.files.dit_file import read_dit  # noqa: E402
from wan_ui.files.identify import identify  # noqa: E402
from wan_ui.files.names import inverse, rename, vae_name_map  # noqa: E402
from wan_ui.files.tensors import float_tensors, read_pth  # noqa: E402

SPIECE = b"a sentencepiece model, for all that is looked at"


def quiet(words, done, total) -> None:
    assert 0 <= done <= total and words


def run(source, to, target, dtype="keep"):
    convert.write(convert.plan(source, to, dtype), target, quiet)
    return target


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        assert one[name].dtype == tensor.dtype and one[name].shape == tensor.shape
        assert torch.equal(one[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model in the official layout, its experts in parts."""
    root = tmp_path_factory.mktemp("model") / "official"
    write_tokenizer(root / "google/umt5-xxl")
    (root / "google/umt5-xxl/spiece.model").write_bytes(SPIECE)
    write_text_encoder(root / "models_t5_umt5-xxl-enc-bf16.pth", 40)
    vae = randomised(AutoencoderKLWan(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=1))
    torch.save(rename(vae.state_dict(), inverse(vae_name_map(4, 1))), root / "Wan2.1_VAE.pth")
    for seed, side in enumerate(("high", "low")):
        tensors = {name: tensor.bfloat16() for name, tensor in dit_files.weights(seed).items()}
        save_parts(root / f"{side}_noise_model", tensors, "diffusion_pytorch_model", 3)
        config = dit_files.CONFIG | {"model_type": "i2v"}
        (root / f"{side}_noise_model/config.json").write_text(json.dumps(config))
    return root


def all_of(root) -> dict:
    """Every tensor of an official folder."""
    found = {}
    for side in ("high", "low"):
        stored = read_dit(root / f"{side}_noise_model", side)
        found |= {f"{side} {name}": t for name, t in float_tensors(root / f"{side}_noise_model", stored).items()}
    found |= {f"text {name}": tensor for name, tensor in read_pth(root / "models_t5_umt5-xxl-enc-bf16.pth").items()}
    return found | {f"vae {name}": tensor for name, tensor in read_pth(root / "Wan2.1_VAE.pth").items()}


@pytest.mark.parametrize("way", ["diffusers", "comfyui"])
def test_there_and_back(model, way, tmp_path):
    there = run(model, way, tmp_path / way)
    back = run(there, "official", tmp_path / "back")
    same(all_of(back), all_of(model))
    if way == "diffusers":
        files = ["tokenizer.json", "spiece.model", "tokenizer_config.json"]
        assert all(
            (back / "google/umt5-xxl" / name).read_bytes() == (model / "google/umt5-xxl" / name).read_bytes()
            for name in files
        )
    else:
        names = sorted(str(path.relative_to(there)) for path in there.rglob("*.safetensors"))
        assert names == [
            "diffusion_models/wan_i2v_64_high_noise.safetensors",
            "diffusion_models/wan_i2v_64_low_noise.safetensors",
            "text_encoders/umt5_xxl.safetensors",
            "vae/wan_2.1_vae.safetensors",
        ]
        text = load_file(there / "text_encoders/umt5_xxl.safetensors")
        assert (
            bytes(text["spiece_model"].tolist()) == SPIECE and "encoder.block.0.layer.0.SelfAttention.q.weight" in text
        )
        assert (back / "spiece.model").read_bytes() == SPIECE


def test_diffusers_takes_the_folder(model, tmp_path):
    """diffusers' own loader, with nothing missing and nothing left over; the same numbers as ours."""
    folder = run(model, "diffusers", tmp_path / "model")
    config = json.loads((folder / "model_index.json").read_text())
    assert config["_class_name"] == "WanImageToVideoPipeline" and config["boundary_ratio"] == 0.9
    from diffusers import WanTransformer3DModel
    from transformers import UMT5EncoderModel

    for name, side in (("transformer", "high"), ("transformer_2", "low")):
        got, info = WanTransformer3DModel.from_pretrained(
            folder / name, torch_dtype=torch.float32, output_loading_info=True
        )
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert got.config.attention_head_dim == 32 and got.config.in_channels == 36
        original = dit_files.weights(("high", "low").index(side))
        assert torch.equal(got.state_dict()["blocks.1.attn2.to_k.weight"], original["blocks.1.cross_attn.k.weight"])
    text, info = UMT5EncoderModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    original = read_pth(model / "models_t5_umt5-xxl-enc-bf16.pth")
    assert torch.equal(text.shared.weight.bfloat16(), original["token_embedding.weight"])
    _, info = AutoencoderKLWan.from_pretrained(folder / "vae", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (folder / "scheduler/scheduler_config.json").is_file()


def test_scaled_fp8_stays_as_it_is_where_it_can(tmp_path):
    tensors = dit_files.scaled_fp8(dit_files.weights(), "scale_weight")
    comfy = dit_files.prefixed(tensors | {"scaled_fp8": torch.zeros(0, dtype=dit_files.E4M3)})
    source = dit_files.save(tmp_path / "wan_high_noise.safetensors", comfy)
    dit_files.write_config(tmp_path)
    official = run(source, "official", tmp_path / "official")
    stored = load_file(official / "diffusion_pytorch_model.safetensors")
    first = "blocks.0.self_attn.q.weight"
    assert stored[first].dtype == dit_files.E4M3 and stored[f"{first}_scale"].shape == (64, 1)
    assert identify(official).side == "high" and identify(official).kind == "fp8"
    back = load_file(run(official, "comfyui", tmp_path / "back.safetensors"))
    same(back, {name.removeprefix("model.diffusion_model."): tensor for name, tensor in comfy.items()})
    with pytest.raises(UserError, match=r"have scales, which a Diffusers folder has no place for; --dtype bf16"):
        convert.plan(source, "diffusers")
    plain = run(source, "diffusers", tmp_path / "plain", "bf16")
    same(float_tensors(plain, read_dit(plain)), {
        name: tensor.bfloat16().float() for name, tensor in float_tensors(source, read_dit(source)).items()
    })  # fmt: skip


def test_what_no_layout_holds_is_said(tmp_path):
    dit_files.write_config(tmp_path)
    channels = dit_files.save(tmp_path / "a.safetensors", dit_files.scaled_fp8(dit_files.weights(), per="channel"))
    with pytest.raises(UserError, match=r"a\.safetensors: its fp8 layers have a scale for every channel.*--dtype bf16"):
        convert.plan(channels, "comfyui")
    assert convert.plan(channels, "official")[0].notes[0] == "20 layers stay fp8 with their scales"
    blocks = dit_files.save_gguf(tmp_path / "b.gguf", dit_files.weights())
    for to in convert.LAYOUTS:
        with pytest.raises(UserError, match=r"b\.gguf: it is a GGUF file, whose blocks \(Q8_0\) no .*--dtype bf16"):
            convert.plan(blocks, to)
    assert run(blocks, "comfyui", tmp_path / "plain.safetensors", "fp16").is_file()


def refused(folder, name):
    if name == "a LoRA":
        return dit_files.save(folder / "x.safetensors", {"blocks.0.ffn.0.lora_down.weight": torch.zeros(4, 4)})
    if name == "Flux":
        return dit_files.save(folder / "x.safetensors", {"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)})
    if name == "VACE":
        more = {"vace_blocks.0.before_proj.weight": torch.zeros(4, 4)}
        return dit_files.save(folder / "x.safetensors", dit_files.weights() | more)
    path = dit_files.save(folder / "x.safetensors", dit_files.weights())
    path.write_bytes(path.read_bytes()[:-100])
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a LoRA", "a LoRA, not a model; put it into the LoRA folder"),
        ("Flux", "a Flux or Hunyuan transformer; Wan UI reads Wan's transformers"),
        ("VACE", "a Wan VACE transformer, which no model of the catalog runs"),
        ("cut off", "truncated or too long"),
    ],
)
def test_what_cannot_be_converted(name, words, tmp_path, capsys):
    path = refused(tmp_path, name)
    assert main(["convert", str(path), "--to", "diffusers"]) == 1
    assert f"{path}: {words}" in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.safetensors"]


def test_half_a_pair_and_two_of_one_kind(model, tmp_path):
    half = tmp_path / "half"
    for name in ("high_noise_model", "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"):
        half.mkdir(exist_ok=True)
        (half / name).symlink_to(model / name)
    with pytest.raises(UserError, match="only one expert of a pair is in it; the low-noise expert is missing"):
        convert.plan(half, "diffusers")
    (half / "low_noise_model").symlink_to(model / "low_noise_model")
    (half / "other.pth").symlink_to(model / "Wan2.1_VAE.pth")
    with pytest.raises(UserError, match=r"Wan2\.1_VAE\.pth and .*other\.pth are both its VAE; name the file"):
        convert.plan(half, "diffusers")


def test_a_full_disk_and_a_target_that_is_there(tmp_path, monkeypatch):
    source = dit_files.save(tmp_path / "x.safetensors", dit_files.weights())
    dit_files.write_config(tmp_path)
    parts = convert.plan(source, "comfyui")
    with pytest.raises(UserError, match=r"x\.safetensors: it is there already; name another with --out"):
        convert.write(parts, source, quiet)
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        convert.write(parts, tmp_path / "y", quiet)
    target = tmp_path / "new" / "y.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(convert.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
        with pytest.raises(UserError, match=r"GB are to be written, and .* has 0\.00 GB free; make room"):
            convert.write(parts, target, quiet)
    assert not target.parent.exists()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(convert.os, "fsync", full)
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            convert.write(parts, target, quiet)
    assert list(target.parent.iterdir()) == []


def test_other_bytes_than_were_written_are_noticed(tmp_path, monkeypatch):
    source = dit_files.save(tmp_path / "x.safetensors", dit_files.weights())
    dit_files.write_config(tmp_path)
    check = convert._check_part

    def damaged(part, path, *rest):
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        check(part, path, *rest)

    monkeypatch.setattr(convert, "_check_part", damaged)
    with pytest.raises(UserError, match="was read back with other numbers"):
        run(source, "comfyui", tmp_path / "y.safetensors")
    assert not (tmp_path / "y.safetensors").exists() and not list(tmp_path.glob(".*"))


def test_the_command_line(tmp_path, capsys):
    dit_files.write_config(tmp_path)
    source = dit_files.save(tmp_path / "x.safetensors", dit_files.weights())
    assert main(["convert", str(source), "--to", "diffusers", "--dry-run"]) == 0
    assert not (tmp_path / "x-diffusers").exists()
    assert main(["convert", str(source), "--to", "diffusers"]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'x-diffusers'}: written, and every tensor compared with its source" in said.out
    assert "left" in said.err
    assert sorted(path.name for path in (tmp_path / "x-diffusers").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    assert main(["convert", str(source), "--to", "gguf"]) == 1
    assert "choose one of official, diffusers, comfyui" in capsys.readouterr().err


def test_an_all_in_one_file_becomes_a_folder_of_its_parts(model, tmp_path):
    """As ComfyUI saves one: the other parts behind prefixes, the tokenizer as a tensor."""
    comfy = run(model, "comfyui", tmp_path / "parts")
    transformer = next((comfy / "diffusion_models").glob("*high*"))
    text, vae = (load_file(next((comfy / part).glob("*"))) for part in ("text_encoders", "vae"))
    whole = {f"model.diffusion_model.{name}": tensor for name, tensor in load_file(transformer).items()}
    whole |= {f"vae.{name}": tensor for name, tensor in vae.items()}
    for name, tensor in text.items():
        whole[f"text_encoders.umt5xxl.{'' if name == 'spiece_model' else 'transformer.'}{name}"] = tensor
    file = tmp_path / "all-in-one.safetensors"
    save_file(whole, file)
    config = model / "high_noise_model/config.json"  # no release is as small
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    again = run(file, "comfyui", tmp_path / "again")
    same(load_file(next((again / "diffusion_models").glob("*"))), load_file(transformer))
    same(load_file(next((again / "text_encoders").glob("*"))), text)
    same(load_file(next((again / "vae").glob("*"))), vae)
    official = run(file, "official", tmp_path / "official")
    same(read_pth(official / "Wan2.1_VAE.pth"), read_pth(model / "Wan2.1_VAE.pth"))
    same(read_pth(official / "models_t5_umt5-xxl-enc-bf16.pth"), read_pth(model / "models_t5_umt5-xxl-enc-bf16.pth"))
    assert (official / "diffusion_pytorch_model.safetensors").is_file()
    assert (run(file, "diffusers", tmp_path / "diffusers") / "model_index.json").is_file()
