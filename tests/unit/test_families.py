"""The records of the model families, and that another family is one record and entries of the catalog."""

import json
import pickle
from dataclasses import replace

import pytest

from wan_ui import loras
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.families import DIT, FAMILIES, TRANSFORMERS, VAE_22, may_have_experts, patch_channels
from wan_ui.files import places
from wan_ui.files.dit_file import read_dit
from wan_ui.machine import shapes
from wan_ui.qa import layouts, synthetic
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings

TEXT_ONLY = replace(FAMILIES["a14b"], name="t2v-a14b", condition="none", model_type="t2v", task="t2v")
TEXT_5B = replace(
    FAMILIES["5b"], name="t2v-5b", vae=replace(VAE_22, file="other_VAE.pth"), condition="none", model_type="t2v"
)
ENTRY = """
[{name}]
title = "{name}, another family"
family = "{family}"
tasks = ["text-to-video"]
root = "local/{name}"
needs_gpu = true
sizes = ["480x480", "832x480"]
frames = [17, 81]
default_frames = 81
steps = [1, 8]
default_steps = 4
shift = 5.0
boundary = {boundary}
default_scheme = "{kind}"
schemes.{kind} = {{ title = "{kind}", kind = "{kind}", distilled = {distilled}, {files} }}
[repositories."local/{name}".files]
"high.safetensors" = {{ size = 14_000_000_000 }}
"low.safetensors" = {{ size = 15_000_000_000 }}
"lora.safetensors" = {{ size = 1_000_000_000 }}
"{vae}" = {{ size = 500_000_000 }}
"models_t5_umt5-xxl-enc-bf16.pth" = {{ size = 11_000_000_000 }}
"""


@pytest.fixture
def more(monkeypatch, tmp_path):
    """Settings with a catalog of two models of other families: text alone, with two experts and with one."""
    monkeypatch.setitem(FAMILIES, TEXT_ONLY.name, TEXT_ONLY)
    monkeypatch.setitem(FAMILIES, TEXT_5B.name, TEXT_5B)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file, revision: None)
    two = 'high = "local/two:high.safetensors", low = "local/two:low.safetensors"'
    one = 'high = "local/one:high.safetensors", lora_high = "local/one:lora.safetensors"'
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(
        ENTRY.format(
            name="two",
            kind="fp8",
            family="t2v-a14b",
            boundary=0.875,
            distilled="true",
            files=two,
            vae=TEXT_ONLY.vae.file,
        )
        + ENTRY.format(
            name="one", kind="bf16", family="t2v-5b", boundary=0, distilled="false", files=one, vae=TEXT_5B.vae.file
        )
    )
    return replace(Settings(), catalog=catalog, models=tmp_path / "models", loras=tmp_path / "loras")


def test_what_the_released_families_are():
    a14b, small = FAMILIES["a14b"], FAMILIES["5b"]
    assert a14b.sides == ("high", "low") and small.sides == ("",)
    assert (a14b.token, small.token) == (16, 32)
    assert (a14b.input_channels, small.input_channels) == (36, 48)
    assert a14b.vae.latents(832, 480, 81) == (16, 21, 60, 104)
    assert small.vae.latents(832, 480, 81) == (48, 21, 30, 52)
    assert a14b.condition_shape(832, 480, 81) == (20, 21, 60, 104) and a14b.condition_frames(81) == 81
    assert small.condition_shape(832, 480, 81) == (48, 1, 30, 52) and small.condition_frames(81) == 1
    assert a14b.tokens(480, 480, 81) == 21 * 30 * 30 and small.tokens(480, 480, 81) == 21 * 15 * 15
    assert patch_channels("a14b") == {36, 16} and patch_channels("5b") == {48}
    assert may_have_experts("wan-tiny") and may_have_experts("a14b") and not may_have_experts("5b")
    for name, record in FAMILIES.items():
        assert record.name == name and pickle.loads(pickle.dumps(record)) == record
        with pytest.raises(AttributeError):
            record.name = "other"


