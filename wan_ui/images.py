"""Any picture a person may upload -> an RGB picture of exactly the size the model wants.

Orientation (EXIF), alpha (laid on white), 16-bit, CMYK, palettes, colour profiles and animations are
normalised; what cannot be is refused with the reason. Nothing is decoded before its size is known.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageOps, UnidentifiedImageError

from wan_ui.errors import UserError
from wan_ui.request import Request

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_MEGAPIXELS = 64  # decoded RGBA of that size is 256 MB
MIN_SIDE = 16


def open_image(path: str | Path) -> Image.Image:
    """The upload as an upright RGB image. Raises UserError (field "image")."""

    def refuse(reason: str) -> UserError:
        return UserError(f"image: {Path(path).name} {reason}", field="image")

    Image.MAX_IMAGE_PIXELS = None  # our own limit below speaks plainly and comes before decoding
    try:
        image = Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise refuse("does not exist") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise refuse("is not a picture that can be read; use PNG, JPEG or WebP") from None
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise refuse(f"has {width} x {height} pixels; the limit is {MAX_MEGAPIXELS} megapixels: make it smaller first")
    if min(width, height) < MIN_SIDE:
        raise refuse(f"has {width} x {height} pixels; both sides need at least {MIN_SIDE}")
    try:
        image.seek(0)
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise refuse(f"is damaged ({error}); save it again") from None
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: PIL's own conversion clips at 255 instead of scaling
        image = image.point(lambda value: value / 256).convert("L") if image.mode != "F" else image.convert("L")
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        # A damaged profile only costs a slight tint.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            image = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_pixels(request: Request) -> np.ndarray:
    """The picture of a job, (H, W, 3) uint8. Raises UserError when the file is no picture of the request's size."""
    try:
        with Image.open(request.image) as file:
            pixels = np.array(file.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image: {Path(request.image).name} cannot be read: {error}", field="image") from error
    if pixels.shape != (request.height, request.width, 3):
        raise UserError(
            f"image: {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {request.width}x{request.height}",
            field="image",
        )
    return pixels


def crop_box(size: tuple[int, int], target: tuple[int, int]) -> tuple[float, float, float, float]:
    """Largest centred box (left, top, right, bottom) of `size` with the aspect ratio of `target`."""
    width, height = size
    scale = min(width / target[0], height / target[1])
    crop_width, crop_height = target[0] * scale, target[1] * scale
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Centre crop to the aspect ratio, then resize to width x height."""
    return image.resize(
        (width, height), Image.Resampling.LANCZOS, box=crop_box(image.size, (width, height)), reducing_gap=3.0
    )


def show_crop(image: Image.Image, width: int, height: int, longest: int = 480) -> Image.Image:
    """The upload with everything dimmed that the crop to width x height leaves out."""
    view = image.copy()
    view.thumbnail((longest, longest))
    box = tuple(round(edge) for edge in crop_box(view.size, (width, height)))
    dimmed = Image.blend(view, Image.new("RGB", view.size, "black"), 0.65)
    dimmed.paste(view.crop(box), box[:2])
    ImageDraw.Draw(dimmed).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline="white", width=2)
    return dimmed
