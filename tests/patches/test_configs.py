"""The configurations of the LightX2V engine: every key explained, every catalog entry resolvable, bad ones named."""

import json
import re
import sys
from dataclasses import replace

import pytest

from tests.patches.test_records import CATALOG, H200, RTX3060, TINY
from wan_ui import settings as settings_module
from wan_ui.catalog import FP8_KERNELS
from wan_ui.engines import lightx2v_config as config
from wan_ui.engines import schedule
from wan_ui.engines.create import create_engine
from wan_ui.engines.kernel_choice import Chooser
from wan_ui.errors import UserError
from wan_ui.families import FAMILIES
from wan_ui.files import places
from wan_ui.files.places import Paths, least_work, locate, work
from wan_ui.machine import hardware, memory
from wan_ui.machine.engine_choice import EngineChoice, choose_engine, lightx2v_missing
from wan_ui.machine.hardware import GIB
from wan_ui.qa import synthetic
from wan_ui.settings import load_settings

SETTINGS = load_settings({})
SCHEMES = [(model, scheme) for model in CATALOG.values() for scheme in model.schemes.values()]


@pytest.fixture
def paths(tmp_path):
    """paths(model, scheme, gib): files of that size each, sparse."""

    def make(model, scheme, gib=0):
        def file(name):
            path = tmp_path / name
            with path.open("wb") as handle:
                handle.truncate(int(gib * 2**30))
            return path

        count = len(model.family.experts)
        return Paths(
            experts=tuple(file(f"dit{i}") for i in range(count)),
            configs=tuple(tmp_path / f"config{i}.json" for i in range(count)),
            t5=file("t5-fp8.pth" if model.t5 else "t5.pth"),
            tokenizer=tmp_path,
            vae=file("vae.pth"),
            loras=tuple(file(f"lora{i}") for i in range(count)) if scheme.lora_high else (),
        )

    return make


README = (config.FOLDER / "README.md").read_text()


def test_every_key_has_an_explanation():
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)) == config.KEYS


@pytest.mark.parametrize(("model", "scheme"), SCHEMES, ids=lambda value: value.name)
def test_all_schemes_are_decided_alike(model, scheme):
    assert config.wished(model, scheme, SETTINGS) == {
        "attention": "auto",
        "fp8_kernel": "auto",
        "t5_fp8_kernel": "fp8-torchao",
        "modulate_type": "auto",
        "offload": "auto",
        "rms_norm_type": "torch_native",
        "rope_type": "auto",
        "use_compile": "auto",
        "use_tiling_vae": False,
    }


def test_sizes_and_steps_follow_from_the_family():
    """Of any combination: a single transformer with the VAE of A14B is told its strides, and one scale."""
    a14b, small = CATALOG["i2v-a14b"], CATALOG["ti2v-5b"]
    other = replace(small, family=replace(small.family, vae=a14b.family.vae))
    for model, stride, channels in ((a14b, 8, 16), (small, 16, 48), (other, 8, 16)):
        values = config.from_catalog(model)
        told = (values.get("vae_stride", [4, 8, 8]), values.get("num_channels_latents", 16))
        assert told == ([4, stride, stride], channels)
        assert values["sample_guide_scale"] == (1.0 if model.family.single else [1.0, 1.0])
        assert ("denoising_step_list" in values) != model.family.single


def test_a_file_says_what_differs_and_the_readme_why():
    default, files = json.loads(config.DEFAULT.read_text()), set(config.FOLDER.glob("*.json")) - {config.DEFAULT}
    assert files <= {config.difference_file(model, scheme) for model, scheme in SCHEMES}
    differences = [(path.name, key, value) for path in files for key, value in json.loads(path.read_text()).items()]
    for name, key, value in differences:
        assert default[key] != value, f"{name}: {key} is as in default.json"
    explained = re.findall(r"^\| `(\S+\.json)` \| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(explained) == sorted((name, key) for name, key, _ in differences)


def test_a_scheme_of_its_own_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "FOLDER", tmp_path)
    (tmp_path / "wan-tiny-fp8.json").write_text('{"use_tiling_vae": true}')
    assert config.wished(TINY, TINY.scheme("fp8"), SETTINGS)["use_tiling_vae"] is True
    assert config.wished(TINY, TINY.scheme("bf16"), SETTINGS)["use_tiling_vae"] is False


