"""Every field is checked on the server, and the message names the field."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.queue.draft import MAX_SEED, Draft
from wan_ui.queue.intake import resolve
from wan_ui.recipes import NEGATIVE
from wan_ui.request import Request
from wan_ui.settings import Settings
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


@pytest.mark.hardening(17)
def test_the_prompt_is_cleaned_of_nul_and_line_breaks(draft, scripted_settings, tmp_path):
    request = resolve(changed(draft, prompt=" zoom\0in,\n\n sunset 🌅 <b>"), scripted_settings, tmp_path)
    assert request.sampling.prompt == "zoom in, sunset 🌅 <b>"


@pytest.mark.hardening(2, 3, 4, 17)
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
    with pytest.raises(
        UserError, match=r"video: scripted takes none, it does image to video \(i2v\) or a clip that .*; leave it out$"
    ) as caught:
        resolve(changed(draft, video="a.mp4"), scripted_settings, tmp_path / "job")
    assert caught.value.field == "video" and not (tmp_path / "job").exists()
    with pytest.raises(UserError, match="'fly' is not known; choose one of image-to-video"):
        resolve(replace(draft, task="fly"), scripted_settings, tmp_path / "job")


def test_missing_model_files_are_said_before_a_job_is_made(draft, scripted_settings, tmp_path):
    (tmp_path / "scripted-model" / "Wan2.1_VAE.pth").unlink()
    with pytest.raises(UserError, match=r"1 of \d+ files missing"):
        resolve(draft, scripted_settings, tmp_path)


@pytest.fixture
def anything_runs(monkeypatch):
    monkeypatch.setattr("wan_ui.files.places.availability", lambda *_: "")


def sampled(draft, tmp_path, model, scheme, **changes):
    wanted = replace(draft, model=model, scheme=scheme, **changes)
    return resolve(wanted, Settings(outputs=tmp_path / "outputs"), tmp_path / "job").sampling


def test_each_way_of_sampling_has_its_defaults(draft, tmp_path, anything_runs):
    made = sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M")
    assert (made.motion, made.steps, made.guidance, made.negative, made.solver) == ("fast", 4, (1, 1), "", "euler")
    made = sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M", motion="more")
    assert (made.motion, made.steps, made.guidance, made.negative) == ("more", 6, (3.5, 1), NEGATIVE)
    made = sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M", motion="full")
    assert (made.steps, made.guidance, made.shift, made.solver, made.cache) == (40, (3.5, 3.5), 5, "unipc", "off")
    made = sampled(draft, tmp_path, "ti2v-5b-full", "")
    assert (made.motion, made.steps, made.guidance, made.fps) == ("full", 50, (5,), 24) and made.negative == NEGATIVE


def test_what_is_said_of_sampling_is_taken(draft, tmp_path, anything_runs):
    said = {"motion": "full", "guidance": "4, 3", "shift": 12, "solver": "dpm++", "cache": "magcache", "steps": 50}
    made = sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M", **said, negative=" blurred,\n grey ")
    assert (made.guidance, made.shift, made.solver, made.cache) == ((4, 3), 12, "dpm++", "magcache")
    assert (made.negative, made.steps) == ("blurred, grey", 50)
    assert sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M", motion="full", negative="").negative == ""
    assert sampled(draft, tmp_path, "ti2v-5b-full", "", guidance=1).negative == "", "no pass would read it"
    more = sampled(draft, tmp_path, "i2v-a14b", "gguf-Q4_K_M", motion="more", guidance=[5])
    assert more.guidance == (5, 1), "of the first steps alone"


@pytest.mark.parametrize(
    "scheme, change, field, words",
    [
        ("fp8", {"motion": "full"}, "motion", "hold the distilled i2v-a14b alone; choose fp8-base, gguf-Q4_K_M"),
        ("fp8", {"motion": "slow"}, "motion", "is not known; choose one of fast, more, full"),
        ("fp8", {"guidance": 3.5}, "guidance", "i2v-a14b with fp8 is distilled to run without it"),
        ("gguf-Q4_K_M", {"guidance": 3.5}, "guidance", "--motion full samples it so"),
        ("gguf-Q4_K_M", {"negative": "blurred"}, "negative", "without guidance it changes nothing"),
        ("gguf-Q4_K_M", {"shift": 3}, "shift", "distilled for a shift of 5, not 3"),
        ("gguf-Q4_K_M", {"solver": "unipc"}, "solver", "distilled steps are taken by Euler alone"),
        ("gguf-Q4_K_M", {"cache": "magcache"}, "cache", "4 distilled steps differ too much"),
        (
            "gguf-Q4_K_M",
            {"motion": "full", "cache": "teacache"},
            "cache",
            "no numbers for teacache have been published",
        ),
        ("gguf-Q4_K_M", {"motion": "full", "steps": 51}, "steps", r"1 to 50 steps \(Full\), not 51"),
        ("gguf-Q4_K_M", {"motion": "more", "steps": 2}, "steps", r"3 to 12 steps \(More motion\), not 2"),
        ("gguf-Q4_K_M", {"motion": "full", "guidance": "3,4,5"}, "guidance", "3 numbers were given; this model takes"),
        ("gguf-Q4_K_M", {"motion": "full", "guidance": 0.5}, "guidance", "'0.5' is not a number from 1 to 20"),
        ("gguf-Q4_K_M", {"motion": "full", "guidance": "nan"}, "guidance", "'nan' is not a number from 1 to 20"),
        ("gguf-Q4_K_M", {"motion": "full", "guidance": True}, "guidance", "'True' is not a number"),
        ("gguf-Q4_K_M", {"motion": "full", "guidance": {"a": 1}}, "guidance", "is not a number"),
        ("gguf-Q4_K_M", {"motion": "full", "shift": "far"}, "shift", "'far' is not a number from 1 to 20"),
        ("gguf-Q4_K_M", {"motion": "full", "solver": "ddim"}, "solver", "choose one of unipc, dpm"),
        ("gguf-Q4_K_M", {"motion": "full", "negative": "x" * 3000}, "negative", "3,000 characters; the limit is 2,000"),
        ("gguf-Q4_K_M", {"motion": "full", "negative": 7}, "negative", "7 is not text"),
        ("gguf-Q4_K_M", {"motion": ["full"]}, "motion", "is not text"),
    ],
)
def test_bad_sampling_is_refused_by_field(draft, tmp_path, anything_runs, scheme, change, field, words):
    with pytest.raises(UserError, match=words) as caught:
        sampled(draft, tmp_path, "i2v-a14b", scheme, **change)
    assert caught.value.field == field


def test_a_model_that_is_not_distilled_is_sampled_in_full(draft, tmp_path, anything_runs):
    with pytest.raises(UserError, match="ti2v-5b-full with gguf-Q8_0 is not distilled: it is sampled in full"):
        sampled(draft, tmp_path, "ti2v-5b-full", "", motion="fast")
    with pytest.raises(UserError, match="2 numbers were given; this model takes one number"):
        sampled(draft, tmp_path, "ti2v-5b-full", "", guidance="3,4")


def test_the_official_negative_prompt_may_be_longer_than_a_prompt(draft, tmp_path, anything_runs):
    config = Settings(outputs=tmp_path / "outputs", max_prompt=50)
    wanted = replace(draft, model="ti2v-5b-full", scheme="", negative=NEGATIVE)
    assert resolve(wanted, config, tmp_path / "job").sampling.negative == NEGATIVE
    with pytest.raises(UserError, match="negative: 51 characters; the limit is 50"):
        resolve(replace(wanted, negative="x" * 51), config, tmp_path / "job")


def test_sampling_survives_the_table(draft, tmp_path, anything_runs):
    wanted = replace(draft, model="i2v-a14b", scheme="gguf-Q4_K_M", motion="full", guidance="4,3", cache="magcache")
    request = resolve(wanted, Settings(outputs=tmp_path / "outputs"), tmp_path / "job")
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    assert read_request(json.dumps(request.to_dict())) == (request, ())
    spoilt = request.to_dict() | {"guidance": [3.5, "high"], "shift": -1, "motion": 5}
    read, skipped = read_request(json.dumps(spoilt))
    assert read.sampling.guidance == () and set(skipped) == {"guidance", "shift", "motion"}


def test_the_crop_is_the_middle_or_what_is_said_and_travels_with_the_request(draft, scripted_settings, tmp_path):
    Image.effect_noise((320, 64), 90).save(tmp_path / "wide.png")
    wide = changed(draft, image=str(tmp_path / "wide.png"), size="64x64")
    pixels = {}
    for crop in (None, "0,0.5", [1, 0.5, 1], "0.5,0.5,4"):
        request = resolve(replace(wide, crop=crop), scripted_settings, tmp_path / "job")
        pixels[str(crop)] = Image.open(request.inputs["image"]).tobytes()
    original = Image.open(tmp_path / "wide.png").convert("RGB")
    for crop, left in (("None", 128), ("0,0.5", 0), ("[1, 0.5, 1]", 256)):
        assert pixels[crop] == original.crop((left, 0, left + 64, 64)).tobytes(), crop
    assert len(set(pixels.values())) == 4
    request = resolve(replace(wide, crop="0.2,0.5,2"), scripted_settings, tmp_path / "job")
    assert request.public()["crops"] == {"image": (0.2, 0.5, 2.0)}
    assert read_request(json.dumps(request.to_dict())) == (request, ())
    assert "crops" not in resolve(wide, scripted_settings, tmp_path / "job").public(), "as versions before had it"
    with pytest.raises(UserError, match=r"^crop: 'left' is not X,Y") as refused:
        resolve(replace(wide, crop="left"), scripted_settings, tmp_path / "job")
    assert refused.value.field == "crop"
    with pytest.raises(UserError, match=r"^end_crop: there is no picture \(end_image\)"):
        resolve(replace(wide, end_crop="0,0"), scripted_settings, tmp_path / "job")


def test_a_size_of_ones_own_is_on_the_grid_and_within_the_limits(draft, scripted_settings, tmp_path):
    request = resolve(replace(draft, size="80x64"), scripted_settings, tmp_path / "job")
    assert (request.width, request.height) == Image.open(request.inputs["image"]).size == (80, 64)
    for size, nearest in (("84x64", "80x64"), ("96x80", "80x64"), ("1000x16", "192x32"), ("5000x5000", "64x64")):
        with pytest.raises(UserError, match=rf"^size: scripted makes .*, not {size}; .* the nearest is {nearest}$"):
            resolve(replace(draft, size=size), scripted_settings, tmp_path / "job")
        resolve(replace(draft, size=nearest), scripted_settings, tmp_path / "job")
    with pytest.raises(UserError, match=r"^size: scripted makes .*, not 0x64"):
        resolve(replace(draft, size="0x64"), scripted_settings, tmp_path / "job")


def test_a_length_in_seconds_is_the_nearest_that_the_model_makes(draft, scripted_settings, tmp_path):
    found = {
        seconds: resolve(replace(draft, seconds=seconds), scripted_settings, tmp_path).frames for seconds in (0.1, 99)
    }
    assert found == {0.1: 5, 99: 9}
    assert resolve(replace(draft, seconds=0.5, fps=24), scripted_settings, tmp_path).frames == 9
    for seconds in (0, -1, True, "2", float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^seconds: .* is not a number of seconds"):
            resolve(replace(draft, seconds=seconds), scripted_settings, tmp_path)
    with pytest.raises(UserError, match=r"^seconds: say the seconds or the frames"):
        resolve(replace(draft, seconds=1, frames=5), scripted_settings, tmp_path)
