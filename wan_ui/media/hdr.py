"""HDR and wide gamut -> what an ordinary screen shows (sRGB).

PQ and HLG (ITU-R BT.2100) store light up to 10,000 and 1,000 cd/m2. Read as if they were sRGB they are grey and a third
too dark. Here they become light again; the light of a sheet of white paper becomes white; what is brighter (sky, lamps)
is pressed into the last fifth below it, so that everything up to a bright skin tone keeps its value exactly.

Where is white? ITU-R BT.2408 says 203 cd/m2, but what is converted from ordinary video often has it at 100: it is taken
to be there where nothing in the material is clearly brighter.

One function, `to_srgb`, serves pictures directly and videos as a table that ffmpeg looks up (`cube`).
"""

import numpy as np

WHITES = (100.0, 203.0)  # cd/m2
OVERSHOOT = 1.12  # of white: what compression and sharpening make of its edges is no light of its own
KNEE = 0.8  # of white, in light: below it nothing is changed
CUBE_SIDE = 49

# Numbers of ITU-T H.273 and ffmpeg's names for them.
HDR = {16: "pq", "smpte2084": "pq", 18: "hlg", "arib-std-b67": "hlg"}
_P3 = ((1.22494, -0.22494, 0.0), (-0.04206, 1.04206, 0.0), (-0.01964, -0.07864, 1.09828))
_BT2020 = ((1.66049, -0.58764, -0.07285), (-0.12455, 1.13290, -0.00835), (-0.01815, -0.10058, 1.11873))
WIDE = {9: _BT2020, "bt2020": _BT2020, 12: _P3, "smpte432": _P3, 11: _P3, "smpte431": _P3}  # linear, to those of sRGB


def is_special(primaries: int | str, transfer: int | str) -> bool:
    """Whether numbers with these primaries and this curve look wrong when they are shown as sRGB."""
    return transfer in HDR or primaries in WIDE


def to_light(codes: np.ndarray, primaries: int | str, transfer: int | str) -> np.ndarray:
    """(..., 3) coded RGB in 0..1 -> light with sRGB's primaries; cd/m2 of HDR, else 1.0 for white."""
    kind = HDR.get(transfer)
    if kind == "pq":
        power = np.clip(codes, 0, 1) ** (32 / 2523)
        light = 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
    elif kind == "hlg":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - c) / a) + b) / 12)
        seen = scene @ np.array([0.2627, 0.6780, 0.0593])  # a screen of 1,000 cd/m2 raises contrast by the luminance
        light = 1_000 * scene * np.maximum(seen, 1e-9)[..., None] ** 0.2
    else:
        light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    return light @ np.array(WIDE[primaries]).T if primaries in WIDE else light


def measure(codes: np.ndarray, primaries: int | str, transfer: int | str) -> tuple[float, float]:
    """(white, peak) of HDR material in cd/m2; give a small copy, where a single pixel is no white."""
    bright, peak = np.percentile(to_light(codes, primaries, transfer).max(-1), [99.5, 99.9])
    white = next((one for one in WHITES if bright <= OVERSHOOT * one), WHITES[-1])
    return white, white if bright <= OVERSHOOT * white else float(peak)


def to_srgb(
    codes: np.ndarray, primaries: int | str, transfer: int | str, white: float = 0.0, peak: float = 0.0
) -> np.ndarray:
    """(..., 3) coded RGB in 0..1 -> sRGB in 0..1. `white` and `peak`: what `measure` found, for HDR."""
    light = to_light(codes, primaries, transfer)
    if transfer in HDR:
        light = light / white
        top = light.max(-1, keepdims=True)
        light = light * (_press(top, max(peak / white, 1.0)) / np.maximum(top, 1e-6))  # all three alike: the hue stays
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055)


def _press(light: np.ndarray, highest: float) -> np.ndarray:
    """Unchanged below KNEE; above, by its logarithm, with the same slope there, to 1 at `highest`."""
    room, width = 1 - KNEE, highest - KNEE
    if width <= 1.02 * room:
        return light
    low, high = 1e-6, 1e6  # of `bend`, for which the slope room * bend / log(1 + width * bend) is 1
    for _ in range(60):
        bend = (low * high) ** 0.5
        low, high = (bend, high) if room * bend < np.log1p(width * bend) else (low, bend)
    above = np.maximum(light - KNEE, 0)
    return np.where(light > KNEE, KNEE + room * np.log1p(bend * above) / np.log1p(bend * width), light)


def picture_to_srgb(pixels: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) uint8 sRGB."""
    step = max(1, max(pixels.shape) // 160)
    small = pixels[::step, ::step] / 255.0
    found = measure(small, primaries, transfer) if transfer in HDR else ()
    out = np.empty_like(pixels)
    for row in range(0, len(pixels), 64):  # a large picture as floats would take gigabytes
        part = pixels[row : row + 64].astype(np.float32) / 255
        out[row : row + 64] = (255 * to_srgb(part, primaries, transfer, *found)).round()
    return out


def cube(primaries: str, transfer: str, *measured: float) -> str:
    """`to_srgb` as the text of a .cube file, for ffmpeg's lut3d."""
    side = np.linspace(0, 1, CUBE_SIDE)
    blue, green, red = np.meshgrid(side, side, side, indexing="ij")  # red changes fastest
    values = to_srgb(np.stack([red, green, blue], -1).reshape(-1, 3), primaries, transfer, *measured)
    return f"LUT_3D_SIZE {CUBE_SIDE}\n" + "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in values.tolist()) + "\n"