def test_what_upstream_is_told(paths):
    """All of it, for the default scheme of the released model."""
    model = CATALOG["i2v-a14b"]
    files = paths(model, model.scheme("fp8"), 1)
    assert config.choose(model, model.scheme("fp8"), files, H200, SETTINGS).values == {
        "boundary_step_index": 2,
        "cpu_offload": False,
        "cross_attn_1_type": "torch_sdpa",
        "cross_attn_2_type": "torch_sdpa",
        "denoising_step_list": [1000, 750, 500, 250],
        "dit_quant_scheme": "fp8-torchao",
        "dit_quantized": True,
        "enable_cfg": False,
        "fps": 16,
        "high_noise_quantized_ckpt": str(files.experts[0]),
        "infer_steps": 4,
        "low_noise_quantized_ckpt": str(files.experts[1]),
        "modulate_type": "torch",
        "offload_granularity": "block",
        "rms_norm_type": "torch_native",
        "rope_type": "torch_complex_rope",
        "sample_guide_scale": [1.0, 1.0],
        "sample_shift": 5.0,
        "self_attn_1_type": "torch_sdpa",
        "t5_cpu_offload": False,
        "t5_original_ckpt": str(files.t5),
        "t5_tokenizer_path": str(files.tokenizer),
        "target_height": 480,
        "target_video_length": 81,
        "target_width": 480,
        "text_len": 512,
        "use_compile": False,
        "use_image_encoder": False,
        "use_tiling_vae": False,
        "vae_cpu_offload": False,
        "vae_path": str(files.vae),
    }


@pytest.mark.parametrize(("model", "scheme"), SCHEMES, ids=lambda value: value.name)
def test_every_scheme_resolves(model, scheme, paths):
    choices = config.choose(model, scheme, paths(model, scheme), H200, SETTINGS)
    values = choices.values
    json.dumps(values)
    assert values["target_video_length"] % 4 == 1 and values["enable_cfg"] is False
    assert ("boundary_step_index" in values) != model.family.single
    assert "lora_configs" not in values  # a distill pair is attached like any other LoRA
    assert scheme.distilled or scheme.lora_high or model.motions(scheme) == ("full",)
    assert values.get("dit_quant_scheme", "Default") == choices.facts.kernel
    assert "t5_quantized_ckpt" in values if model.t5 else "t5_original_ckpt" in values
    assert not {"dit_quantized_ckpt", "dit_original_ckpt"} & set(values) or model.family.single
    assert all(choices.reasons.values())


@pytest.mark.parametrize(
    ("gib", "kind", "expected"),
    [(1, "fp8", "none"), (40, "fp8", "text"), (60, "fp8", "model"), (150, "gguf-Q8_0", "model"), (99, "bf16", "block")],
)
def test_offload_follows_free_memory(paths, gib, kind, expected):
    model = CATALOG["i2v-a14b"]
    scheme = model.scheme(kind)
    choices = config.choose(model, scheme, paths(model, scheme, gib), H200, SETTINGS)
    assert choices.facts.offload == expected and "GiB free" in choices.reasons["offload"]


