"""A clip that a voice drives: what is asked for, what is refused, and what is kept of it segment by segment."""

import threading
import wave
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from wan_ui.catalog import load_catalog
from wan_ui.errors import Cancelled, UserError
from wan_ui.files import wav2vec
from wan_ui.files.places import availability
from wan_ui.machine.engine_choice import EngineChoice
from wan_ui.media import muxer, sound
from wan_ui.media.pose_video import look_at_pose, pose_frames
from wan_ui.queue.draft import Draft
from wan_ui.queue.intake import resolve
from wan_ui.queue.messages import Partial
from wan_ui.queue.work import Work
from wan_ui.recipes import NEGATIVE, NEGATIVE_OF_SPEECH
from wan_ui.request import Clip, Progress
from wan_ui.ui import form, inputs, voice
from wan_ui.ui.view import View


@pytest.fixture
def settings(scripted_settings):
    """The scripted model is driven by a voice, in segments of 16 frames."""
    root = scripted_settings.catalog.parent / "scripted-model"
    ear = root / "wav2vec2-large-xlsr-53-english"
    ear.mkdir()
    for path in (root / "config.json", root / "x-Q8_0.gguf", *(ear / file for file in wav2vec.FILES)):
        path.touch()
    scripted_settings.catalog.write_text(
        f"""
[spoken]
title = "Spoken"
family = "s2v-14b"
tasks = ["speech-to-video"]
root = "embedded:{root}"
needs_gpu = false
sizes = ["64x64", "128x64"]
frames = [17]
default_frames = 17
rates = [16]
steps = [1, 50]
default_steps = 40
guidance = [4.5]
shift = 3.0
solver = "unipc"
boundary = 0.0
default_scheme = "gguf-Q8_0"
schemes."gguf-Q8_0" = {{ title = "Q8_0", kind = "gguf", qtype = "Q8_0", distilled = false }}
"""
    )
    load_catalog.cache_clear()
    return replace(scripted_settings, model="spoken")


@pytest.fixture
def given(tmp_path):
    Image.new("RGB", (160, 80), "teal").save(tmp_path / "face.png")
    time = np.arange(round(2.1 * 16_000)) / 16_000
    store(tmp_path / "voice.wav", 0.3 * np.sin(2 * np.pi * 220 * time) * (np.sin(9 * time) > 0))
    return {"image": str(tmp_path / "face.png"), "audio": str(tmp_path / "voice.wav")}


def store(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())


def test_the_clip_lasts_as_long_as_the_voice(settings, given, tmp_path):
    request = resolve(Draft(given), settings, tmp_path / "job")
    assert (request.task, request.width, request.height, request.frames) == ("speech-to-video", 128, 64, 34)
    assert request.stages() == ("load", "text", "audio", "image", "denoise", "decode", "encode"), "no lip-sync"
    made = request.sampling
    assert (made.prompt, made.steps, made.guidance, made.shift, made.solver) == ("", 40, (4.5,), 3.0, "unipc")
    assert made.negative == NEGATIVE_OF_SPEECH
    own = resolve(Draft(given, negative=NEGATIVE), settings, tmp_path / "page").sampling
    assert own.negative == NEGATIVE_OF_SPEECH, "the official text is the model's own"
    assert availability(load_catalog(settings.catalog)["spoken"], _scheme(settings), settings, "auto") == ""


def _scheme(settings):
    return load_catalog(settings.catalog)["spoken"].scheme("")


