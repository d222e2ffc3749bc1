"""The transformer of Wan2.2 S2V: a clip's tokens, then those of its picture and of the frames before it.

    given = model.given(picture, motion, voice, pose)      # once for a segment
    velocity = model(latents, timestep, text, given)        # at every step

It is Wan's transformer with these differences. Behind the clip's own tokens stand those of the reference picture, at
time 30 of the rotary grid, and those of the frames before, at negative times, the nearer the finer: one latent frame as
it is, two in one token of 2x4x4, sixteen in four of 4x8x8. All tokens attend to each other; those behind are told
timestep 0, and only the clip's own are taken at the end. After twelve of the forty blocks each latent frame attends to
what is heard during it, normalised by one more vector of the same (AdaIN). A pose video's latents are added to the
clip's tokens at the beginning.

Parameters have the official names (wan/modules/s2v), so that its files need no map. The stream of tokens is float32, as
it comes out of the official code under autocast; products are of the weights' dtype.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

PICTURE_TIME = 30  # of the reference picture in the rotary grid
NEAR, MIDDLE, FAR = 1, 2, 16  # latent frames before the clip, from the last one back
OWN, PICTURE, BEFORE = range(3)  # rows of trainable_cond_mask: kinds of tokens
# Scale whole channels or are computed once, and stay float32 whatever the compute dtype.
FLOAT32_PARTS = ("time_embedding", "time_projection", "modulation", "norm3", "casual_audio_encoder")


@dataclass(frozen=True)
class Given:
    """What a segment is made of beside its noise, the same at all steps.

    behind   (1, n, width) tokens after the clip's own, with what marks their kind
    pose     (1, tokens, width) added to the clip's own, or None
    heard    (frames, k, width) for each latent frame of the clip
    whole    (frames, width) the same as one vector each
    turns    (cos, sin), each (tokens + n, 1, half a head): rotary angles
    """

    behind: torch.Tensor
    pose: torch.Tensor | None
    heard: torch.Tensor
    whole: torch.Tensor
    turns: tuple[torch.Tensor, torch.Tensor]


class Attention(nn.Module):
    """Of queries to keys and values of another sequence, or with `turns` of one to itself."""

    def __init__(self, width: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(width, eps=eps) for _ in range(2))

    def forward(
        self, x: torch.Tensor, context: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """x (b, n, width), context (b, m, width) -> (b, n, width)"""

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.unflatten(2, (self.heads, -1))

        q, k = split(normed(self.norm_q, self.q(x))), split(normed(self.norm_k, self.k(context)))
        v = split(self.v(context))
        if turns is not None:
            q, k = turned(q, turns), turned(k, turns)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.o(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, ffn: int, heads: int, eps: float, affine: bool):
        super().__init__()
        self.eps = eps
        self.self_attn, self.cross_attn = Attention(width, heads, eps), Attention(width, heads, eps)
        self.norm3 = nn.LayerNorm(width, eps=eps) if affine else nn.Identity()
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.GELU(approximate="tanh"), nn.Linear(ffn, width))
        self.modulation = nn.Parameter(torch.empty(1, 6, width))

    def forward(
        self,
        x: torch.Tensor,
        times: torch.Tensor,
        own: int,
        text: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """x (1, n, width) float32; times (2, 6, width): of the first `own` tokens and of those behind."""
        own_part, rest = (self.modulation + times).unbind()  # (6, width) each
        dtype = text.dtype

        def modulated(at: int) -> torch.Tensor:
            y = F.layer_norm(x, (x.shape[-1],), eps=self.eps)
            parts = (y[:, :own], own_part), (y[:, own:], rest)
            return torch.cat([(part * (1 + e[at + 1]) + e[at]).to(dtype) for part, e in parts], dim=1)

        def added(y: torch.Tensor, at: int) -> torch.Tensor:
            parts = (y[:, :own], own_part), (y[:, own:], rest)
            return x + torch.cat([part.float() * e[at] for part, e in parts], dim=1)

        y = modulated(0)
        x = added(self.self_attn(y, y, turns), 2)
        x = x + self.cross_attn(self.norm3(x).to(dtype), text).float()
        return added(self.ffn(modulated(3)), 5)


class CausalConv(nn.Module):
    """Along time: what comes later is not seen, what came before the first is like it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, frames, inputs) -> (b, frames / stride, outputs)"""
        return self.conv(F.pad(x.transpose(1, 2), (2, 0), mode="replicate")).transpose(1, 2)


class Ear(nn.Module):
    """Features of frames -> tokens of latent frames, four frames in one."""

    def __init__(self, inputs: int, width: int, count: int, whole: bool):
        super().__init__()
        self.count = count
        self.conv1_local = CausalConv(inputs, width // 4 * count)
        self.conv2, self.conv3 = CausalConv(width // 4, width // 2, 2), CausalConv(width // 2, width, 2)
        self.padding_tokens = nn.Parameter(torch.empty(1, 1, 1, width))
        if whole:
            self.conv1_global = CausalConv(inputs, width // 4)
            self.final_linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(frames, inputs) -> (latent frames, count + 1, width) and, as one vector, (latent frames, width)"""
        apart = self.conv1_local(x[None]).unflatten(2, (self.count, -1))[0].transpose(0, 1)
        heard = self._joined(apart).transpose(0, 1)
        heard = torch.cat([heard, self.padding_tokens[0].expand(len(heard), -1, -1)], dim=1)
        return heard, self.final_linear(self._joined(self.conv1_global(x[None])))[0]

    def _joined(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (lambda y: y, self.conv2, self.conv3):
            x = conv(x)
            x = F.silu(F.layer_norm(x, (x.shape[-1],), eps=1e-6))
        return x


class VoiceEncoder(nn.Module):
    """The layers of wav2vec2, weighed, and then `Ear`."""

    def __init__(self, layers: int, inputs: int, width: int, count: int):
        super().__init__()
        self.weights = nn.Parameter(torch.empty(1, layers, 1, 1))
        self.encoder = Ear(inputs, width, count, whole=True)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(layers, inputs, frames) -> as `Ear`"""
        weights = F.silu(self.weights[0])
        return self.encoder(((features * weights) / weights.sum()).sum(0).T)


class AdaIn(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """x (frames, tokens, width) float32, by (frames, width)"""
        shift, scale = self.linear(F.silu(by)).float()[:, None].chunk(2, dim=2)
        return F.layer_norm(x, (x.shape[-1],), eps=1e-5) * (1 + scale) + shift


class Injector(nn.Module):
    def __init__(self, width: int, heads: int, count: int):
        super().__init__()
        self.injector = nn.ModuleList(Attention(width, heads, 1e-6) for _ in range(count))
        self.injector_adain_layers = nn.ModuleList(AdaIn(width) for _ in range(count))

    def forward(self, at: int, x: torch.Tensor, given: Given) -> torch.Tensor:
        """What a place adds to the clip's own tokens (1, n, width) float32."""
        frames = x[0].unflatten(0, (len(given.heard), -1))
        y = self.injector_adain_layers[at](frames, given.whole).to(given.heard.dtype)
        return self.injector[at](y, given.heard).float().flatten(0, 1)[None]


class FramePacker(nn.Module):
    """Frames before the clip -> tokens, the nearer the more."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv3d(channels, width, (1, 2, 2), stride=(1, 2, 2))
        self.proj_2x = nn.Conv3d(channels, width, (2, 4, 4), stride=(2, 4, 4))
        self.proj_4x = nn.Conv3d(channels, width, (4, 8, 8), stride=(4, 8, 8))

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        """(z, frames, h, w) normalised latents -> (1, tokens, width); what there is not enough of is zero."""
        whole = FAR + MIDDLE + NEAR
        motion = F.pad(motion, (0, 0, 0, 0, max(0, whole - motion.shape[1]), 0))[:, -whole:]
        far, middle, near = motion[None].split([FAR, MIDDLE, NEAR], dim=2)
        parts = ((self.proj, near), (self.proj_2x, middle), (self.proj_4x, far))
        return torch.cat([conv(part).flatten(2).transpose(1, 2) for conv, part in parts], dim=1)


class Head(nn.Module):
    def __init__(self, width: int, outputs: int, eps: float):
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(width, outputs)
        self.modulation = nn.Parameter(torch.empty(1, 2, width))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.modulation + time[None])[0]
        y = F.layer_norm(x, (x.shape[-1],), eps=self.eps) * (1 + scale) + shift
        return self.head(y.to(self.head.weight.dtype)).float()


class S2VTransformer(nn.Module):
    """config: values of the official config.json, see wan_ui.files.s2v_file."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, heads, eps = config["dim"], config["num_heads"], config.get("eps", 1e-6)
        self.config, self.heads, self.freq_dim = config, heads, config.get("freq_dim", 256)
        patch = (1, 2, 2)
        self.patch_embedding = nn.Conv3d(config["in_dim"], width, patch, stride=patch)
        self.cond_encoder = nn.Conv3d(config["cond_dim"], width, patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.get("text_dim", 4096), width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.time_embedding = nn.Sequential(nn.Linear(self.freq_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        affine = config.get("cross_attn_norm", True)
        self.blocks = nn.ModuleList(
            Block(width, config["ffn_dim"], heads, eps, affine) for _ in range(config["num_layers"])
        )
        self.head = Head(width, config["out_dim"] * math.prod(patch), eps)
        self.places = {block: number for number, block in enumerate(config["audio_inject_layers"])}
        self.casual_audio_encoder = VoiceEncoder(
            config["audio_layers"], config["audio_dim"], width, config["num_audio_token"]
        )
        self.audio_injector = Injector(width, heads, len(self.places))
        self.trainable_cond_mask = nn.Embedding(3, width)
        self.frame_packer = FramePacker(config["in_dim"], width)

    @property
    def dtype(self) -> torch.dtype:
        """Of products."""
        return self.patch_embedding.weight.dtype

    def given(
        self,
        picture: torch.Tensor,
        motion: torch.Tensor | None,
        voice: torch.Tensor,
        seen: int,
        frames: int,
        pose: torch.Tensor | None = None,
    ) -> Given:
        """What a segment of `frames` latent frames is made of; latents are normalised.

        picture  (z, 1, h, w)
        motion   (z, m, h, w) of the frames before; None for the first segment
        voice    (layers, inputs, 4 * frames) features of the segment's frames
        seen     frames before that the network was trained to see; their sound is like that of the first frame
        pose     (z, frames, h, w); None: no pose
        """
        device, dtype = self.patch_embedding.weight.device, self.dtype
        height, width = picture.shape[2] // 2, picture.shape[3] // 2

        def tokens(conv: nn.Module, latents: torch.Tensor) -> torch.Tensor:
            return conv(latents[None].to(device, dtype)).flatten(2).transpose(1, 2).float()

        marks = self.trainable_cond_mask.weight.float()
        behind = [tokens(self.patch_embedding, picture) + marks[PICTURE]]
        grids = [grid(range(frames), range(height), range(width)), grid([PICTURE_TIME], range(height), range(width))]
        if motion is not None:
            behind.append(self.frame_packer(motion.to(device, dtype)).float() + marks[BEFORE])
            grids += motion_grids(picture.shape[2], picture.shape[3])
        before = voice[..., :1].expand(-1, -1, seen)
        heard, whole = self.casual_audio_encoder(torch.cat([before, voice], dim=-1).to(device, torch.float32))
        return Given(
            torch.cat(behind, dim=1),
            None if pose is None else tokens(self.cond_encoder, pose),
            heard[-frames:].to(dtype),
            whole[-frames:].to(dtype),
            angles(torch.cat(grids), self.config["dim"] // self.heads, device),
        )

    def forward(self, latents: torch.Tensor, timestep: float, text: torch.Tensor, given: Given) -> torch.Tensor:
        """(z, t, h, w), 0 .. 1000, (length, text width) -> velocity (z, t, h, w) float32"""
        device, dtype = given.behind.device, self.dtype
        x = self.patch_embedding(latents[None].to(device, dtype))
        shape = x.shape[2:]
        x = x.flatten(2).transpose(1, 2).float()
        if given.pose is None:  # the latents of no pose are zeros, which leaves the bias
            assert self.cond_encoder.bias is not None
            x = x + self.cond_encoder.bias.float()
        else:
            x = x + given.pose
        own = x.shape[1]
        x = torch.cat([x + self.trainable_cond_mask.weight[OWN].float(), given.behind], dim=1)
        time = self.time_embedding(waves(torch.tensor([timestep, 0.0], device=device), self.freq_dim))
        times = self.time_projection(time).unflatten(1, (6, -1))
        words = self.text_embedding(text.to(device, dtype)[None])
        for number, block in enumerate(self.blocks):
            x = block(x, times, own, words, given.turns)
            if number in self.places:
                x[:, :own] += self.audio_injector(self.places[number], x[:, :own], given)
        x = self.head(x[:, :own], time[0])[0]
        x = x.view(*shape, 1, 2, 2, -1).permute(6, 0, 3, 1, 4, 2, 5)
        return x.reshape(len(x), shape[0], 2 * shape[1], 2 * shape[2])


def normed(norm: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """In float32, rounded before the weight as the official code does."""
    y = F.rms_norm(x.float(), (x.shape[-1],), eps=norm.eps).to(x.dtype)
    return y * norm.weight.to(x.dtype)


def turned(x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary embedding of (b, n, heads, d): neighbouring numbers are a pair."""
    cos, sin = turns
    a, b = x.float().unflatten(3, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(3).to(x.dtype)


Axis = Sequence[int] | np.ndarray


def grid(times: Axis, rows: Axis, columns: Axis) -> torch.Tensor:
    """(n, 3) positions of tokens, whole numbers."""
    axes = (torch.as_tensor(np.asarray(axis, dtype=np.int64)) for axis in (times, rows, columns))
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)


def motion_grids(height: int, width: int) -> list[torch.Tensor]:
    """Positions of the tokens of the frames before, for latents of that size: a coarser token stands where the finer
    ones of the whole picture are, spread evenly."""

    grids, start = [], 0
    for frames, step in ((NEAR, 1), (MIDDLE, 2), (FAR, 4)):
        start += frames
        times = -np.linspace(start, start - frames + 1, frames // step).astype(int)
        rows, columns = (np.linspace(0, side // 2 - 1, side // (2 * step)).astype(int) for side in (height, width))
        grids.append(grid(times, rows, columns))
    return grids


def angles(positions: torch.Tensor, head: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 3) -> cos and sin (n, 1, head / 2): a head's first pairs are of the time, the others of row and column."""
    turns = []
    for axis, size in enumerate((head - 4 * (head // 6), 2 * (head // 6), 2 * (head // 6))):
        speeds = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        turns.append(positions[:, axis : axis + 1].double() * speeds)
    turn = torch.cat(turns, dim=1)[:, None]
    return turn.cos().float().to(device), turn.sin().float().to(device)


def waves(times: torch.Tensor, size: int) -> torch.Tensor:
    """Sinusoidal embedding (n,) -> (n, size) float32."""
    half = size // 2
    turn = times.double()[:, None] * 10000.0 ** (-torch.arange(half, device=times.device).double() / half)
    return torch.cat([turn.cos(), turn.sin()], dim=1).float()
