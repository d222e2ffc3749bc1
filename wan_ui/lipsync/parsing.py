"""Which part of a face may change: a mask of the lower face, from BiSeNet on full weights or from the landmarks.

`BiSeNet` has the parameter names of `79999_iter.pth` (zllrunning/face-parsing.PyTorch, 19 classes of CelebAMask-HQ):
BiSeNet of Yu et al. 2018 whose spatial path was replaced by ResNet-18's features at 1/8. Of its classes MuseTalk takes
1 skin, 10 nose, 11 mouth, 12 upper lip, 13 lower lip and 14 neck.
"""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional

from wan_ui.lipsync.files import PARSER
from wan_ui.lipsync.musetalk import fill, read_tensors

SIDE = 512  # what BiSeNet sees
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
CHEEK = 90  # columns to either side of the centre whose lower edge is not cut back
MODES = ("jaw", "neck", "raw")


class Parser(Protocol):
    name: str

    def region(self, crop: Image.Image, landmarks: np.ndarray, mode: str) -> Image.Image:
        """What may change in an RGB `crop` ("L", 0 or 255, the crop's size); `landmarks` (68, 2) in its pixels."""


class LandmarkParser:
    """The face below the middle of the nose, from the jaw line of the landmarks: needs no weights."""

    name = "landmarks"

    def region(self, crop: Image.Image, landmarks: np.ndarray, mode: str) -> Image.Image:
        outline = [tuple(point) for point in landmarks[2:15].tolist()]  # cheek, chin, cheek; the ears are left alone
        # the chin of an open mouth is lower than this one, so the lower edge reaches a little further
        drop = 0.06 * float(landmarks[8, 1] - landmarks[27, 1])
        outline[4:9] = [(x, y + drop) for x, y in outline[4:9]]
        mask = Image.new("L", crop.size, 0)
        ImageDraw.Draw(mask).polygon([*outline, tuple(landmarks[29].tolist())], fill=255)
        return mask


class BiSeNetParser:
    """MuseTalk's own face parsing."""

    name = "BiSeNet"

    def __init__(self, net: "BiSeNet", device: torch.device):
        self._net, self._device = net.eval().requires_grad_(False).to(device), device
        self._mean = torch.tensor(MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(STD, device=device).view(3, 1, 1)

    @torch.inference_mode()
    def classes(self, crop: Image.Image) -> np.ndarray:
        """(512, 512) int64, a class for each pixel."""
        pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        image = torch.from_numpy(pixels.copy()).to(self._device).permute(2, 0, 1).float() / 255
        return self._net(((image - self._mean) / self._std)[None])[0].argmax(0).cpu().numpy()

    def region(self, crop: Image.Image, landmarks: np.ndarray, mode: str) -> Image.Image:
        # Bicubic, PIL's default for "L": the mask's edge overshoots into a soft one.
        return Image.fromarray(face_region(self.classes(crop), mode)).resize(crop.size)


def load_parser(folder: Path, device: torch.device) -> Parser:
    """BiSeNet where its file lies in the weights' folder, the landmarks otherwise. Raises UserError if it is damaged.

    ResNet-18's own file, which upstream reads first, is not needed: 79999_iter.pth overwrites all of it.
    """
    path = folder / PARSER
    if not path.is_file():
        return LandmarkParser()
    net = BiSeNet()
    fill(net, read_tensors(path), path)
    return BiSeNetParser(net, device)


def _chin_kernel() -> np.ndarray:
    """33x33 uint8: a cone that opens downwards from the 10th row to the 20th, and goes on at that width."""
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        half = min(row, 20) - 10
        kernel[row, 16 - half : 16 + half + 1] = 1
    return kernel


CHIN_KERNEL = _chin_kernel()
CHEEK_KERNEL = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3))


def face_region(classes: np.ndarray, mode: str) -> np.ndarray:
    """(512, 512) classes -> uint8 0 or 255.

    jaw   skin, grown upwards at the chin and cut back on the cheeks, without the nose; lips and mouth
    neck  skin, lips, mouth and neck
    raw   skin, lips and mouth
    """
    if mode == "raw":
        return np.isin(classes, (1, 11, 12, 13)).astype(np.uint8) * 255
    if mode == "neck":
        return np.isin(classes, (1, 11, 12, 13, 14)).astype(np.uint8) * 255
    if mode != "jaw":
        raise ValueError(f"mode {mode!r} is not one of {MODES}")
    grown = cv2.dilate((classes == 1).astype(np.uint8) * 255, CHIN_KERNEL)
    cut = cv2.erode(grown, CHEEK_KERNEL, iterations=2)
    columns = np.arange(SIDE)
    cheeks = (columns <= SIDE // 2 - CHEEK) | (columns >= SIDE // 2 + CHEEK)
    skin = np.where(cheeks[None], cut, grown) == 255
    return ((skin & (classes != 10)) | np.isin(classes, (11, 12, 13))).astype(np.uint8) * 255


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(x, x.shape[2:])


class ConvBNReLU(nn.Module):
    def __init__(self, into: int, out: int, kernel: int = 3, padding: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """Of ResNet-18."""

    def __init__(self, into: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if into != out or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu((x if self.downsample is None else self.downsample(x)) + inner)


class ResNet18(nn.Module):
    """Features at 1/8, 1/16 and 1/32."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    def __init__(self, into: int, out: int):
        super().__init__()
        self.conv = ConvBNReLU(into, out)
        self.conv_atten = nn.Conv2d(out, out, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(_pooled(x))).sigmoid()


class ContextPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBNReLU(128, 128)
        self.conv_head16 = ConvBNReLU(128, 128)
        self.conv_avg = ConvBNReLU(512, 128, kernel=1, padding=0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        eighth, sixteenth, last = self.resnet(x)
        context = self.arm32(last) + self.conv_avg(_pooled(last))
        context = self.conv_head32(functional.interpolate(context, sixteenth.shape[2:], mode="nearest"))
        context = self.arm16(sixteenth) + context
        return eighth, self.conv_head16(functional.interpolate(context, eighth.shape[2:], mode="nearest"))


class FeatureFusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.convblk = ConvBNReLU(256, 256, kernel=1, padding=0)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, spatial: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = self.convblk(torch.cat([spatial, context], dim=1))
        return x * self.conv2(functional.relu(self.conv1(_pooled(x)))).sigmoid() + x


class Output(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = ConvBNReLU(256, 256)
        self.conv_out = nn.Conv2d(256, 19, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_out(self.conv(x))


class BiSeNet(nn.Module):
    """(n, 3, 512, 512) -> (n, 19, 512, 512). The two auxiliary heads of the file only served its training."""

    def __init__(self):
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Output()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.conv_out(self.ffm(*self.cp(x)))
        return functional.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)
