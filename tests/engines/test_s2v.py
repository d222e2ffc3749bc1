"""Speech to video: every stage against what the official code gave (tests/golden/make_s2v.py), and what the engine
does beyond it: it streams, stops within a step, cuts at the voice's end and refuses what cannot be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.engines import s2v_models as small
from wan_ui.engines import s2v, s2v_voice, vae
from wan_ui.engines.s2v_model import S2VTransformer
from wan_ui.errors import Cancelled, UserError
from wan_ui.files import s2v_file, sizes
from wan_ui.files.dit_file import own_sizes, parameters, read_dit
from wan_ui.files.headers import read_header
from wan_ui.media import muxer, sound
from wan_ui.qa.reference import float32_engine
from wan_ui.request import Request, Sampling
from wan_ui.settings import ROOT

GOLDEN = ROOT / "tests" / "golden"
ALLOWED = 1e-4  # as far as the largest number may be apart


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN / "of-wan22" / "speech.safetensors", "pt") as file:
        assert file.metadata()["source"].startswith("Wan-Video/Wan2.2 42bf4cfaa384bc21833865abc2f9e6c0e67233dc")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


@pytest.fixture(scope="module")
def engine(isolated_settings):
    model = small.write(isolated_settings.models)
    engine = float32_engine(model, model.scheme(""), lambda progress: None)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Picture, voice and pose video of a job, by the names of its inputs."""
    folder = tmp_path_factory.mktemp("spoken")
    Image.fromarray(small.picture()).save(folder / "picture.png")
    samples = (small.voice() * 32767).astype("<i2")
    import wave

    with wave.open(str(folder / "voice.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return {"image": str(folder / "picture.png"), "audio": str(folder / "voice.wav")}


@pytest.fixture
def exact(monkeypatch):
    """The job hears the very samples that the official code did, and its pose video is not encoded meanwhile."""
    monkeypatch.setattr(sound, "decode", lambda path, most: small.voice())
    monkeypatch.setattr(s2v, "pose_frames", lambda path, fps, size: iter(small.pose(20)))


def request(files, **more) -> Request:
    made = {"prompt": "slowly zoom in, sunset light", "negative": "fog", "steps": 3, "seed": 11, "guidance": (4.5,)}
    made |= {"motion": "full", "shift": 3.0, "solver": "unipc", "cache": "off", "fps": 16} | more
    sampling = Sampling(**{"model": "random-s2v", "scheme": "bf16", "engine": "diffusers"} | made)
    frames = sound.frame_count(round(small.SECONDS * 16_000), 16)
    return Request("speech-to-video", files, small.SIZE, small.SIZE, frames, sampling, small.SECONDS)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours.float() - theirs.float()).abs().max().item()


def test_the_voice_is_heard_as_officially(engine, golden, monkeypatch):
    frames = golden["voice"].shape[-1]
    heard = engine.listener.hear(small.voice(), frames, 16, torch.device("cpu"))
    assert apart(heard, golden["voice"]) < ALLOWED and golden["voice"].std() > 0.1
    assert not heard[..., 23:].any(), "after its end nothing is heard"
    # A long one is heard in windows.
    long = np.tile(small.voice(), 5)
    whole = engine.listener.hear(long, 112, 16, torch.device("cpu"))
    monkeypatch.setattr(s2v_voice, "WINDOW", 100)
    monkeypatch.setattr(s2v_voice, "OVERLAP", 50)
    windows = []
    parts = engine.listener.hear(long, 112, 16, torch.device("cpu"), lambda k, n: windows.append((k, n)))
    assert windows == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert 0 < apart(parts, whole) < 0.1 * whole.std(), "attention hears less of what is far"


@pytest.mark.parametrize("name", ["free", "posed"])
def test_one_step_is_as_officially(engine, golden, name):
    """Of the first segment, without frames before, and of the second; with a pose and without."""
    transformer, texts = engine.experts[0], engine.encode_text("slowly zoom in, sunset light")
    picture = golden[f"{name} picture"]
    assert apart(engine.encode_image(small.picture(), 1), picture) < ALLOWED
    for at, motion in (("first", None), ("last", golden[f"{name} motion"])):
        number = int(at == "last")
        voice = golden["voice"][..., 16 * number : 16 * number + 16]
        pose = golden["pose"][number] if name == "posed" else None
        with torch.inference_mode():
            given = transformer.given(picture, motion, voice, 73, 4, pose)
            time = golden[f"{name} {at} time"].item()
            velocity = transformer(golden[f"{name} {at} latents"], time, texts, given)
        assert apart(velocity, golden[f"{name} {at} velocity"]) < ALLOWED


@pytest.mark.parametrize("name", ["free", "posed"])
def test_a_whole_clip_is_as_officially(engine, golden, files, exact, name):
    posed = {"pose_video": "pose.mp4"} if name == "posed" else {}
    clips = list(engine.speak(request(files | posed), lambda progress: None))
    assert [len(clip.frames) for clip in clips] == [13, 10], "23 frames: as long as the voice"
    theirs = vae.to_uint8(golden[name][None]).numpy()  # every second frame, every fourth pixel
    ours = np.concatenate([clip.frames for clip in clips])
    shown = ours[::2, ::4, ::4]
    assert np.abs(shown.astype(int) - theirs[: len(shown)]).max() <= 1 and shown.std() > 20
    assert {"guidance", "solver", "voice"} <= clips[0].facts.keys()


def test_it_reports_every_step_with_its_segment_and_stops_there(engine, files, exact):
    seen = []
    spoken = engine.speak(request(files | {"pose_video": "pose.mp4"}), seen.append)
    first = next(spoken)
    assert {event.segment for event in seen} == {1} and {event.segments for event in seen} == {2}
    stages = list(dict.fromkeys(event.stage for event in seen))
    assert stages == ["text", "audio", "image", "denoise", "decode"] and len(first.frames) == 13
    passes = [event.detail for event in seen if event.stage == "denoise"]
    assert len(passes) == 6 and passes[1].endswith("without voice and prompt")

    def stop(progress):
        if (progress.segment, progress.stage, progress.step) == (2, "denoise", 2):
            raise Cancelled

    stopped = engine.speak(request(files), stop)
    assert len(next(stopped).frames) == 13, "the first segment is there"
    with pytest.raises(Cancelled):
        next(stopped)


def test_a_voice_too_long_for_the_memory_is_refused(engine, files, monkeypatch):
    monkeypatch.setattr(s2v, "free_host", lambda: 10_000)
    with pytest.raises(UserError, match=r"audio: what is heard in a voice of 1 s takes .* cut it$") as error:
        next(engine.speak(request(files), lambda progress: None))
    assert error.value.field == "audio"


def test_a_lora_of_another_width_changes_nothing_and_one_that_fits_shows(engine, files, exact, tmp_path):
    from safetensors.torch import save_file

    from wan_ui.request import LoraSpec

    def lora(name, width):
        path = tmp_path / f"{name}.safetensors"
        down, up = torch.randn(4, width), torch.randn(width, 4)
        save_file({
            "diffusion_model.blocks.1.self_attn.q.lora_A.weight": down,
            "diffusion_model.blocks.1.self_attn.q.lora_B.weight": up,
        }, path)  # fmt: skip
        return LoraSpec(str(path), 1.0, "both")

    plain = next(engine.speak(request(files, steps=1), lambda progress: None)).latents
    with pytest.raises(UserError, match="wide"):
        engine.set_loras([lora("wide", 128)])
    (match,) = engine.set_loras([lora("fits", 64)])
    assert match.matched == {"both": "1/1"}
    changed = next(engine.speak(request(files, steps=1), lambda progress: None)).latents
    engine.set_loras([])
    again = next(engine.speak(request(files, steps=1), lambda progress: None)).latents
    assert np.abs(changed - plain).max() > 1e-3 and (again == plain).all()


# ---------------------------------------------------------------- files


def test_names_and_shapes_are_those_of_the_release():
    """Of all 40 blocks, kept as data: the list was written from the official modules."""
    stored = json.loads((GOLDEN / "s2v-14b-parameters.json").read_text())
    released = {"dim": 5120, "ffn_dim": 13824, "freq_dim": 256, "num_heads": 40, "num_layers": 40, "in_dim": 16}
    config = released | {"out_dim": 16, "model_type": "s2v"} | s2v_file.RELEASED
    shapes = parameters(config)
    assert {name: list(shape) for name, shape in shapes.items()} == stored["parameters"]
    with torch.device("meta"):
        model = S2VTransformer(s2v_file.with_defaults(config))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes
    assert sizes  # the module that reads the others


def test_a_file_without_its_config_says_what_it_is(isolated_settings, engine):
    path = isolated_settings.models / "local/s2v/dit.safetensors"
    config = own_sizes(path, read_header(path))
    assert config["model_type"] == "s2v" and config["num_audio_token"] == 4 and config["audio_layers"] == 25
    assert len(read_dit(path)) == len(parameters(small.config()))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"enable_adain": False}, "enable_adain is False; the released S2V has True"),
        ({"audio_inject_layers": [0, 9]}, "it names blocks from 0 to 3"),
    ],
)
def test_another_variant_is_refused(isolated_settings, engine, tmp_path, change, words):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small.config() | change))
    with pytest.raises(UserError, match=words):
        read_dit(isolated_settings.models / "local/s2v/dit.safetensors", "", config)


