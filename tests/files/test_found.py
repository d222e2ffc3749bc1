"""What lies in a ComfyUI installation and in the models folder becomes schemes, told by content."""

import json
import re
import struct
from dataclasses import replace

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

from wan_ui import loras
from wan_ui.engines import lightx2v_config
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.files import comfyui, found, identify, places, spiece
from wan_ui.files.dit_file import parameters
from wan_ui.files.names import dit_name_map, rename, t5_name_map
from wan_ui.files.text_file import read_text
from wan_ui.files.tokenizer import load_tokenizer
from wan_ui.qa import layouts
from wan_ui.qa.synthetic import write_hole
from wan_ui.settings import Settings, load_settings

T5_SIZES = {"vocabulary": 300, "dim": 64, "ffn": 96, "heads": 4, "layers": 2, "buckets": 8}


def full_size(path, family="a14b", kind="BF16", change=lambda names: names, name=""):
    """A sparse file with the names and shapes of a released transformer, of nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {key: (kind, shape) for key, shape in parameters(layouts.dit_config(FAMILIES[family])).items()}
    write_hole(path, change(layout), name)
    return path


def text_encoder(path, kind="BF16", spiece_model=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = rename({key: (kind, shape) for key, (_, shape) in layouts.t5(T5_SIZES, fp8=False).items()}, t5_name_map(2))
    if spiece_model:
        layout["spiece_model"] = ("U8", (len(spiece_model),))
    write_hole(path, layout, "")
    if spiece_model:
        with path.open("r+b") as file:
            file.seek(-len(spiece_model), 2)
            file.write(spiece_model)
    return path


@pytest.fixture(scope="module")
def model_of_words(tmp_path_factory):
    """A small unigram model with byte fallback, as UMT5's is."""
    folder = tmp_path_factory.mktemp("spiece")
    text = folder / "text"
    text.write_text(
        "the camera slowly zooms in, sunset light over the sea\nwaves and night fog, a cat pans left\n" * 20
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "m"), vocab_size=330, byte_fallback=True, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2, normalization_rule_name="nmt_nfkc",
    )  # fmt: skip
    return folder / "m.model"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file, revision: None)
    monkeypatch.setattr(found, "FRESH", 1e-9)
    for folder in ("comfy", "models", "cache"):
        (tmp_path / folder).mkdir()
    return replace(Settings(), models=tmp_path / "models", cache=tmp_path / "cache", comfyui=str(tmp_path / "comfy"))


def schemes(settings, model):
    return {name: s for name, s in found.models(settings)[model].schemes.items() if name.startswith(found.PREFIX)}


def test_an_installation_of_comfyui_serves_without_a_download(settings, tmp_path, model_of_words):
    models = tmp_path / "comfy/models"
    for side in ("high", "low"):
        file = models / f"diffusion_models/sub/wan2.2_i2v_{side}_noise_14B_fp8_scaled.safetensors"
        full_size(file, change=lambda t: {f"model.diffusion_model.{name}": entry for name, entry in t.items()})
    text = text_encoder(models / "text_encoders/anything.safetensors", spiece_model=model_of_words.read_bytes())
    (models / "vae").mkdir()
    write_hole(models / "vae/x.safetensors", layouts.vae(FAMILIES["a14b"].vae), "")
    model = found.models(settings)["i2v-a14b"]
    scheme = schemes(settings, "i2v-a14b")["found-wan2.2-i2v-14B-fp8-scaled"]
    assert (scheme.kind, scheme.distilled) == ("bf16", False) and "2 x 28.6 GB" in scheme.title
    for engine in ("diffusers", "lightx2v"):
        assert None not in places.files(model, scheme, settings, engine).values()
        paths = places.locate(model, scheme, settings, engine)
        assert [path.name for path in paths.experts] == [
            "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors",
            "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors",
        ]
        assert paths.t5 == text.resolve() and paths.vae.name == "x.safetensors"
        assert json.loads(paths.configs[1].read_text()) == layouts.dit_config(FAMILIES["a14b"])
        tokenizer = load_tokenizer(paths.tokenizer, 64)
        assert tokenizer.encode("the sea").ids[-1] == 1
    assert places.gpu_memory_wanted(model, scheme, "diffusers")[0] > 2 * 26
    assert schemes(settings, "ti2v-5b") == {}


