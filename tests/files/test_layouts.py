"""Text encoders, VAEs and DITs in the layouts that people have: the same numbers, bit for bit, or what is wrong."""

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from tests import dit_files  # noqa: E402
from tests.engines.random_models import randomised, write_text_encoder  # noqa: E402
from wan_ui.engines.dit import load_expert  # noqa: E402
from wan_ui.engines.text import load_text_encoder  # noqa: E402
from wan_ui.engines.vae import load_vae  # noqa: E402
from wan_ui.engines.wan_classes import AutoencoderKLWan  # noqa: E402
from wan_ui.errors import UserError  # noqa: E402
from wan_ui.files.dit_file import read_dit  # noqa: E402
from wan_ui.files.names import dit_name_map, gguf_t5_name_map, inverse, rename, t5_name_map, vae_name_map  # noqa: E402
from wan_ui.files.parts import find_parts, read_weights, weights_size  # noqa: E402
from wan_ui.files.tensors import read_pth  # noqa: E402
from wan_ui.files.text_file import text_is_fp8  # noqa: E402

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}


def save_parts(folder, tensors: dict, stem: str, count: int = 2, index: bool = True):
    """As save_pretrained writes what is too large for one file."""
    folder.mkdir(parents=True, exist_ok=True)
    names, where = list(tensors), {}
    for part in range(count):
        file = f"{stem}-{part + 1:05}-of-{count:05}.safetensors"
        own = {name: tensors[name].contiguous() for name in names[part::count]}
        save_file(own, folder / file)
        where |= dict.fromkeys(own, file)
    if index:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def assert_same(got, expected) -> None:
    got, expected = got.state_dict(), expected.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def in_transformers_names(tensors: dict) -> dict:
    renamed = rename(tensors, t5_name_map(2))
    return renamed | {"encoder.embed_tokens.weight": renamed["shared.weight"].clone()}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_text_encoder(folder / "models_t5_umt5-xxl-enc-bf16.pth", 40)
    return folder / "models_t5_umt5-xxl-enc-bf16.pth"


def test_text_encoder_of_every_layout(text, tmp_path):
    tensors, expected = read_pth(text), load_text_encoder(text, **CPU)
    renamed = in_transformers_names(tensors)
    comfy = renamed | {"spiece_model": torch.zeros(7, dtype=torch.uint8)}
    files = [
        save_parts(tmp_path / "text_encoder", renamed, "model"),
        dit_files.save(tmp_path / "umt5.safetensors", comfy),
        dit_files.save(tmp_path / "original.safetensors", tensors),
        dit_files.save_gguf(
            tmp_path / "umt5.gguf",
            {name: tensor.float() for name, tensor in rename(tensors, gguf_t5_name_map(2)).items()},
            arch="t5encoder",
        ),
    ]
    for path in files:
        assert_same(load_text_encoder(path, **CPU), expected)
        assert not text_is_fp8(path)


def test_scaled_text_encoders_are_the_product_with_their_scale(text, tmp_path):
    """ComfyUI's scale per tensor, old and new, and a `.pth` with one per channel."""
    expected = load_text_encoder(text, **CPU).state_dict()
    tensors = read_pth(text)
    for leaf, per in (("scale_weight", "tensor"), ("weight_scale", "tensor"), ("weight_scale", "channel")):
        scaled = {}
        for name, tensor in tensors.items():
            scaled[name] = tensor
            if ".attn." in name or ".ffn." in name:
                largest = tensor.float().abs()
                scale = (largest.max() if per == "tensor" else largest.amax(1, keepdim=True)) / 448
                scaled[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
                scaled[f"{name.removesuffix('weight')}{leaf}"] = scale
        if per == "channel":
            path = tmp_path / "t5-fp8.pth"
            torch.save(scaled, path)
        else:
            extra = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}
            path = dit_files.save(tmp_path / f"{leaf}.safetensors", rename(scaled, t5_name_map(2)) | extra)
        assert text_is_fp8(path)
        got = load_text_encoder(path, **CPU).state_dict()
        for name in expected:
            assert (got[name] - expected[name]).norm() <= 0.04 * expected[name].norm(), (leaf, name)


