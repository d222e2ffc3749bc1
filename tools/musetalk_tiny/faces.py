"""Faces drawn from random numbers, as a lip-sync network sees them: cropped to the face box.

The box of MuseTalk 1.5 has the nose bridge at half height, the chin near the lower edge and the jaw
at the sides, stretched to a square. Everything is batched, so that a GPU draws hundreds a second
and no face is ever seen twice. Some bases are not drawn: a public-domain portrait under strong
random changes, and lips drawn on photo crops, so that the network learns to copy any texture.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mouth import draw_interior, grid, local, smoothstep, uniform
from PIL import Image

# Portraits with closed lips: file -> face box (left, top, right, bottom) and mouth (x, y, half width), in pixels.
PORTRAITS = {"grace_hopper.jpg": ((178, 123, 358, 343), (267, 275, 33))}

SKIN = (
    (0.95, 0.80, 0.70),
    (0.88, 0.68, 0.55),
    (0.78, 0.57, 0.42),
    (0.60, 0.42, 0.30),
    (0.42, 0.28, 0.20),
    (0.28, 0.19, 0.14),
)


@dataclass
class Photos:
    """squares (k, 3, 256, 256) of scenes and textures; portraits with their mouths, each uint8 on the device."""

    squares: torch.Tensor
    portraits: list[tuple[torch.Tensor, tuple, tuple]]
    folder: Path


def load_photos(folder: Path, device, crops: int = 400) -> Photos:
    rng = np.random.default_rng(5)
    files = [path for path in sorted(folder.glob("*.jpg")) if path.name not in PORTRAITS]
    squares = []
    for index in range(crops):
        image = Image.open(files[index % len(files)]).convert("RGB")
        side = int(min(image.size) * rng.uniform(0.3, 1))
        left, top = (int(rng.integers(0, full - side + 1)) for full in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize((256, 256), Image.LANCZOS)
        squares.append(np.asarray(crop))
    portraits = []
    for name, (box, mouth) in PORTRAITS.items():
        image = torch.from_numpy(np.asarray(Image.open(folder / name).convert("RGB")).copy()).to(device)
        portraits.append((image.permute(2, 0, 1), box, mouth))
    return Photos(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(device), portraits, folder)


def noise(n: int, cells: int, size: int, device, channels: int = 1) -> torch.Tensor:
    """Smooth noise around 0, about -1..1, with `cells` blobs a side."""
    return F.interpolate(torch.rand(n, channels, cells, cells, device=device) * 2 - 1, (size, size), mode="bicubic")


def blob(x, y, cx, cy, wx, wy) -> torch.Tensor:
    return torch.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)


def paint(image, mask, color) -> torch.Tensor:
    return image + mask.clamp(0, 1) * (color - image)


def random_mouth(n: int, device) -> dict[str, torch.Tensor]:
    u = lambda low, high: uniform(n, low, high, device)  # noqa: E731
    mouth = {"x": u(0.43, 0.57), "y": u(0.64, 0.78), "half_width": u(0.13, 0.25)}
    mouth |= {"angle": u(-0.12, 0.12), "curve": u(-0.12, 0.34)}
    return mouth | draw_interior(n, device)


def draw_faces(n: int, size: int, device, photos: Photos) -> tuple[torch.Tensor, dict]:
    """n drawn faces (n, 3, size, size) in 0..1 with closed lips, and their mouths."""
    u = lambda low, high: uniform(n, low, high, device)  # noqa: E731
    chance = lambda p: (torch.rand(n, 1, 1, 1, device=device) < p).float()  # noqa: E731
    mouth = random_mouth(n, device)
    px, py = grid(size, device)
    along, across = local({**mouth, "y": torch.full_like(mouth["y"], 0.5)}, px, py)
    scale = u(0.92, 1.1)
    x, y = 0.5 + along / scale, 0.5 + across / scale
    mouth_y = 0.5 + (mouth["y"] - 0.5) / scale
    yaw = u(-0.1, 0.1)
    chin, jaw = u(0.9, 0.99), u(0.42, 0.5)

    # background: a photo, or soft colour noise
    scene = photos.squares[torch.randint(len(photos.squares), (n,), device=device)].float() / 255
    scene = F.interpolate(scene, (size, size), mode="bilinear") if size != scene.shape[-1] else scene
    flat = uniform(n, 0, 1, device, 3, 1, 1) + 0.2 * noise(n, 4, size, device, 3)
    image = paint(flat.expand(n, 3, size, size), chance(0.6), scene)

    # colours and light
    palette = torch.tensor(SKIN, device=device)
    pick = torch.rand(n, device=device) * (len(SKIN) - 1)
    low = pick.long().clamp(max=len(SKIN) - 2)
    skin = palette[low] + (pick - low).view(-1, 1) * (palette[low + 1] - palette[low])
    skin = (skin.view(n, 3, 1, 1) * u(0.85, 1.15) + uniform(n, -0.04, 0.04, device, 3, 1, 1)).clamp(0.05, 1)
    hair = torch.cat([u(0.02, 0.6), u(0.02, 0.45), u(0.02, 0.35)], 1) * u(0.2, 1.4)
    nx, ny = (x - 0.5) / 0.52, (y - 0.5) / 0.6
    nz = (1 - 0.85 * nx.square() - 0.55 * ny.square()).clamp(min=0.04).sqrt()
    light = torch.cat([u(-0.9, 0.9), u(-0.9, 0.3), u(0.5, 1.2)], 1)
    light = light / light.norm(dim=1, keepdim=True)
    facing = nx * light[:, :1] + ny * light[:, 1:2] + nz * light[:, 2:]
    ambient = u(0.35, 0.85)
    shade = ambient + (1.1 - ambient) * facing.clamp(min=0)
    fx = x + yaw * nz  # features sit on the front and move with the yaw

    # neck, then the head
    neck = torch.sigmoid((u(0.2, 0.36) - (x - 0.5).abs()) / 0.02) * torch.sigmoid((y - 0.78) / 0.02)
    image = paint(image, neck, skin * u(0.45, 0.85))
    below = ((y - 0.42) / (chin - 0.42)).clamp(0, 1)
    width = jaw * (1 - below.pow(u(2.0, 3.6))).clamp(min=0).pow(u(0.4, 0.65))
    soft = u(0.004, 0.015)
    head = torch.sigmoid((width - (x - 0.5).abs()) / soft) * torch.sigmoid((chin - y) / soft)
    ears = blob((x - 0.5).abs(), y, jaw, u(0.38, 0.48), 0.05, 0.14) > 0.5
    image = paint(image, ears.float() * chance(0.6), skin * u(0.7, 0.95))
    fine = noise(n, size // 2, size, device) * u(0.0, 0.06) + noise(n, 40, size, device) * u(0.0, 0.04)
    tint = 0.04 * noise(n, 6, size, device, 3)
    face = (skin + tint) * shade * (1 + fine)
    image = paint(image, head, face)
    dim = lambda mask, k: 1 - k * mask  # noqa: E731

    # nose, cheeks, folds, chin
    nose_y = u(0.5, 0.58)
    ridge = blob(fx, y, 0.5, nose_y - 0.1, u(0.02, 0.05), 0.14) - 0.7 * blob(
        fx, y, 0.5 + 0.07 * light[:, :1].sign() * -1, nose_y - 0.04, 0.04, 0.12
    )
    image = image * (1 + u(0.05, 0.25) * ridge)
    image = image * (1 + u(0.0, 0.3) * blob(fx, y, 0.5, nose_y, 0.04, 0.035))
    nostril = blob((fx - 0.5).abs(), y, u(0.04, 0.06), nose_y + 0.045, 0.018, 0.011)
    image = image * dim(nostril, u(0.35, 0.8)) * dim(blob(fx, y, 0.5, nose_y + 0.07, 0.09, 0.02), u(0.0, 0.35))
    wings = (blob((fx - 0.5).abs(), y, u(0.085, 0.11), nose_y + 0.015, 0.012, 0.03)).clamp(0, 1)
    image = image * dim(wings, u(0.05, 0.35))
    cheeks = blob((fx - 0.5).abs(), y, 0.25, 0.56, 0.1, 0.09)
    image = image * (1 + cheeks * torch.cat([u(0, 0.12), u(-0.08, 0.05), u(-0.08, 0.05)], 1))
    fold_x = 0.1 + 0.4 * (y - nose_y).clamp(min=0) + u(0.0, 0.05)
    fold = (
        torch.exp(-((((fx - 0.5).abs() - fold_x) / 0.012) ** 2))
        * smoothstep((y - nose_y) / 0.05)
        * smoothstep((mouth_y + 0.06 - y) / 0.08)
    )
    image = image * dim(fold, u(0.0, 0.35))
    image = image * dim(blob(fx, y, 0.5, mouth_y + u(0.06, 0.09), 0.09, 0.02), u(0.0, 0.3))
    image = image * (1 + u(0.0, 0.2) * blob(fx, y, 0.5, chin - 0.09, 0.1, 0.05))
    wrinkles = torch.sin(noise(n, 5, size, device) * 14 + y * 60)
    image = image * (1 + u(0, 0.03) * wrinkles * head)

    # eyes and brows
    eye_y, eye_x, eye_w = u(0.26, 0.36), u(0.18, 0.25), u(0.07, 0.11)
    ex = (fx - 0.5).abs() - eye_x
    image = image * dim(torch.exp(-((ex / 0.12) ** 2) - ((y - eye_y) / 0.07) ** 2), u(0.0, 0.35))
    lid = (1 - (ex / eye_w).square()).clamp(min=0)
    open_eye = torch.sigmoid((lid * u(0.02, 0.045) - (y - eye_y).abs()) / 0.004) * (lid > 0)
    image = paint(image, open_eye, u(0.6, 0.95) * ambient.clamp(min=0.6))
    radius = torch.sqrt(ex.square() + (y - eye_y).square())
    iris = torch.cat([u(0.1, 0.4), u(0.1, 0.45), u(0.08, 0.5)], 1)
    image = paint(image, open_eye * torch.sigmoid((0.03 - radius) / 0.003), iris)
    image = paint(image, open_eye * torch.sigmoid((0.013 - radius) / 0.003), torch.zeros_like(iris))
    lash = torch.exp(-(((y - eye_y + 0.035 * lid.sqrt()) / 0.008) ** 2)) * (lid > 0)
    image = image * dim(lash, u(0.2, 0.8))
    brow = torch.exp(-(((y - eye_y + u(0.08, 0.13) - 0.5 * ex.square()) / u(0.012, 0.025)) ** 2)) * torch.sigmoid(
        (0.12 - ex.abs()) / 0.01
    )
    image = paint(image, brow * u(0.2, 0.9) * (1 + 0.5 * noise(n, 64, size, device)), hair * 0.7)
    ring = torch.exp(-(((torch.maximum(ex.abs() / 0.14, (y - eye_y).abs() / u(0.08, 0.12)) - 1) / 0.06) ** 2))
    image = paint(image, ring * chance(0.15), uniform(n, 0, 0.5, device, 3, 1, 1))

    # hair and beard
    strands = 1 + 0.5 * noise(n, 48, size, device) * u(0.2, 1)
    top = y - (u(-0.25, 0.1) + 0.5 * (x - 0.5).square() + 0.03 * noise(n, 8, size, device))
    image = paint(image, torch.sigmoid(-top / 0.015), hair * strands)
    side = (x - 0.5).abs() - jaw + u(-0.06, 0.05) + 0.02 * noise(n, 8, size, device)
    image = paint(
        image, torch.sigmoid(side / 0.012) * torch.sigmoid((u(0.2, 1.3) - y) / 0.03) * chance(0.6), hair * strands * 0.9
    )
    beard = smoothstep((y - 0.6) / 0.15) * smoothstep(((fx - 0.5).abs() + 0.9 * (y - 0.72).clamp(min=0) - 0.12) / 0.12)
    beard = beard + blob(fx, y, 0.5, mouth_y - 0.075, 0.16, 0.025) * chance(0.7)
    grain = 0.6 + 0.8 * noise(n, size // 2, size, device).abs() + 0.4 * noise(n, 60, size, device)
    image = paint(image, head * beard * grain * u(0.1, 0.9) * chance(0.25), hair * 0.8)

    image = draw_lips(image, mouth, skin * shade.clamp(0.4, 1.2))
    return image.clamp(0, 1), mouth


def draw_lips(image: torch.Tensor, mouth: dict, skin: torch.Tensor) -> torch.Tensor:
    n, size, device = len(image), image.shape[-1], image.device
    u = lambda low, high: uniform(n, low, high, device)  # noqa: E731
    px, py = grid(size, device)
    along, across = local(mouth, px, py)
    half = mouth["half_width"]
    s = along / half
    v = (across + mouth["curve"] * half * s.square().clamp(max=1.4)) / half
    inner = (1 - s.square()).clamp(min=0)
    red = torch.cat([u(-0.05, 0.2), u(-0.3, -0.05), u(-0.25, -0.02)], 1) * u(0.3, 1.3)
    color = skin * (1 + red) * (1 + 0.1 * noise(n, 60, size, device))
    upper = u(0.08, 0.28) * inner.pow(0.8) * (1 - 0.35 * torch.exp(-((s / 0.16) ** 2)))
    lower = u(0.14, 0.42) * inner.pow(0.7)
    soft = u(0.02, 0.08)
    mask = torch.sigmoid((v + upper) / soft) * torch.sigmoid((lower - v) / soft) * smoothstep(inner * 8)
    image = paint(image, mask * u(0.4, 1), color)
    gloss = torch.exp(-((s / 0.5) ** 2) - ((v - 0.5 * lower) / 0.08) ** 2) * inner
    image = image * (1 + u(0, 0.3) * gloss)
    image = image * (1 - u(0.0, 0.2) * torch.exp(-(((v + 0.5 * upper) / 0.1) ** 2)) * inner)
    meet = torch.exp(-((v / u(0.02, 0.07)) ** 2)) * torch.sigmoid((1.08 - s.abs()) / 0.03)
    image = image * (1 - u(0.4, 0.85) * meet)
    corners = torch.exp(-(((s.abs() - 1.04) / 0.08) ** 2) - (v / 0.09) ** 2)
    return image * (1 - u(0, 0.5) * corners)


def portrait_faces(n: int, size: int, device, photos: Photos) -> tuple[torch.Tensor, dict]:
    """Public-domain portraits under random crops, mirror, elastic warps and colours: other people, real texture."""
    faces, mouths = [], random_mouth(n, device)
    for index in range(n):
        image, (left, top, right, bottom), (mx, my, half) = photos.portraits[index % len(photos.portraits)]
        width, height = right - left, bottom - top
        k = random.uniform(0.85, 1.2)
        cx = (left + right) / 2 + width * random.uniform(-0.06, 0.06)
        cy = (top + bottom) / 2 + height * random.uniform(-0.06, 0.06)
        x, y = grid(size, device)
        sx, sy = cx + (x - 0.5) * width * k, cy + (y - 0.5) * height * k
        _, h, w = image.shape
        at = torch.stack([(sx / w * 2 - 1).expand(1, 1, size, size), (sy / h * 2 - 1).expand(1, 1, size, size)], -1)
        faces.append(F.grid_sample(image[None].float() / 255, at[:, 0], padding_mode="reflection", align_corners=False))
        mouths["x"][index] = 0.5 + (mx - cx) / (width * k)
        mouths["y"][index] = 0.5 + (my - cy) / (height * k)
        mouths["half_width"][index] = half / (width * k)
    faces = torch.cat(faces)
    mouths["angle"] = torch.zeros_like(mouths["angle"])
    mouths["curve"] = torch.full_like(mouths["curve"], 0.07)
    # A smooth warp that vanishes at the mouth: other proportions, the same lips.
    px, py = grid(size, device)
    keep = 1 - torch.exp(-(((px - mouths["x"]) / 0.3) ** 2) - ((py - mouths["y"]) / 0.18) ** 2)
    bend = 0.05 * noise(n, 4, size, device, 2) * keep
    at = torch.stack([px + bend[:, 0:1], py + bend[:, 1:2]], -1)[:, 0] * 2 - 1
    faces = F.grid_sample(faces, at, padding_mode="reflection", align_corners=False)
    flip = torch.rand(n, device=device) < 0.5
    faces[flip] = faces[flip].flip(-1)
    mouths["x"][flip] = 1 - mouths["x"][flip]
    gain = uniform(n, 0.5, 1.15, device, 3, 1, 1) * 0.4 + 0.6 * uniform(n, 0.4, 1.1, device)
    return (faces * gain + 0.04 * noise(n, 5, size, device, 3)).clamp(0, 1), mouths


def lips_on_photos(n: int, size: int, device, photos: Photos) -> tuple[torch.Tensor, dict]:
    scene = photos.squares[torch.randint(len(photos.squares), (n,), device=device)].float() / 255
    image = F.interpolate(scene, (size, size), mode="bilinear")
    image = image * uniform(n, 0.5, 1.1, device, 3, 1, 1)
    mouth = random_mouth(n, device)
    return draw_lips(image, mouth, uniform(n, 0.2, 0.9, device, 3, 1, 1)).clamp(0, 1), mouth


def bases(n: int, size: int, device, photos: Photos) -> tuple[torch.Tensor, dict]:
    """Closed-mouth pictures of all three kinds, 15% portraits and 10% lips on photos, and their mouths."""
    counts = round(0.15 * n), round(0.10 * n)
    parts = [portrait_faces(counts[0], size, device, photos)] if counts[0] else []
    parts += [lips_on_photos(counts[1], size, device, photos)] if counts[1] else []
    parts.append(draw_faces(n - sum(counts), size, device, photos))
    return torch.cat([p[0] for p in parts]), {k: torch.cat([p[1][k] for p in parts]) for k in parts[0][1]}


def photograph(images: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same random camera for every picture of a list: lower resolution, blur, gamma, contrast, white balance."""
    n, _, size, _ = images[0].shape
    device = images[0].device
    gamma, contrast, level = (uniform(n, *ends, device) for ends in ((0.75, 1.35), (0.75, 1.2), (-0.08, 0.08)))
    white = uniform(n, 0.9, 1.1, device, 3, 1, 1)
    pick = torch.rand(n, 1, 1, 1, device=device)
    small = int(size * random.uniform(0.3, 0.8))
    result = []
    for image in images:
        image = (((image.clamp(1e-3, 1) ** gamma - 0.5) * contrast + 0.5 + level) * white).clamp(0, 1)
        coarse = F.interpolate(image, (small, small), mode="area")
        coarse = F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
        blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        image = torch.where(pick < 0.5, coarse, torch.where(pick < 0.75, blurred, image))
        result.append(image)
    return result
