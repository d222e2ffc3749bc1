"""The VAE: a file or folder of any layout -> AutoencoderKLWan; encoding a picture, decoding latents.

The loops are here rather than in `vae.encode` and `vae.decode`, so that progress can be reported and a
job cancelled between steps, without hooks, and with the causal cache in a local variable: a cancelled
job leaves nothing behind. The Wan2.1 VAE goes the faster way of vae_fast.py; diffusers' own encoder and
decoder, one latent frame at a time, take the residual one of the 5B model, and on a GPU encode videos. On a
GPU whose kernels were tried, both are decoded by vae_fused.py.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from wan_ui.engines import preview, vae_fast
from wan_ui.engines.group import here
from wan_ui.engines.vae_fused import AT_ONCE, MANY_PIXELS, FusedDecoder
from wan_ui.engines.vae_strips import Strip, of_decoder
from wan_ui.engines.wan_classes import AutoencoderKLWan, patchify, unpatchify
from wan_ui.errors import UserError
from wan_ui.families import TIME_STRIDE
from wan_ui.files.names import rename
from wan_ui.files.sizes import vae_layout
from wan_ui.files.tensors import load_strict, shapes_alone
from wan_ui.files.vae_file import read_vae

Entering = Callable[[int, int], None]
NewDecoder = Callable[[Strip | None], FusedDecoder]


def load_vae(path: Path, *, dtype: torch.dtype, device: torch.device) -> AutoencoderKLWan:
    """The VAE in eval mode, from a file or folder of any layout. Raises UserError.

    A config.json beside the weights, as Diffusers' folders have it, gives the sizes; else the tensors do.
    """
    tensors = read_vae(path)
    config, names = vae_layout(path, tensors)
    if path.is_dir() and (path / "config.json").is_file():
        try:
            stored = json.loads((path / "config.json").read_text(encoding="utf-8"))
            config = {key: value for key, value in stored.items() if not key.startswith("_")}
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path / 'config.json'}: {error}") from error
    tensors = rename(tensors, names)
    with shapes_alone():
        vae = AutoencoderKLWan(**config)
    # Each is let go as soon as it is converted: in float32 they take twice as much as what stays.
    load_strict(vae, {name: tensors.pop(name).to(device, dtype) for name in list(tensors)}, file=path)
    vae.eval().requires_grad_(False)
    vae_fast.prepare(vae)
    return vae


def latent_statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel, each (1, z, 1, 1, 1) float32 on the VAE's device."""
    shape = (1, vae.config["z_dim"], 1, 1, 1)
    mean = torch.tensor(vae.config["latents_mean"], device=vae.device).view(shape)
    return mean, torch.tensor(vae.config["latents_std"], device=vae.device).view(shape)


def fit_colours(vae: AutoencoderKLWan) -> torch.Tensor:
    """The colours of previews; see wan_ui.engines.preview.fit."""

    def encode(clip: torch.Tensor) -> torch.Tensor:
        return encode_video(vae, clip, lambda k, n: None)[0]

    return preview.fit(encode, vae.config["scale_factor_spatial"])


@torch.inference_mode()
def encode_image(
    vae: AutoencoderKLWan, image: torch.Tensor, frames: int, entering: Entering, last: torch.Tensor | None = None
) -> torch.Tensor:
    """[image, zeros ..., last] -> normalised latents (1, z, 1 + (frames - 1) / 4, h, w) float32.

    image     (1, 3, H, W) float32 in -1 .. 1
    frames    4k+1 frames in all; those after the first are zero (mid grey)
    entering  called with (k, n) before step k of n
    last      the last frame, if it is given, as `image`
    """
    if vae.config["is_residual"] or last is not None:
        moments = _encode_in_chunks(vae, image, frames, last, entering)
    else:
        moments = vae_fast.encode(vae, image.to(vae.device), frames, entering)
    return _normalised(vae, moments)


@torch.inference_mode()
def encode_video(vae: AutoencoderKLWan, video: torch.Tensor, entering: Entering) -> torch.Tensor:
    """(1, 3, 4k+1, H, W) in -1 .. 1 -> normalised latents (1, z, 1 + k, h, w) float32; entering as in encode_image."""
    return _normalised(vae, _encode_chunks(vae, video, entering))


def _normalised(vae: AutoencoderKLWan, moments: torch.Tensor) -> torch.Tensor:
    mean, std = latent_statistics(vae)
    return (moments.float()[:, : vae.config["z_dim"]] - mean) / std  # the mode of the posterior is its mean


