"""Animate and S2V in each layout: told by content, there and back tensor for tensor, loaded from Diffusers."""

import inspect
import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from tests.engines import s2v_models  # noqa: E402
from tests.engines.random_models import ANIMATE_CONFIG, random_tensors, write_animate  # noqa: E402
from tests.files.test_convert import SPIECE, run, same  # noqa: E402
from wan_ui.__main__ import main  # noqa: E402
from wan_ui.engines import clip_vision, dit  # noqa: E402
from wan_ui.engines.wan_classes import WanAnimateTransformer3DModel  # noqa: E402
from wan_ui.errors import UserError  # noqa: E402
from wan_ui.families import FAMILIES  # noqa: E402
from wan_ui.files import animate_names, clip_file, convert, found, wav2vec  # noqa: E402
from wan_ui.files.dit_file import parameters, read_dit  # noqa: E402
from wan_ui.files.identify import identify  # noqa: E402
from wan_ui.files.model_configs import official  # noqa: E402
from wan_ui.files.tensors import float_tensors, read_pth  # noqa: E402
from wan_ui.qa import layouts  # noqa: E402

FILE = "diffusion_pytorch_model.safetensors"
FILTER = "motion_encoder.enc.net_app.convs.1.skip.0.kernel"


@pytest.fixture(scope="module")
def animate(tmp_path_factory):
    """A random Animate transformer as released: names, biases of four dimensions, constant filters."""
    root = tmp_path_factory.mktemp("animate")
    shapes = {name: torch.Size(shape) for name, shape in parameters(official(ANIMATE_CONFIG)).items()}
    tensors = {name: tensor.bfloat16() for name, tensor in random_tensors(shapes, 5).items()}
    save_file(tensors | {FILTER: torch.ones(4, 4)}, root / "diffusion_pytorch_model.safetensors")
    (root / "config.json").write_text(json.dumps(ANIMATE_CONFIG))
    return root / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def s2v(tmp_path_factory):
    root = tmp_path_factory.mktemp("s2v")
    tensors = {name: tensor.bfloat16() for name, tensor in s2v_models.transformer().items()}
    save_file(tensors, root / "diffusion_pytorch_model.safetensors")
    (root / "config.json").write_text(json.dumps(s2v_models.config()))
    return root / "diffusion_pytorch_model.safetensors"


def all_of(path):
    return float_tensors(path, read_dit(path))


def test_animate_there_and_back(animate, tmp_path):
    first = {name: tensor for name, tensor in load_file(animate).items() if name != FILTER}
    theirs = run(animate, "diffusers", tmp_path / "d")
    comfy = run(theirs, "comfyui", tmp_path / "comfy.safetensors")
    back = run(comfy, "official", tmp_path / "back")
    same(load_file(back / FILE), first)
    same(load_file(run(theirs, "official", tmp_path / "again") / FILE), first)
    for path, layout in ((animate, "official"), (theirs, "diffusers"), (comfy, "official"), (back, "official")):
        what = identify(path)
        assert (what.part, what.layout, what.kind, what.problem) == ("transformer", layout, "bf16", ""), path
        assert what.config["model_type"] == "animate" and what.config["num_heads"] == ANIMATE_CONFIG["num_heads"]
        same(all_of(path), all_of(animate))


def test_diffusers_own_class_takes_what_is_written(animate, tmp_path):
    path = run(animate, "diffusers", tmp_path / "d")
    config = json.loads((path / "config.json").read_text())
    assert config.pop("_class_name") == "WanAnimateTransformer3DModel"
    config["num_layers"] = 10  # theirs makes layers // 5 face blocks, of fewer than five none
    model = WanAnimateTransformer3DModel(**config)
    model.blocks = model.blocks[: ANIMATE_CONFIG["num_layers"]]
    tensors = load_file(path / FILE)
    model.face_adapter = model.face_adapter[: animate_names.face_blocks(ANIMATE_CONFIG["num_layers"])]
    model.load_state_dict(tensors, strict=True)


