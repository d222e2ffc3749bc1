"""The pool of still images that training clips are rendered from: procedural images and photos.

Three procedural kinds: dead leaves (overlapping textured discs and boxes, the classical
model of natural image statistics), 1/f noise, and text. Photos (photos.py) are cropped,
mirrored and recoloured. All images are (3, size, size), float16 in [-1, 1], on the device.
"""

import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F


def uniform(low, high, *shape, device):
    return low + (high - low) * torch.rand(*shape, device=device)


def noise_field(n, size, low, high, device):
    """Coloured 1/f^a noise (n, 3, size, size) of unit deviation, a uniform in [low, high]."""
    fy = torch.fft.fftfreq(size, device=device)[:, None]
    fx = torch.fft.rfftfreq(size, device=device)[None]
    f = (fy**2 + fx**2).sqrt().clamp(min=1 / size)
    a = uniform(low, high, n, 1, 1, 1, device=device)
    x = torch.fft.irfft2(torch.fft.rfft2(torch.randn(n, 3, size, size, device=device)) * f ** (-a), s=(size, size))
    x = x / x.std((1, 2, 3), keepdim=True)
    grey = torch.rand(n, 1, 1, 1, device=device) ** 0.3
    return x * (1 - grey) + x.mean(1, keepdim=True) * 1.7 * grey


def noise_images(n, size, device):
    level = uniform(-0.4, 0.4, n, 3, 1, 1, device=device)
    return (level + uniform(0.15, 0.6, n, 1, 1, 1, device=device) * noise_field(n, size, 1.0, 2.0, device)).clamp(-1, 1)