def test_an_all_in_one_file_is_a_whole_model(settings, tmp_path, model_of_words):
    """Transformer, text encoder, tokenizer and VAE out of the one file; nothing else is here."""
    raw = model_of_words.read_bytes()
    text = {key: ("BF16", shape) for key, (_, shape) in layouts.t5(T5_SIZES, fp8=False).items()}
    text = rename(text, t5_name_map(2)) | {"logit_scale": ("F32", ())}
    inside = {f"text_encoders.umt5xxl.transformer.{name}": entry for name, entry in text.items()}
    inside |= {f"vae.{name}": entry for name, entry in layouts.vae(FAMILIES["5b"].vae).items()}
    inside["text_encoders.umt5xxl.spiece_model"] = ("U8", (len(raw),))
    file = full_size(
        tmp_path / "comfy/models/checkpoints/wan2.2-rapid-aio.safetensors", "5b",
        change=lambda t: {f"model.diffusion_model.{name}": entry for name, entry in t.items()} | inside,
    )  # fmt: skip
    with file.open("r+b") as raw_file:
        raw_file.seek(-len(raw), 2)
        raw_file.write(raw)
    what = identify.identify(file)
    assert (what.part, what.problem) == ("transformer", "")
    assert [(part.part, part.layout, part.channels) for part in what.inside] == [
        ("text encoder", "comfyui", 0),
        ("VAE", "comfyui", 48),
    ]
    model = found.models(settings)["ti2v-5b"]
    scheme = next(s for name, s in model.schemes.items() if name.startswith(found.PREFIX))
    paths = places.locate(model, scheme, settings, "diffusers")
    assert {path.name for path in (*paths.experts, paths.t5, paths.vae)} == {file.name}
    assert load_tokenizer(paths.tokenizer, 64).encode("the sea").ids[-1] == 1
    assert set(read_text(paths.t5)) == set(layouts.t5(T5_SIZES, fp8=False))
    with pytest.raises(UserError, match="the text encoder inside an all-in-one file; choose the diffusers engine"):
        lightx2v_config.from_paths(model, scheme, paths, "Default", "")
    alone = text_encoder(tmp_path / "comfy/models/text_encoders/alone.safetensors", "F8_E4M3")
    assert places.locate(model, scheme, settings, "diffusers").t5 == alone.resolve(), "one of its own goes before"


