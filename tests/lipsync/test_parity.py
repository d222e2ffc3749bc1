"""`compat` against MuseTalk's own code, number for number, with random weights.

Runs when WAN_UI_MUSETALK_PATH names a checkout of TMElyralab/MuseTalk. `pytest -s` prints the error of each stage.
"""

import copy
import os
import types
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.lipsync import upstream as upstream_code
from tests.lipsync.make_references import STORED, theirs
from tests.lipsync.random_musetalk import WHISPER, write_musetalk
from wan_ui.lipsync.blend import blend_mask, crop_square, paste
from wan_ui.lipsync.faces import Face, LibFaceDetector
from wan_ui.lipsync.features import AudioFeatures
from wan_ui.lipsync.files import PARSER
from wan_ui.lipsync.parsing import SIDE, BiSeNet, load_parser
from wan_ui.lipsync.speech import LipSync
from wan_ui.lipsync.tracks import follow_upstream
from wan_ui.media import sound

# Taken out of the environment: it is the tests' own, and the app refuses settings that it does not know.
CHECKOUT = os.environ.pop("WAN_UI_MUSETALK_PATH", "")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="WAN_UI_MUSETALK_PATH names no checkout of TMElyralab/MuseTalk")

WIDTH = 384  # upstream's positional encoding and masks have the full size written into them
FACE = 256


def show(stage: str, ours, theirs) -> float:
    ours, theirs = (np.asarray(value).astype(np.float64) for value in (ours, theirs))
    assert ours.shape == theirs.shape, (stage, ours.shape, theirs.shape)
    error = float(np.abs(ours - theirs).max())
    print(f"\n{stage}: max abs error {error:g}", end="")
    return error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights in the official layout, `models/` as upstream wants it in its working directory."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    models = tmp_path_factory.mktemp("parity") / "models"
    write_musetalk(models, side=FACE, width=WIDTH)
    torch.manual_seed(1)
    config = {**WHISPER, "encoder_attention_heads": 6, "encoder_layers": 4}
    WhisperModel(WhisperConfig(**config, d_model=WIDTH)).save_pretrained(models / "whisper")
    WhisperFeatureExtractor().save_pretrained(models / "whisper")
    return models


@pytest.fixture(scope="module")
def landmarks():
    return {"points": [], "boxes": []}


@pytest.fixture(scope="module")
def upstream(landmarks):
    return upstream_code.load(Path(CHECKOUT), landmarks)


