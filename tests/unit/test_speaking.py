"""How a voice is spoken: values as people and programs send them, the part of a sound, and what is stored of it."""

import argparse
import json

import numpy as np
import pytest

from tests.job_requests import job_request
from tests.lipsync.conftest import tone
from tests.sounds import write_wav
from wan_ui.commands.options import add_speaking_options, speaking
from wan_ui.errors import UserError
from wan_ui.media import sound
from wan_ui.queue.speech_intake import take_audio, voice_trouble
from wan_ui.request import Request
from wan_ui.settings import Settings
from wan_ui.speaking import USUAL, Speaking, read_speaking
from wan_ui.stored import read_request


def test_what_is_left_out_is_the_whole_sound():
    assert read_speaking({}) == read_speaking({"audio_start": None, "audio_end": ""}) == USUAL
    assert read_speaking({"audio_start": "1.5", "audio_end": 2}) == Speaking(1.5, 2.0)


def test_the_command_line_has_the_same_names():
    parser = argparse.ArgumentParser()
    add_speaking_options(parser)
    assert read_speaking(speaking(parser.parse_args([]))) == USUAL
    words = ["--audio-start", "1.5", "--audio-end", "2", "--face", "2", "--every-sound", "--no-sharpen"]
    asked = parser.parse_args(words)
    assert read_speaking(speaking(asked)) == Speaking(1.5, 2.0, every_sound=True, face=2, sharpen=False)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"audio_start": -1}, "audio_start", "expected seconds"),
        ({"audio_start": True}, "audio_start", "expected seconds"),
        ({"audio_end": "soon"}, "audio_end", "'soon'"),
        ({"audio_end": float("nan")}, "audio_end", "expected seconds"),
        ({"audio_start": [1]}, "audio_start", "expected seconds"),
        ({"audio_start": 10**400}, "audio_start", "expected seconds"),
        ({"face": -1}, "face", "1 to 99, or 0 for the largest"),
        ({"face": 1.5}, "face", "expected a face's number"),
        ({"face": True}, "face", "expected a face's number"),
        ({"every_sound": "yes"}, "every_sound", "neither true nor false"),
        ({"audio_start": 2, "audio_end": 1}, "audio_end", "end at 1 s and begin at 2 s"),
        ({"audio_start": 1, "audio_end": 1.05}, "audio_end", "at least 0.1 s later"),
    ],
)
def test_what_is_no_part_is_refused_by_its_field(values, field, words):
    with pytest.raises(UserError, match=words) as caught:
        read_speaking(values)
    assert caught.value.field == field


def steps() -> np.ndarray:
    """Two seconds, each quarter with a tone of its own level."""
    return np.concatenate([tone(0.25, level=level) for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)])


@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "ogg", "flac"])
def test_the_jobs_copy_is_the_part_alone(tmp_path, suffix):
    source, target = write_wav(tmp_path / "voice.wav", steps()), tmp_path / "part.wav"
    if suffix != "wav":
        source = encoded(source, tmp_path / f"voice.{suffix}")
    seconds = take_audio(str(source), Settings(), target, Speaking(0.5, 1.25))
    found = sound.decode(target)
    assert seconds == 0.75 and len(found) == 12_000
    peaks = [float(np.abs(part[320:-320]).max()) for part in np.split(found, 3)]  # to 20 ms
    assert np.allclose(peaks, [0.3, 0.4, 0.5], atol=0.05), peaks
    assert take_audio(str(source), Settings(), target, Speaking(1.5)) == pytest.approx(0.5, abs=0.06)
    assert take_audio(str(source), Settings(), target) == pytest.approx(2.0, abs=0.06)


def encoded(source, target):
    from wan_ui.media import decoder

    list(decoder.read(["-i", str(source), "-b:a", "64k", "-y", str(target)], 1, lambda given: 10.0))
    return target


def test_of_a_sound_that_is_too_long_a_part_will_do(tmp_path):
    settings, source = Settings(max_audio_seconds=1.0), write_wav(tmp_path / "voice.wav", steps())
    with pytest.raises(UserError, match="longer than 1 s; choose a part of it"):
        take_audio(str(source), settings, tmp_path / "part.wav")
    assert take_audio(str(source), settings, tmp_path / "part.wav", Speaking(0.8, 1.7)) == 0.9
    with pytest.raises(UserError, match="longer than 1 s"):
        take_audio(str(source), settings, tmp_path / "part.wav", Speaking(0.2, 1.7))


@pytest.mark.parametrize(
    ("part", "field"), [((2.0, 0), "audio_start"), ((9, 0), "audio_start"), ((0, 2.5), "audio_end")]
)
def test_a_part_behind_the_end_says_how_long_the_sound_is(tmp_path, part, field):
    source = write_wav(tmp_path / "voice.wav", steps())
    with pytest.raises(UserError, match=r"the sound lasts 2\.00 s, and .* is behind its end") as caught:
        take_audio(str(source), Settings(), tmp_path / "part.wav", Speaking(*part))
    assert caught.value.field == field
    assert f"{field}: the sound lasts 2.00 s" in voice_trouble(str(source), Settings(), Speaking(*part))


def test_a_part_that_is_silent_is_said_before_the_run(tmp_path):
    source = write_wav(tmp_path / "voice.wav", np.concatenate([tone(1.0), tone(1.0, level=0.0)]))
    assert voice_trouble(str(source), Settings(), Speaking(0, 1)) == ""
    assert "silence" in voice_trouble(str(source), Settings(), Speaking(1.2, 2))


def test_a_request_keeps_it_and_one_of_before_means_the_whole():
    plain = job_request(audio="/job/voice.wav")
    assert plain.speaking == USUAL and "speaking" not in plain.to_dict()
    spoken = Request(**{**vars(plain), "speaking": Speaking(0.5, 1.25)})
    values = json.loads(json.dumps(spoken.to_dict()))
    assert values["speaking"]["audio_start"] == 0.5
    assert Request.from_dict(values) == spoken and read_request(json.dumps(values)) == (spoken, ())
    damaged, skipped = read_request(json.dumps({**values, "speaking": {"audio_start": "x"}}))
    assert damaged == plain and skipped == ("speaking",)