def test_the_ids_are_sentencepieces(model_of_words, tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(spiece.tokenizer_json(model_of_words.read_bytes(), model_of_words))
    ours, theirs = load_tokenizer(folder, 512), sentencepiece.SentencePieceProcessor(model_file=str(model_of_words))
    for text in ("the camera zooms in", "Ünïcode ﬁn, 猫 🎬", "zzz qqq", "a  b", " x", "waves,waves", "½ ①"):
        assert ours.encode(text).ids == [*theirs.encode(text), 1], text


@pytest.mark.parametrize("raw", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x7f", b"not a model", struct.pack("<Q", 2**63)])
def test_what_is_no_sentencepiece_model(raw, tmp_path):
    with pytest.raises(UserError, match="its tokenizer is not a sentencepiece model"):
        spiece.tokenizer_json(raw, tmp_path / "x.safetensors")


def test_folders_of_diffusers_and_of_the_release(settings, tmp_path):
    """Below the models folder, sharded or not; the pair of Diffusers by its folders."""
    root = tmp_path / "models/someone/Wan2.2-I2V-Diffusers"
    for folder in ("transformer", "transformer_2"):
        full_size(
            root / folder / "diffusion_pytorch_model.safetensors",
            change=lambda t: {k: v for k, v in rename(t, dit_name_map(40)).items()},
        )
    full_size(tmp_path / "models/mine/Wan2.2-TI2V-5B/diffusion_pytorch_model.safetensors", "5b")
    (scheme,) = schemes(settings, "i2v-a14b").values()
    assert scheme.high.endswith("transformer/diffusion_pytorch_model.safetensors")
    assert scheme.low.endswith("transformer_2/diffusion_pytorch_model.safetensors")
    assert scheme.title.startswith("Found here: Wan2.2-I2V-Diffusers (plain numbers, 2 x 28.6 GB)")
    (other,) = schemes(settings, "ti2v-5b-full").values()
    assert "Wan2.2-TI2V-5B" in other.title and not schemes(settings, "ti2v-5b")


def test_what_says_that_it_is_distilled_goes_to_the_quick_model(settings, tmp_path):
    full_size(tmp_path / "comfy/models/unet/Wan2_2-TI2V-5B-Turbo.safetensors", "5b")
    (scheme,) = schemes(settings, "ti2v-5b").values()
    assert scheme.distilled and not schemes(settings, "ti2v-5b-full") and not schemes(settings, "fastwan-5b")
    full_size(tmp_path / "models/FastWan2.2-TI2V-5B/transformer/diffusion_pytorch_model.safetensors", "5b")
    (scheme,) = schemes(settings, "fastwan-5b").values()
    assert scheme.distilled and len(schemes(settings, "ti2v-5b")) == 1


def test_what_is_of_no_use_is_said(settings, tmp_path):
    folder = tmp_path / "comfy/models/diffusion_models"
    full_size(folder / "wan_high_noise.safetensors")
    with (folder / "wan_high_noise.safetensors").open("rb") as file:
        (folder / "wan_cut.safetensors").write_bytes(file.read(5000))
    wide = layouts.dit_config(FAMILIES["5b"]) | {"dim": 2048, "num_heads": 16}
    write_hole(folder / "wide.safetensors", {k: ("BF16", s) for k, s in parameters(wide).items()}, "")
    (folder / "wide.safetensors").with_name("config.json").write_text(json.dumps(wide))
    write_hole(folder / "flux.safetensors", {"double_blocks.0.x.weight": ("BF16", (2, 2))}, "")
    said = "\n".join(found.problems(settings))
    assert (
        "wan_high_noise.safetensors: one half of Wan2.2 I2V A14B" in said and "its low-noise expert is not here" in said
    )
    assert "wide.safetensors: a Wan transformer 2048 wide of 30 blocks that takes 48 channels" in said
    assert re.search(r"wan_cut\.safetensors: not a safetensors file \(header of \d+ bytes in a file of 5000\)", said)
    assert "flux" not in said  # other programs' files are no trouble
    assert schemes(settings, "i2v-a14b") == {}
    assert "a Flux or Hunyuan transformer" in identify.identify(folder / "flux.safetensors").problem


YAML = """
# a person's file
comfyui:
    base_path: {base}
    is_default: true
    diffusion_models: |
        some/place
        other/place
    vae: [elsewhere]
broken: 7
empty:
a111:
    base_path: /nowhere
    loras: models/Lora
"""


def test_extra_model_paths(settings, tmp_path):
    for folder in ("base/some/place", "base/other/place", "base/elsewhere", "comfy/models/unet"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "comfy" / comfyui.YAML).write_text(YAML.format(base=tmp_path / "base"))
    places_found = [
        path.relative_to(tmp_path).as_posix() for path in comfyui.folders(settings, "diffusion_models", "vae")
    ]
    assert places_found == ["base/some/place", "base/other/place", "base/elsewhere"]
    assert comfyui.folders(settings, "loras") == []
    (tmp_path / "comfy" / comfyui.YAML).write_text("a: [unclosed\n\tx")
    assert comfyui.folders(settings, "unet") == [tmp_path / "comfy/models/unet"]
    direct = replace(settings, comfyui=str(tmp_path / "comfy/models"))
    assert comfyui.folders(direct, "unet") == [tmp_path / "comfy/models/unet"]


def test_loras_of_an_installation_are_offered(settings, tmp_path):
    tensors = {"diffusion_model.blocks.0.self_attn.q.lora_down.weight": torch.zeros(4, 5120)}
    tensors["diffusion_model.blocks.0.self_attn.q.lora_up.weight"] = torch.zeros(5120, 4)
    (tmp_path / "comfy/models/loras").mkdir(parents=True)
    save_file(tensors, tmp_path / "comfy/models/loras/style.safetensors")
    settings = replace(settings, loras=tmp_path / "loras")
    (entry,) = [entry for entry in loras.available(settings) if not entry.shipped]
    assert entry.name == "style.safetensors" and not entry.problem and entry.fits == "a14b"
    assert loras.find("style.safetensors", loras.available(settings)).files == entry.files


def test_a_folder_that_is_not_there_is_refused_at_start():
    with pytest.raises(UserError, match="WAN_UI_COMFYUI: '/nowhere/at/all' is no folder"):
        load_settings({"WAN_UI_COMFYUI": "/nowhere/at/all"})


def test_a_file_that_is_called_wan_and_is_of_an_unknown_kind_is_named(tmp_path):
    """Files of other programs lie beside ours, and are nobody's business."""
    for name in ("wan-something.safetensors", "flux-dev.safetensors"):
        save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(4, 4)}, tmp_path / name)
    said = found.problems(Settings(models=tmp_path))
    assert len(said) == 1 and "wan-something.safetensors: a Flux or Hunyuan transformer; Wan UI reads" in said[0]
