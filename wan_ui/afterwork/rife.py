"""The frame between two frames by RIFE (Practical-RIFE 4.6 to 4.26): its IFNet, read from the official flownet.pkl.

Blocks from coarse to fine each correct the flow to both frames and a mask that says which of them counts. What differs
between versions is told from the names and shapes in the file: how many blocks and how wide, whether the frames are
encoded first (from 4.7), and whether blocks hand features on (from 4.22).
"""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pad

from wan_ui.afterwork.weights import read_tensors
from wan_ui.errors import UserError

SCALES = {4: (8, 4, 2, 1), 5: (16, 8, 4, 2, 1)}
LITE_SCALES = (32, 16, 8, 4, 1)  # of 4.25.lite, whose last block is 24 wide
OUTPUTS = (20, 24, 52)  # channels of a block's last convolution: 4 x (flow 4, mask 1, and 0, 1 or 8 more)


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1)
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))
        self.relu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x) * self.beta + x)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2))


class Block(nn.Module):
    """Corrects the flow (4 channels) and the mask at one scale."""

    def __init__(self, inputs: int, width: int, outputs: int):
        super().__init__()
        self.conv0 = nn.Sequential(_halving(inputs, width // 2), _halving(width // 2, width))
        self.convblock = nn.Sequential(*(Residual(width) for _ in range(8)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, outputs, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor, flow: Tensor | None, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        x = _resize(x, 1 / scale)
        if flow is not None:
            x = torch.cat((x, _resize(flow, 1 / scale) / scale), 1)
        found = _resize(self.lastconv(self.convblock(self.conv0(x))), scale)
        return found[:, :4] * scale, found[:, 4:5], found[:, 5:]


class Head(nn.Module):
    """What a frame is encoded to, from 4.13 on."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.cnn0 = nn.Conv2d(3, width, 3, 2, 1)
        self.cnn1 = nn.Conv2d(width, width, 3, 1, 1)
        self.cnn2 = nn.Conv2d(width, width, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        self.relu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = self.relu(layer(x))
        return self.cnn3(x)


class IFNet(nn.Module):
    """The network that a file's tensors are of. Raises UserError (field "times") for tensors of none."""

    def __init__(self, tensors: dict[str, Tensor], name: str):
        super().__init__()
        numbers = {int(found[1]) for key in tensors if (found := re.match(r"block(\d+)\.conv0\.0\.0\.weight", key))}
        if len(numbers) not in SCALES or "block0.convblock.0.beta" not in tensors:
            old = " (versions before 4.6 are built otherwise)" if numbers else ""
            raise UserError(f"times: {name} is not RIFE 4.6 to 4.26{old}; use its flownet.pkl", field="times")
        self.count = len(numbers)
        widths = [tensors[f"block{number}.conv0.1.0.weight"].shape[0] for number in range(self.count)]
        outputs = tensors["block0.lastconv.0.weight"].shape[1]
        self.scales = LITE_SCALES if widths[-1] == 24 else SCALES[self.count]
        self.features = (outputs - 20) // 4 if outputs > 24 else 0
        self.encode = _encoder(tensors)
        for number, width in enumerate(widths):
            inputs = tensors[f"block{number}.conv0.0.0.weight"].shape[1]
            setattr(self, f"block{number}", Block(inputs, width, outputs))
        wanted = self.state_dict()
        for key, tensor in wanted.items():
            if outputs not in OUTPUTS or key not in tensors or tensors[key].shape != tensor.shape:
                raise UserError(f"times: {name} is not RIFE 4.6 to 4.26: {key} is not as it should be", field="times")
        self.load_state_dict({key: tensors[key] for key in wanted})

    @torch.inference_mode()
    def forward(self, first: Tensor, second: Tensor, time: float) -> Tensor:
        """(1, 3, H, W) of 0..1, both sides a multiple of 4 x the coarsest scale."""
        frames: tuple[Tensor, ...] = (first, second)
        moment = torch.full_like(first[:, :1], time)
        flow: Tensor | None = None
        mask, features = moment[:, :0], moment[:, :0]
        encoded = tuple(self.encode(frame) for frame in frames) if self.encode is not None else ()
        warped = frames
        for number, scale in enumerate(self.scales):
            block = getattr(self, f"block{number}")
            if flow is None:
                flow, mask, features = block(torch.cat((*frames, *encoded, moment), 1), None, scale)
            else:
                pulled = tuple(_warp(part, flow[:, 2 * side : 2 * side + 2]) for side, part in enumerate(encoded))
                given = [*warped, *pulled, moment, mask, *([features] if self.features else [])]
                more, found, features = block(torch.cat(given, 1), flow, scale)
                flow, mask = flow + more, (found if encoded else mask + found)
            warped = tuple(_warp(frame, flow[:, 2 * side : 2 * side + 2]) for side, frame in enumerate(frames))
        share = torch.sigmoid(mask)
        return warped[0] * share + warped[1] * (1 - share)


def _encoder(tensors: dict[str, Tensor]) -> nn.Module | None:
    """4.6 has none; 4.7 to 4.9 two convolutions, 4.10 to 4.12 four in a row, later ones a Head."""
    if "encode.cnn0.weight" in tensors:
        return Head(tensors["encode.cnn0.weight"].shape[0], tensors["encode.cnn3.weight"].shape[1])
    if "encode.0.weight" not in tensors:
        return None
    width = tensors["encode.0.weight"].shape[0]
    if "encode.6.weight" not in tensors:
        outputs = tensors["encode.1.weight"].shape[1] if "encode.1.weight" in tensors else 4
        return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ConvTranspose2d(width, outputs, 4, 2, 1))
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(width, tensors["encode.6.weight"].shape[1], 4, 2, 1),
    )


def _resize(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1 else interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def _warp(x: Tensor, flow: Tensor) -> Tensor:
    """What stands where the flow (pixels) points; beyond the border what stands at it."""
    height, width = x.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
    moved = flow.permute(0, 2, 3, 1) * torch.tensor(
        [2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=x.device, dtype=x.dtype
    )
    return grid_sample(x, grid + moved, mode="bilinear", padding_mode="border", align_corners=True)


class RifeBetween:
    def __init__(self, path: Path, device: torch.device):
        # Its training wrapped it in a DistributedDataParallel.
        tensors = {name.removeprefix("module."): tensor.float() for name, tensor in read_tensors(path, "times").items()}
        self.net = IFNet(tensors, path.name).eval().to(device)
        self.device, self.words = device, f"RIFE ({path.name})"

    def at(self, first: np.ndarray, second: np.ndarray, time: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 at `time` of 0..1 between two."""
        height, width = first.shape[:2]
        step = 4 * self.net.scales[0]
        border = (0, -width % step, 0, -height % step)
        given = [
            pad(torch.from_numpy(frame.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255, border)
            for frame in (first, second)
        ]
        made = self.net(*given, time)[0, :, :height, :width]
        return (made.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()