@pytest.mark.parametrize(("gib", "expected"), [(0, "none"), (16, "text"), (12, "text")])
def test_the_5b_model_in_12_gib(tmp_path, monkeypatch, gib, expected):
    """`bench --model ti2v-5b --max-gib 12`: files of the released sizes, on a GPU that has far more memory."""
    import torch

    gpu = {
        "is_available": True,
        "mem_get_info": (139 * GIB, 140 * GIB),
        "get_device_name": "H200",
        "get_device_capability": (9, 0),
        "is_bf16_supported": True,
    }
    for name, value in gpu.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value, **kwargs: value)
    settings = replace(SETTINGS, models=tmp_path, gpu_gib=gib)
    model = CATALOG["ti2v-5b"]
    scheme = model.scheme("gguf-Q8_0")
    synthetic.write(model, scheme, settings, "lightx2v")
    files = locate(model, scheme, settings, "lightx2v")
    choices = config.choose(model, scheme, files, hardware.measure(gib), settings)
    assert choices.facts.offload == expected, choices.reasons["offload"]
    assert choices.values["t5_cpu_offload"] is (expected == "text") and not choices.values["cpu_offload"]
    # What stays on the GPU: the transformer as stored, the VAE in half the size of its file. The text encoder
    # brings its embedding table (bf16) while it works, before the transformer and the VAE do.
    stays = files.experts[0].stat().st_size + files.vae.stat().st_size / 2
    table = 2 * 256384 * 4096
    needed = work(*model.sizes[0])
    assert table < needed
    assert stays + needed < 12 * GIB - hardware.CONTEXT
    assert stays + files.t5.stat().st_size + needed > 16 * GIB - hardware.CONTEXT


ROOM = [
    (57, "none", "1280x720"),
    (47, "text", "1280x720"),
    (30, "model", "1280x720"),
    (22, "model", "480x480"),
    (15, "block", ""),
]


@pytest.mark.parametrize(("free", "mode", "size"), ROOM)
def test_room_is_left_for_the_largest_clip_where_that_can_be(tmp_path, free, mode, size):
    """A14B in fp8, files of the released sizes: at 720p the work takes 7.7 GiB more than at 480x480."""
    model = CATALOG["i2v-a14b"]
    scheme = model.scheme("fp8")
    settings = replace(SETTINGS, models=tmp_path)
    synthetic.write(model, scheme, settings, "lightx2v")
    hardware = replace(H200, free=free * GIB)
    choices = config.choose(model, scheme, locate(model, scheme, settings, "lightx2v"), hardware, settings)
    assert (choices.facts.offload == mode and f" at {size}," in choices.reasons["offload"]) or not size
    assert work(1280, 720) - work(480, 480) == pytest.approx(7.6 * GIB, rel=0.02)


TIGHT = [
    ("i2v-a14b", "gguf-Q4_K_M", 14, "model"),
    ("ti2v-5b", "gguf-Q8_0", 10, "text"),
    ("i2v-a14b", "gguf-Q4_K_M", 16, "model"),
]


@pytest.mark.parametrize(("name", "kind", "gib", "mode"), TIGHT)
def test_the_smallest_cards_that_are_promised_something(tmp_path, name, kind, gib, mode):
    """What a step holds beside its own tensors, and what the text encoder does, fit into what such a card has."""
    model = CATALOG[name]
    scheme = model.scheme(kind)
    settings = replace(SETTINGS, models=tmp_path)
    synthetic.write(model, scheme, settings, "lightx2v")
    card = replace(H200, free=int(gib * GIB - hardware.CONTEXT))
    files = locate(model, scheme, settings, "lightx2v")
    choices = config.choose(model, scheme, files, card, settings)
    assert choices.facts.offload == mode, choices.reasons["offload"]
    assert choices.slim == (gib < 16) == ("one latent frame at a time" in choices.reasons["vae"])
    beside = files.vae.stat().st_size / 2 + sum(path.stat().st_size for path in files.loras)
    stays = max(path.stat().st_size for path in files.experts) + beside
    assert stays + least_work(*model.sizes[0]) < card.free, "while a step runs"
    # Upstream's two buffers of a block of the text encoder, and its table, in bf16. In mode "model" no expert is there.
    text = 2 * (256384 * 4096) + 2 * files.t5.stat().st_size / 24
    assert (beside if mode == "model" else stays) + text < card.free, "while the prompt is encoded"
    assert not config.choose(model, scheme, files, H200, settings).slim


