"""What a call of the API must not ask of any model: refused before there is a job, by the field or the file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.files.test_found import full_size
from tests.performance.test_watch import SIZE, find, scene
from tests.queue.test_driven import store
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.performance import watch
from wan_ui.qa.synthetic import write_hole
from wan_ui.queue.intake import resolve
from wan_ui.settings import Settings
from wan_ui.ui import api_jobs
from wan_ui.ui.api_values import PARAMETERS


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """What `submit` makes of values; files by their names in tmp_path. The weights count as being there."""
    monkeypatch.setattr("wan_ui.files.places.availability", lambda *_: "")
    monkeypatch.setattr(api_jobs, "uploaded", lambda value, field: str(tmp_path / value) if value else "")
    Image.new("RGB", (832, 480), "teal").save(tmp_path / "hero.png")
    store(tmp_path / "voice.wav", 0.5 * np.sin(np.arange(4 * 16_000) / 9))
    settings = Settings(outputs=tmp_path / "outputs", models=tmp_path / "models", max_audio_seconds=3)

    def ask(comfyui="", **values):
        draft = api_jobs.draft_of({**PARAMETERS, "image": "hero.png", "prompt": "x", **values})
        return resolve(draft, replace(settings, comfyui=comfyui), tmp_path / "job")

    return ask


S2V, ANIMATE = {"model": "s2v-14b", "audio": "voice.wav"}, {"model": "animate-14b", "performance": "one.mp4"}


@pytest.mark.parametrize(
    "values, field, words",
    [
        ({"model": "i2v-a14b", "task": "s2v"}, "task", "i2v-a14b does .* not speech to video .*; s2v-14b can do it"),
        ({"model": "s2v-14b", "task": "animate"}, "task", "s2v-14b does .*; animate-14b can do it"),
        ({"model": "animate-14b", "task": "t2v"}, "task", "animate-14b does .* not text to video"),
        ({"model": "t2v-a14b", "task": "fly", "image": None}, "task", "'fly' is not known; choose one of"),
        ({"model": "t2v-a14b", "image": None, "size": "833x480"}, "size", "t2v-a14b makes .*, not 833x480"),
        ({"model": "i2v-a14b", "frames": 80}, "frames", "i2v-a14b makes .* frames, not 80"),
        ({**S2V, "size": "100x100"}, "size", "s2v-14b makes .*, not 100x100"),
        ({**S2V, "frames": 82}, "frames", "the clip lasts as long as the voice; leave them out"),
        ({**ANIMATE, "size": "100x100"}, "size", "animate-14b makes .*, not 100x100"),
        ({**ANIMATE, "frames": 78}, "frames", "the clip lasts as long as the performance; leave them out"),
        (S2V, "audio", "is longer than 3 s"),
        ({**ANIMATE, "performance": "hero.png"}, "performance", "hero.png cannot be read as a video"),
        ({**ANIMATE, "performance": None}, "performance", "choose a video of a person first"),
        ({**ANIMATE, "performance": "short.mp4"}, "performance", "short.mp4 has 3 frames at 30 a second; at least 5"),
        ({"model": "i2v-a14b", "audio": "voice.wav", "end_image": "voice.wav"}, "end_image", "voice.wav"),
    ],
)
def test_each_is_refused_by_its_field(ask, tmp_path, values, field, words):
    for name, count in (("one.mp4", 6), ("short.mp4", 3)):
        muxer.write_mp4([scene(SIZE, 20)] * count, tmp_path / name, 30.0)
    with pytest.raises(UserError, match=words) as caught:
        ask(**values)
    assert caught.value.field == field and str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "frames, words",
    [
        ([scene(SIZE)] * 8, "performance: the video shows no person that can be recognised"),
        ([scene(SIZE, 20, 60)] * 8, "performance: the video shows more than one person in 8 of 8 frames; crop it"),
        ([scene(SIZE, 20)] * 6 + [scene(SIZE, 60, grey=220)] * 6, "performance: the video has a cut at 0.2 s; give"),
    ],
)
def test_a_performance_that_nobody_can_follow_is_refused_by_its_job(ask, tmp_path, frames, words):
    """By then its file has the name that the job's folder gave it, which tells the person nothing."""
    muxer.write_mp4(frames, tmp_path / "dance.mp4", 30.0)
    request = ask(**ANIMATE | {"performance": "dance.mp4"})
    with pytest.raises(UserError, match=words) as caught:
        watch.watch(request.inputs, SIZE, 30.0, Settings(), lambda _: None, tmp_path, load=lambda _: find)
    assert caught.value.field == "performance"


def test_half_a_pair_and_a_file_of_an_unknown_kind_are_named(ask, tmp_path):
    folder = tmp_path / "comfy/models/diffusion_models"
    full_size(folder / "wan_high_noise.safetensors")
    write_hole(folder / "wan_other.safetensors", {"double_blocks.0.x.weight": ("BF16", (2, 2))}, "")
    with pytest.raises(UserError) as caught:
        ask(model="i2v-a14b", scheme="found-wan", comfyui=str(tmp_path / "comfy"))
    assert caught.value.field == "scheme"
    for words in (
        "scheme: 'found-wan' is not available for i2v-a14b; choose one of",
        "wan_high_noise.safetensors: one half of Wan2.2 I2V A14B, 4-step distilled; its low-noise expert is not here",
        "wan_other.safetensors: a Flux or Hunyuan transformer; Wan UI reads Wan's transformers",
    ):
        assert words in str(caught.value)
