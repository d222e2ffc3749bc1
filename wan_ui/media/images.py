"""Any picture a person may upload -> an RGB picture of exactly the size the model wants.

Orientation (EXIF), alpha (laid on white), 16-bit, CMYK, palettes, colour profiles and animations are
normalised; what cannot be is refused with the reason. Nothing is decoded before its size is known.
Metadata that cannot be read never costs the picture; only pixels that cannot be read do.
"""

import io
import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pi_heif
from PIL import Image, ImageFile

from wan_ui import limits
from wan_ui.crop import MIDDLE, Crop
from wan_ui.errors import UserError
from wan_ui.media import picture_colour, picture_files
from wan_ui.request import Request
from wan_ui.tasks import TASKS

log = logging.getLogger(__name__)

pi_heif.register_heif_opener()

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "HEIF", "BMP", "TIFF", "GIF", "JPEG2000", "ICO", "PPM")
READABLE = "PNG, JPEG, WebP, HEIC, AVIF or TIFF"
MIN_SIDE = 16
DECODING = threading.BoundedSemaphore(limits.IMAGES_AT_ONCE)  # each may take a gigabyte for a moment
MISSING_PART, MISSING_ROWS = 0.05, 32  # a file that breaks off may lack so much of its height at the bottom
ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path, field: str = "image") -> Image.Image:
    """The upload as an upright RGB image. Raises UserError, which names `field`."""
    name = Path(path).name

    def refuse(reason: str) -> UserError:
        return UserError(f"{field}: {name} {reason}", field=field)

    def check(width: int, height: int) -> None:
        if width * height > limits.IMAGE_MEGAPIXELS * 1_000_000:
            limit = f"the limit is {limits.IMAGE_MEGAPIXELS} megapixels: make it smaller first"
            raise refuse(f"has {width} x {height} pixels; {limit}")
        if min(width, height) < MIN_SIDE:
            raise refuse(f"has {width} x {height} pixels; both sides need at least {MIN_SIDE}")

    content = _read(Path(path), refuse)
    what = picture_files.foreign(name, content)
    if what:
        raise refuse(f"is {what}, not a picture that can be read; save it as {READABLE}")
    Image.MAX_IMAGE_PIXELS = None  # our own limit below speaks plainly and comes before decoding
    with DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about metadata
        content, found = picture_files.cut_down(content)
        check(*picture_files.icon_size(content))  # Pillow decodes an icon as soon as it opens it
        image, tags = _open(content), {}
        if image is None:
            tags = picture_files.tiff_tags(content)
        if image is None and not tags:
            claimed = picture_files.claimed(content)
            damaged = f": it begins as {claimed}, but is damaged or of a rare kind" if claimed else ""
            raise refuse(f"is not a picture that can be read{damaged}; use {READABLE}")
        check(*(image.size if image else (tags[256], tags[257])))
        try:
            return picture_colour.to_rgb(_upright(image, content, tags), found)
        except Exception as error:  # decoders raise whatever the damage leads to
            log.info("%s cannot be decoded", name, exc_info=True)
            raise refuse(f"is damaged ({error}); save it again") from None


def _read(path: Path, refuse) -> bytes:
    try:
        if not path.is_file():
            raise refuse("is not a file; choose a picture" if path.exists() else "does not exist")
        if path.stat().st_size > limits.IMAGE_BYTES:
            raise refuse(f"is larger than {limits.IMAGE_BYTES / 1e6:.0f} MB; save it smaller")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise refuse(f"cannot be read ({error})") from None


def _open(content: bytes) -> Image.Image | None:
    for attempt in (lambda: content, lambda: picture_files.without_metadata(content)):
        try:
            return Image.open(io.BytesIO(attempt()), formats=FORMATS)
        except Exception:  # readers raise whatever the damage leads to
            log.debug("not opened", exc_info=True)
    return None


def _upright(image: Image.Image | None, content: bytes, tags: dict) -> Image.Image:
    """The decoded picture, turned as its file says. Raises whatever a decoder does."""
    if image is None:
        return _decode_tiff(content, tags)
    depth = picture_files.jpeg2000_bits(content)
    if depth > 8 and image.mode in ("RGB", "RGBA"):
        return _decode_jpeg2000(content, depth) or image
    orientation = _orientation(image, content)
    try:
        image.load()  # Pillow turns a TIFF itself
    except Exception as error:
        if image.format == "TIFF":
            return _decode_tiff(content, picture_files.tiff_tags(content))
        image = _mend_end(image, content) if isinstance(error, OSError) else None
        if image is None:
            raise
    return image if image.format == "TIFF" else _turned(image, orientation)


