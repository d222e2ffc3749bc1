"""MuseTalk's networks: Whisper's encoder hears, one UNet step draws the mouth, the VAE of Stable Diffusion sees.

The official layout is read as it is, and every size comes from the files, so the embedded model is the same
folder with smaller numbers in it:

    musetalkV15/musetalk.json, unet.pth     UNet2DConditionModel, 8 channels in (masked and reference latents), 4 out
    sd-vae/config.json, diffusion_pytorch_model.safetensors (or .bin)      AutoencoderKL; sample_size is the face's side
    whisper/config.json, preprocessor_config.json, model.safetensors (or pytorch_model.bin)     only the encoder is read

A `.safetensors` beside or instead of a `.pth` is preferred; a `.pth` is read with `weights_only=True`.

There is no diffusion here: the UNet runs once, at timestep 0, and maps (face with its lower half blacked out,
whole face, audio) to the latents of the speaking face.
"""

import inspect
import json
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from wan_ui.errors import UserError
from wan_ui.light_diffusers import alone
from wan_ui.lipsync.files import require_weights
from wan_ui.lipsync.whisper import MelSpectrogram, WhisperEncoder

with alone():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

MOST = 1_000_000  # that a number of Whisper's files may be
WINDOW = 10  # Whisper frames of 20 ms that one video frame hears


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors`, `.pth` or `.bin` file, on the CPU. Raises UserError; never unpickles code.

    Files older than torch 1.6 (79999_iter.pth, ResNet's) are a row of pickles and raw bytes, not a zip: those cannot be
    mapped into memory. `weights_only` holds for both.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a damaged pickle raises depends on the byte
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({words}); fetch it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no named tensors but a {type(found).__name__}; fetch it again")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load every tensor of `module` or raise UserError naming the file and the first one that does not fit."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UserError(f"{path}: has no tensor {name}; it is not the file that its folder's config.json describes")
        if tensors[name].shape != tensor.shape:
            got, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise UserError(f"{path}: {name} has shape {got}, the config.json beside it says {expected}")
    module.load_state_dict({name: tensors[name] for name in wanted})


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not readable JSON ({error}); fetch it again") from None


def _numbers(of: type, path: Path) -> dict[str, int]:
    """Those of a JSON file that `of` takes, by their names. Raises UserError for one that is no such number."""
    given = _read_json(path)
    numbers = {name: given[name] for name in inspect.signature(of).parameters if given.get(name) is not None}
    for name, number in numbers.items():
        if type(number) is not int or not 0 < number <= MOST:
            raise UserError(f"{path}: {name} is {number!r:.40}, expected a whole number up to {MOST:,}; fetch it again")
    return numbers


def load_unet(found: dict[str, Path]) -> UNet2DConditionModel:
    """The UNet in float32 on the CPU. Raises UserError when config and weights do not belong together."""
    config = {key: value for key, value in _read_json(found["unet_config"]).items() if not key.startswith("_")}
    if config.get("in_channels") != 8 or config.get("out_channels") != 4:
        raise UserError(f"{found['unet_config']}: expected in_channels 8 and out_channels 4, as MuseTalk has")
    unet = UNet2DConditionModel(**config)
    fill(unet, read_tensors(found["unet"]), found["unet"])
    return unet


def load_encoder(found: dict[str, Path]) -> WhisperEncoder:
    """Whisper's encoder in float32 on the CPU, from a file that may hold the decoder too."""
    path = found["whisper_config"]
    numbers, activation = _numbers(WhisperEncoder, path), _read_json(path).get("activation_function", "gelu")
    if activation != "gelu":
        raise UserError(f"{path}: activation_function is {activation!s:.40}; Whisper's is gelu. Fetch it again")
    encoder = WhisperEncoder(**numbers)
    if encoder.width % encoder.heads:
        raise UserError(f"{path}: d_model {encoder.width} is not a multiple of encoder_attention_heads {encoder.heads}")
    tensors = read_tensors(found["whisper"])
    for prefix in ("model.encoder.", "encoder."):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            break
    fill(encoder, tensors, found["whisper"])
    return encoder


def load_vae(found: dict[str, Path]) -> AutoencoderKL:
    """The VAE in float32 on the CPU. diffusers renames the attention weights of sd-vae-ft-mse's old layout."""
    path = found["vae"]
    try:
        return AutoencoderKL.from_pretrained(
            path.parent, local_files_only=True, use_safetensors=path.suffix == ".safetensors", low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: cannot be loaded ({str(error).splitlines()[0]}); fetch it again") from None


def positions(length: int, width: int) -> torch.Tensor:
    """(length, width) float32: the sinusoids of Vaswani et al. 2017, 3.5, sine and cosine interleaved."""
    steps = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(steps * rates)
    table[:, 1::2] = torch.cos(steps * rates)
    return table


def face_pixels(faces: np.ndarray, masked: bool) -> torch.Tensor:
    """(n, S, S, 3) uint8 RGB -> (n, 3, S, S) float32 in -1..1; `masked` blacks out the lower half (0, so -1)."""
    pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().float() / 255
    if masked:
        pixels[:, :, pixels.shape[2] // 2 :] = 0
    return (pixels - 0.5) / 0.5


@dataclass
class MuseTalk:
    """The loaded networks. `dtype` is that of UNet and VAE; the encoder of audio is small and stays float32."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    encoder: WhisperEncoder
    spectrogram: MelSpectrogram
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self):
        self.side = int(self.vae.config.sample_size)
        self.layers = len(self.encoder.layers) + 1  # the embedding counts as one
        self.width = self.encoder.width
        for module, dtype in ((self.unet, self.dtype), (self.vae, self.dtype), (self.encoder, torch.float32)):
            # diffusers' own `to` warns about every dtype
            torch.nn.Module.to(module, self.device, dtype).eval().requires_grad_(False)
        self._positions = positions(WINDOW * self.layers, self.width).to(self.device)
        self._timestep = torch.zeros(1, dtype=torch.long, device=self.device)
        # Tensor cores read convolutions in NHWC; in NCHW cuDNN turns every activation round, twice.
        self.memory_format = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.unet.to(memory_format=self.memory_format)
        self.vae.to(memory_format=self.memory_format)

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> torch.Tensor:
        """At most one segment of 16 kHz float32 samples -> (T, layers, width) float32 hidden states at 50 Hz.

        All hidden states, from the embedding to the normalised last one. T is always the full segment's: silence
        follows, the caller cuts.
        """
        return self.encoder(self.spectrogram(samples).to(self.device))[0]

    @torch.inference_mode()
    def see(self, faces: np.ndarray, sample: bool = False) -> torch.Tensor:
        """(n, S, S, 3) uint8 RGB faces -> (n, 8, S/8, S/8): latents of the masked face, then of the whole one.

        The mode of the posterior, so that a clip gives the same result twice; `sample` draws from it as upstream does.
        """
        latents = []
        for masked in (True, False):
            pixels = face_pixels(faces, masked).to(self.device, self.dtype, memory_format=self.memory_format)
            posterior = self.vae.encode(pixels).latent_dist
            latents.append(self.vae.config.scaling_factor * (posterior.sample() if sample else posterior.mode()))
        return torch.cat(latents, dim=1)

    @torch.inference_mode()
    def speak(self, latents: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Latents (n, 8, s, s) and audio (n, 10 * layers, width) -> faces (n, S, S, 3) uint8 RGB, on the device."""
        audio = (windows.to(self.device, torch.float32) + self._positions).to(self.dtype)
        latents = latents.to(self.device, self.dtype, memory_format=self.memory_format)
        drawn = self.unet(latents, self._timestep, encoder_hidden_states=audio).sample
        image = self.vae.decode((1 / self.vae.config.scaling_factor) * drawn).sample
        image = (image / 2 + 0.5).clamp(0, 1).float()
        return (image * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def load_musetalk(folder: Path, device: torch.device, dtype: torch.dtype) -> MuseTalk:
    """The networks of `folder`. Raises UserError naming the file that is missing, damaged or of another model."""
    found = require_weights(folder)
    unet, encoder = load_unet(found), load_encoder(found)
    if unet.config.cross_attention_dim != encoder.width:
        raise UserError(
            f"{found['unet_config']}: cross_attention_dim {unet.config.cross_attention_dim} does not fit "
            f"{found['whisper_config']}: d_model {encoder.width}"
        )
    spectrogram = MelSpectrogram(**_numbers(MelSpectrogram, found["preprocessor"]))
    heard = (len(spectrogram.filters.T), spectrogram.frames)
    if heard != (encoder.conv1.in_channels, 2 * encoder.positions):
        raise UserError(
            f"{found['preprocessor']}: a segment of {heard[1]} steps of {heard[0]} numbers does not fit "
            f"{found['whisper_config']}: {2 * encoder.positions} of {encoder.conv1.in_channels}"
        )
    return MuseTalk(unet, load_vae(found), encoder, spectrogram, device, dtype)
