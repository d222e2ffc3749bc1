"""What goes into the stored numbers of upstream, the same on every machine: weights, sound, frames, faces, classes.

All of it comes from numpy's generator, whose streams do not change, so that neither a newer torch nor another order
in which a library makes its layers gives other weights.
"""

import wave
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.lipsync.random_musetalk import WHISPER, write_musetalk
from wan_ui.lipsync.parsing import SIDE

RATES = (12, 16, 24, 25, 29.97, 30)
WIDTH, FACE = 384, 256  # upstream's positional encoding and masks have the full size written into them
SPOKEN = (40, 41)  # frames at 25 a second whose faces are drawn
BOXES = ((180, 60, 268, 180), (5, 30, 93, 151), (390, 350, 480, 470))
MODES = ("jaw", "neck", "raw")

# What is kept of each result: enough to see any difference, small enough to be stored.
KEPT = {
    "windows": np.s_[::113, ::7, ::16],
    "boxes": np.s_[:],
    "latents": np.s_[:, :, ::4, ::4],
    "faces": np.s_[:, ::8, ::8],
    "scores": np.s_[:, :, ::37, ::37],
    "blend": np.s_[::7, ::7],
    "mask": np.s_[::5, ::5],
}


def keep(kind: str, values) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(values)[KEPT[kind]])


def seeded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other values of the same shapes: each depends on the tensor's name alone."""
    made = {}
    for name, tensor in tensors.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if not tensor.is_floating_point():
            made[name] = tensor
            continue
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, tensor.shape)
        elif tensor.ndim > 1:
            values = random.normal(0, 1.4 / np.sqrt(tensor[0].numel()), tensor.shape)
        elif name.endswith("weight"):
            values = random.normal(1, 0.1, tensor.shape)
        else:
            values = random.normal(0, 0.1, tensor.shape)
        made[name] = torch.from_numpy(values.astype(np.float32)).to(tensor.dtype)
    return made


def write_weights(folder: Path) -> Path:
    """A small MuseTalk in the official layout, with faces and audio features of the full size."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    write_musetalk(folder, side=FACE, width=WIDTH)
    config = WhisperConfig(**WHISPER | {"encoder_attention_heads": 6, "encoder_layers": 4}, d_model=WIDTH)
    WhisperModel(config).save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    unet = folder / "musetalkV15/unet.pth"
    torch.save(seeded(torch.load(unet, weights_only=True)), unet)
    for name in ("sd-vae/diffusion_pytorch_model.safetensors", "whisper/model.safetensors"):
        save_file(seeded(load_file(folder / name)), folder / name, metadata={"format": "pt"})
    return folder


def write_voice(path: Path) -> Path:
    """35.3 s of noise in 16-bit WAV: more than a segment, and no whole number of frames."""
    noise = np.random.default_rng(0).normal(0, 3000, round(35.3 * 16_000)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes(noise.tobytes())
    return path


def clip() -> np.ndarray:
    """(4, 480, 480, 3) uint8 RGB: coloured squares that move; where a face is is said by `shapes`."""
    random = np.random.default_rng(2)
    image = random.integers(20, 236, (40, 40, 3)).repeat(12, 0).repeat(12, 1)
    image = (image + random.integers(-20, 20, (480, 480, 3))).astype(np.uint8)
    return np.stack([np.roll(image, 3 * step, axis=1) for step in range(4)])


def shapes() -> list[tuple[tuple[float, float, float, float], np.ndarray]]:
    """(detector's box, 68 landmarks): plain, at the border, cut at the top, and two that make upstream take the box."""
    random = np.random.default_rng(1)
    base = np.stack([random.uniform(170, 255, 68), random.uniform(80, 160, 68)], -1).astype(np.float32)
    base[29, 1] = 115
    made = [base + np.float32(shift) for shift in ((0.3, 0.7), (150.6, 20.2), (-400, 0), (30, -60), (0, 330))]
    made.append(base * np.float32([0, 1]))
    return [((10 + i, 20, 110, 140 + i), points) for i, points in enumerate(made)]


def crops() -> list[np.ndarray]:
    """Two faces of FACE pixels, uint8 RGB."""
    parts = [Image.fromarray(frame[60:180, 160:260]) for frame in clip()[:2]]
    return [np.asarray(part.resize((FACE, FACE), Image.Resampling.BICUBIC)) for part in parts]


def new_face(box: tuple[int, int, int, int], seed: int) -> np.ndarray:
    size = (box[3] - box[1], box[2] - box[0], 3)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def parsed() -> torch.Tensor:
    """(1, 19, 512, 512) scores whose largest are blobs of every class: those of a random network all agree."""
    coarse = np.random.default_rng(8).normal(0, 1, (19, 24, 24))
    coarse[1] += 1.5
    classes = coarse.argmax(0).repeat(22, 0).repeat(22, 1)[:SIDE, :SIDE]
    return torch.nn.functional.one_hot(torch.from_numpy(classes), 19).permute(2, 0, 1)[None].float()


def parser_image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32))