@pytest.mark.parametrize("residual", [False, True])
def test_vae_of_every_layout(residual, tmp_path):
    sizes = {"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
    if residual:
        sizes |= {
            "decoder_base_dim": 16, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12,
            "patch_size": 2, "scale_factor_spatial": 16, "temperal_downsample": [False, True, True],
        }  # fmt: skip
        sizes |= {"latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}
    vae = randomised(AutoencoderKLWan(**sizes))
    original = rename(vae.state_dict(), inverse(vae_name_map(4, 1, residual)))
    torch.save(original, tmp_path / "vae.pth")
    vae.save_pretrained(tmp_path / "vae")
    expected = load_vae(tmp_path / "vae.pth", **CPU)
    for path in (
        tmp_path / "vae",
        tmp_path / "vae/diffusion_pytorch_model.safetensors",
        dit_files.save(tmp_path / "comfy.safetensors", original),
    ):
        got = load_vae(path, **CPU)
        assert_same(got, expected)
        if not residual:  # the folder's config.json knows what tensors do not say
            assert got.config["latents_mean"] == expected.config["latents_mean"]


def test_dit_of_every_layout(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in dit_files.weights().items()}
    config = dit_files.write_config(tmp_path)

    def load(path):
        return load_expert(path, config, "high", **(CPU | {"dtype": torch.bfloat16}), quantised=True)

    expected = load(dit_files.save(tmp_path / "x.safetensors", tensors))
    folder = save_parts(tmp_path / "transformer", rename(tensors, dit_name_map(2)), "diffusion_pytorch_model", 3)
    for path in (
        folder,
        folder / "diffusion_pytorch_model.safetensors.index.json",
        folder / "diffusion_pytorch_model-00002-of-00003.safetensors",
        save_parts(tmp_path / "high_noise_model", tensors, "diffusion_pytorch_model", 2, index=False),
        dit_files.save(tmp_path / "comfy.safetensors", dit_files.prefixed(tensors)),
    ):
        assert_same(load(path), expected)
        assert weights_size(path) >= sum(tensor.nbytes for tensor in tensors.values())
    scaled = dit_files.scaled_fp8({name: tensor.float() for name, tensor in tensors.items()}, "scale_weight")
    one = load(dit_files.save(tmp_path / "fp8.safetensors", dit_files.prefixed(scaled)))
    other = load(save_parts(tmp_path / "fp8", rename(scaled, dit_name_map(2)), "diffusion_pytorch_model"))
    assert_same(one, other)


def test_what_is_missing_of_a_folder_is_named(tmp_path):
    tensors = {name: tensor.bfloat16() for name, tensor in dit_files.weights().items()}
    folder = save_parts(tmp_path / "transformer", tensors, "diffusion_pytorch_model", 3)
    second = folder / "diffusion_pytorch_model-00002-of-00003.safetensors"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"00002-of-00003\.safetensors: truncated or too long"):
        read_dit(folder)
    second.unlink()
    with pytest.raises(UserError, match=r"index\.json: 1 of 3 parts are missing \(first: .*00002-of-00003"):
        read_dit(folder)
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"1 of 3 parts are not beside it \(first: .*00002-of-00003"):
        read_dit(folder)
    second.write_bytes(whole)
    assert len(find_parts(folder)[0]) == 3 and len(read_weights(folder).tensors) == len(tensors)
    with pytest.raises(UserError, match=r"the folder holds no \.safetensors file"):
        read_dit(tmp_path)


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("not an index of weights", {"weights": {}}),
        ("not an index of weights", {"weight_map": {"a": {}}}),
        ("it names the part '../../x.safetensors'", {"weight_map": {"a": "../../x.safetensors"}}),
        ("it names 0 parts", {"weight_map": {}}),
    ],
)
def test_an_index_that_is_none(words, content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        read_weights(tmp_path)


def test_an_index_and_its_parts_that_disagree(tmp_path):
    folder = save_parts(tmp_path / "text_encoder", {"a": torch.zeros(2), "b": torch.zeros(2)}, "model")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": content["weight_map"] | {"c": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(UserError, match=r"00002-of-00002\.safetensors: the index says that tensor 'c' is in it"):
        read_weights(folder)