def test_memory_of_a_large_clip_goes_back_before_a_small_one(monkeypatch):
    import torch

    given = []
    figures = {"is_initialized": True, "memory_reserved": 30 * GIB, "memory_allocated": 20 * GIB}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(1))
    memory.give_back(most=least_work(1280, 720))
    assert not given, "the next clip of that size takes it all"
    memory.give_back(most=least_work(480, 480))
    assert given == [1]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    memory.give_back()
    assert given == [1], "a process without a GPU is left alone"


@pytest.mark.parametrize(
    ("name", "kind", "gib", "wish", "products", "words"),
    [
        ("i2v-a14b", "gguf-Q4_K_M", 90, "", "bf16", "bf16 (dequantised once: "),
        ("i2v-a14b", "gguf-Q4_K_M", 90, "e4m3", "e4m3", "e4m3 (dequantised once, rounded to fp8 but in the first and "),
        ("i2v-a14b", "gguf-Q4_K_M", 56, "", "e4m3", "e4m3 (dequantised once"),
        ("i2v-a14b", "gguf-Q4_K_M", 56, "bf16", "anew", "bf16 (dequantised at every use, by one kernel"),
        ("i2v-a14b", "gguf-Q8_0", 56, "", "anew", "bf16 (dequantised at every use, by one kernel"),
        ("i2v-a14b", "gguf-Q8_0", 56, "e4m3", "e4m3", "e4m3 (dequantised once"),
        ("i2v-a14b", "gguf-Q4_K_M", 32, "", "anew", "bf16 (dequantised at every use, by one kernel"),
        ("i2v-a14b", "gguf-Q4_K_M", 32, "e4m3", "anew", "; e4m3 was asked for: "),
        ("i2v-a14b", "gguf-Q4_K_M", 32, "plain: dequantise", "", "at every use"),
        ("i2v-a14b", "gguf-Q4_K_M", 32, "plain: products", "", "at every use"),
        ("i2v-a14b", "gguf-Q4_K_M", 22, "", "", "at every use"),
        ("i2v-a14b", "gguf-Q4_K_M", 22, "e4m3", "", "at every use; e4m3 was asked for: weights are moved"),
        ("ti2v-5b", "gguf-Q8_0", 90, "", "bf16", "bf16 (dequantised once"),
        ("ti2v-5b", "gguf-Q8_0", 90, "plain: graphs", "bf16", "bf16 (dequantised once"),
        ("ti2v-5b", "gguf-Q8_0", 12, "", "anew", "bf16 (dequantised at every use, by one kernel"),
    ],
)
def test_what_is_made_of_gguf_weights_follows_memory(tmp_path, monkeypatch, name, kind, gib, wish, products, words):
    """Files of the released sizes, on a card whose kernels were all found right."""
    monkeypatch.setattr(Chooser, "fused", lambda self, kind: (True, "for the test"))
    model = CATALOG[name]
    scheme = model.scheme(kind)
    _, _, plain = wish.rpartition("plain: ")
    plain, gguf = (plain, "auto") if plain != wish else ("", wish or "auto")
    settings = replace(SETTINGS, models=tmp_path, lightx2v_plain=plain, lightx2v_gguf=gguf)
    synthetic.write(model, scheme, settings, "lightx2v")
    card = replace(H200, free=int(gib * GIB - hardware.CONTEXT))
    paths = locate(model, scheme, settings, "lightx2v")
    choices = config.choose(model, scheme, paths, card, settings)
    assert (choices.products, choices.fused_blocks) == (products, bool(products))
    assert words in choices.reasons["kernel"]
    graphs = name == "ti2v-5b" and gib == 90 and plain != "graphs"
    assert choices.graphs == graphs == ("graphs" in choices.reasons)
    ampere = config.choose(model, scheme, paths, replace(card, name="A100", capability=(8, 0)), settings)
    assert ampere.products != "e4m3"
    assert ("A100 does not multiply fp8" in ampere.reasons["kernel"]) == (gguf == "e4m3" and gib > 22)


