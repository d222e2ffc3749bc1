"""Numbers of a picture file -> what they look like: 8-bit sRGB, transparent parts laid on white.

Files store grey in 16 or 32 bits or as floating point, colours in wider gamuts than sRGB (phones: Display P3), in
ink (CMYK), or with a curve made for HDR screens (PQ, HLG). Shown as they are, such numbers are too dark, too pale or
inverted.
"""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from wan_ui.media import hdr

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # a mode, and the profiles that speak of it
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339


def to_rgb(image: Image.Image, found: dict) -> Image.Image:
    """`image` is loaded and upright; `found`: see `picture_files.cut_down`."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = _unsigned(image)
        alpha = None
        if isinstance(transparency, int):
            alpha = Image.fromarray(np.where(values == transparency, 0, 255).astype(np.uint8))
        names = ("icc_profile", "gamma", "srgb")
        said: dict[str | tuple[int, int], Any] = {name: image.info[name] for name in names if name in image.info}
        image = Image.fromarray(_invert_if_ink(image, eight_bit(values)))
        image.info |= said
    else:
        alpha = None
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or transparency is not None:
            grey = image.mode in ("LA", "La", "L")
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
            image = image.convert("L" if grey else "RGB")
        elif image.mode not in _SPACES:
            image = image.convert("L" if image.mode == "1" else "RGB")
    image = _to_srgb(image, found)
    if alpha is not None:
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=alpha)
        image = page
    return image


def eight_bit(values: np.ndarray) -> np.ndarray:
    """Integers or floats of any range -> uint8 of 0..255, black at 0.

    A file does not say where its white is. 16-bit numbers use their whole range. Of others the smallest
    usual white that holds the largest number is taken (1, 255, 65535, 24 or 32 bits); where that would leave the
    picture nearly black, the largest number itself.
    """
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max(initial=0))
    if values.dtype == np.uint8:
        return values
    floating = values.dtype.kind == "f"
    if values.dtype in (np.uint16, np.int16):
        white = float(np.iinfo(values.dtype).max)
    elif floating and largest <= 2.0:
        white = 1.0  # a little above is a highlight
    else:
        usual = (1.0, 255.0, 65535.0, 2.0**24 - 1, 2.0**31 - 1, 2.0**32 - 1)
        white = next((one for one in usual if largest <= one), largest)
        if (floating or white > 65535) and largest < white / 4:
            white = largest or 1.0
    scaled = values.astype(np.float32) * np.float32(255 / white)
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)


def _unsigned(image: Image.Image) -> np.ndarray:
    """The numbers of an "I;16", "I" or "F" picture; Pillow reads unsigned 32-bit TIFFs as signed."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    signed = tags.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == 2
    if image.mode == "I" and image.format == "TIFF" and not signed:
        return values.view(np.uint32)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return values.astype(np.uint16)
    if signed and tags.get(_TIFF_BITS, (32,))[0] == 16:
        return values.astype(np.int16)
    return values.astype(np.uint16) if image.mode.startswith("I;16") else values


def _invert_if_ink(image: Image.Image, values: np.ndarray) -> np.ndarray:
    """In a TIFF whose zero is white Pillow turns 8-bit numbers round, deeper ones not."""
    turned = isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0
    return 255 - values if turned else values


def _to_srgb(image: Image.Image, found: dict) -> Image.Image:
    """An RGB, L or CMYK picture by what its file says about its colours; as sRGB where that cannot be read."""
    primaries, transfer = found.get("cicp", (2, 2))
    profile = found.get("icc") or image.info.get("icc_profile")
    if transfer in hdr.HDR or (not profile and primaries in hdr.WIDE):
        return Image.fromarray(hdr.picture_to_srgb(np.asarray(image.convert("RGB")), primaries, transfer))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == _SPACES[image.mode]:
                target = ImageCms.createProfile("sRGB")
                turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
                return turned or image.convert("RGB")  # None is for a picture that is changed in place
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            pass  # a damaged profile costs a slight tint, not the picture
    gamma = image.info.get("gamma")
    if gamma and not profile and "srgb" not in image.info and 0.05 < gamma < 5 and abs(gamma - 0.4545) > 0.02:
        # The file says that its numbers are light to the power of `gamma`; 1 is light itself, and far too dark as sRGB.
        light = (np.arange(256) / 255) ** (1 / gamma)
        table = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        levels = (255 * table).round().astype(int).tolist()
        return (
            image.point(levels * len(image.getbands())).convert("RGB") if image.mode != "CMYK" else image.convert("RGB")
        )
    return image.convert("RGB")