def _orientation(image: Image.Image, content: bytes) -> int:
    if image.format == "HEIF":  # its reader turns it by the file's own boxes, and sets what EXIF says to 1
        turned = image.info.get("original_orientation")
        return turned if turned and not picture_files.turns_itself(content) else 1
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF: struct.error, SyntaxError, TypeError ... the picture is as it is
        return 1


def _turned(image: Image.Image, orientation) -> Image.Image:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format
    return turned


def _mend_end(image: Image.Image, content: bytes) -> Image.Image | None:
    """A JPEG or PNG that breaks off near its end, with that end made up; None when too much is missing.

    Pillow decodes row by row, and leaves at zero what it did not come to.
    """
    if image.format not in ("JPEG", "MPO", "PNG") or image.info.get("interlace"):
        return None
    if isinstance(image, ImageFile.ImageFile):
        image.tile = []  # what is decoded stays, nothing more is tried
    pixels = np.asarray(image)
    rows = np.flatnonzero(pixels.reshape(len(pixels), -1).any(axis=1))
    missing = len(pixels) - 1 - rows[-1] if len(rows) else len(pixels)
    few = missing <= max(MISSING_PART * len(pixels), MISSING_ROWS)
    if image.format != "PNG" and (few or _finest_scan(content)):
        # The decoder waits for the mark of the end before it gives its last rows.
        mended = Image.open(io.BytesIO(picture_files.without_metadata(content) + b"\xff\xd9"), formats=("JPEG",))
        mended.info |= image.info
        mended.load()
        return mended
    if not few:
        return None
    last = image.crop((0, int(rows[-1]), image.width, int(rows[-1]) + 1))
    for row in range(int(rows[-1]) + 1, image.height):
        image.paste(last, (0, row))
    return image


def _finest_scan(content: bytes) -> bool:
    """Whether a progressive JPEG breaks off in a scan that only refines what is there."""
    scan = content[content.rfind(b"\xff\xda") :]
    return len(scan) > 5 and len(scan) > 7 + 2 * scan[4] and scan[7 + 2 * scan[4]] >> 4 > 0


def _decode_tiff(content: bytes, tags: dict) -> Image.Image:
    """By OpenCV what Pillow cannot: colours as floats or 32-bit integers, YCbCr that is not compressed. It turns it."""
    import cv2

    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its pixels cannot be read")
    values = picture_colour.eight_bit(values)
    if tags.get(262) == 0:  # zero is white
        values = 255 - values
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]  # OpenCV's order is BGR
    image = Image.fromarray(values)
    image.info["icc_profile"] = tags.get(34675, b"")
    return image


def _decode_jpeg2000(content: bytes, depth: int) -> Image.Image | None:
    """Colours of more than 8 bits by OpenCV: Pillow makes black of the brightest ones. None: OpenCV can't read it."""
    import cv2

    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    white = 2**depth - 1 if values.max() < 2**depth else 65535
    values = (values.astype(np.float32) * (255 / white) + 0.5).astype(np.uint8)
    return Image.fromarray(values[..., [2, 1, 0, 3][: values.shape[2]]])  # OpenCV's order is BGR


def read_pixels(request: Request, name: str = "image") -> np.ndarray:
    """The picture of a job, (H, W, 3) uint8; name: of the input. Raises UserError when the file is no picture of the
    request's size."""
    path = Path(request.inputs[name])
    try:
        with Image.open(path) as file:
            pixels = np.array(file.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: {path.name} cannot be read: {error}", field=name) from error
    if pixels.shape != (request.height, request.width, 3):
        raise UserError(
            f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {request.width}x{request.height}",
            field=name,
        )
    return pixels


def read_pictures(request: Request) -> list[np.ndarray]:
    """The pictures of a job in the order of its task's inputs. Raises as `read_pixels`."""
    entries = TASKS[request.task].inputs
    return [
        read_pixels(request, entry.name)
        for entry in entries
        if entry.kind == "picture" and entry.name in request.inputs
    ]


def whole_within(image: Image.Image, width: int, height: int) -> Image.Image:
    """All of it, as large as it goes into width x height, in the middle of black."""
    scale = min(width / image.width, height / image.height)
    inner = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    canvas = Image.new(image.mode, (width, height))
    small = image.resize(inner, Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def fit(image: Image.Image, width: int, height: int, crop: Crop = MIDDLE) -> Image.Image:
    """Crop to the aspect ratio, then resize to width x height."""
    box = crop.box(image.size, (width, height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