def test_wishes_and_what_cannot_be_met(paths):
    model = CATALOG["i2v-a14b"]
    fp8, gguf = model.scheme("fp8"), model.scheme("gguf-Q4_K_M")

    def choose(scheme, hardware=H200, **wishes):
        return config.choose(model, scheme, paths(model, scheme), hardware, replace(SETTINGS, **wishes))

    assert choose(fp8, lightx2v_offload="model").facts.offload == "model"
    with pytest.raises(UserError, match="GGUF weights can be offloaded by whole models only"):
        choose(gguf, lightx2v_offload="block")
    with pytest.raises(UserError, match="flash_attn3 needs the package flash_attn_interface"):
        choose(fp8, lightx2v_attention="flash_attn3")
    with pytest.raises(UserError, match="WAN_UI_LIGHTX2V_ATTENTION='magic': expected one of"):
        choose(fp8, lightx2v_attention="magic")
    with pytest.raises(UserError, match=r"RTX 3060 is 8\.6; choose a gguf scheme"):
        choose(fp8, RTX3060)
    with pytest.raises(UserError, match="needs the package triton"):
        choose(model.scheme("fp8-triton"), replace(H200, kernels=frozenset()))
    with pytest.raises(UserError, match="expected one of auto, bf16, fp16"):
        choose(fp8, lightx2v_dtype="fp8")
    assert choose(gguf, RTX3060).values["modulate_type"] == "torch"
    assert config.environment(SETTINGS, replace(RTX3060, bf16=False))["DTYPE"] == "FP16"


def test_kernel_names_work_as_schemes():
    for name in FP8_KERNELS:
        scheme = CATALOG["i2v-a14b"].scheme(name)
        assert (scheme.name, scheme.kind) == (name, "fp8")
        assert config.difference_file(CATALOG["i2v-a14b"], scheme).name == "i2v-a14b-fp8.json"
    with pytest.raises(UserError, match="'fp8-sgl' is not available for ti2v-5b"):
        CATALOG["ti2v-5b"].scheme("fp8-sgl")


def test_bad_configurations_are_named(tmp_path):
    default, own = tmp_path / "default.json", tmp_path / "x.json"
    good = json.loads(config.DEFAULT.read_text())
    for path, content, words in (
        (default, "{", "default.json"),
        (default, "[]", "default.json: not a table"),
        (default, json.dumps(good | {"rope": "x"}), "default.json: unknown key 'rope'"),
        (default, json.dumps({key: good[key] for key in good if key != "offload"}), "key 'offload' is missing"),
        (own, "{", "x.json"),
        (own, '{"rope": "x"}', "x.json: unknown key 'rope'"),
    ):
        default.write_text(json.dumps(good))
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            config.read_config(default, own)


def test_the_switch_of_experts_follows_from_the_schedule():
    assert config.boundary_index(4, 5.0, 0.9) == 2
    assert config.boundary_index(1, 5.0, 0.9) == 1
    for steps in range(1, 9):
        high = [1000 * sigma >= 900 for sigma in schedule.sigmas(steps, 5.0)[:-1]]
        assert config.boundary_index(steps, 5.0, 0.9) == sum(high) and high == sorted(high, reverse=True)