def leaf_images(n, size, device, leaves=80):
    """Dead leaves: from large to small, each with a colour gradient or stripes and some noise."""

    def u1(*s):
        return torch.rand(*s, device=device)

    y, x = torch.meshgrid(
        torch.linspace(0, 1, size, device=device), torch.linspace(0, 1, size, device=device), indexing="ij"
    )
    start, end = u1(n, 3, 1, 1), u1(n, 3, 1, 1)
    image = start + (end - start) * (y * u1(n, 1, 1, 1) + x * u1(n, 1, 1, 1))
    grain = noise_field(n, size, 0.8, 1.8, device)
    for k in range(leaves):
        radius = 0.015 + 0.35 * u1(n, 1, 1, 1) ** (2 if k < leaves // 2 else 4)
        turn, flat = u1(n, 1, 1, 1) * math.pi, 0.25 + u1(n, 1, 1, 1)
        dx, dy = x - u1(n, 1, 1, 1), y - u1(n, 1, 1, 1)
        a = (dx * turn.cos() + dy * turn.sin()) / radius
        b = (-dx * turn.sin() + dy * turn.cos()) / (radius * flat)
        distance = torch.where(u1(n, 1, 1, 1) < 0.6, (a * a + b * b).sqrt(), torch.maximum(a.abs(), b.abs()))
        edge = torch.where(u1(n, 1, 1, 1) < 0.8, torch.ones_like(radius), uniform(0.03, 0.3, n, 1, 1, 1, device=device))
        mask = torch.sigmoid((1 - distance) * radius * size * 2 * edge)
        grey = u1(n, 1, 1, 1) ** 0.6
        colour = u1(n, 3, 1, 1)
        colour = colour * (1 - grey) + colour.mean(1, keepdim=True) * grey + grey * 0.1 * (u1(n, 3, 1, 1) - 0.5)
        other = (colour + 0.6 * (u1(n, 3, 1, 1) - 0.5)).clamp(0, 1)
        stripes = 0.5 + 0.5 * torch.sin(torch.exp(u1(n, 1, 1, 1) * 3.2) * (a * 3 + b * 2 * u1(n, 1, 1, 1)))
        texture = torch.where(u1(n, 1, 1, 1) < 0.4, stripes, (0.5 + 0.25 * a).clamp(0, 1))
        leaf = colour + (other - colour) * texture
        leaf = leaf + grain * uniform(0, 0.2, n, 1, 1, 1, device=device) * (u1(n, 1, 1, 1) < 0.6)
        image = image * (1 - mask) + leaf * mask
    return (image * 2 - 1).clamp(-1, 1)


def text_images(n, size, device, seed):
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789    .,!?"

    def colour():
        return tuple(rng.randrange(256) for _ in "rgb")

    out = []
    for _ in range(n):
        image = Image.new("RGB", (size, size), colour())
        draw = ImageDraw.Draw(image)
        for _ in range(rng.randint(3, 14)):
            words = "".join(rng.choice(letters) for _ in range(rng.randint(3, 24)))
            font = ImageFont.load_default(size=rng.randint(10, 64))
            draw.text((rng.randint(-20, size - 40), rng.randint(-5, size - 10)), words, font=font, fill=colour())
        out.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(out).to(device).float() / 127.5 - 1


def load_photos(folder, device):
    """All JPEGs of a folder, (3, h, w) in [-1, 1], sorted by name; -> names, tensors."""
    import numpy as np
    from PIL import Image

    files = sorted(Path(folder).glob("*.jpg"))

    def read(p):
        return torch.from_numpy(np.array(Image.open(p).convert("RGB"))).permute(2, 0, 1)

    return [p.stem for p in files], [read(p).to(device).float() / 127.5 - 1 for p in files]


def photo_crops(photos, n, size, device, rng):
    """Random windows of random photos, mirrored, with jittered gamma, saturation, colour and channel order."""
    weights = [min(p.shape[1:]) for p in photos]  # the larger a photo, the more it has to show
    out = torch.empty(n, 3, size, size, device=device)
    for i in range(n):
        photo = rng.choices(photos, weights)[0]
        h, w = photo.shape[1:]
        side = rng.uniform(0.4, 1.0) * min(h, w)
        ch = int(side)
        cw = min(int(side * rng.uniform(0.8, 1.25)), w)
        y, x = rng.randint(0, h - ch), rng.randint(0, w - cw)
        crop = F.interpolate(
            photo[None, :, y : y + ch, x : x + cw], size=(size, size), mode="bilinear", antialias=True
        )[0]
        crop = crop.flip(-1) if rng.random() < 0.5 else crop
        out[i] = crop.flip(-2) if rng.random() < 0.12 else crop
    x = ((out + 1) / 2).clamp(0, 1) ** torch.exp(uniform(-0.4, 0.4, n, 1, 1, 1, device=device))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.5, 1.4, n, 1, 1, 1, device=device)
    x = x * uniform(0.8, 1.2, n, 3, 1, 1, device=device) + uniform(-0.08, 0.08, n, 1, 1, 1, device=device)
    order = torch.stack([torch.randperm(3) if rng.random() < 0.25 else torch.arange(3) for _ in range(n)]).to(device)
    return torch.gather(x, 1, order[:, :, None, None].expand_as(x)).clamp(0, 1) * 2 - 1


def make_pool(photos, n, size, device, seed, photo_share=0.6):
    """-> (n', 3, size, size) float16, shuffled."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    parts, chunk = [], 64
    rest = n - int(n * photo_share)
    counts = {
        "photos": int(n * photo_share),
        "leaves": int(rest * 0.78),
        "noise": int(rest * 0.12),
        "text": max(1, int(rest * 0.10)),
    }
    for kind, count in counts.items():
        if kind == "text":
            parts.append(text_images(count, size, device, seed).half())
            continue
        for i in range(0, count, chunk):
            k = min(chunk, count - i)
            if kind == "photos":
                made = photo_crops(photos, k, size, device, rng)
            else:
                made = (leaf_images if kind == "leaves" else noise_images)(k, size, device)
            parts.append(made.half())
    pool = torch.cat(parts)
    return pool[torch.randperm(len(pool), device=device)]
