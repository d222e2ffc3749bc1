"""Open a mouth in any closed-mouth picture: a warp that parts the lips, and a drawn interior.

The same operation makes the target and the reference of a training pair, so that everything but the
mouth is equal in both and the network has to copy it. Coordinates: 0..1 over the crop, x to the
right, y down. Lengths along the mouth are in units of the crop's side.
"""

import torch
import torch.nn.functional as F


def smoothstep(t: torch.Tensor) -> torch.Tensor:
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


def uniform(n: int, low: float, high: float, device, *shape: int) -> torch.Tensor:
    """(n, 1, 1, 1), or (n, *shape): independent draws."""
    return low + (high - low) * torch.rand(n, *(shape or (1, 1, 1)), device=device)


def grid(size: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel centres: x (1, 1, 1, size) and y (1, 1, size, 1)."""
    line = (torch.arange(size, device=device) + 0.5) / size
    return line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)


def draw_interior(n: int, device) -> dict[str, torch.Tensor]:
    """Random looks of what is behind the lips: teeth, tongue, darkness.

    The ranges are narrow: a closed reference does not show them, so the network can only learn their middle.
    """
    u = lambda low, high: uniform(n, low, high, device)  # noqa: E731
    light = u(0.8, 1.1)
    return {
        "dark": torch.cat([u(0.05, 0.22), u(0.01, 0.08), u(0.01, 0.08)], 1) * light,
        "teeth": torch.cat([u(0.72, 0.98), u(0.68, 0.95), u(0.58, 0.9)], 1) * light,
        "tongue": torch.cat([u(0.5, 0.8), u(0.2, 0.4), u(0.2, 0.4)], 1) * light,
        "upper": u(-0.05, 0.3).clamp(min=0),  # visible height of the upper teeth, of the mouth's half width
        "lower": u(-0.4, 0.14).clamp(min=0),
        "tongue_height": u(0.22, 0.45),
        "height": u(0.65, 0.78),  # height of the fully open mouth, of its half width
    }


def local(mouth: dict, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates along and across the mouth."""
    dx, dy = x - mouth["x"], y - mouth["y"]
    cos, sin = mouth["angle"].cos(), mouth["angle"].sin()
    return dx * cos + dy * sin, -dx * sin + dy * cos


def open_mouth(
    picture: torch.Tensor, mouth: dict, opening: torch.Tensor, spread: torch.Tensor, softness: float = 1.2
) -> torch.Tensor:
    """`picture` (n, 3, s, s) in 0..1 with closed lips -> the same with the lips parted.

    mouth    x, y, half_width, angle, curve (> 0: corners up), and the looks of `draw_interior`; (n, 1|3, 1, 1) each
    opening  (n,) 0 (closed) .. 1
    spread   (n,) -1 (rounded) .. 1 (spread)
    """
    size = picture.shape[-1]
    x, y = grid(size, picture.device)
    opening, spread = opening.view(-1, 1, 1, 1), spread.view(-1, 1, 1, 1)
    along, across = local(mouth, x, y)
    half = mouth["half_width"]
    near = torch.exp(-((across / 0.16) ** 2) - (along / (2 * half)) ** 2)
    stretch = 1 + 0.18 * spread * near
    along_source = along / stretch
    u = along / (half * (1 + 0.18 * spread))
    line = -mouth["curve"] * half * u.square().clamp(max=1.4)  # where the closed lips meet
    v = across - line
    profile = (1 - u.square()).clamp(min=0).pow(0.75)
    wide = torch.exp(-((u / 1.3) ** 2))
    height = opening * mouth["height"] * half
    up, down = 0.22 * height, 0.78 * height
    # Below the opening the skin follows the lower lip, less and less towards the chin; above likewise.
    below = (v - down * profile).clamp(min=0)
    mix = smoothstep(below / 0.09)
    moved_down = down * (profile * (1 - mix) + wide * mix) * (1 - smoothstep(below / 0.33))
    above = (-v - up * profile).clamp(min=0)
    mix = smoothstep(above / 0.05)
    moved_up = up * (profile * (1 - mix) + wide * mix) * (1 - smoothstep(above / 0.12))
    v_source = torch.where(v > 0, (v - moved_down).clamp(min=0), (v + moved_up).clamp(max=0))
    across_source = v_source + line
    cos, sin = mouth["angle"].cos(), mouth["angle"].sin()
    x_source = mouth["x"] + along_source * cos - across_source * sin
    y_source = mouth["y"] + along_source * sin + across_source * cos
    warped = F.grid_sample(
        picture, torch.stack([x_source, y_source], -1)[:, 0] * 2 - 1, padding_mode="border", align_corners=False
    )
    edge = softness / size
    inside = torch.sigmoid((down * profile - v) / edge) * torch.sigmoid((v + up * profile) / edge)
    inside = inside * (height * profile / (4 * edge)).clamp(0, 1)
    behind = _interior(mouth, u, v, half, up * profile, down * profile, edge) * _lighting(picture, mouth, x, y)
    return warped + inside * (behind - warped)


def _lighting(picture, mouth, x, y) -> torch.Tensor:
    """(n, 3, 1, 1): teeth and tongue are lit, and tinted, like the skin around them."""
    weight = torch.exp(-(((x - mouth["x"]) / 0.25) ** 2) - ((y - mouth["y"]) / 0.15) ** 2)
    skin = (picture * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
    return (skin / 0.6).clamp(0.1, 1.4).sqrt()


def _interior(mouth, u, v, half, top, bottom, edge) -> torch.Tensor:
    color = mouth["dark"] + torch.zeros_like(v)
    tongue = torch.sigmoid((v - bottom + mouth["tongue_height"] * half * (1 - u.square()).clamp(min=0)) / (3 * edge))
    color = color + tongue * 0.8 * (mouth["tongue"] - color)
    round_off = (1 - 0.55 * u.square()).clamp(min=0.1)
    gaps = 1 - 0.12 * torch.cos(u * 19).clamp(min=0.8).sub(0.8).mul(5)
    sides = torch.sigmoid((0.88 - u.abs()) / (3 * edge / half))
    upper = torch.sigmoid((mouth["upper"] * half * round_off - (v + top)) / edge) * sides * (mouth["upper"] > 0)
    color = color + upper * (mouth["teeth"] * round_off * gaps - color)
    lower = torch.sigmoid(((v - bottom) + mouth["lower"] * half * round_off) / edge) * sides * (mouth["lower"] > 0)
    color = color + lower * (0.85 * mouth["teeth"] * round_off * gaps - color)
    shade = 1 - 0.45 * torch.exp(-(v + top).clamp(min=0) / (0.12 * half))  # the upper lip's shadow
    return color * shade
