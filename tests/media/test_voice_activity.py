"""What is taken for a voice: the shipped one, alone and under other sound; what is not: music, noise, a tone."""

import numpy as np
import pytest

from tests.lipsync.conftest import tone
from tests.sounds import RATE, drums, hiss, melody, voice
from wan_ui.errors import Cancelled
from wan_ui.media import sound, voice_activity


def share(samples: np.ndarray) -> float:
    """Of what is loud, that is taken for a voice."""
    loud = sound.is_loud(samples)
    return float(voice_activity.voiced(samples)[loud].mean())


@pytest.mark.parametrize("level", [1.0, 0.01], ids=["usual", "quiet"])
def test_a_voice_is_one(level):
    assert share(voice(5.0) * level) > 0.95


@pytest.mark.parametrize("behind", [melody(5.0) * 0.3, hiss(5.0, 0.02)], ids=["music", "hiss"])
def test_so_it_is_with_something_behind_it(behind):
    speech = voice(5.0)
    assert voice_activity.voiced(speech + behind[: len(speech)])[sound.is_loud(speech)].mean() > 0.9


@pytest.mark.parametrize(
    "samples",
    [melody(4.0), melody(4.0, seed=7), hiss(4.0), hiss(4.0, 0.01), drums(4.0), tone(4.0), np.zeros(4 * RATE)],
    ids=["melody", "another", "hiss", "faint hiss", "drums", "tone", "silence"],
)
def test_music_and_noise_are_none(samples):
    assert not voice_activity.voiced(samples.astype(np.float32)).any()


def test_of_a_voice_between_music_and_drums_the_edges_are_found():
    found = voice_activity.voiced(np.concatenate([melody(2.0), voice(1.2), drums(2.0)]))
    edges = np.flatnonzero(found)[[0, -1]] / sound.FEATURE_RATE
    assert abs(edges[0] - 2.0) <= 0.25 and abs(edges[1] - 3.2) <= 0.4, edges


def test_the_mouth_opens_softly_where_the_voice_begins():
    samples = np.concatenate([melody(2.0), voice(1.2), hiss(2.0)])
    gate = sound.speech_gate(samples, 25, 130, voice_activity.voiced(samples))
    assert not gate[:40].any() and gate[55:70].min() == 1 and not gate[98:].any()
    assert np.abs(np.diff(gate)).max() <= 0.5, "two frames at least for a way"
    assert sound.speech_gate(samples, 25, 130)[:40].max() == 1, "every sound"


def test_listening_can_be_ended():
    def look(part):
        raise Cancelled

    with pytest.raises(Cancelled):
        voice_activity.voiced(voice(1.0), look)


@pytest.mark.parametrize(
    ("flags", "lacks"), [("sse4_2 avx", True), ("sse4_2 avx avx2 fma", False)], ids=["old", "usual"]
)
def test_a_cpu_that_the_network_is_not_built_for_is_said(monkeypatch, tmp_path, flags, lacks):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags} aes\n")
    monkeypatch.setattr(voice_activity, "CPU_FLAGS", tmp_path / "cpuinfo")
    assert voice_activity._has_avx2() is not lacks


def test_words_say_what_moves_the_mouth():
    music = melody(2.0)
    nothing = np.zeros(len(sound.is_loud(music)), bool)
    assert sound.describe(music, nothing).startswith("no voice in 2.0 s of sound, so the mouth stays")
    both = np.concatenate([music, voice(1.0)])
    assert sound.describe(both, voice_activity.voiced(both)).endswith("s of other sound leave the mouth alone")