def test_another_family_is_a_record_and_an_entry(more):
    models = load_catalog(more.catalog)
    two, one = models["two"], models["one"]
    assert two.family is TEXT_ONLY and two.fps == 16 and one.fps == 24
    assert TEXT_ONLY.input_channels == 16 and TEXT_ONLY.condition_shape(480, 480, 81) == (0, 21, 60, 60)
    assert TEXT_ONLY.condition_frames(81) == 0

    # files
    refs = places.needed_files(two, two.scheme(""), "lightx2v")
    assert [ref.partition(":")[2] for ref in refs] == [
        "high_noise_model/config.json", "low_noise_model/config.json", *places.TOKENIZER_FILES, places.T5_FILE,
        "Wan2.1_VAE.pth", "high.safetensors", "low.safetensors",
    ]  # fmt: skip
    refs = [ref.partition(":")[2] for ref in places.needed_files(one, one.scheme(""), "lightx2v")]
    assert refs[0] == "config.json" and refs[-3:] == ["other_VAE.pth", "high.safetensors", "lora.safetensors"]
    with pytest.raises(UserError, match="8 of 8 files are missing"):
        places.locate(two, two.scheme(""), more, "lightx2v")
    everything, one_expert = places.gpu_memory_wanted(two, two.scheme(""), "lightx2v")
    beside = places.work(480, 480)
    assert everything == pytest.approx((14e9 + 15e9 + 11e9 + 0.5e9 + beside) / 2**30)
    assert one_expert == pytest.approx((15e9 + beside) / 2**30)

    # what its files are, written as a download would and read again
    for model in (two, one):
        scheme = model.scheme("")
        synthetic.write(model, scheme, more, "lightx2v")
        paths = places.locate(model, scheme, more, "lightx2v")
        assert model.family.root(paths.configs[0]) == more.models / model.root
        config = json.loads(paths.configs[0].read_text())
        assert config["in_dim"] == model.family.input_channels and config["model_type"] == "t2v"
        for expert, path, file in zip(model.family.experts, paths.experts, paths.configs, strict=True):
            stored = read_dit(path, expert.side, file)
            assert stored["patch_embedding.weight"].shape == (
                model.family.transformer.width, model.family.vae.channels, 1, 2, 2,
            )  # fmt: skip
    assert layouts.vae(TEXT_5B.vae) == layouts.vae(FAMILIES["5b"].vae)

    # what its blocks work on
    shape = shapes.shape_of(two, 480, 480, 81)
    assert (shape.tokens, shape.heads, shape.head_dim, shape.ffn) == (18900, 40, 128, 13824)


def test_loras_of_another_family_are_told_by_its_transformer(more):
    models = load_catalog(more.catalog)
    two, one = models["two"], models["one"]
    assert patch_channels("a14b") == {36, 16}, "with a picture's channels, and without"
    more.loras.mkdir()
    for name in ("style_high_noise", "style_low_noise", "small"):
        family = TEXT_5B if name == "small" else TEXT_ONLY
        path = more.loras / f"{name}.safetensors"
        synthetic.write_hole(path, layouts.lora(layouts.dit_config(family)), name)
    pair = loras.find("style (high + low)", loras.scan(more.loras))
    assert pair.fits == "a14b" and loras.fits(pair, two) == "" and loras.suggest(pair, two)[0] == "both"
    assert "not for one, another family" in loras.fits(pair, one)
    specs = loras.check([LoraSpec("small.safetensors", 1.0, "auto")], one, more)
    assert specs[0].target == "both"
    with pytest.raises(UserError, match="one, another family has one expert; the target is both"):
        loras.check([LoraSpec("small.safetensors", 1.0, "high_noise")], one, more)


def test_a_single_transformer_of_that_size_leaves_pairs_alone(more, monkeypatch):
    """Speech-to-video has one expert as wide as A14B's: files of A14B are joined to pairs as before."""
    single = replace(TEXT_ONLY, name="single", experts=(DIT,), transformer=TRANSFORMERS["a14b"])
    monkeypatch.setitem(FAMILIES, "single", single)
    more.loras.mkdir()
    for name in ("style_high_noise", "style_low_noise"):
        layout = layouts.lora(layouts.dit_config(FAMILIES["a14b"]))
        synthetic.write_hole(more.loras / f"{name}.safetensors", layout, name)
    assert "style (high + low)" in [entry.name for entry in loras.scan(more.loras)]


def test_as_many_files_as_experts(more):
    text = more.catalog.read_text()
    more.catalog.write_text(text.replace(', low = "local/two:low.safetensors"', ""))
    load_catalog.cache_clear()
    with pytest.raises(UserError, match=r"\[two\]: two: fp8 names 1 files of experts, its family has 2"):
        load_catalog(more.catalog)
