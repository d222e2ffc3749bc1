"""A small S2V in the official layout, whose random numbers follow from their names: the same wherever it is written.

Text encoder, tokenizer and VAE are Wan-Tiny's. tests/golden/make_s2v.py gives the official code the same weights.
"""

import json
import math
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from wan_ui.catalog import Model, Scheme, load_catalog
from wan_ui.files import s2v_file, wav2vec
from wan_ui.files.dit_file import parameters
from wan_ui.files.places import T5_FILE, TOKENIZER_FILES
from wan_ui.settings import ROOT

TINY = ROOT / "assets" / "wan-tiny"
CONFIG = s2v_file.RELEASED | {
    "_class_name": "WanModel_S2V", "model_type": "s2v", "dim": 64, "ffn_dim": 96, "freq_dim": 32, "num_heads": 2,
    "num_layers": 4, "in_dim": 16, "out_dim": 16, "eps": 1e-6, "audio_dim": 12, "audio_inject_layers": [0, 2, 3],
    "text_len": 64,
}  # fmt: skip
EAR = wav2vec.RELEASED | {
    "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8] * 7, "vocab_size": 5,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SIZE, FRAMES, SECONDS = 64, 17, 1.4  # of a segment one less


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers as a trained network's may be; a norm's are near 1."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values = torch.randn(shape, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * values
    if name.endswith("casual_audio_encoder.weights"):
        return 0.2 + 0.1 * values
    table = any(part in name for part in ("modulation", "padding_tokens", "cond_mask", "weight_g"))
    return 0.2 * values if len(shape) < 2 or table else values / math.sqrt(math.prod(shape[1:]))


def config() -> dict:
    text = json.loads((TINY / "high_noise_model" / "config.json").read_text())
    return CONFIG | {"text_dim": text["text_dim"]}


def transformer() -> dict[str, torch.Tensor]:
    return {name: drawn(name, shape) for name, shape in parameters(config()).items()}


def ear() -> dict[str, torch.Tensor]:
    return {name: drawn(name, shape) for name, shape in wav2vec.parameters(EAR).items()}


def write(models: Path, family_of: str = "s2v-14b") -> Model:
    """The files below a models folder, and the catalog's model of them."""
    root = models / "local" / "s2v"
    (root / "google/umt5-xxl").mkdir(parents=True)
    for file in (*TOKENIZER_FILES, T5_FILE, "Wan2.1_VAE.pth"):
        shutil.copyfile(TINY / file, root / file)
    (root / "config.json").write_text(json.dumps(config()))
    save_file(transformer(), root / "dit.safetensors")
    folder = root / "wav2vec2-large-xlsr-53-english"
    folder.mkdir()
    (folder / wav2vec.CONFIG).write_text(json.dumps(EAR))
    (folder / wav2vec.PREPARATION).write_text(json.dumps(wav2vec.PREPARED))
    save_file({f"wav2vec2.{name}": tensor for name, tensor in ear().items()}, folder / wav2vec.WEIGHTS)
    scheme = Scheme("bf16", "float32", kind="bf16", distilled=False, high="local/s2v:dit.safetensors")
    model = load_catalog(ROOT / "configs/catalog.toml")[family_of]
    return replace(
        model, name="random-s2v", root="local/s2v", needs_gpu=False, sizes=((SIZE, SIZE),), frames=(FRAMES,),
        default_frames=FRAMES, default_scheme="bf16", schemes={"bf16": scheme},
    )  # fmt: skip


def voice(seconds: float = SECONDS) -> np.ndarray:
    """(n,) float32 at 16 kHz, something between a voice and a siren."""
    time = np.arange(round(seconds * wav2vec.RATE)) / wav2vec.RATE
    tone = np.sin(2 * np.pi * (180 + 60 * np.sin(3 * time)) * time) + 0.5 * np.sin(2 * np.pi * 700 * time * (1 + time))
    return (0.2 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def picture() -> np.ndarray:
    """(SIZE, SIZE, 3) uint8"""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    return np.stack([rows * 3, columns * 3, 255 - rows - columns], axis=-1).clip(0, 255).astype(np.uint8)


def pose(frames: int) -> np.ndarray:
    """(frames, SIZE, SIZE, 3) uint8: a bright bar that wanders over black"""
    clip = np.zeros((frames, SIZE, SIZE, 3), np.uint8)
    for number in range(frames):
        clip[number, 10:50, (8 + 2 * number) % 56 : (8 + 2 * number) % 56 + 6] = (250, 120, 40)
    return clip
