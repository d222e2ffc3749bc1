"""A look at unfinished latents without decoding them: a linear map from latent channels to RGB.

Decoding a preview would cost as much as a denoise step. But one latent pixel is nearly a linear code
of the mean colour of the pixels below it, so that a matrix of (channels + 1) x 3, fitted once at load by
least squares on a picture of random soft colours, shows shapes, light and motion for nothing.
"""

import base64
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image

LATENT_SIDE = 16  # latent pixels per side of the clip that the map is fitted on
FRAMES = 5


@torch.inference_mode()
def fit(encode: Callable[[torch.Tensor], torch.Tensor], stride: int) -> torch.Tensor:
    """(z + 1, 3) float32 on the CPU: normalised latents and a one -> RGB in -1 .. 1.

    encode  (1, 3, T, H, W) float32 in -1 .. 1 -> normalised latents (z, t, h, w)
    stride  pixels per latent pixel
    """
    side = LATENT_SIDE * stride
    generator = torch.Generator("cpu").manual_seed(0)
    octaves = (4, 9, 17, 33)
    picture = sum(
        F.interpolate(torch.randn(1, 3, n, n, generator=generator), size=(side, side), mode="bicubic") / n**0.25
        for n in octaves
    )
    picture = torch.tanh(picture)
    # Latent frames after the first hold four frames each and speak another dialect: fit on a drifting clip.
    clip = torch.stack([picture.roll(2 * t, dims=3) for t in range(FRAMES)], dim=2)
    latents = encode(clip).float().cpu()
    pooled = F.adaptive_avg_pool3d(clip[0, :, 1:], (latents.shape[1] - 1, LATENT_SIDE, LATENT_SIDE))
    first = F.adaptive_avg_pool2d(clip[0, :, 0], LATENT_SIDE)[:, None]
    equations = _with_one(latents.flatten(1).T)
    return torch.linalg.lstsq(equations, torch.cat([first, pooled], dim=1).flatten(1).T).solution


def animate(latents: torch.Tensor, colours: torch.Tensor) -> str:
    """Normalised latents (1, z, t, h, w) -> a data URL of an animated WebP, t frames of w x h pixels, a few kB."""
    _, channels, frames, height, width = latents.shape
    values = latents[0].float().cpu().permute(1, 2, 3, 0).reshape(-1, channels)
    rgb = (_with_one(values) @ colours).reshape(frames, height, width, 3)
    pictures = [Image.fromarray(picture) for picture in rgb.clamp(-1, 1).mul(127.5).add(127.5).byte().numpy()]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=250, loop=0, quality=70)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _with_one(values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values, torch.ones(len(values), 1)], dim=1)
