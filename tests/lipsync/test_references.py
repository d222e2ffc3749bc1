"""Our `compat` path against the stored numbers of a real run of upstream's MuseTalk (`make_references.py`).

Where test_parity.py compares everything with a checkout that is there, this compares samples of everything, anywhere.
The tolerances are those of another CPU's float32: a sum in another order, and the level to which it is rounded.
"""

import copy
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.lipsync import reference_inputs as inputs
from tests.lipsync import upstream
from tests.lipsync.make_references import STORED
from tests.lipsync.reference_inputs import BOXES, MODES, RATES, SPOKEN, keep
from wan_ui.lipsync.blend import blend_mask, crop_square, paste
from wan_ui.lipsync.faces import Face
from wan_ui.lipsync.features import AudioFeatures
from wan_ui.lipsync.musetalk import load_musetalk
from wan_ui.lipsync.parsing import BiSeNet, BiSeNetParser
from wan_ui.lipsync.tracks import follow_upstream
from wan_ui.media import sound

CPU = torch.device("cpu")
NO_LANDMARKS = np.zeros((68, 2), np.float32)


@pytest.fixture(scope="module")
def stored():
    return load_file(STORED)


@pytest.fixture(scope="module")
def musetalk(tmp_path_factory):
    return load_musetalk(inputs.write_weights(tmp_path_factory.mktemp("weights") / "models"), CPU, torch.float32)


@pytest.fixture(scope="module")
def features(musetalk, tmp_path_factory):
    voice = inputs.write_voice(tmp_path_factory.mktemp("voice") / "voice.wav")
    return AudioFeatures(musetalk, sound.decode(voice))


@pytest.fixture(scope="module")
def parser():
    net = BiSeNet()
    net.load_state_dict(inputs.seeded(net.state_dict()))
    return BiSeNetParser(net, CPU)


@pytest.fixture(scope="module")
def drawn_parser(parser):
    drawn = copy.copy(parser)
    drawn._net = lambda image: inputs.parsed()
    return drawn


def close(ours, theirs, tolerance: float) -> None:
    ours, theirs = (np.asarray(values).astype(np.float64) for values in (ours, theirs))
    assert ours.shape == theirs.shape
    assert theirs.std() > 10 * tolerance, "the stored numbers tell something"
    assert np.abs(ours - theirs).max() <= tolerance


def test_they_are_small_and_say_where_they_are_from(stored):
    assert STORED.stat().st_size < 300_000
    with safe_open(STORED, "numpy") as file:
        assert re.fullmatch("[0-9a-f]{40}", file.metadata()["commit"])
    assert len(stored) == 12 + 1 + 2 + 1 + 9 + 6


@pytest.mark.parametrize("fps", RATES)
def test_audio_windows(musetalk, features, stored, fps):
    count = sound.frame_count(len(features._samples), fps, compat=True)
    assert count == stored[f"count_{fps}"]
    starts = [sound.window_start(frame, fps, compat=True) for frame in range(count)]
    windows = features.windows(starts[:: inputs.KEPT["windows"][0].step]) + musetalk._positions
    close(windows[:, *inputs.KEPT["windows"][1:]], stored[f"windows_{fps}"], 1e-4)


def test_boxes(stored):
    faces = [[Face(box, points, 1.0)] for box, points in inputs.shapes()]
    assert np.array_equal(follow_upstream(faces, 480, 480).boxes, stored["boxes"])
    assert len({tuple(box) for box in stored["boxes"].tolist()}) == len(faces)


def test_latents_and_drawn_faces(musetalk, features, stored):
    latents = musetalk.see(np.stack(inputs.crops()))
    close(keep("latents", latents), stored["latents"], 1e-4)
    windows = features.windows([sound.window_start(frame, 25, compat=True) for frame in SPOKEN])
    close(keep("faces", musetalk.speak(latents, windows)), stored["faces"], 1)


def test_face_parser(parser, stored):
    with torch.no_grad():
        scores = parser._net(inputs.parser_image())
    close(keep("scores", scores), stored["scores"], 1e-4 * float(np.abs(stored["scores"]).max()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", range(len(BOXES)))
def test_offline_blend(drawn_parser, stored, mode, number):
    frame, box = inputs.clip()[0].copy(), BOXES[number]
    paste(frame, inputs.new_face(box, number), box, blend_mask(frame, box, NO_LANDMARKS, drawn_parser, mode))
    assert (keep("blend", frame) != keep("blend", inputs.clip()[0])).mean() > 0.003, "a face was laid in"
    close(keep("blend", frame), stored[f"blend_{mode}_{number}"], 1)


@pytest.mark.parametrize("mode", MODES)
def test_realtime_blend(drawn_parser, stored, mode):
    frame, box = inputs.clip()[0].copy(), BOXES[0]
    mask = blend_mask(frame, box, NO_LANDMARKS, drawn_parser, mode, blur=0.1)
    assert (mask.left, mask.top) == crop_square(box)[:2]
    close(keep("mask", mask.alpha), stored[f"mask_{mode}"], 1)
    paste(frame, inputs.new_face(box, 0), box, mask)
    close(keep("blend", frame), stored[f"realtime_{mode}"], 1)


def test_a_folder_that_is_no_checkout_is_an_error_not_a_skip(tmp_path):
    with pytest.raises(ImportError, match="is no checkout of TMElyralab/MuseTalk"):
        upstream.load(tmp_path, {})