def test_names_and_shapes_of_the_released_file_are_those_of_diffusers_converter():
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    family = FAMILIES["animate-14b"]
    config = official(layouts.dit_config(family, layouts.UMT5_XXL))
    shapes = parameters(config)
    theirs = convert_wan_transformer_to_diffusers(
        {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    )
    ours = animate_names.for_diffusers(
        {name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
        lambda both: both.chunk(2),
        lambda bias: bias.flatten(),
    )
    assert {name: tuple(t.shape) for name, t in ours.items()} == {name: tuple(t.shape) for name, t in theirs.items()}


def test_a_diffusers_folder_of_animate_loads(animate, tmp_path):
    path = run(animate, "diffusers", tmp_path / "d")
    options = {"dtype": torch.float32, "device": torch.device("cpu"), "quantised": False}
    ours = dit.load_expert(animate, animate.parent / "config.json", "", **options)
    theirs = dit.load_expert(path, path / "config.json", "", **options)
    same(theirs.state_dict(), ours.state_dict())


def test_half_of_an_animate_file_is_refused(animate, tmp_path):
    tensors = load_file(run(animate, "diffusers", tmp_path / "d") / FILE)
    tensors.pop("face_adapter.0.to_v.weight")
    save_file(tensors, tmp_path / "half.safetensors")
    problem = identify(tmp_path / "half.safetensors").problem
    assert "half.safetensors" in problem and "face_adapter.fuser_blocks.0.linear1_kv" in problem, problem


def test_s2v_there_and_back(s2v, tmp_path):
    comfy = run(s2v, "comfyui", tmp_path / "comfy.safetensors")
    back = run(comfy, "official", tmp_path / "back")
    same(load_file(back / FILE), load_file(s2v))
    for path in (s2v, comfy, back):
        what = identify(path)
        assert (what.part, what.kind, what.problem, what.config["model_type"]) == ("transformer", "bf16", "", "s2v")
    with pytest.raises(UserError, match=r"Diffusers has no transformer for Wan2.2 S2V; choose official or comfyui"):
        convert.plan(s2v, "diffusers")


def test_found_files_are_told_apart_by_content(animate, s2v):
    configs = {name: identify(path).config for name, path in (("animate-14b", animate), ("s2v-14b", s2v))}
    for name, config in configs.items():
        for family in ("animate-14b", "s2v-14b", "a14b", "t2v-a14b"):
            sizes = FAMILIES[family].transformer
            full = config | {"dim": sizes.width, "num_layers": sizes.blocks}
            assert found._fits(FAMILIES[family], full) == (family == name), (name, family)


def test_the_command_line(animate, tmp_path, capsys):
    out = tmp_path / "d"
    assert main(["convert", str(animate), "--to", "diffusers", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["image_dim"] == 160
    assert main(["convert", str(out), "--to", "comfyui", "--out", str(tmp_path / "c.safetensors")]) == 0


@pytest.fixture(scope="module")
def animate_folder(tmp_path_factory):
    """All of Animate as released: both halves of CLIP and the tokenizer of its text, the LoRA for its light."""
    root = tmp_path_factory.mktemp("whole") / "animate"
    write_animate(root)
    (root / "google/umt5-xxl/spiece.model").write_bytes(SPIECE)
    (root / "xlm-roberta-large").mkdir()
    (root / "xlm-roberta-large/tokenizer.json").write_text("{}")
    (root / "relighting_lora").mkdir()
    lora = {"blocks.0.ffn.0.lora_down.weight": torch.zeros(4, 4)}
    save_file(lora, root / "relighting_lora/adapter_model.safetensors")
    return root


CLIP = FAMILIES["animate-14b"].performance.clip


def clip_of(path):
    return clip_vision.load_clip_vision(path, dtype=torch.float32, device=torch.device("cpu")).state_dict()


def test_all_of_animate_there_and_back(animate_folder, tmp_path, capsys):
    assert main(["convert", str(animate_folder), "--to", "diffusers", "--out", str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    assert "CLIP's half for text, which Animate does not use, is left out" in said
    assert f"{animate_folder / 'relighting_lora/adapter_model.safetensors'} is left out: a LoRA" in said
    first = clip_of(animate_folder / CLIP)
    same(clip_of(tmp_path / "d/image_encoder/model.safetensors"), first)
    comfy = run(tmp_path / "d", "comfyui", tmp_path / "c")
    same(clip_of(comfy / "clip_vision/clip_vision_h.safetensors"), first)
    back = run(comfy, "official", tmp_path / "back")
    same(clip_of(back / CLIP), first)
    same(
        load_file(back / FILE),
        {k: t for k, t in load_file(animate_folder / "animate.safetensors").items() if k != FILTER},
    )
    stored = read_pth(animate_folder / CLIP)
    again = read_pth(run(animate_folder / CLIP, "comfyui", tmp_path / "clip.safetensors").parent / "back" / CLIP)
    seen = {name: tensor for name, tensor in stored.items() if name.startswith("visual.") and name != "visual.head"}
    same(again, seen)
    whole = run(tmp_path / "clip.safetensors", "official", tmp_path / "clip.pth")
    same(read_pth(whole), seen | {"visual.head": stored["visual.head"]})


def test_all_of_animate_stays_whole_where_the_layout_does(animate_folder, tmp_path):
    again = run(animate_folder, "official", tmp_path / "again")
    same(read_pth(again / CLIP), read_pth(animate_folder / CLIP))
    assert (again / "xlm-roberta-large/tokenizer.json").read_text() == "{}"
    plain = run(animate_folder / CLIP, "official", tmp_path / "half.pth", "fp16")
    assert read_pth(plain).keys() == read_pth(animate_folder / CLIP).keys()
    assert {tensor.dtype for tensor in read_pth(plain).values()} == {torch.float16}


def test_diffusers_reads_the_picture_encoder_and_the_index(animate_folder, tmp_path):
    from diffusers import WanAnimatePipeline
    from transformers import CLIPImageProcessor, CLIPVisionModel

    root = run(animate_folder, "diffusers", tmp_path / "d")
    model = CLIPVisionModel.from_pretrained(root / "image_encoder", dtype=torch.float32)
    same(model.state_dict(), clip_of(animate_folder / CLIP))
    prepared = CLIPImageProcessor.from_pretrained(root / "image_processor")
    assert prepared.crop_size["height"] == 224 and tuple(prepared.image_mean) == clip_file.MEAN
    index = json.loads((root / "model_index.json").read_text())
    wanted = inspect.signature(WanAnimatePipeline.__init__).parameters.keys() - {"self"}
    assert {name for name in index if not name.startswith("_")} == wanted
    assert index["_class_name"] == "WanAnimatePipeline"
    assert index["transformer"] == ["diffusers", "WanAnimateTransformer3DModel"]


def test_all_of_s2v_there_and_back(tmp_path, monkeypatch):
    s2v_models.write(tmp_path)
    root = tmp_path / "local/s2v"
    ear = root / "wav2vec2-large-xlsr-53-english"
    (ear / "vocab.json").write_text("{}")
    (root / "spiece.model").write_bytes(SPIECE)
    comfy = run(root, "comfyui", tmp_path / "c")
    file = comfy / "audio_encoders/wav2vec2_large_english.safetensors"
    same(load_file(file), load_file(ear / "model.safetensors"))
    kept = run(root, "official", tmp_path / "kept") / ear.name
    same(load_file(kept / "model.safetensors"), load_file(ear / "model.safetensors"))
    for name in ("config.json", "preprocessor_config.json", "vocab.json"):
        assert (kept / name).read_text() == (ear / name).read_text()
    with pytest.raises(UserError, match=r"wav2vec2_large_english\.safetensors: tensor .* expected"):
        convert.plan(comfy, "official")  # it is smaller than the one that the release has
    monkeypatch.setattr(wav2vec, "RELEASED", s2v_models.EAR)
    back = run(comfy, "official", tmp_path / "back") / ear.name
    same(load_file(back / "model.safetensors"), load_file(ear / "model.safetensors"))
    assert wav2vec.read_config(back) == wav2vec.read_config(ear)
    same(load_file(back.parent / FILE), load_file(root / "dit.safetensors"))
    for source in (root, ear):
        with pytest.raises(UserError, match=r"Diffusers has no place for Wan2\.2 S2V, its transformer or its wav"):
            convert.plan(source, "diffusers")
