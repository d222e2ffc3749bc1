"""What the page says beside a voice: about the sound, the picture that Generate takes, and the clip that is shown."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.lipsync.conftest import tone
from tests.sounds import melody, write_wav
from tests.sounds import voice as spoken
from wan_ui.catalog import load_catalog
from wan_ui.lipsync.choice import OFFICIAL
from wan_ui.media import muxer
from wan_ui.settings import ROOT, Settings
from wan_ui.speaking import Speaking
from wan_ui.ui.voice import voice_note

PORTRAIT = str(ROOT / "assets/examples/portrait.jpg")
COFFEE = str(ROOT / "assets/examples/coffee.jpg")
MODEL = load_catalog(Settings().catalog)["wan-tiny"]


def note(audio, picture="", clip=None):
    return voice_note(str(audio) if audio else audio, picture, clip, "auto", MODEL, Settings())


def clip_of(path, *pictures):
    frames = np.stack([np.asarray(Image.open(picture).convert("RGB").resize((256, 256))) for picture in pictures])
    muxer.write_mp4(frames, path, 16)
    return path


def test_a_voice_and_a_face(tmp_path):
    words = note(write_wav(tmp_path / "voice.wav", spoken(1.0)), PORTRAIT)
    assert words.count("<p") == 1 and "One face was found. It will speak this." in words and 'role="status"' in words
    words = note(write_wav(tmp_path / "voice.wav", spoken(1.0)))
    assert "The sound can be read" in words and "will speak this" not in words, "nothing to be spoken by"


def test_of_music_it_is_said_that_the_mouth_stays_shut(tmp_path):
    music = str(write_wav(tmp_path / "music.wav", melody(2.0)))
    words = note(music, PORTRAIT)
    assert "No voice is heard in it, so the mouth stays as it is in the clip" in words and "One face was found" in words
    words = voice_note(music, PORTRAIT, None, "auto", MODEL, Settings(), Speaking(every_sound=True))
    assert "No voice" not in words and "It will speak this." in words


def test_a_voice_that_drives_the_picture_is_not_judged_by_the_clip_that_is_shown(tmp_path):
    voice, s2v = str(write_wav(tmp_path / "voice.wav", spoken(1.0))), load_catalog(Settings().catalog)["s2v-14b"]
    cup, person = clip_of(tmp_path / "cup.mp4", *[COFFEE] * 6), clip_of(tmp_path / "person.mp4", *[PORTRAIT] * 6)
    alone = voice_note(voice, PORTRAIT, None, "auto", s2v, Settings())
    assert "It will drive the picture." in alone
    assert voice_note(voice, PORTRAIT, cup, "auto", s2v, Settings()) == alone
    words = voice_note(voice, PORTRAIT, person, "auto", s2v, Settings())
    assert words.startswith(alone) and "one face was found. Add speech has it speak this." in words


@pytest.mark.parametrize("kind", ["unreadable", "silent", "short", "empty"])
def test_what_is_no_voice_is_not_going_to_be_spoken(tmp_path, kind):
    path = tmp_path / "voice.wav"
    if kind == "unreadable":
        path.write_bytes(b"not a sound at all")
    else:
        write_wav(path, {"silent": np.zeros(16_000), "short": tone(0.05), "empty": tone(0)}[kind])
    clip = clip_of(tmp_path / "clip.mp4", *[PORTRAIT] * 6)
    words = note(str(path), PORTRAIT, clip)
    assert "will speak" not in words and 'role="alert"' in words
    said = {"unreadable": "voice.wav is not audio", "silent": "silence", "short": "lasts 0.05 s", "empty": "voice.wav"}
    assert said[kind] in words


def test_the_clip_that_gets_the_speech_is_judged_not_the_picture(tmp_path):
    voice = write_wav(tmp_path / "voice.wav", spoken(1.0))
    cup, person = clip_of(tmp_path / "cup.mp4", *[COFFEE] * 6), clip_of(tmp_path / "person.mp4", *[PORTRAIT] * 6)
    words = note(voice, PORTRAIT, cup)
    assert "New clip: one face was found. It will speak this." in words
    assert "The clip that is shown: no face was found" in words and "It cannot be given speech." in words
    words = note(voice, COFFEE, person)
    assert "The clip that is shown: one face was found. It will speak this." in words
    assert "New clip: no face was found" in words and "may stay silent" in words
    now_and_then = clip_of(tmp_path / "now.mp4", *[COFFEE] * 18, *[PORTRAIT] * 9)
    assert "a face was found in only 3 of 9 frames" in note(voice, "", now_and_then)


def test_a_picture_is_judged_by_what_the_model_leaves_of_it(tmp_path):
    """A face of 63 pixels is sharp in the picture and a smear in Wan-Tiny's clip of it."""
    voice = write_wav(tmp_path / "voice.wav", spoken(1.0))
    small = Image.new("RGB", (256, 256), (90, 100, 110))
    small.paste(Image.open(PORTRAIT).resize((180, 180)), (38, 76))
    small.save(tmp_path / "small.png")
    words = note(voice, str(tmp_path / "small.png"))
    assert "pixels; at least 72 are needed: crop closer" in words and 'role="alert"' in words


def test_a_folder_of_the_official_weights_in_part_is_said(tmp_path):
    voice = write_wav(tmp_path / "voice.wav", spoken(1.0))
    (tmp_path / OFFICIAL / "musetalkV15").mkdir(parents=True)
    words = voice_note(voice, PORTRAIT, None, "auto", MODEL, replace(Settings(), models=tmp_path))
    assert "lacks musetalkV15/musetalk.json" in words and "so the small model speaks" in words
    assert "It will speak this." in words
