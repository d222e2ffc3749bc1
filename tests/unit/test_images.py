"""Whatever a person uploads becomes an upright RGB picture of the right size, or a clear refusal."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.images import crop_box, fit, open_image, show_crop


def save(tmp_path, image: Image.Image, name: str, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.fixture
def quadrants() -> Image.Image:
    """40 x 60: red, green / blue, white."""
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[:30, :20], pixels[:30, 20:], pixels[30:, :20], pixels[30:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return Image.fromarray(pixels)


def test_exif_orientation_is_applied(tmp_path, quadrants):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to view
    path = save(tmp_path, quadrants, "turned.png", exif=exif)
    image = open_image(path)
    assert image.size == (60, 40)
    assert image.getpixel((5, 5)) == (0, 0, 255) and image.getpixel((55, 5)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(tmp_path, mode):
    image = Image.new("RGBA", (32, 32), (10, 20, 30, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    options = {}
    image = image.convert(mode)
    if mode == "P":
        options["transparency"] = image.getpixel((0, 0))
    opened = open_image(save(tmp_path, image, "alpha.png", **options))
    assert opened.mode == "RGB" and opened.getpixel((2, 2)) == (255, 255, 255)
    assert max(opened.getpixel((30, 2))) < 60


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64, dtype=np.uint16)
    image = Image.fromarray(np.broadcast_to(values, (64, 64)).copy())
    opened = np.asarray(open_image(save(tmp_path, image, "deep.png")))
    assert abs(int(opened[0, 32, 0]) - 129) <= 2 and opened[0, 63, 0] >= 254 and opened[0, 0, 0] == 0


def test_cmyk_jpeg_and_animated_gif(tmp_path, quadrants):
    assert open_image(save(tmp_path, quadrants.convert("CMYK"), "press.jpg")).mode == "RGB"
    frames = [quadrants, quadrants.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    path = save(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_huge_png_is_refused_before_it_is_decoded(tmp_path):
    """20,000 x 20,000 pixels in a few kB: only the header is honest."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    with pytest.raises(UserError, match="20000 x 20000 pixels"):
        open_image(path)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("notes.png", b"just some text", "not a picture"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not a picture"),
        ("page.jpg", b"<html><body>hello</body></html>", "not a picture"),
        ("empty.png", b"", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        open_image(path)
    assert name in str(caught.value) and caught.value.field == "image"


def test_truncated_and_tiny_pictures_are_refused(tmp_path, quadrants):
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(buffer, "JPEG")
    broken = tmp_path / "half.jpg"
    broken.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"half\.jpg is damaged"):
        open_image(broken)
    with pytest.raises(UserError, match="1 x 500"):
        open_image(save(tmp_path, Image.new("RGB", (1, 500)), "line.png"))
    with pytest.raises(UserError, match="does not exist"):
        open_image(tmp_path / "nowhere.png")


def test_crop_is_centred_and_keeps_the_aspect_ratio():
    assert crop_box((400, 200), (100, 100)) == (100, 0, 300, 200)
    assert crop_box((100, 400), (200, 100)) == (0, 175, 100, 225)
    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (100, 0, 300, 200))
    assert np.asarray(fit(picture, 64, 64)).mean() > 245  # only the white middle is left, but for the resampled edge


def test_the_preview_dims_what_is_cut_off():
    view = np.asarray(show_crop(Image.new("RGB", (400, 200), "white"), 64, 64))
    assert view[100, 200].tolist() == [255, 255, 255] and view[100, 20].max() < 100
