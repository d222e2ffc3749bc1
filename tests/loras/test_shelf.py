"""What the shelf shows of a LoRA: its words and tags, its picture, and which two files are probably one."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from wan_ui.errors import UserError
from wan_ui.loras import scan
from wan_ui.loras.covers import MAX_BYTES, content_of, cover_of
from wan_ui.loras.pairs import likely
from wan_ui.loras.words import tags, trigger_words
from wan_ui.settings import Settings
from wan_ui.ui import lora_pictures

DOG = {"10_dog": {"sksdog": 12, "grass": 5, "a dog runs": 2}, "5_more": {"sksdog": 8, "snow": 8}}


def write(path, width=256, **metadata):
    module = "diffusion_model.blocks.0.self_attn.q"
    tensors = {
        f"{module}.lora_A.weight": np.full((4, width), 0.01, np.float32),
        f"{module}.lora_B.weight": np.full((width, 4), 0.01, np.float32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={key.replace("__", "."): value for key, value in metadata.items()})


def picture(size=(64, 48), kind="PNG", colour="red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return content.getvalue()


def entry_of(folder, name):
    return next(entry for entry in scan(folder) if entry.name == name)


@pytest.mark.parametrize(
    "metadata, words",
    [
        ({"modelspec.trigger_phrase": "in teal style"}, ("in teal style",)),
        ({"trained_words": '["sks dog", "sks cat"]'}, ("sks dog", "sks cat")),
        ({"trigger_words": "a, b", "ss_tag_frequency": json.dumps(DOG)}, ("a", "b")),
        ({"ss_tag_frequency": json.dumps(DOG)}, ("sksdog",)),
        ({"trigger_words": "None", "ss_tag_frequency": json.dumps(DOG)}, ("sksdog",)),
        ({"ss_tag_frequency": json.dumps({"x": {"every": 9, "also": 9, "rare": 1}})}, ("every", "also")),
        ({"ss_tag_frequency": json.dumps({"x": dict.fromkeys("abcd", 9)})}, ()),  # they describe the pictures
        ({"ss_tag_frequency": json.dumps({"x": {"once": 1}})}, ()),
        ({"ss_tag_frequency": '{"x": {"a": "9", "b": true, "c": -4, "d": 1e400}, "y": 7, "z": ["q"]}'}, ()),
        ({"ss_tag_frequency": "[" * 100_000}, ()),
        ({"ss_tag_frequency": "no JSON"}, ()),
        ({}, ()),
    ],
)
def test_trigger_words(metadata, words):
    assert trigger_words(metadata) == words


def test_tags_are_those_of_the_maker_and_then_the_most_used():
    metadata = {"modelspec.tags": "animal, dog", "ss_tag_frequency": json.dumps(DOG)}
    assert tags(metadata) == ("animal", "dog", "sksdog", "snow", "grass", "a dog runs")
    long = json.dumps({"x": {"w" * 61: 5, "<img src=x onerror=alert(1)>": 4}})
    assert tags({"ss_tag_frequency": long}) == ("<img src=x onerror=alert(1)>",)  # text, which the page escapes


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.preview.png", "a.preview.jpeg"])
def test_a_picture_beside_the_file(tmp_path, name):
    write(tmp_path / "a.safetensors")
    assert cover_of(entry_of(tmp_path, "a.safetensors")) is None
    (tmp_path / name).write_bytes(picture())
    cover = cover_of(entry_of(tmp_path, "a.safetensors"))
    assert cover.path == tmp_path / name and content_of(cover) == picture()
    before = cover.key
    (tmp_path / name).write_bytes(picture(colour="blue", size=(65, 48)))
    assert cover_of(entry_of(tmp_path, "a.safetensors")).key != before


@pytest.mark.parametrize(
    "key, wrap",
    [
        ("modelspec__thumbnail", "data:image/jpeg;base64,{}"),
        ("modelspec__thumbnail", "{}"),
        ("ssmd_cover_images", '["{}", "x"]'),
    ],
)
def test_a_picture_in_the_metadata(tmp_path, key, wrap):
    content = picture(kind="JPEG")
    write(tmp_path / "a.safetensors", **{key: wrap.format(base64.b64encode(content).decode())})
    cover = cover_of(entry_of(tmp_path, "a.safetensors"))
    assert cover.inside and content_of(cover) == content
    (tmp_path / "a.png").write_bytes(picture())  # what somebody has put beside it counts first
    assert not cover_of(entry_of(tmp_path, "a.safetensors")).inside


def test_of_a_pair_either_file_may_have_the_picture(tmp_path):
    write(tmp_path / "x_high_noise.safetensors")
    write(tmp_path / "x_low_noise.safetensors")
    (tmp_path / "x_low_noise.png").write_bytes(picture())
    assert cover_of(entry_of(tmp_path, "x (high + low)")).path.name == "x_low_noise.png"


@pytest.mark.hardening(2)
def test_a_link_out_of_the_folder_a_folder_and_a_huge_file_are_no_picture(tmp_path):
    write(tmp_path / "loras" / "a.safetensors")
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "loras" / "a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "loras" / "a.jpg").mkdir()
    with (tmp_path / "loras" / "a.webp").open("wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)
    assert cover_of(entry_of(tmp_path / "loras", "a.safetensors")) is None


def test_it_is_made_small_once_and_a_broken_one_is_none(tmp_path):
    settings = Settings(cache=tmp_path / "cache")
    write(tmp_path / "a.safetensors")
    (tmp_path / "a.png").write_bytes(picture((900, 300)))
    cover = cover_of(entry_of(tmp_path, "a.safetensors"))
    key = lora_pictures.offer(cover).rpartition("/")[2]
    small = lora_pictures.small_picture(key, settings)
    image = Image.open(io.BytesIO(small))
    assert (image.format, image.size) == ("WEBP", lora_pictures.SIZE) and len(small) < 5000
    (tmp_path / "a.png").unlink()
    assert lora_pictures.small_picture(key, settings) == small
    for content in (b"", b"<svg onload=alert(1)>", picture()[:60], b"\x80\x04 a pickle"):
        (tmp_path / "a.png").write_bytes(content)
        broken = lora_pictures.offer(cover_of(entry_of(tmp_path, "a.safetensors"))).rpartition("/")[2]
        with pytest.raises(UserError):
            lora_pictures.small_picture(broken, settings)
    for forged in ("", "../../../etc/passwd", "0" * 32, key.upper()):
        with pytest.raises(UserError, match="there is no such picture"):
            lora_pictures.small_picture(forged, settings)


def test_two_files_that_differ_in_high_and_low_alone_are_probably_one(tmp_path):
    for name in ("gleam-high", "gleam-low", "camera_high_angle", "camera_low_angle", "alone_high"):
        write(tmp_path / f"{name}.safetensors")
    for name in ("other/gleam-low", "sharp_high_noise", "sharp_low_noise"):  # another folder; a pair already
        write(tmp_path / f"{name}.safetensors")
    write(tmp_path / "two high.safetensors")
    write(tmp_path / "two low.safetensors", width=5120)  # of another model
    found = likely(scan(tmp_path))
    both = ("gleam-high.safetensors", "gleam-low.safetensors")
    assert found == dict.fromkeys(both, both)
