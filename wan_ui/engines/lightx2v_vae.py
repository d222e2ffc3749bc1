"""The VAE of the LightX2V engine: ours (engines/vae.py, one walk for both engines), or upstream's own.

Ours encodes what differs from the zero frames behind the picture alone, decodes with fused kernels where these were
tried on the card, and rounds to uint8 there, so that a quarter of the bytes goes to page-locked memory while the next
frames are computed. Upstream's is for tiles, and for comparing: WAN_UI_LIGHTX2V_PLAIN=vae.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from wan_ui.engines import preview
from wan_ui.families import Family, latent_frames
from wan_ui.request import Progress, Report

ShowFrames = Callable[[torch.Tensor], None]


class Vae(Protocol):
    def colours(self) -> torch.Tensor:
        """The map of previews; see wan_ui.engines.preview."""

    def encode(self, pixels: np.ndarray, frames: int, report: Report, last: np.ndarray | None = None) -> torch.Tensor:
        """A picture (H, W, 3) uint8, and the last one if it is given -> what the transformer is told of them, as
        upstream has it."""

    def decode(self, latents: torch.Tensor, report: Report, show: ShowFrames | None = None) -> torch.Tensor:
        """Normalised latents (z, t, h, w) -> (T, H, W, 3) uint8 on the CPU; shown part by part as they are finished."""

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """What `decode` rounds: float32, in -1 .. 1."""

    def forget(self) -> None:
        """Drop what a failed job left."""


class OwnVae:
    """fused  whether the decoder may take Triton kernels
    slim   whether it decodes one latent frame at a time
    """

    def __init__(self, path: Path, family: Family, device: str, dtype: torch.dtype, fused: bool, slim: bool = False):
        from wan_ui.engines import vae  # imports diffusers, which nothing else here needs

        self.walk = vae
        self.vae = vae.load_vae(path, dtype=dtype, device=torch.device(device))
        self.family, self.dtype, self.slim = family, dtype, slim
        self.fused: Callable[[Any], Any] | None = None
        if fused:
            from wan_ui.engines import vae_kernels
            from wan_ui.engines.vae_fused import FusedDecoder, padded_weights

            weights = padded_weights(self.vae)
            self.fused = lambda strip: FusedDecoder(self.vae, vae_kernels, weights, strip)

    def colours(self) -> torch.Tensor:
        return self.walk.fit_colours(self.vae)

    def encode(self, pixels: np.ndarray, frames: int, report: Report, last: np.ndarray | None = None) -> torch.Tensor:
        walk, device = self.walk, self.vae.device
        words = "encoding the picture" if last is None else "encoding the pictures"

        def entering(k: int, n: int) -> None:
            report(Progress("image", k, n, words))

        image = walk.to_image(pixels).to(device)
        if self.family.condition == "first frame":
            return walk.encode_image(self.vae, image, 1, entering)[0].to(self.dtype)
        end = None if last is None else walk.to_image(last).to(device)
        return walk.with_mask(walk.encode_image(self.vae, image, frames, entering, end)[0], end is not None).to(
            self.dtype
        )

    def decode(self, latents: torch.Tensor, report: Report, show: ShowFrames | None = None) -> torch.Tensor:
        def entering(k: int, n: int) -> None:
            report(Progress("decode", k, n, f"latent frame {k} of {n}"))

        return self.walk.decode(self.vae, latents[None], entering, self.fused, self.slim, show)

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        parts = self.walk.decode_pixels(self.vae, latents[None], lambda k, n: None, self.fused)
        return torch.cat([part.float().cpu() for part in parts], dim=2)[0].permute(1, 2, 3, 0).clamp(-1, 1)

    def forget(self) -> None:
        return None


class UpstreamVae:
    """Through the runner's modules; a hook before each latent frame reports progress and lets a job be cancelled."""

    def __init__(self, runner, family: Family, device: str, dtype: torch.dtype):
        self.runner, self.family, self.device, self.dtype = runner, family, device, dtype
        self.report: Report = lambda progress: None
        self.latent_frame = self.total = 0
        for module in self._modules():
            module.encoder.register_forward_pre_hook(lambda *_: self._entering("image"))
            module.decoder.register_forward_pre_hook(lambda *_: self._entering("decode"))

    def _modules(self) -> list:
        vaes = {id(vae): vae for vae in (self.runner.vae_encoder, self.runner.vae_decoder) if vae is not None}
        return [vae.model for vae in vaes.values()]

    def _entering(self, stage: str) -> None:
        self.latent_frame += 1
        words = f"latent frame {self.latent_frame} of {self.total}"
        self.report(Progress(stage, self.latent_frame, self.total, words))

    def _count(self, total: int, report: Report) -> None:
        self.latent_frame, self.total, self.report = 0, total, report

    def colours(self) -> torch.Tensor:
        encoder = self.runner.vae_encoder or self.runner.vae_decoder  # of words alone nothing is encoded
        return preview.fit(lambda clip: encoder.encode(clip.to(self.device, encoder.dtype)), self.family.vae.stride)

    def encode(self, pixels: np.ndarray, frames: int, report: Report, last: np.ndarray | None = None) -> torch.Tensor:
        image = to_image(pixels)
        if self.family.condition == "first frame":
            self._count(1, report)
            return self.runner.get_vae_encoder_output(image.unsqueeze(1).to(self.device))
        self._count(latent_frames(frames), report)
        height, width = (side // self.family.vae.stride for side in pixels.shape[:2])
        end = None if last is None else to_image(last).unsqueeze(0)
        return self.runner.get_vae_encoder_output(image.unsqueeze(0), height, width, end)

    def decode(self, latents: torch.Tensor, report: Report, show: ShowFrames | None = None) -> torch.Tensor:
        self._count(latents.shape[1], report)
        images = self.runner.vae_decoder.decode(latents.to(self.dtype))
        levels = images[0].float().add(1).mul(0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        frames = levels.permute(1, 2, 3, 0).contiguous().cpu()
        if show is not None:
            show(frames)
        return frames

    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        self._count(latents.shape[1], lambda progress: None)
        images = self.runner.vae_decoder.decode(latents.to(self.device, self.dtype))
        return images.float().cpu()[0].permute(1, 2, 3, 0)

    def forget(self) -> None:
        for module in self._modules():
            module.clear_cache()


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in -1 .. 1."""
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)
