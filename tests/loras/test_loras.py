"""LoRA files: what a folder holds, what each file is, which expert it belongs on, and what is refused."""

import json
import os
import re
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from wan_ui import loras
from wan_ui.__main__ import main
from wan_ui.catalog import load_catalog
from wan_ui.commands.options import lora_spec
from wan_ui.errors import UserError
from wan_ui.loras import folder as folder_module
from wan_ui.loras import keys
from wan_ui.loras.folder import lora_header
from wan_ui.loras.keys import parse
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings

CATALOG = load_catalog(Settings().catalog)
TINY, A14B, TI2V = (CATALOG[name] for name in ("wan-tiny", "i2v-a14b", "ti2v-5b"))
PAIR = "diffusion_model.blocks.{}.self_attn.q.lora_{}.weight"


def write(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], metadata: dict | None = None) -> None:
    """A safetensors file of zeros, name -> (dtype, shape); sparse, so that large ones cost nothing."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U16": 2, "I8": 1}
    entries, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, (dtype, shape) in tensors.items():
        size = sizes[dtype]
        for number in shape:
            size *= number
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(entries).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + offset)


def lora(path: Path, width=256, rank=8, blocks=2, metadata=None, keys=PAIR) -> Path:
    tensors = {}
    for block in range(blocks):
        tensors[keys.format(block, "A")] = ("BF16", (rank, width))
        tensors[keys.format(block, "B")] = ("BF16", (width, rank))
    write(path, tensors, metadata)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"


@pytest.fixture
def settings(folder):
    return replace(Settings(), loras=folder)


def entry(folder, name="a.safetensors", **options):
    lora(folder / name, **options)
    return loras.find(name, loras.scan(folder))


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocks.3.self_attn.q.lora_down.weight", ("lightx2v", "blocks.3.self_attn.q", "down")),
        ("diffusion_model.blocks.0.ffn.0.lora_A.weight", ("kijai", "blocks.0.ffn.0", "down")),
        ("diffusion_model.blocks.0.norm3.diff", ("kijai", "blocks.0.norm3", "diff")),
        ("diffusion_model.blocks.0.cross_attn.k.diff_b", ("kijai", "blocks.0.cross_attn.k", "diff_b")),
        ("diffusion_model.blocks.5.diff_m", ("kijai", "blocks.5.modulation", "diff")),
        ("diffusion_model.head.diff_m", ("kijai", "head.modulation", "diff")),
        ("diffusion_model.patch_embedding.diff_b", ("kijai", "patch_embedding", "diff_b")),
        ("model.diffusion_model.head.head.lora_up.weight", ("model-prefix", "head.head", "up")),
        ("lora_unet_blocks_10_cross_attn_o.alpha", ("kohya", "blocks.10.cross_attn.o", "alpha")),
        ("lora_unet__blocks_1_ffn_2.lora_up.weight", ("kohya", "blocks.1.ffn.2", "up")),
        ("lora_unet_blocks_1_attn1_to_out_0.lora_up.weight", ("kohya", "blocks.1.self_attn.o", "up")),
        ("lora_unet_time_embedding_0.lora_down.weight", ("kohya", "time_embedding.0", "down")),
        ("transformer.blocks.0.attn2.to_k.lora_B.weight", ("peft", "blocks.0.cross_attn.k", "up")),
        ("transformer.blocks.0.ffn.net.0.proj.lora_A.default.weight", ("peft", "blocks.0.ffn.0", "down")),
        ("transformer.proj_out.lora_A.weight", ("peft", "head.head", "down")),
        ("base_model.model.blocks.7.self_attn.v.lora_A.default.weight", ("peft", "blocks.7.self_attn.v", "down")),
        (
            "base_model.model.transformer.condition_embedder.time_proj.lora_B.weight",
            ("peft", "time_projection.1", "up"),
        ),
        ("lora_unet_blocks_0.cross_attn.k.lora_down.weight", ("kohya", "blocks.0.cross_attn.k", "down")),
        ("lycoris_blocks_0_attn1_to_k.alpha", ("kohya", "blocks.0.self_attn.k", "alpha")),
        ("lora_transformer_blocks_0_ffn_net_2.lora_up.weight", ("kohya", "blocks.0.ffn.2", "up")),
        ("transformer.blocks.0.attn1.to_k.lora_B.bias", ("peft", "blocks.0.self_attn.k", "up_bias")),
        ("blocks.0.cross_attn.k.lora_B.default.bias", ("lightx2v", "blocks.0.cross_attn.k", "up_bias")),
        ("lycoris_blocks_0_norm2.w_norm", ("kohya", "blocks.0.norm3", "diff")),
        (
            "transformer.condition_embedder.image_embedder.ff.net.2.lora_A.weight",
            ("peft", "img_emb.proj.3", "down"),
        ),
        ("_orig_mod.blocks.0.ffn.0.lora_A.weight", ("lightx2v", "blocks.0.ffn.0", "down")),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", None),
        ("diffusion_model.blocks.0.self_attn.z.lora_A.weight", None),
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", None),
        ("blocks.99999.self_attn.q.lora_A.weight", None),
    ],
)
def test_keys(name, expected):
    assert parse(name) == expected


# ---------------------------------------------------------------- what a file is


def test_what_a_file_is(folder):
    metadata = {"trigger_words": "sepia look, old film", "notes": "  warm\nand brown ", "expert": "low_noise"}
    found = entry(folder, "styles/sepia.safetensors", rank=8, metadata=metadata)
    assert (found.name, found.fits, found.ranks, found.key_format) == (
        "styles/sepia.safetensors",
        "wan-tiny",
        (8,),
        "kijai",
    )
    assert found.layers == {"both": 2} and not found.paired and not found.problem
    assert found.trigger_words == ("sepia look", "old film") and found.notes == "warm and brown"
    assert found.made_for == "low_noise" and "metadata" in found.made_for_why
    assert "rank 8" in found.title and "low noise" in found.title
    json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"width": 5120, "blocks": 40}, "a14b"),
        ({"width": 3072, "blocks": 30}, "5b"),
        ({"width": 1536}, "wan2.1"),
        ({"width": 5120, "metadata": {"ss_base_model_version": "wan2.1_i2v_14b"}}, "wan2.1"),
        ({"width": 5120, "keys": PAIR.replace("self_attn.q", "cross_attn.k_img")}, "wan2.1"),
        ({"width": 256, "blocks": 12}, "other"),
        ({"width": 3840}, "other"),
    ],
)
def test_base_model(folder, options, fits):
    assert entry(folder, **options).fits == fits


@pytest.mark.parametrize(
    ("name", "metadata", "made_for"),
    [
        ("style_high_noise.safetensors", None, "high_noise"),
        ("Style-LowNoise-v2.safetensors", None, "low_noise"),
        ("style_LOW.safetensors", None, "low_noise"),
        ("high_quality_lowpoly.safetensors", None, "unknown"),
        ("style.safetensors", None, "unknown"),
        ("style.safetensors", {"ss_min_timestep": "875", "ss_max_timestep": "1000"}, "high_noise"),
        ("style.safetensors", {"ss_min_timestep": "0", "ss_max_timestep": "900"}, "low_noise"),
        ("style_high_noise.safetensors", {"expert": "both"}, "both"),
        ("style.safetensors", {"ss_output_name": "style_high_noise"}, "high_noise"),
    ],
)
def test_made_for(folder, name, metadata, made_for):
    found = entry(folder, name, metadata=metadata)
    assert found.made_for == made_for and found.made_for_why


def test_keys_of_the_second_transformer_are_low_noise(folder):
    keys = "transformer{}.blocks.{{}}.attn1.to_q.lora_{{}}.weight"
    assert entry(folder, keys=keys.format("_2")).made_for == "low_noise"
    write(folder / "b.safetensors", {
        keys.format(second).format(0, leaf): ("F32", (256, 256)) for second in ("", "_2") for leaf in "AB"
    })  # fmt: skip
    assert "both experts" in loras.find("b.safetensors", loras.scan(folder)).problem


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("a_high_noise.safetensors", "a_low_noise.safetensors"),
        ("HighNoise-a.safetensors", "LowNoise-a.safetensors"),
        ("a_HIGH_v1.safetensors", "a_LOW_v1.safetensors"),
        ("sub/a-HN.safetensors", "sub/a-LN.safetensors"),
    ],
)
def test_pairs(folder, high, low):
    lora(folder / high, rank=4, metadata={"trigger_words": "x"})
    lora(folder / low, rank=16)
    lora(folder / "a_alone_high_noise.safetensors")
    pairs = [found for found in loras.scan(folder) if found.paired]
    assert len(pairs) == 1 and len(loras.scan(folder)) == 2
    pair = pairs[0]
    assert pair.files == {"high_noise": folder / high, "low_noise": folder / low}
    assert pair.ranks == (4, 16) and pair.made_for == "both" and pair.trigger_words == ("x",)
    assert loras.suggest(pair, TINY)[0] == "both"
    alone = loras.find(low, loras.scan(folder))
    assert alone.files == {"both": folder / low} and alone.made_for == "low_noise"


def test_two_folders_do_not_pair(folder):
    lora(folder / "a/x_high_noise.safetensors")
    lora(folder / "b/x_low_noise.safetensors")
    assert not any(found.paired for found in loras.scan(folder))


def test_the_folder_is_read_again(folder):
    assert loras.scan(folder) == []
    lora(folder / "a.safetensors", rank=4)
    assert [found.ranks for found in loras.scan(folder)] == [(4,)]
    lora(folder / "a.safetensors", rank=8)
    assert [found.ranks for found in loras.scan(folder)] == [(8,)]
    (folder / "a.safetensors").unlink()
    assert loras.scan(folder) == []
    assert loras.scan(folder / "absent") == []


def test_shipped_ones_are_listed_beside_the_folder(folder):
    lora(folder_module.SHIPPED / "ours.safetensors")
    lora(folder_module.SHIPPED / "same.safetensors", rank=2)
    lora(folder / "same.safetensors", rank=4)
    found = {entry.name: entry for entry in loras.scan(folder)}
    assert found["ours.safetensors"].shipped and not found["same.safetensors"].shipped
    assert found["same.safetensors"].ranks == (4,)


@pytest.mark.parametrize(
    ("high", "low", "joined"),
    [
        ("style_hinoise.safetensors", "style_lonoise.safetensors", True),
        ("style-HiNoise-v2.safetensors", "style-LoNoise-v2.safetensors", True),
        ("风格_高噪声.safetensors", "风格_低噪声.safetensors", True),
        ("Wan22-I2V-H-e20.safetensors", "Wan22-I2V-L-e20.safetensors", True),
        ("wan2.2_dance_high_14B_v1.1.safetensors", "wan2.2_dance_low_14B_v1.1.safetensors", True),
        ("camera_high_angle.safetensors", "camera_low_angle.safetensors", False),
        ("Wan22_High_Angle.safetensors", "Wan22_Low_Angle.safetensors", False),
        ("high key.safetensors", "low key.safetensors", False),
        ("wan22 light high key.safetensors", "wan22 light low key.safetensors", False),
        ("dress-H.safetensors", "dress-L.safetensors", False),
        ("contrast_high.safetensors", "contrast_low.safetensors", False),
        ("wan2.2_camera_high.safetensors", "wan2.2_camera_low.safetensors", False),
        ("wan22 contrast-H.safetensors", "wan22 contrast-L.safetensors", False),
        ("a_high_low_noise.safetensors", "a_low_high_noise.safetensors", False),
        ("high_noise_of_low_poly.safetensors", "low_noise_of_low_poly.safetensors", True),
        ("a_HIGH_v1.safetensors", "b_LOW_v1.safetensors", False),
    ],
)
def test_only_what_is_certain_is_paired(folder, high, low, joined):
    lora(folder / high)
    lora(folder / low)
    assert [found.paired for found in loras.scan(folder)] == ([True] if joined else [False, False])
    if not joined and "HIGH" not in high:
        assert {found.made_for for found in loras.scan(folder)} == {"unknown"}


def test_metadata_pair_and_part(folder):
    high, low = {"ss_min_timestep": "875"}, {"ss_max_timestep": "875"}
    lora(folder / "dance-H-e20.safetensors", metadata=high)
    lora(folder / "dance-L-e20.safetensors", metadata=low)
    lora(folder / "x_high_noise.safetensors", metadata=low)  # says one thing and is another
    lora(folder / "x_low_noise.safetensors", metadata=low)
    lora(folder / "wide_high_noise.safetensors", width=5120)
    lora(folder / "wide_low_noise.safetensors")
    lora(folder / "two_high_noise.safetensors")
    lora(folder / "two_HN.safetensors")
    lora(folder / "two_LN.safetensors")
    assert [found.name for found in loras.scan(folder) if found.paired] == ["dance_e20 (high + low)"]


@pytest.mark.hardening(42)
def test_names_that_are_not_unicode(folder, settings):
    """Files out of archives from Windows: bytes of GBK and Latin-1."""
    for raw in (
        b"\xb7\xe7\xb8\xf1.safetensors",
        b"gem\xfctlich_high_noise.safetensors",
        b"gem\xfctlich_low_noise.safetensors",
    ):
        lora(folder / os.fsdecode(raw), metadata={"trigger_words": "\ud800"})
    (folder / os.fsdecode(b"\xfc.safetensors")).write_bytes(b"x")
    found = {entry.name: entry for entry in loras.scan(folder)}
    assert set(found) == {r"\xb7\xe7\xb8\xf1.safetensors", r"gem\xfctlich (high + low)", r"\xfc.safetensors"}
    for entry in found.values():
        json.dumps(entry.to_dict() | {"files": ""}, ensure_ascii=False).encode()
        " ".join((entry.title, entry.problem, entry.made_for_why)).encode()
    specs = loras.check([LoraSpec(r"\xb7\xe7\xb8\xf1.safetensors", 1.0, "both")], TINY, settings)
    assert loras.locate(specs[0], settings)["high_noise"].is_file()
    (one,) = loras.check([LoraSpec(r"gem\xfctlich_low_noise.safetensors")], TINY, settings)
    assert loras.locate(one, settings)["low_noise"] == folder / os.fsdecode(b"gem\xfctlich_low_noise.safetensors")
    with pytest.raises(UserError, match="not in the LoRA folder") as error:
        loras.check([LoraSpec("\udcfc.safetensors")], TINY, settings)
    str(error.value).encode()


# ---------------------------------------------------------------- targets


@pytest.mark.hardening(14)
def test_suggestions_and_warnings(folder):
    low = entry(folder, "low_noise_style.safetensors")
    assert loras.suggest(low, TINY) == ("low_noise", low.made_for_why)
    assert loras.warnings(LoraSpec(low.name, 1.0, "low_noise"), low) == []
    (text,) = loras.warnings(LoraSpec(low.name, 1.0, "high_noise"), low)
    assert "made for the low-noise expert" in text and "put on the high-noise expert" in text
    assert "put on both experts" in loras.warnings(LoraSpec(low.name, 1.0, "both"), low)[0]
    assert "changes nothing" in loras.warnings(LoraSpec(low.name, 0.0, "low_noise"), low)[0]
    unknown = entry(folder, "style.safetensors")
    assert loras.suggest(unknown, TINY)[0] == "both"
    assert loras.suggest(low, TI2V)[0] == "both"
    old = entry(folder, "wan2.1_style.safetensors", width=5120)
    assert loras.fits(old, A14B) == "" and "Wan2.1" in loras.warnings(LoraSpec(old.name), old)[0]


# ---------------------------------------------------------------- what the server refuses


@pytest.mark.hardening(2, 3)
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (LoraSpec("absent.safetensors"), "not in the LoRA folder"),
        (LoraSpec(""), "choose a file"),
        (LoraSpec(None), "choose a file"),
        (LoraSpec("a.safetensors", float("nan")), "strength nan"),
        (LoraSpec("a.safetensors", float("inf")), "strength inf"),
        (LoraSpec("a.safetensors", -4.5), "strength -4.5"),
        (LoraSpec("a.safetensors", "much"), "strength 'much'"),
        (LoraSpec("a.safetensors", None), "strength None"),
        (LoraSpec("a.safetensors", 1.0, "middle"), "target 'middle'"),
        (LoraSpec("a.safetensors", 1.0, ["both"]), "target"),
        (LoraSpec("large.safetensors"), "is for Wan2.2 A14B"),
        (LoraSpec("pickle.safetensors"), "pickle"),
        (LoraSpec("A.safetensors"), "not in the LoRA folder"),
        (LoraSpec("../outside.safetensors"), "not in the LoRA folder"),
        (LoraSpec("sub/../a.safetensors"), "not in the LoRA folder"),
        (LoraSpec("./a.safetensors"), "not in the LoRA folder"),
        (LoraSpec("a.safetensors\0"), "not in the LoRA folder"),
        (LoraSpec("link.safetensors"), "leads out of the LoRA folder"),
        (LoraSpec("linked/inside.safetensors"), "not in the LoRA folder"),
    ],
)
def test_refused(folder, settings, spec, words):
    lora(folder / "a.safetensors")
    lora(folder / "large.safetensors", width=5120)
    (folder / "pickle.safetensors").write_bytes(b"\x80\x02}q\x00.")
    lora(folder.parent / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(folder.parent / "outside.safetensors")
    lora(folder.parent / "elsewhere/inside.safetensors")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(UserError, match=words) as error:
        loras.check([spec], TINY, settings)
    assert error.value.field == "loras"


def test_absolute_paths_are_the_command_lines(folder, settings):
    path = lora(folder.parent / "outside.safetensors")
    with pytest.raises(UserError, match="not in the LoRA folder"):
        loras.check([LoraSpec(str(path))], TINY, settings)
    (spec,) = loras.check([LoraSpec(str(path))], TINY, settings, paths=True)
    assert loras.locate(spec, settings) == {"high_noise": path, "low_noise": path}


@pytest.mark.limit("LORAS_PER_JOB")
def test_accepted(folder, settings):
    lora(folder / "x_high_noise.safetensors")
    lora(folder / "x_low_noise.safetensors")
    lora(folder / "low_noise_a.safetensors")
    pair = loras.scan(folder)[-1].name
    specs = loras.check(
        [LoraSpec(pair, 1, "auto"), LoraSpec("low_noise_a.safetensors", -0.5, "auto"), LoraSpec(pair, 1, "low_noise")],
        TINY,
        settings,
    )
    assert [spec.target for spec in specs] == ["both", "low_noise", "low_noise"]
    low = folder / "x_low_noise.safetensors"
    assert loras.locate(specs[0], settings) == {"high_noise": folder / "x_high_noise.safetensors", "low_noise": low}
    assert loras.locate(specs[2], settings) == {"low_noise": low}
    assert len(loras.check([specs[0]] * 8, TINY, settings)) == 8
    with pytest.raises(UserError, match="at most 8"):
        loras.check([specs[0]] * 9, TINY, settings)
    with pytest.raises(UserError, match="one expert"):
        loras.check([LoraSpec("low_noise_a.safetensors", 1.0, "low_noise")], TI2V, settings)


# ---------------------------------------------------------------- scales, and what is left out

ADAPTER = "lora_adapter_metadata"
PEFT_KEYS = "transformer.blocks.{}.attn1.to_q.lora_{}.weight"
UNKNOWN_SCALES = {
    "another rank": ({"lora_alpha": "16", "rank": "4"}, "rank 8, and the metadata.* say 4"),
    "a pattern's rank": ({ADAPTER: json.dumps({"r": 8, "lora_alpha": 8, "rank_pattern": {"attn1.to_q": 2}})}, "say 2"),
    "no number": ({ADAPTER: json.dumps({"r": 8, "lora_alpha": "much"})}, "'much' where a number"),
    "NaN": ({ADAPTER: '{"r": 8, "lora_alpha": NaN}'}, "'nan' where a number"),
    "true": ({ADAPTER: json.dumps({"lora_alpha": True})}, "'True' where a number"),
    "damaged": ({ADAPTER: '{"lora_alpha": 16'}, "cannot be read"),
    "nested": ({ADAPTER: '{"lora_alpha": ' + "[" * 100_000}, "cannot be read"),
    "5,000 digits": ({ADAPTER: '{"lora_alpha": ' + "9" * 5000 + "}"}, "cannot be read"),
    "4,000 digits": ({ADAPTER: '{"lora_alpha": ' + "9" * 4000 + "}"}, "where a number"),
    "an expression": ({ADAPTER: json.dumps({"alpha_pattern": {r"(a+)+$": 4}})}, "pattern"),
    "a list": ({ADAPTER: json.dumps({"alpha_pattern": [4]})}, "no table"),
    "stabilised without alpha": ({"use_rslora": "True"}, "rank-stabilised, but no alpha"),
    "two that differ": ({"lora_alpha": "16", "transformer.lora_alpha": "32"}, "different scales"),
    "a table of adapters": ({ADAPTER: json.dumps({"r": 8, "lora_alpha": {"default": 4}})}, "where a number"),
    "written as YAML": ({"config": "network:\n  lora_alpha: 16\n"}, "in a form that is not read"),
    "JSON in JSON": ({"config": json.dumps(json.dumps({"lora_alpha": "much"}))}, "where a number"),
    "with a mark": ({"config": "\ufeff" + json.dumps({"lora_alpha": "much"})}, "where a number"),
    "in capitals": ({"Lora_Alpha": "much"}, "where a number"),
    "in a list": ({"config": json.dumps([{"lora_alpha": "much"}])}, "where a number"),
    "far inside": ({"config": json.dumps({"a": {"b": {"c": {"d": {"e": {"lora_alpha": "x"}}}}}})}, "where a number"),
    "DoRA": ({ADAPTER: json.dumps({"transformer.use_dora": True})}, "DoRA"),
    "PiSSA": ({ADAPTER: json.dumps({"transformer.init_lora_weights": "pissa_niter_4"})}, "changed base weights"),
}


@pytest.mark.parametrize("name", UNKNOWN_SCALES)
def test_a_scale_that_cannot_be_known_is_refused(folder, name):
    metadata, words = UNKNOWN_SCALES[name]
    assert re.search(words, entry(folder, metadata=metadata, keys=PEFT_KEYS).problem)


def test_words_about_pictures_are_no_scale(folder):
    workflow = {"workflow": json.dumps({"nodes": [{"lora_alpha": 2, "r": 8}]})}
    path = lora(folder / "w.safetensors", metadata=workflow)
    scales = keys.read_layout(lora_header(path)).scales
    assert scales.of(("blocks.0.self_attn.q",), 8, False) == (1.0, "")


def test_scales_beside_the_file_and_alphas_that_are_gone(folder):
    lora(folder / "peft/adapter_model.safetensors", keys=PEFT_KEYS)
    config = folder / "peft/adapter_config.json"
    for text, problem in (("{", "adapter_config.json"), (json.dumps({"r": 8, "lora_alpha": 16}), "")):
        config.write_text(text)
        (found,) = loras.scan(folder)
        assert problem in found.problem if problem else not found.problem
    assert keys.read_layout(lora_header(folder / "peft/adapter_model.safetensors"), config.read_text()).scales.of(
        ("blocks.0.attn1.to_q",), 8, False
    ) == (2.0, "")
    kohya = {"ss_network_alpha": "4", "ss_network_dim": "8"}
    assert (
        "alpha is missing"
        in entry(folder, "k.safetensors", metadata=kohya, keys="lora_unet_blocks_{}_ffn_0.lora_{}").problem
    )
    converted = entry(folder, "c.safetensors", metadata=kohya)
    assert not converted.problem and "alpha 4 of rank 8" in loras.warnings(LoraSpec(converted.name), converted)[0]


def test_what_is_left_out_is_said_before(folder):
    good = {PAIR.format(0, "A"): ("F32", (4, 256)), PAIR.format(0, "B"): ("F32", (256, 4))}
    more = {
        "diffusion_model.blocks.0.cross_attn.k_img.diff": ("F32", (256, 256)),
        "diffusion_model.blocks.0.self_attn.norm_q.diff_b": ("F32", (256,)),
        "diffusion_model.patch_embedding.diff": ("F32", (256, 16, 1, 2, 2)),
        "text_encoders.t5.q.lora_A.weight": ("F32", (4, 4)),
    }
    write(folder / "a.safetensors", good | more)
    found = loras.find("a.safetensors", loras.scan(folder))
    (words,) = loras.warnings(LoraSpec(found.name), found)
    for part in ("image attention", "biases of norms", "another task", "1 tensors that are not of Wan"):
        assert part in words
    assert loras.lora_warnings([LoraSpec(found.name)], replace(Settings(), loras=folder)) == [words]
    write(folder / "a.safetensors", good)
    found = loras.find("a.safetensors", loras.scan(folder))
    assert loras.warnings(LoraSpec(found.name), found) == []


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({PAIR.format(0, "A"): ("I8", (4, 256)), PAIR.format(0, "B"): ("I8", (256, 4))}, "stored as I8"),
        ({"diffusion_model.blocks.0.ffn.0.lora_A.weight_scale": ("F32", (1,))}, "quantised file with scales"),
        ({"diffusion_model.blocks.0.ffn.0.a1.weight": ("F32", (1,))}, "GLoRA"),
        ({"base_model.model.blocks.0.ffn.0.lora_E.default": ("F32", (4, 1))}, "AdaLoRA"),
        ({"diffusion_model.blocks.0.ffn.0.set_weight": ("F32", (4, 1))}, "replaces whole weights"),
        ({"base_model.model.blocks.0.attn1.to_q.modules_to_save.weight": ("F32", (4, 1))}, "replaces whole weights"),
        ({"blocks.0.ffn.0.weight": ("F32", (4, 1)), "blocks.0.ffn.0.bias": ("F32", (4,))}, "a whole model, not a LoRA"),
        (
            {"diffusion_model.blocks.0.ffn.0.alpha": ("I64", (2,)), PAIR.format(0, "A"): ("F32", (4, 4))},
            "its other half",
        ),
    ],
)
def test_other_kinds_of_files(folder, tensors, words):
    write(folder / "a.safetensors", tensors)
    assert words in loras.find("a.safetensors", loras.scan(folder)).problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            (f"diffusion_model.blocks.0.self_attn.q.{leaf}", "may change its strength")
            for leaf in ("scale", "scaling", "scalar", "network_alpha", "alpha.default", "gate", "weight_m_wdecomp")
        ),
        ("lora_alpha", "may change its strength"),
        *(
            (f"{prefix}blocks.1.self_attn.q.lora_A.weight", "its other half|both experts")
            for prefix in (
                "transformer_2.",
                "pipe.dit2.",
                "dit2.",
                "low_noise_model.",
                "lora_transformer_2_",
                "model_2.",
            )
        ),
    ],
)
def test_tensors_without_which_the_rest_is_wrong(folder, name, words):
    good = {PAIR.format(0, "A"): ("F32", (4, 256)), PAIR.format(0, "B"): ("F32", (256, 4))}
    write(folder / "a.safetensors", good | {name: ("F32", (1,))})
    assert re.search(words, loras.find("a.safetensors", loras.scan(folder)).problem)


def test_the_second_experts_other_names(folder):
    for number, prefix in enumerate(("pipe.dit2.", "low_noise_model.", "transformer2.")):
        found = entry(folder, f"{number}.safetensors", keys=prefix + "blocks.{}.self_attn.q.lora_{}.weight")
        assert not found.problem and found.made_for == "low_noise"


def test_a_part_of_a_split_file_is_no_lora(folder):
    assert "one part of a split file" in entry(folder, "style-00001-of-00002.safetensors").problem


@pytest.mark.hardening(10)
def test_a_header_that_is_as_long_as_a_pickle_begins(folder):
    for length in (0x0480, 0x4B50):  # b"\x80\x04", b"PK"
        path = lora(folder / "a.safetensors", metadata={"x": ""})
        short = int.from_bytes(path.read_bytes()[:8], "little")
        lora(path, metadata={"x": "x" * (length - short)})
        assert int.from_bytes(path.read_bytes()[:8], "little") == length
        assert not loras.find("a.safetensors", loras.scan(folder)).problem


# ---------------------------------------------------------------- hostile files


def bad_files(folder: Path) -> dict[str, str]:
    """File -> what `problem` must say."""
    lora(folder / "huge-rank.safetensors", rank=100_000)
    lora(folder / "dora.safetensors", keys="diffusion_model.blocks.{}.self_attn.q.dora_scale{}")
    lora(folder / "lokr.safetensors", keys="lora_unet_blocks_{}_self_attn_q.lokr_w1_{}")
    lora(folder / "loha.safetensors", keys="lora_unet_blocks_{}_self_attn_q.hada_w1_{}")
    lora(folder / "flux.safetensors", keys="transformer.single_transformer_blocks.{}.lora_{}.weight")
    write(folder / "half.safetensors", {PAIR.format(0, "A"): ("F32", (4, 256))})
    write(
        folder / "ranks.safetensors", {PAIR.format(0, "A"): ("F32", (4, 256)), PAIR.format(0, "B"): ("F32", (256, 5))}
    )
    write(folder / "bytes.safetensors", {PAIR.format(0, "A"): ("F32", (4, 4, 4)), PAIR.format(0, "B"): ("F32", (4, 4))})
    write(folder / "empty.safetensors", {})
    for name in ("zip.safetensors", "named.ckpt"):
        (folder / name).write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "text.safetensors").write_text("not a LoRA at all, but long enough")
    with (folder / "long-header.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(100_000_000)
    with (folder / "count.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**63))
    raw = lora(folder / "good.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(raw[:-10])
    (folder / "twice.safetensors").write_bytes(
        struct.pack("<Q", 120) + (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,0]},"a":{}}'.ljust(120))
    )
    return {
        "huge-rank": "rank 100,000", "dora": "DoRA", "lokr": "LoKr", "loha": "LoHa", "flux": "none of its 4 keys",
        "half": "other half", "ranks": "ranks differ", "bytes": "two dimensions", "empty": "none of its 0 keys",
        "zip": "pickle", "named": "pickle", "text": "not a safetensors", "long-header": "90 MB",
        "count": "not a safetensors", "truncated": "truncated", "twice": "twice",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "model"),
    [
        ("diffusion_model.face_adapter.fuser_blocks.{}.linear1_kv.lora_{}.weight", "Wan2.2 Animate"),
        ("transformer.face_adapter.{}.to_k.lora_{}.weight", "Wan2.2 Animate"),
        ("lora_unet_motion_encoder_dec_direction_{}.lora_{}.weight", "Wan2.2 Animate"),
        ("audio_injector.injector.{}.q.lora_{}.weight", "Wan2.2 S2V"),
        ("lora_unet_casual_audio_encoder_encoder_conv{}_local.lora_{}.weight", "Wan2.2 S2V"),
        ("diffusion_model.vace_blocks.{}.before_proj.lora_{}.weight", "Wan VACE"),
    ],
)
def test_a_lora_of_one_models_own_layers_alone_says_whose_they_are(folder, keys, model):
    lora(folder / "own.safetensors", keys=keys)
    (entry,) = loras.scan(folder)
    assert entry.problem.startswith(f"it is for {model}, but holds only layers that no other model has"), entry.problem
    assert keys.format(0, "A") in entry.problem
    lora(folder / "own.safetensors", width=5120, keys="foreign_adapter.{}.lora_{}.weight")
    assert "none of its 4 keys is known" in loras.scan(folder)[0].problem


@pytest.mark.hardening(10)
def test_hostile_files_are_entries_with_a_problem(folder):
    expected = bad_files(folder)
    started = time.process_time()
    found = {Path(entry.name).stem: entry for entry in loras.scan(folder)}
    assert time.process_time() - started < 5, "a header check must not read what a hostile header claims"
    assert found.pop("good").problem == ""
    assert set(found) == set(expected)
    for name, words in expected.items():
        assert words in found[name].problem, name
        assert "cannot be used" in found[name].title


def test_unreadable_and_vanishing_files(folder, monkeypatch):
    lora(folder / "a.safetensors")
    (folder / "b.safetensors").symlink_to(folder / "absent.safetensors")
    found = {entry.name: entry.problem for entry in loras.scan(folder)}
    assert found["a.safetensors"] == "" and "cannot be read" in found["b.safetensors"]


def test_a_crowded_folder_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(folder_module, "MAX_FILES", 5)
    lora(folder / "00.safetensors")
    for number in range(1, 9):
        os.link(folder / "00.safetensors", folder / f"{number:02}.safetensors")
    lora(folder / "1/2/3/4/5/6/7/deep.safetensors")
    names = [entry.name for entry in loras.scan(folder)]
    assert len(names) == 5 and not any("deep" in name for name in names)


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", LoraSpec("a.safetensors", 1.0, "auto")),
        ("a.safetensors:0.8", LoraSpec("a.safetensors", 0.8, "auto")),
        ("sub/a b.safetensors:-1:low_noise", LoraSpec("sub/a b.safetensors", -1.0, "low_noise")),
        ("a (high + low):1:both", LoraSpec("a (high + low)", 1.0, "both")),
        ("c:/x.safetensors:1:both", LoraSpec("c:/x.safetensors", 1.0, "both")),
    ],
)
def test_lora_option(text, expected):
    assert lora_spec(text) == expected


@pytest.mark.parametrize("text", ["a.safetensors:much", "a.safetensors:1:middle"])
def test_lora_option_errors(text, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--image", "x", "--prompt", "x", "--out", "x.mp4", "--lora", text])
    assert "--lora" in capsys.readouterr().err


def test_list_command(folder, settings, monkeypatch, capsys):
    monkeypatch.setattr("wan_ui.commands.loras.settings", lambda: settings)
    lora(folder / "sepia_low_noise.safetensors", metadata={"trigger_words": "sepia"})
    (folder / "b.ckpt").write_bytes(b"PK\x03\x04")
    assert main(["loras"]) == 0
    text = capsys.readouterr().out
    assert "sepia_low_noise.safetensors" in text and "rank 8" in text and "trigger words: sepia" in text
    assert "cannot be used: only .safetensors" in text
    assert main(["loras", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [found["fits"] for found in answer["loras"]] == ["other", "wan-tiny"]
