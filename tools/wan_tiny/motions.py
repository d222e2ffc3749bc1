"""The motions and lights Wan-Tiny knows, as data, and the renderer that defines them.

A clip is a deterministic function of one photo and a `Spec`: every frame resamples the
photo through a smooth warp (reflection beyond its border) and then shades it. Frame 0 is
the photo itself. Time is the clip's own: s = 0 at the first frame, 1 at the last, so a
33-frame clip moves at half the speed of a 17-frame one.

Conventions. Parameters are those of the *view window* on the photo, in half heights:
  zoom   log scale over the clip; > 0 pushes in, the content grows
  rot    radians over the clip; > 0 turns the content counter-clockwise
  tx,ty  window shift; tx > 0 pans right (content moves left), ty > 0 pans down
"The camera pans left" = the window moves left = the content moves right.
"Rotate clockwise" or "to the right" = the content turns clockwise.

Import it freely: torch only, no side effects.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

MOTIONS = {
    "gentle": dict(zoom=0.07, tx=0.035, ty=-0.02),  # what an unknown prompt gets
    "still": dict(),
    "zoom in": dict(zoom=0.26),
    "zoom out": dict(zoom=-0.24),
    "pan left": dict(tx=-0.28, zoom=0.10),
    "pan right": dict(tx=0.28, zoom=0.10),
    "pan up": dict(ty=-0.28, zoom=0.10),
    "pan down": dict(ty=0.28, zoom=0.10),
    "rotate clockwise": dict(rot=-0.20, zoom=0.08),
    "rotate counterclockwise": dict(rot=0.20, zoom=0.08),
    "waves": dict(wave=0.022),
    "sway": dict(sway=0.07),
    "shake": dict(shake=0.022),
    "pulse": dict(pulse=0.08),
}
LIGHTS = {
    "none": dict(),
    "sunset": dict(gain=(0.14, -0.18, -0.62)),  # log gain per channel at the end
    "night": dict(gain=(-1.35, -1.15, -0.62)),
    "moonlight": dict(gain=(-0.55, -0.20, 0.10)),
    "bright": dict(gain=(0.36, 0.36, 0.32)),
    "black and white": dict(gray=1.0),
    "vintage": dict(sepia=0.85),
    "fog": dict(fog=0.55),
}
WARPS = ("zoom", "rot", "tx", "ty", "wave", "sway", "shake", "pulse")
SHADES = ("gray", "sepia", "fog")
SEPIA = (1.12, 0.94, 0.70)
FOG_LEVEL = 0.80


@dataclass(frozen=True)
class Spec:
    """What a prompt asks for. Strengths multiply the amplitudes; the words are in prompts.py."""

    motion: str = "gentle"
    light: str = "none"
    motion_strength: float = 1.0
    light_strength: float = 1.0


def parameters(specs, device="cpu"):
    """Specs -> dict of (B,) warp and shade parameters and "gain" (B, 3)."""
    rows = [MOTIONS[s.motion] for s in specs]
    p = {
        k: torch.tensor([r.get(k, 0.0) * s.motion_strength for r, s in zip(rows, specs, strict=True)], device=device)
        for k in WARPS
    }
    lights = [LIGHTS[s.light] for s in specs]
    for k in SHADES:  # blends saturate: a strong "black and white" is no more than grey
        p[k] = torch.tensor(
            [
                min(row.get(k, 0.0) * s.light_strength, max(row.get(k, 0.0), 0.85))
                for row, s in zip(lights, specs, strict=True)
            ],
            device=device,
        )
    p["gain"] = torch.tensor(
        [[g * s.light_strength for g in row.get("gain", (0.0,) * 3)] for row, s in zip(lights, specs, strict=True)],
        device=device,
    )
    return p


def warp(p, frames, height, width, device="cpu"):
    """Parameters (B,) each -> where each output pixel looks, (B, frames, height, width, 2) in [-1, 1].

    "scale", "cx" and "cy", when present, place the whole window on a part of the photo.
    """
    B = len(p["zoom"])
    s = torch.linspace(0, 1, frames, device=device).view(1, frames, 1, 1)
    v = {k: p[k].view(B, 1, 1, 1) for k in p if p[k].ndim == 1}
    aspect = width / height
    # pixel centres, as grid_sample with align_corners=False defines them
    y = ((torch.arange(height, device=device) + 0.5) * 2 / height - 1).view(1, 1, height, 1)
    x = ((torch.arange(width, device=device) + 0.5) * 2 / width - 1).view(1, 1, 1, width) * aspect

    scale = torch.exp(-v["zoom"] * s - v["pulse"] * torch.sin(2 * math.pi * s) ** 2)
    angle = v["rot"] * s
    cos, sin = angle.cos() * scale, angle.sin() * scale
    u, w = x * cos - y * sin, x * sin + y * cos
    onset = (s * 6).clamp(max=1)  # oscillations start from rest
    u = u + v["tx"] * s * aspect + v["sway"] * torch.sin(2 * math.pi * s) * (1 - w) / 2
    w = w + v["ty"] * s
    ripple = onset * v["wave"]
    u, w = u + ripple * torch.sin(6 * w + 4 * math.pi * s), w + 0.6 * ripple * torch.sin(5 * u + 4 * math.pi * s)
    u = u + v["shake"] * onset * torch.sin(7 * math.pi * s)
    w = w + v["shake"] * onset * 0.7 * torch.sin(5 * math.pi * s + 1)
    u = u / aspect
    if "cx" in v:  # one scale per axis: the photo need not have the clip's aspect
        u, w = u * v["scale_x"] + v["cx"], w * v["scale_y"] + v["cy"]
    return torch.stack([u, w], -1)


def shade(clip, p):
    """Apply the light of `p` to clip (B, 3, T, H, W) in [-1, 1], growing linearly over the clip."""
    B, _, T = clip.shape[:3]
    s = torch.linspace(0, 1, T, device=clip.device).view(1, 1, T, 1, 1)

    def over(k):
        return p[k].view(B, 1, 1, 1, 1) * s

    x = (clip + 1) / 2
    grey = x.mean(1, keepdim=True)
    x = x + (grey - x) * over("gray")
    x = x + (grey * torch.tensor(SEPIA, device=clip.device).view(1, 3, 1, 1, 1) - x) * over("sepia")
    x = x * torch.exp(p["gain"].view(B, 3, 1, 1, 1) * s)
    x = x + (FOG_LEVEL - x) * over("fog")
    return x.clamp(0, 1) * 2 - 1


def render(photos, p, frames, height, width):
    """photos (B, 3, h, w) in [-1, 1], parameters -> the clip (B, 3, frames, height, width)."""
    B = len(photos)
    grid = warp(p, frames, height, width, photos.device)
    clip = F.grid_sample(
        photos.float(),
        grid.view(B, frames * height, width, 2),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    return shade(clip.view(B, 3, frames, height, width), p)


def render_specs(photos, specs, frames):
    """The reference clip of each photo (B, 3, H, W) under each Spec, at the photo's own size."""
    return render(photos, parameters(specs, photos.device), frames, *photos.shape[-2:])
