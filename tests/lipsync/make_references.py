"""Run upstream's MuseTalk on the reference inputs and store what it gives: python -m tests.lipsync.make_references

WAN_UI_MUSETALK_PATH names the checkout; its commit is stored with the numbers. Upstream is reached through
tests/lipsync/upstream.py alone.
"""

import contextlib
import copy
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

from tests.lipsync import reference_inputs as inputs
from tests.lipsync import upstream as upstream_code
from tests.lipsync.reference_inputs import BOXES, FACE, MODES, RATES, SPOKEN, WIDTH, keep
from wan_ui.lipsync.files import PARSER
from wan_ui.settings import ROOT

STORED = ROOT / "tests/lipsync/references/musetalk.safetensors"


def theirs(upstream: types.SimpleNamespace, landmarks: dict, folder: Path) -> dict[str, np.ndarray]:
    """By name, what upstream makes of the inputs; `folder` is empty and becomes the working directory meanwhile."""
    models = inputs.write_weights(folder / "models")
    with contextlib.chdir(folder), torch.no_grad():
        parser = _parser(upstream, models)
        found = {"scores": keep("scores", parser.net(inputs.parser_image())[0])}
        found |= _audio(upstream, models, folder)
        found |= _boxes(upstream, landmarks, folder)
        found |= _faces(upstream, models, found.pop("chunks"))
        drawn = copy.copy(parser)
        drawn.net = lambda image: (inputs.parsed(),)
        found |= _blends(upstream, drawn)
    return found


def _audio(upstream, models: Path, folder: Path) -> dict:
    from transformers import WhisperModel

    processor = upstream.audio_processor.AudioProcessor(str(models / "whisper"))
    mels, length = processor.get_audio_feature(str(inputs.write_voice(folder / "voice.wav")))
    whisper = WhisperModel.from_pretrained(models / "whisper").eval()
    heard = {}

    def encoder(mel, output_hidden_states):  # it does not depend on the frame rate
        key = mel.sum().item()
        if key not in heard:
            heard[key] = whisper.encoder(mel, output_hidden_states=output_hidden_states)
        return heard[key]

    once, encode = types.SimpleNamespace(encoder=encoder), upstream.unet.PositionalEncoding(d_model=WIDTH)
    found = {}
    for fps in RATES:
        windows = encode(processor.get_whisper_chunk(mels, "cpu", torch.float32, once, length, fps=fps))
        found |= {f"windows_{fps}": keep("windows", windows), f"count_{fps}": np.array(len(windows))}
        if fps == 25:
            found["chunks"] = windows[list(SPOKEN)]
    return found


def _boxes(upstream, landmarks: dict, folder: Path) -> dict:
    paths = []
    for index, _ in enumerate(inputs.shapes()):
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(inputs.clip()[0]).save(paths[-1])
    landmarks["boxes"], landmarks["points"] = ([shape[part] for shape in inputs.shapes()] for part in (0, 1))
    boxes, _ = upstream.preprocessing.get_landmark_and_bbox(paths)
    # upstream's inference.py adds the margin below the chin
    return {"boxes": np.array([(left, top, right, min(bottom + 10, 480)) for left, top, right, bottom in boxes])}


def _faces(upstream, models: Path, chunks: torch.Tensor) -> dict:
    vae = upstream.vae.VAE(str(models / "sd-vae"))
    # The mode, which is what upstream draws around.
    posterior = type(vae.vae.encode(torch.zeros(1, 3, FACE, FACE)).latent_dist)
    sample, posterior.sample = posterior.sample, lambda self, generator=None: self.mode()
    try:
        latents = torch.cat([vae.get_latents_for_unet(crop[..., ::-1]) for crop in inputs.crops()])
    finally:
        posterior.sample = sample
    unet = upstream.unet.UNet(
        str(models / "musetalkV15/musetalk.json"), str(models / "musetalkV15/unet.pth"), device=torch.device("cpu")
    )
    unet.model.eval()
    drawn = unet.model(latents, torch.tensor([0]), encoder_hidden_states=chunks).sample
    faces = vae.decode_latents(drawn)[..., ::-1]
    return {"latents": keep("latents", latents), "faces": keep("faces", faces)}


def _parser(upstream, models: Path):
    path = models / PARSER
    path.parent.mkdir()
    net = upstream_code.bisenet(upstream)
    state = inputs.seeded(net.state_dict())
    torch.save(state, path)
    resnet = {name.removeprefix("cp.resnet."): t for name, t in state.items() if "resnet" in name}
    torch.save(resnet, path.parent / "resnet18-5c106cde.pth")
    return upstream.face_parsing.FaceParsing(left_cheek_width=90, right_cheek_width=90)


def _blends(upstream, parser) -> dict:
    found, frame, blending = {}, inputs.clip()[0][..., ::-1], upstream.blending
    for mode in MODES:
        for number, box in enumerate(BOXES):
            face = inputs.new_face(box, number)[..., ::-1]
            made = blending.get_image(frame.copy(), face, list(box), mode=mode, fp=parser)
            found[f"blend_{mode}_{number}"] = keep("blend", made[..., ::-1])
        face = inputs.new_face(BOXES[0], 0)[..., ::-1]
        alpha, square = blending.get_image_prepare_material(frame.copy(), list(BOXES[0]), mode=mode, fp=parser)
        made = blending.get_image_blending(frame.copy(), face, list(BOXES[0]), alpha, square)
        found |= {f"mask_{mode}": keep("mask", alpha), f"realtime_{mode}": keep("blend", made[..., ::-1])}
    return found


def main() -> None:
    checkout = os.environ.get("WAN_UI_MUSETALK_PATH", "")
    if not checkout:
        sys.exit("set WAN_UI_MUSETALK_PATH to a checkout of TMElyralab/MuseTalk")
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    landmarks = {"points": [], "boxes": []}
    with tempfile.TemporaryDirectory() as folder:
        found = theirs(upstream_code.load(Path(checkout), landmarks), landmarks, Path(folder))
    found = {name: np.ascontiguousarray(values) for name, values in found.items()}
    save_file(found, STORED, {"commit": commit, "of": "TMElyralab/MuseTalk"})
    print(f"{STORED.relative_to(ROOT)}: {len(found)} results of MuseTalk {commit}, "
          f"{STORED.stat().st_size / 1000:.0f} kB")  # fmt: skip


if __name__ == "__main__":
    main()