def decode(
    vae: AutoencoderKLWan,
    latents: torch.Tensor,
    entering: Entering,
    fused: NewDecoder | None = None,
    slim: bool = False,
    show: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Normalised latents (1, z, t, h, w) -> frames (T, H, W, 3) uint8 on the CPU, T = 1 + 4 (t - 1).

    In a group the first rank has them, the others none.

    entering  called with (k, n) before latent frame k of n
    fused, slim  see decode_pixels
    show      called with the frames that are finished (n, H, W, 3), while the next ones are computed
    """
    frames, at, copied = torch.empty(0, 0, 0, 3, dtype=torch.uint8), 0, Copied(show)
    for pixels in decode_pixels(vae, latents, entering, fused, slim):
        if not here().first:
            continue
        levels = to_uint8(pixels)
        if not at:
            shape = (1 + TIME_STRIDE * (latents.shape[2] - 1), *levels.shape[1:])
            frames = torch.empty(shape, dtype=torch.uint8, pin_memory=levels.is_cuda)
        frames[at : at + len(levels)].copy_(levels, non_blocking=True)  # while the next ones are computed
        copied.add(frames[at : at + len(levels)], levels.device)
        at += len(levels)
    copied.finish()
    return frames


class Copied:
    """Frames on their way to the host, shown one part late: then waiting for their copy does not keep the GPU idle."""

    def __init__(self, show: Callable[[torch.Tensor], None] | None):
        self.show = show
        self.last: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def add(self, frames: torch.Tensor, device: torch.device) -> None:
        """frames  in host memory, whose copy from `device` has just been asked for"""
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        self.finish()
        self.last = frames, event

    def finish(self) -> None:
        """What was added last is there, and shown."""
        if self.last is None:
            return
        (frames, event), self.last = self.last, None
        if event is not None:
            event.synchronize()
        if self.show is not None:
            self.show(frames)


@torch.inference_mode()
def decode_pixels(
    vae: AutoencoderKLWan,
    latents: torch.Tensor,
    entering: Entering,
    fused: NewDecoder | None = None,
    slim: bool = False,
) -> Iterator[torch.Tensor]:
    """What `decode` rounds: one latent frame after the other, (1, 3, 1 or 4, H, W) in about -1 .. 1.

    fused  makes a FusedDecoder for `vae`; it takes several latent frames at once
    slim   it takes one, to save memory
    """
    mean, std = latent_statistics(vae)
    x = vae.post_quant_conv((latents.to(vae.device).float() * std + mean).to(vae.dtype))
    count, at_once = x.shape[2], 1
    strip = of_decoder(vae.decoder, *x.shape[-2:])
    if fused is not None:
        pixels = x.shape[-2] * x.shape[-1] * vae.config["scale_factor_spatial"] ** 2
        pixels //= 1 if strip is None else here().size
        decode_next = _unpatched(vae, _joined(strip, fused(strip).decode_next))
        at_once = AT_ONCE if pixels <= MANY_PIXELS and not slim else 1
    elif vae.config["is_residual"]:
        decode_next = _unpatched(vae, _residual_decoder(vae))
    else:
        decode_next = _joined(strip, vae_fast.Decoder(vae, strip).decode_next)
    starts = [0, *range(1, count, at_once), count]
    for start, end in itertools.pairwise(starts):
        entering(start + 1, count)
        yield decode_next(x[:, :, start:end])


def with_mask(latents: torch.Tensor, ends: bool) -> torch.Tensor:
    """(z, t, h, w) -> (4 + z, t, h, w): in front which of its four frames each latent frame is given. The first stands
    for one frame, given in all four. ends: the last frame is given, too."""
    given = torch.zeros(TIME_STRIDE, *latents.shape[1:], device=latents.device)
    given[:, 0] = 1
    if ends:
        given[-1, -1] = 1
    return torch.cat([given, latents])


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in -1 .. 1."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(127.5).sub(1)


def _encode_in_chunks(
    vae: AutoencoderKLWan, image: torch.Tensor, frames: int, last: torch.Tensor | None, entering: Entering
) -> torch.Tensor:
    """One latent frame after the other, whatever the frames hold."""
    video = image.new_zeros(1, 3, frames, *image.shape[-2:])
    video[:, :, 0] = image
    if last is not None:
        video[:, :, -1] = last
    return _encode_chunks(vae, video, entering)


def _encode_chunks(vae: AutoencoderKLWan, video: torch.Tensor, entering: Entering) -> torch.Tensor:
    video, patch, frames = video.to(vae.device, vae.dtype), vae.config["patch_size"], video.shape[2]
    chunks = (patchify(video, patch) if patch else video).split([1, *[TIME_STRIDE] * ((frames - 1) // 4)], dim=2)
    # On a CPU much faster in float32, in bf16 as fast; on an H100 (720p, 17 frames, bf16) 0.90 s, diffusers' own 0.62.
    fast = vae.device.type == "cpu" and not vae.config["is_residual"]
    encode_next = vae_fast.Encoder(vae).encode_next if fast else _own_encoder(vae)
    out = []
    for k, chunk in enumerate(chunks):
        entering(k + 1, len(chunks))
        out.append(encode_next(chunk))
    return torch.cat(out, dim=2)


def _own_encoder(vae: AutoencoderKLWan) -> Callable[[torch.Tensor], torch.Tensor]:
    """Diffusers': from the next frames (1, c, 1 or 4, h, w) to their moments, with the causal cache inside."""
    cache = [None] * vae._cached_conv_counts["encoder"]
    return lambda chunk: vae.quant_conv(vae.encoder(chunk, feat_cache=cache, feat_idx=[0]))


def _residual_decoder(vae: AutoencoderKLWan) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from the next latent frame (1, z, 1, h, w) to its pixels, with the causal cache inside."""
    cache = [None] * vae._cached_conv_counts["decoder"]
    first = True

    def decode_next(frame: torch.Tensor) -> torch.Tensor:
        nonlocal first
        pixels = vae.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=first)
        first = False
        return pixels

    return decode_next


def _joined(
    strip: Strip | None, decode_next: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """In a group each rank decodes a strip."""
    return decode_next if strip is None else lambda latents: strip.joined(decode_next(latents))


def _unpatched(
    vae: AutoencoderKLWan, decode_next: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The residual VAE's decoder gives patches of pixels as channels."""
    patch = vae.config["patch_size"]
    return (lambda latents: unpatchify(decode_next(latents), patch)) if patch else decode_next


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """(1, 3, T, H, W) in -1 .. 1 -> (T, H, W, 3) uint8, where the pixels are."""
    return pixels[0].permute(1, 2, 3, 0).float().clamp(-1, 1).mul(127.5).add(127.5).round().to(torch.uint8)