@pytest.fixture(scope="module")
def parser_pair(folder, upstream, tmp_path_factory):
    """Their FaceParsing and ours on the same random weights, normalisation statistics included."""
    torch.manual_seed(2)
    path = folder / PARSER
    path.parent.mkdir(exist_ok=True)
    net = upstream_code.bisenet(upstream)
    state = net.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        if name.endswith(("running_var", "bn.weight", "bn1.weight", "bn2.weight")):
            tensor.uniform_(0.5, 1.5)
    torch.save(state, path)
    torch.save(
        {k.removeprefix("cp.resnet."): v for k, v in state.items() if "resnet" in k},
        path.parent / "resnet18-5c106cde.pth",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        theirs = upstream.face_parsing.FaceParsing(left_cheek_width=90, right_cheek_width=90)
    return theirs, load_parser(folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def drawn_pair(parser_pair):
    """The same two parsers behind networks that both answer with the same drawn classes: random ones all agree."""
    theirs, ours = parser_pair
    blobs = torch.randn(1, 19, 24, 24, generator=torch.Generator().manual_seed(8))
    blobs[:, 1] += 1.5
    scores = torch.nn.functional.interpolate(blobs, (SIDE, SIDE), mode="bilinear")
    assert {1, 10, 11, 12, 13, 14} <= set(scores.argmax(1).unique().tolist())
    theirs, ours = copy.copy(theirs), copy.copy(ours)
    theirs.net = lambda image: (scores,)
    ours._net = lambda image: scores
    return theirs, ours


@pytest.fixture(scope="module")
def ours(folder):
    return LipSync.load(folder, torch.device("cpu"), compat=True, batch=3)


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """35.3 s of noise in 16-bit WAV: more than a segment, and no whole number of frames."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    noise = np.random.default_rng(0).normal(0, 3000, round(35.3 * 16_000)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes(noise.tobytes())
    return path


@pytest.fixture(scope="module")
def clip():
    """(4, 480, 480, 3) uint8 RGB: a face that moves."""
    image = Image.open(Path(__file__).parents[2] / "assets/examples/astronaut.jpg").convert("RGB").resize((480, 480))
    return np.stack([np.roll(np.asarray(image), 3 * step, axis=1) for step in range(4)])


@pytest.fixture(scope="module")
def their_windows(upstream, folder, voice):
    """A function of the frame rate; the encoder, which does not depend on it, runs once for each segment."""
    from transformers import WhisperModel

    processor = upstream.audio_processor.AudioProcessor(str(folder / "whisper"))
    mels, length = processor.get_audio_feature(str(voice))
    whisper = WhisperModel.from_pretrained(folder / "whisper").eval().requires_grad_(False)
    heard = {}

    def encoder(mel, output_hidden_states):
        key = mel.sum().item()
        if key not in heard:
            heard[key] = whisper.encoder(mel, output_hidden_states=output_hidden_states)
        return heard[key]

    def windows(fps):
        whisper_once = types.SimpleNamespace(encoder=encoder)
        chunks = processor.get_whisper_chunk(mels, "cpu", torch.float32, whisper_once, length, fps=fps)
        return upstream.unet.PositionalEncoding(d_model=WIDTH)(chunks)

    return windows


@pytest.fixture(scope="module")
def our_features(ours, voice):
    return AudioFeatures(ours.musetalk, sound.decode(voice))


@pytest.mark.parametrize("fps", [12, 16, 24, 25, 29.97, 30])
def test_audio_windows(ours, our_features, their_windows, voice, fps):
    theirs = their_windows(fps)
    samples = sound.decode(voice)
    count = sound.frame_count(len(samples), fps, compat=True)
    starts = [sound.window_start(frame, fps, compat=True) for frame in range(count)]
    windows = our_features.windows(starts) + ours.musetalk._positions
    assert show(f"audio windows, {fps} fps, {count} frames", windows, theirs) == 0


def test_boxes(upstream, landmarks, tmp_path, clip):
    """Plain, at the border, cut at the top, and degenerate ones, where the detector's box is taken."""
    base = LibFaceDetector().detect(clip[0])[0].landmarks
    shifts = [(0.3, 0.7), (150.6, 20.2), (-400, 0), (30, -60), (0, 330)]
    points = [base + np.float32(shift) for shift in shifts] + [base * np.float32([0, 1])]
    boxes = [(10 + i, 20, 110, 140 + i) for i in range(len(points))]
    paths = []
    for index in range(len(points)):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(clip[0]).save(paths[-1])
    landmarks["points"], landmarks["boxes"] = list(points), list(boxes)
    theirs, _ = upstream.preprocessing.get_landmark_and_bbox(paths)
    theirs = [(left, top, right, min(bottom + 10, 480)) for left, top, right, bottom in theirs]
    faces = [[Face(box, shape, 1.0)] for box, shape in zip(boxes, points, strict=True)]
    assert show("boxes, pixels", follow_upstream(faces, 480, 480).boxes, theirs) == 0


def test_latents_and_decoded_faces(upstream, ours, our_features, their_windows, folder, clip):
    vae = upstream.vae.VAE(str(folder / "sd-vae"))
    crops = [cv2.resize(frame[60:180, 160:260], (FACE, FACE), interpolation=cv2.INTER_LANCZOS4) for frame in clip[:2]]
    torch.manual_seed(3)
    theirs = torch.cat([vae.get_latents_for_unet(crop[..., ::-1]) for crop in crops])
    torch.manual_seed(3)
    latents = torch.cat([ours.musetalk.see(crop[None], sample=True) for crop in crops])
    assert show("latents", latents, theirs) == 0

    unet = upstream.unet.UNet(
        str(folder / "musetalkV15/musetalk.json"), str(folder / "musetalkV15/unet.pth"), device=torch.device("cpu")
    )
    unet.model.eval()
    chunks = their_windows(25)[40:42]
    with torch.no_grad():
        drawn = unet.model(theirs, torch.tensor([0]), encoder_hidden_states=chunks).sample
        decoded = vae.decode_latents(drawn)[..., ::-1]
    windows = our_features.windows([sound.window_start(frame, 25, compat=True) for frame in (40, 41)])
    assert show("decoded faces, of 255", ours.musetalk.speak(latents, windows), decoded) == 0


def test_face_parser(parser_pair, upstream):
    theirs, _ = parser_pair
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    net = BiSeNet()
    net.load_state_dict({k: v for k, v in theirs.net.state_dict().items() if k in net.state_dict()})
    with torch.no_grad():
        scores, expected = net.eval()(image), theirs.net(image)[0]
    assert show("BiSeNet scores", scores, expected) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("mode", ["jaw", "neck", "raw"])
@pytest.mark.parametrize("box", [(180, 60, 268, 180), (5, 30, 93, 151), (390, 350, 480, 470)])
def test_offline_blend(drawn_pair, upstream, clip, mode, box):
    theirs, ours = drawn_pair
    face = np.random.default_rng(5).integers(0, 256, (box[3] - box[1], box[2] - box[0], 3), dtype=np.uint8)
    frame = clip[0].copy()
    expected = upstream.blending.get_image(frame[..., ::-1], face[..., ::-1], list(box), mode=mode, fp=theirs)
    mask = blend_mask(frame, box, np.zeros((68, 2), np.float32), ours, mode)
    assert mask.alpha.max() > 200
    assert (mask.left, mask.top) == crop_square(box)[:2]
    paste(frame, face, box, mask)
    assert (frame != clip[0]).any()
    assert show(f"offline blend {mode} at {box}, of 255", frame, expected[..., ::-1]) == 0


@pytest.mark.parametrize("mode", ["jaw", "neck", "raw"])
def test_realtime_blend(drawn_pair, upstream, clip, mode):
    theirs, ours = drawn_pair
    box = (180, 60, 268, 180)
    face = np.random.default_rng(6).integers(0, 256, (box[3] - box[1], box[2] - box[0], 3), dtype=np.uint8)
    frame = clip[1].copy()
    blending = upstream.blending
    alpha, square = blending.get_image_prepare_material(frame[..., ::-1], list(box), mode=mode, fp=theirs)
    expected = blending.get_image_blending(frame[..., ::-1], face[..., ::-1], list(box), alpha, square)
    mask = blend_mask(frame, box, np.zeros((68, 2), np.float32), ours, mode, blur=0.1)
    assert show(f"realtime mask {mode}, of 255", mask.alpha, alpha) == 0
    paste(frame, face, box, mask)
    assert show(f"realtime blend {mode}, of 255", frame, expected[..., ::-1]) == 0


def test_whole_pass(upstream, ours, folder, drawn_pair, landmarks, clip, voice, tmp_path):
    """Frames and a voice to finished frames, the way of upstream's scripts/inference.py."""
    theirs, parser = drawn_pair
    points = [LibFaceDetector().detect(frame)[0] for frame in clip]
    paths = []
    for index, frame in enumerate(clip):
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(frame).save(paths[-1])
    landmarks["points"] = [face.landmarks for face in points]
    landmarks["boxes"] = [tuple(int(side) for side in face.box) for face in points]
    coordinates, frames = upstream.preprocessing.get_landmark_and_bbox(paths)
    boxes = [(left, top, right, min(bottom + 10, 480)) for left, top, right, bottom in coordinates]
    vae = upstream.vae.VAE(str(folder / "sd-vae"))
    unet = upstream.unet.UNet(
        str(folder / "musetalkV15/musetalk.json"), str(folder / "musetalkV15/unet.pth"), device=torch.device("cpu")
    )
    unet.model.eval()
    torch.manual_seed(7)
    latents = []
    for (left, top, right, bottom), frame in zip(boxes, frames, strict=True):
        crop = cv2.resize(frame[top:bottom, left:right], (FACE, FACE), interpolation=cv2.INTER_LANCZOS4)
        latents.append(vae.get_latents_for_unet(crop))
    from transformers import WhisperModel

    processor = upstream.audio_processor.AudioProcessor(str(folder / "whisper"))
    samples = sound.decode(voice)[: round(0.6 * 16_000)]
    whisper = WhisperModel.from_pretrained(folder / "whisper").eval().requires_grad_(False)
    mel = processor.feature_extractor(samples, return_tensors="pt", sampling_rate=16_000).input_features
    chunks = processor.get_whisper_chunk([mel], "cpu", torch.float32, whisper, len(samples), fps=16)
    expected, encoding = [], upstream.unet.PositionalEncoding(d_model=WIDTH)
    cycle = [*range(len(clip)), *reversed(range(len(clip)))]
    with torch.no_grad():
        for heard, latent in upstream.utils.datagen(chunks, [latents[i] for i in cycle], 3, device="cpu"):
            drawn = unet.model(latent, torch.tensor([0]), encoder_hidden_states=encoding(heard)).sample
            for face in vae.decode_latents(drawn):
                base = cycle[len(expected) % len(cycle)]
                left, top, right, bottom = boxes[base]
                face = cv2.resize(face.astype(np.uint8), (right - left, bottom - top))
                blended = upstream.blending.get_image(frames[base], face, list(boxes[base]), mode="jaw", fp=theirs)
                expected.append(blended[..., ::-1])

    full = LipSync(ours.musetalk, LibFaceDetector(), parser, batch=3, compat=True)
    torch.manual_seed(7)
    got = list(full.speak(clip, 16, samples, lambda progress: None))
    assert len(got) == 9
    assert show("finished frames, of 255", np.stack(got), np.stack(expected)) == 0


def test_weights_under_either_prefix(folder, ours, tmp_path):
    """transformers has written Whisper's encoder as encoder.* and, in the official file, as model.encoder.*"""
    from wan_ui.lipsync.musetalk import load_encoder

    state = load_file(folder / "whisper/model.safetensors")
    save_file({f"model.{name}": tensor for name, tensor in state.items()}, tmp_path / "official.safetensors")
    config = {"whisper_config": folder / "whisper/config.json"}
    one = load_encoder({**config, "whisper": folder / "whisper/model.safetensors"}).state_dict()
    other = load_encoder({**config, "whisper": tmp_path / "official.safetensors"}).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_stored_numbers_are_what_this_checkout_gives(upstream, landmarks, tmp_path):
    """Those that test_references.py holds our code to where no checkout is."""
    stored = safetensors.numpy.load_file(STORED)
    found = theirs(upstream, landmarks, tmp_path)
    assert set(found) == set(stored)
    for name, values in found.items():
        tolerance = 1 if values.dtype == np.uint8 else 1e-4 * float(np.abs(stored[name]).max())
        assert np.abs(values.astype(np.float64) - stored[name]).max() <= tolerance, name