@pytest.mark.parametrize(
    "more, field, words",
    [
        ({"audio": ""}, "audio", "choose a sound file with a voice first"),
        ({"audio": "gone.wav"}, "audio", "does not exist"),
        (
            {"audio": "silent.wav"},
            "audio",
            "nothing in it is louder than -50 dB, so there is no voice that could drive",
        ),
        ({"audio": "long.wav"}, "audio", "is longer than 3 s"),
        ({"image": ""}, "image", "choose a picture first"),
        ({"pose_video": "face.png"}, "pose_video", "cannot be read as a video"),
        ({"pose_video": "gone.mp4"}, "pose_video", "gone.mp4 does not exist"),
        ({"end_image": "face.png"}, "end_image", "takes none"),
        ({"segments": "and then"}, "segments", "takes none"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, given, tmp_path, more, field, words):
    store(tmp_path / "silent.wav", np.zeros(16_000))
    store(tmp_path / "long.wav", np.tile(np.sin(np.arange(16_000) / 9), 4) * 0.5)
    more = {name: value and (value if name == "segments" else str(tmp_path / value)) for name, value in more.items()}
    with pytest.raises(UserError, match=words) as error:
        resolve(Draft({**given, **more}), replace(settings, max_audio_seconds=3), tmp_path / "job")
    assert error.value.field == field and str(error.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "draft, field, words",
    [
        ({"size": "96x64"}, "size", "makes 64x64 or 128x64, not 96x64"),
        ({"frames": 33}, "frames", "lasts as long as the voice"),
        ({"fps": 24}, "fps", "plays at 16 frames a second, not 24"),
        ({"task": "i2v"}, "task", r"does speech to video \(s2v\), not image to video"),
    ],
)
def test_settings_off_the_grid_are_refused(settings, given, tmp_path, draft, field, words):
    with pytest.raises(UserError, match=words) as error:
        resolve(Draft(given, **draft), settings, tmp_path / "job")
    assert error.value.field == field


def test_another_model_says_which_one_a_voice_drives(tmp_path, given, scripted_settings):
    with pytest.raises(UserError, match=r"task: scripted does image to video .* not speech to video \(s2v\)"):
        resolve(Draft({**given, "prompt": "x"}, task="s2v"), scripted_settings, tmp_path / "job")


def test_a_pose_video_of_any_rate_and_shape_is_followed_at_the_clips(settings, given, tmp_path):
    clip = np.zeros((60, 48, 96, 3), np.uint8)
    clip[:, :, :] = (np.arange(60) * 4)[:, None, None, None]
    muxer.write_mp4(clip, tmp_path / "pose.mp4", 60)
    looked = look_at_pose(str(tmp_path / "pose.mp4"))
    model = load_catalog(settings.catalog)["spoken"]
    assert looked.words("64x64", model) == (
        "96 × 48 at 60 frames a second, 1.0 s; followed at 16 a second, its edges cut off"
    )
    frames = list(pose_frames(tmp_path / "pose.mp4", 16, (64, 64)))
    assert len(frames) == 16 and frames[0].shape == (64, 64, 3), "by time, not by every fourth frame"
    assert abs(int(frames[8].mean()) - 120) <= 8, "half a second is half way"
    request = resolve(Draft({**given, "pose_video": str(tmp_path / "pose.mp4")}), settings, tmp_path / "job")
    assert request.inputs["pose_video"].endswith("job/pose.mp4")


# ---------------------------------------------------------------- segments


class Speaking:
    """Three segments, of 13, 16 and 5 frames, each of its own grey."""

    def __init__(self, fails_at: int = 0):
        self.fails_at = fails_at

    def check(self, model, scheme, offload):
        pass

    def load(self, model, scheme, report, offload):
        pass

    def set_loras(self, loras):
        return ()

    def speak(self, request, report):
        for number, count in enumerate((13, 16, 5), start=1):
            report(Progress("denoise", 1, 2, segment=number, segments=3))
            if number == self.fails_at:
                raise Cancelled
            frames = np.full((count, request.height, request.width, 3), 60 * number, np.uint8)
            yield Clip(frames, 16.0, np.full((16, 4, 8, 8), number, np.float32), {"voice": "2 s"})


def at_work(settings, engine):
    told = []
    return Work(settings, lambda name: (engine, EngineChoice(name, "asked for")), told.append, threading.Event()), told


def test_segments_are_joined_with_the_voice_and_kept_one_by_one(settings, given, tmp_path):
    request = resolve(Draft(given), settings, tmp_path / "job")
    work, told = at_work(settings, Speaking())
    result = work.generate(request, tmp_path / "job")
    clip = tmp_path / "job/clip.mp4"
    frames, rate = muxer.read_frames(clip)
    assert (len(frames), rate, result.frames) == (34, 16, 34)
    assert [round(float(frames[at].mean()) / 60) for at in (0, 12, 13, 28, 29, 33)] == [1, 1, 2, 2, 3, 3]
    assert abs(len(sound.decode(clip)) / 16_000 - 2.1) < 0.1
    assert result.facts["engine"] == "auto (asked for)"  # at_work's own choice: nothing but the families decides here
    assert result.facts["segments"] == "3 of 3, seeds " + ", ".join(str(request.sampling.seed + k) for k in range(3))
    kept = [answer for answer in told if isinstance(answer, Partial)]
    assert [answer.kept for answer in kept] == ["the first of 3 segments", "2 of 3 segments"]
    assert not list((tmp_path / "job").glob(".*.part*")), "what only the making needed is gone"


def test_what_was_made_before_a_cancel_is_a_clip_that_speaks(settings, given, tmp_path):
    request = resolve(Draft(given), settings, tmp_path / "job")
    work, told = at_work(settings, Speaking(fails_at=3))
    with pytest.raises(Cancelled):
        work.generate(request, tmp_path / "job")
    clip = tmp_path / "job/clip.mp4"
    assert len(muxer.read_frames(clip)[0]) == 29
    assert abs(len(sound.decode(clip)) / 16_000 - 29 / 16) < 0.1, "the voice ends with it"
    last = [answer for answer in told if isinstance(answer, Partial)][-1]
    assert last.result.frames == 29 and last.lacking == "only 2 of its 3 segments"


# ---------------------------------------------------------------- the form


def test_the_form_says_which_way_a_face_speaks(settings, given, scripted_settings):
    driven = load_catalog(settings.catalog)["spoken"]
    assert inputs.takes(driven, "pose") and inputs.takes(driven, "voice") and not inputs.takes(driven, "segments")
    assert "The voice drives the picture" in voice.way_html(driven)
    usual = load_catalog(load_catalog_path())["wan-tiny"]
    words = voice.way_html(usual)
    assert "Lip-sync of the finished clip" in words.replace("lip-sync", "Lip-sync") and "Wan2.2 S2V" in words
    view = View(model="spoken", scheme="gguf-Q8_0", form={"voice": given["audio"]})
    line = form.using_html(view, driven).replace("\u00a0", " ")
    assert "as long as the voice" in line and "the voice above drives it" in line and "no picture yet" in line
    assert "frames" not in line


def load_catalog_path():
    from wan_ui.settings import ROOT

    return ROOT / "configs" / "catalog.toml"