def test_the_choice_of_engine_and_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "installed", lambda names: frozenset())
    monkeypatch.setattr(hardware, "nvidia_gpu", lambda: False)
    assert "not installed" in lightx2v_missing(SETTINGS)
    here = replace(SETTINGS, lightx2v_path=str(tmp_path))
    assert "is not a checkout" in lightx2v_missing(here)
    (tmp_path / "lightx2v").mkdir()
    (tmp_path / "lightx2v" / "infer.py").touch()
    assert lightx2v_missing(here) == "no CUDA GPU for LightX2V"
    monkeypatch.setattr(hardware, "nvidia_gpu", lambda: True)
    assert lightx2v_missing(here) == ""
    assert choose_engine("auto", here) == EngineChoice("lightx2v", "auto: it is here, and so is a CUDA GPU")
    assert choose_engine("diffusers", here) == EngineChoice("diffusers", "asked for")
    for name in ("s2v-14b", "animate-14b"):
        assert choose_engine("auto", here, family=FAMILIES[name]).name == "lightx2v"
        assert choose_engine("lightx2v", here, family=FAMILIES[name]) == EngineChoice("lightx2v", "asked for")
    alone = replace(FAMILIES["animate-14b"], engines=("diffusers",))
    assert choose_engine("auto", here, family=alone).why == "auto: it alone runs this model"
    with pytest.raises(UserError, match="lightx2v does not run this model; choose auto or diffusers"):
        choose_engine("lightx2v", here, family=alone)
    with pytest.raises(UserError, match="'tensorrt' is not known"):
        create_engine("tensorrt")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """checkout("raise ...") -> settings with a LightX2V whose lightx2v/infer.py says that, on a machine with a GPU."""

    def make(code=""):
        package = tmp_path / "checkout" / "lightx2v"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "infer.py").write_text(code)
        settings = replace(SETTINGS, lightx2v_path=str(package.parent))
        settings_module.use(settings)
        return settings

    monkeypatch.setattr(hardware, "nvidia_gpu", lambda: True)
    monkeypatch.setattr(hardware, "driver_fault", lambda: "")
    monkeypatch.setattr(settings_module, "_current", None)
    path, modules = list(sys.path), set(sys.modules)
    yield make
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightx2v" and name not in modules]:
        del sys.modules[name]


def test_auto_falls_back_when_torch_cannot_use_the_gpu(checkout, monkeypatch):
    import torch

    checkout()

    def broken(*args, **kwargs):
        raise RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu.\nmore")

    monkeypatch.setattr(torch, "zeros", broken)
    engine, choice = create_engine("auto")
    assert type(engine).__name__ == "DiffusersEngine"
    assert (
        choice.words == f"diffusers (auto: torch {torch.__version__} cannot use the GPU: CUDA driver initialization "
        "failed, you might not have a CUDA gpu.)"
    )
    assert create_engine("lightx2v")[1].words == "lightx2v (asked for)"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import a_package_that_is_not_there", "LightX2V cannot be imported (No module named 'a_package_that"),
        ("raise RuntimeError('AI device for platform cuda is not available')", "(AI device for platform cuda is not"),
        ("raise KeyError('torch')", "LightX2V cannot be imported (KeyError: 'torch')"),
        ("", "lightx2v.utils"),
    ],
)
def test_auto_falls_back_when_lightx2v_cannot_be_loaded(checkout, monkeypatch, code, words):
    import torch

    checkout(code)
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: None)
    engine, choice = create_engine("auto")
    assert type(engine).__name__ == "DiffusersEngine"
    assert choice.words.startswith("diffusers (auto: ") and words in choice.why


def test_a_driver_that_does_not_answer_is_told_without_torch(tmp_path, monkeypatch):
    """As after an update of the driver: the device's file is there, and nvidia-smi fails."""
    words = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "{words}"\nexit 9\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.setattr(hardware, "nvidia_gpu", lambda: True)
    hardware.driver_fault.cache_clear()
    try:
        assert hardware.driver_fault() == words
        (tmp_path / "lightx2v").mkdir()
        (tmp_path / "lightx2v" / "infer.py").touch()
        here = replace(SETTINGS, lightx2v_path=str(tmp_path))
        assert words in lightx2v_missing(here)
        assert choose_engine("auto", here).name == "diffusers"
        monkeypatch.setattr(places, "nvidia_gpu", lambda: True)
        model = CATALOG["i2v-a14b"]
        assert words in places.availability(model, model.scheme(""), here)
        script.write_text("#!/bin/sh\necho GPU 0\n")
        hardware.driver_fault.cache_clear()
        assert lightx2v_missing(here) == ""
    finally:
        hardware.driver_fault.cache_clear()