def test_the_voice_is_joined_as_far_as_the_clip_goes(files, tmp_path):
    parts = []
    for number in range(2):
        parts.append(tmp_path / f"part-{number}.mp4")
        muxer.write_mp4(np.full((8, 64, 64, 3), 80 * number, np.uint8), parts[-1], 16)
    from pathlib import Path

    muxer.join(parts, tmp_path / "clip.mp4", {"a": 1}, Path(files["audio"]), 1.0)
    assert len(muxer.read_frames(tmp_path / "clip.mp4")[0]) == 16
    assert abs(len(sound.decode(tmp_path / "clip.mp4")) / 16_000 - 1.0) < 0.07
    assert muxer.read_metadata(tmp_path / "clip.mp4") == {"a": 1}
    assert replace(request(files), frames=5).frames == 5


def test_the_doctor_holds_every_stage_and_names_the_one_that_is_wrong(engine, monkeypatch):
    from wan_ui.qa import reference, stages

    model = engine.loaded
    kept = reference.compute(engine, model, reference.default_trial(model))
    assert list(reference.stage_names(model)) == ["text", "audio", "image", "schedule", "dit", "decode", "next segment"]
    scheme = model.scheme("")
    report = stages.check(engine, model, scheme, kept, "itself", lambda progress: None)
    assert [stage.name for stage in report.stages if not stage.passed] == [], report.stages
    hear = engine.listener.hear
    monkeypatch.setattr(engine.listener, "hear", lambda *given: hear(*given).roll(1, dims=0))
    report = stages.check(engine, model, scheme, kept, "itself", lambda progress: None)
    assert report.first_failing == "audio" and [stage.name for stage in report.stages if not stage.passed] == ["audio"]
