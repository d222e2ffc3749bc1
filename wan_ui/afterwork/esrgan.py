"""A larger picture by Real-ESRGAN's networks (RRDBNet and SRVGGNetCompact), read from the official .pth files.

Which of them a file is of, how large and by how much it enlarges is told from its names and shapes. A frame goes
through in tiles that overlap, so that memory does not grow with the frame.
"""

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pad, pixel_unshuffle

from wan_ui.afterwork.weights import read_tensors
from wan_ui.errors import UserError

TILE, OVERLAP = 256, 16  # pixels of the frame


class Dense(nn.Module):
    """Five convolutions, each of which sees what all before it gave."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(width + before * growth, growth, 3, 1, 1) for before in range(4)
        )
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(leaky_relu(conv(torch.cat(seen, 1)), 0.2))
        return self.conv5(torch.cat(seen, 1)) * 0.2 + x


class DenseOfDense(nn.Module):
    def __init__(self, width: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    """Enlarges four times; one that takes 12 channels is given every second pixel of 2x2 and so enlarges twice."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        width, inputs = tensors["conv_first.weight"].shape[:2]
        growth = tensors["body.0.rdb1.conv1.weight"].shape[0]
        blocks = 1 + max(int(found[1]) for key in tensors if (found := re.match(r"body\.(\d+)\.rdb1", key)))
        self.gathers = {3: 1, 12: 2, 48: 4}.get(inputs, 0)
        self.scale = 4 // self.gathers if self.gathers else 0
        self.conv_first = nn.Conv2d(inputs, width, 3, 1, 1)
        self.body = nn.Sequential(*(DenseOfDense(width, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, 1, 1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(pixel_unshuffle(x, self.gathers) if self.gathers > 1 else x)
        x = x + self.conv_body(self.body(x))
        for layer in (self.conv_up1, self.conv_up2):
            x = leaky_relu(layer(interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(leaky_relu(self.conv_hr(x), 0.2))


class SRVGG(nn.Module):
    """Convolutions at the frame's own size; the last gives the pixels of the larger one beside each other."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        places = sorted(int(found[1]) for key in tensors if (found := re.fullmatch(r"body\.(\d+)\.weight", key)))
        layers: list[nn.Module] = []
        for place in range(places[-1] + 1):
            weight = tensors.get(f"body.{place}.weight")
            if weight is not None and weight.ndim == 4:
                layers.append(nn.Conv2d(weight.shape[1], weight.shape[0], 3, 1, 1))
            else:
                layers.append(nn.PReLU(0 if weight is None else weight.numel()) if weight is not None else nn.ReLU())
        self.body = nn.ModuleList(layers)
        self.scale = {12: 2, 48: 4}.get(tensors[f"body.{places[-1]}.weight"].shape[0], 0)
        self.upsampler = nn.PixelShuffle(self.scale or 1)

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for layer in self.body:
            found = layer(found)
        return self.upsampler(found) + interpolate(x, scale_factor=self.scale, mode="nearest")


def build(tensors: dict[str, Tensor], name: str) -> "RRDBNet | SRVGG":
    """The network with these tensors. Raises UserError (field "upscale")."""
    net: RRDBNet | SRVGG | None = None
    if "conv_first.weight" in tensors and "body.0.rdb1.conv1.weight" in tensors:
        net = RRDBNet(tensors)
    elif "body.0.weight" in tensors:
        net = SRVGG(tensors)
    if net is None or net.scale not in (2, 4):
        words = "is not a Real-ESRGAN network that enlarges two or four times (RRDBNet or SRVGGNetCompact)"
        raise UserError(f"upscale: {name} {words}; take it away, and Lanczos is used", field="upscale")
    wanted = net.state_dict()
    wrong = next((key for key, value in wanted.items() if key not in tensors or tensors[key].shape != value.shape), "")
    if wrong:
        raise UserError(f"upscale: {name}: {wrong} is missing or of another shape; fetch it again", field="upscale")
    net.load_state_dict({key: tensors[key] for key in wanted})
    return net


class Esrgan:
    def __init__(self, path: Path, device: torch.device):
        tensors = {name: value.float() for name, value in read_tensors(path, "upscale").items()}
        self.net, self.device, self.words = build(tensors, path.name).eval().to(device), device, path.name

    @torch.inference_mode()
    def twice(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (2 H, 2 W, 3)."""
        height, width = frame.shape[:2]
        picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None]
        made = np.empty((2 * height, 2 * width, 3), np.uint8)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                bottom, right = min(top + TILE, height), min(left + TILE, width)
                above, before = min(top, OVERLAP), min(left, OVERLAP)
                tile = picture[:, :, top - above : bottom + OVERLAP, left - before : right + OVERLAP]
                large = self._tile(tile)[2 * above :, 2 * before :]
                made[2 * top : 2 * bottom, 2 * left : 2 * right] = large[: 2 * (bottom - top), : 2 * (right - left)]
        return made

    def _tile(self, tile: Tensor) -> np.ndarray:
        height, width = tile.shape[-2:]
        given = pad(tile.to(self.device).float() / 255, (0, width % 2, 0, height % 2), mode="replicate")
        large = self.net(given)
        if self.net.scale == 4:
            large = interpolate(large, scale_factor=0.5, mode="area")
        return (large[0].clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy()[: 2 * height, : 2 * width]
