"""Every field is checked on the server, and the message names the field."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.queue.intake import MAX_SEED, Draft, resolve
from wan_ui.request import Request
from wan_ui.stored import read_request


@pytest.fixture
def draft(picture) -> Draft:
    return Draft({"image": str(picture), "prompt": "slowly zoom in"}, model="scripted", seed=5)


def changed(draft: Draft, /, **changes) -> Draft:
    given = {name: changes.pop(name) for name in ("image", "prompt", "audio", "video") if name in changes}
    return replace(draft, inputs=draft.inputs | given, **changes)


def test_zeros_mean_choose_for_me(draft, scripted_settings, tmp_path):
    request = resolve(draft, scripted_settings, tmp_path / "job")
    made = request.sampling
    assert (made.scheme, made.engine, request.frames, made.steps, made.seed) == ("bf16", "auto", 5, 4, 5)
    assert (request.width, request.height) == (96, 64), "160 x 120 is nearest to 3:2"
    assert Image.open(request.inputs["image"]).size == (96, 64)


def test_frames_per_second_are_the_models_or_chosen(draft, scripted_settings, tmp_path):
    assert resolve(draft, scripted_settings, tmp_path).sampling.fps == 16
    assert resolve(replace(draft, fps=24), scripted_settings, tmp_path).public()["fps"] == 24


def test_a_draft_is_asked_for_and_is_in_what_a_clip_carries(draft, scripted_settings, tmp_path):
    assert "draft" not in resolve(draft, scripted_settings, tmp_path).public(), "as versions before had it"
    assert resolve(replace(draft, draft=None), scripted_settings, tmp_path).sampling.draft is False
    request = resolve(replace(draft, draft=True), scripted_settings, tmp_path)
    assert request.public()["draft"] is True
    assert Request.from_dict(request.to_dict()) == request
    assert read_request(json.dumps(request.to_dict())) == (request, ())
    older = {name: value for name, value in request.to_dict().items() if name != "draft"}
    found, skipped = read_request(json.dumps(older))
    assert (found.sampling.draft, skipped) == (False, ())
    assert read_request(json.dumps(older | {"draft": "yes"}))[1] == ("draft",)


def test_a_random_seed_is_drawn_once_and_differs(draft, scripted_settings, tmp_path):
    seeds = {resolve(replace(draft, seed=-1), scripted_settings, tmp_path).sampling.seed for _ in range(5)}
    assert len(seeds) == 5 and all(0 <= seed <= MAX_SEED for seed in seeds)


def test_the_prompt_is_cleaned_of_nul_and_line_breaks(draft, scripted_settings, tmp_path):
    request = resolve(changed(draft, prompt=" zoom\0in,\n\n sunset 🌅 <b>"), scripted_settings, tmp_path)
    assert request.sampling.prompt == "zoom in, sunset 🌅 <b>"


@pytest.mark.parametrize(
    "change, field, words",
    [
        ({"prompt": "  \n "}, "prompt", "say what should happen"),
        ({"prompt": "a" * 100_000}, "prompt", "100,000 characters; the limit is 2,000"),
        ({"image": ""}, "image", "choose a picture"),
        ({"image": "http://169.254.169.254/latest"}, "image", "does not exist"),
        ({"model": "../../etc/passwd"}, "model", "is not known"),
        ({"scheme": "gguf-Q8_0"}, "scheme", "choose one of bf16, fp8"),
        ({"engine": "rm -rf"}, "engine", "is not known"),
        ({"frames": 6}, "frames", "5 or 9 frames, not 6"),
        ({"frames": "many"}, "frames", "not a whole number"),
        ({"frames": 5.5}, "frames", "not a whole number"),
        ({"draft": "yes"}, "draft", "'yes' is neither true nor false"),
        ({"draft": 1}, "draft", "1 is neither true nor false"),
        ({"steps": 9}, "steps", "1 to 8 steps, not 9"),
        ({"steps": -4}, "steps", "not -4"),
        ({"steps": 0}, "steps", "1 to 8 steps, not 0"),
        ({"frames": 0}, "frames", "5 or 9 frames, not 0"),
        ({"steps": True}, "steps", "True is not a whole number"),
        ({"fps": 25}, "fps", "plays at 12, 16, 24 or 30 frames a second, not 25"),
        ({"fps": 0}, "fps", "frames a second, not 0"),
        ({"fps": "24"}, "fps", "'24' is not a whole number"),
        ({"seed": True}, "seed", "True is not a whole number"),
        ({"seed": "5"}, "seed", "'5' is not a whole number"),
        ({"seed": float("nan")}, "seed", "nan is not a whole number"),
        ({"seed": 10**5000}, "seed", "a number of 16610 bits is too large"),
        ({"size": "²x²"}, "size", "is not WIDTHxHEIGHT"),
        ({"size": ["64x64"]}, "size", "is not text"),
        ({"size": "1000000x1000000"}, "size", "makes 64x64, 96x64 or 64x96"),
        ({"size": "big"}, "size", "not WIDTHxHEIGHT"),
        ({"seed": 2**32}, "seed", "not between"),
        ({"seed": -2}, "seed", "not between"),
        ({"seed": float("inf")}, "seed", "not a whole number"),
        ({"seed": None}, "seed", "not a whole number"),
    ],
)
def test_bad_values_are_refused_by_field(draft, scripted_settings, tmp_path, change, field, words):
    with pytest.raises(UserError, match=words) as caught:
        resolve(changed(draft, **change), scripted_settings, tmp_path / "job")
    assert caught.value.field == field
    assert not (tmp_path / "job").exists(), "nothing is left behind"


def test_what_a_task_does_not_take_is_refused(draft, scripted_settings, tmp_path):
    with pytest.raises(UserError, match="image to video takes none; leave it out") as caught:
        resolve(changed(draft, video="a.mp4"), scripted_settings, tmp_path / "job")
    assert caught.value.field == "video" and not (tmp_path / "job").exists()
    with pytest.raises(UserError, match="'fly' is not known; choose one of image-to-video, lip-sync"):
        resolve(replace(draft, task="fly"), scripted_settings, tmp_path / "job")


def test_missing_model_files_are_said_before_a_job_is_made(draft, scripted_settings, tmp_path):
    (tmp_path / "scripted-model" / "Wan2.1_VAE.pth").unlink()
    with pytest.raises(UserError, match=r"1 of \d+ files missing"):
        resolve(draft, scripted_settings, tmp_path)
