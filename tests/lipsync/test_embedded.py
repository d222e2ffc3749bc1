"""The small MuseTalk that ships: the mouth follows held-out speech on faces that nobody trained on.

Faces and speech come from the programs that drew its training data, with other random numbers, so the true opening of
a mouth is known: that of the most similar picture among those of the same face, opened by known amounts.
"""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from wan_ui.lipsync.choice import EMBEDDED, OFFICIAL, choose_weights
from wan_ui.lipsync.files import NETWORKS
from wan_ui.lipsync.speech import LipSync
from wan_ui.media import sound
from wan_ui.settings import ROOT, Settings

FPS = 12
BOX = (70, 60, 250, 280)  # of a drawn face in its picture
LEVELS = np.linspace(0, 1, 11)


@pytest.fixture(scope="module")
def tools():
    """The modules that draw faces and speak."""
    sys.path.insert(0, str(ROOT / "tools" / "musetalk_tiny"))
    import faces
    import mouth
    import speech

    yield faces, mouth, speech
    sys.path.pop(0)


@pytest.fixture(scope="module")
def lipsync():
    return LipSync.load(EMBEDDED, torch.device("cpu"), torch.bfloat16)


def in_a_picture(face: torch.Tensor) -> np.ndarray:
    """(3, s, s) in 0..1 -> (320, 320, 3) uint8 with the face in BOX, as tall as faces are."""
    left, top, right, bottom = BOX
    picture = np.full((320, 320, 3), 120, np.uint8)
    pixels = (face.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    picture[top:bottom, left:right] = cv2.resize(pixels, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return picture


@pytest.fixture(scope="module")
def drawn(tools):
    """Per face: pictures by opening (11, 320, 320, 3) uint8, and the slices of the mouth's surroundings."""
    faces, mouth, _ = tools
    torch.manual_seed(77)
    photos = faces.Photos(torch.randint(0, 255, (4, 3, 256, 256), dtype=torch.uint8), [], ROOT)
    base, mouths = faces.draw_faces(2, 256, "cpu", photos)
    zero = torch.zeros(2)
    opened = [mouth.open_mouth(base, mouths, zero + float(level), zero) for level in LEVELS]
    left, top, right, bottom = BOX
    result = []
    for index in range(2):
        x = left + (right - left) * mouths["x"][index].item()
        y = top + (bottom - top) * mouths["y"][index].item()
        area = (slice(int(y) - 20, int(y) + 45), slice(int(x) - 45, int(x) + 45))
        result.append((np.stack([in_a_picture(level[index]) for level in opened]), area))
    return result


@pytest.fixture(scope="module")
def voice(tools):
    """(samples, envelope at FPS): 2 s of speech between two pauses."""
    _, _, speech = tools
    tracks = speech.write_tracks(np.random.default_rng(4242), 2.6)
    tracks[:25, [1, 5, 8]] = tracks[-25:, [1, 5, 8]] = 0
    samples = speech.render(torch.from_numpy(tracks)[None], torch.Generator().manual_seed(4242), clean=True)[0].numpy()
    times = np.arange(sound.frame_count(len(samples), FPS)) / FPS
    return samples, speech.envelope(samples, times)


def opening(frames: np.ndarray, known: np.ndarray, area: tuple[slice, slice]) -> np.ndarray:
    """(T,) 0..1"""
    region = frames[:, *area].astype(np.float32)[:, None] - known[:, *area].astype(np.float32)
    return LEVELS[np.abs(region).mean((2, 3, 4)).argmin(1)]


def fine(image: np.ndarray) -> float:
    """How much detail an image has: RMS of its Laplacian."""
    return float(cv2.Laplacian(image.astype(np.float32).mean(-1), cv2.CV_32F).std())


def test_the_mouth_opens_with_the_speech_and_closes_with_it(lipsync, drawn, voice):
    samples, envelope = voice
    quiet = np.convolve(envelope > 0.05, np.ones(3), "same") == 0  # and not next to a sound
    assert quiet.sum() >= 4
    found = []
    for known, area in drawn:
        clip = known[:1]
        out = np.stack(list(lipsync.speak(clip, FPS, samples, lambda progress: None)))
        opened = opening(out, known, area)
        found.append(np.corrcoef(opened, envelope)[0, 1])
        assert opened[quiet].max() <= 0.1, "closed in silence"
        assert opened.max() >= 0.4, "and open in speech"
    assert np.mean(found) >= 0.6 and min(found) >= 0.4, found


def test_silence_closes_an_open_mouth(lipsync, drawn):
    """The network itself, without the gate that keeps the original frames in silence."""
    musetalk = lipsync.musetalk
    left, top, right, bottom = BOX
    windows = musetalk.hear(np.zeros(16_000, np.float32))[20:30].flatten(0, 1)[None]
    for known, area in drawn:
        crop = cv2.resize(known[6][top:bottom, left:right], (musetalk.side, musetalk.side))
        face = musetalk.speak(musetalk.see(crop[None]), windows)[0].numpy()
        out = known[6].copy()
        out[top:bottom, left:right] = cv2.resize(face, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        assert opening(known[6:7], known, area)[0] == LEVELS[6]
        assert opening(out[None], known, area)[0] <= 0.2


def test_a_real_portrait_speaks(lipsync, voice):
    samples, envelope = voice
    portrait = np.asarray(Image.open(ROOT / "assets/examples/portrait.jpg").convert("RGB"))
    out = np.stack(list(lipsync.speak(portrait[None], FPS, samples, lambda progress: None)))
    # Between the lips it is dark. Only frames in which the network alone decides are looked at.
    dark = -out[:, 136:158, 108:140].astype(float).mean((1, 2, 3))
    free = sound.speech_gate(samples, FPS, len(out)) == 1
    assert free.sum() > 20 and np.corrcoef(dark[free], envelope[free])[0, 1] >= 0.5
    assert np.abs(out[:, :110].astype(int) - portrait[:110]).max() <= 2, "eyes and hair stay"
    mouth = (slice(126, 170), slice(98, 150))
    sharpness = [fine(frame[mouth]) for frame in out[free]]
    # The network draws a third of the photo's detail, and that looks smeared.
    assert np.median(sharpness) > 0.6 * fine(portrait[mouth]) and min(sharpness) > 0.5 * fine(portrait[mouth])


def test_it_is_small_and_takes_over_where_no_official_weights_are(tmp_path):
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 6_000_000
    settings = replace(Settings(), models=tmp_path)
    folder, words = choose_weights(settings)
    assert folder == EMBEDDED and "embedded" in words
    for names in NETWORKS.values():
        path = tmp_path / OFFICIAL / names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert choose_weights(settings)[0] == tmp_path / OFFICIAL
