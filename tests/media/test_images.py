"""Whatever a person uploads becomes an upright RGB picture of the right size, or a clear refusal."""

import io
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from wan_ui.crop import MIDDLE
from wan_ui.errors import UserError
from wan_ui.media import images, picture_files
from wan_ui.media.images import fit, open_image


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


@pytest.mark.hardening(15)
def test_exif_orientation_is_applied(tmp_path, quadrants):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90 degrees clockwise to view
    path = save(tmp_path, quadrants, "turned.png", exif=exif)
    image = open_image(path)
    assert image.size == (60, 40)
    assert image.getpixel((5, 5)) == (0, 0, 255) and image.getpixel((55, 5)) == (255, 0, 0)


@pytest.mark.hardening(15)
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


@pytest.mark.hardening(15)
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64, dtype=np.uint16)
    image = Image.fromarray(np.broadcast_to(values, (64, 64)).copy())
    opened = np.asarray(open_image(save(tmp_path, image, "deep.png")))
    assert abs(int(opened[0, 32, 0]) - 129) <= 2 and opened[0, 63, 0] >= 254 and opened[0, 0, 0] == 0


@pytest.mark.hardening(15)
def test_cmyk_jpeg_and_animated_gif(tmp_path, quadrants):
    assert open_image(save(tmp_path, quadrants.convert("CMYK"), "press.jpg")).mode == "RGB"
    frames = [quadrants, quadrants.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    path = save(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.hardening(15)
def test_huge_png_is_refused_before_it_is_decoded(tmp_path):
    """20,000 x 20,000 pixels in a few kB: only the header is honest."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))))
    with pytest.raises(UserError, match="20000 x 20000 pixels"):
        open_image(path)


@pytest.mark.hardening(7)
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


@pytest.mark.hardening(15)
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
    assert MIDDLE.box((400, 200), (100, 100)) == (100, 0, 300, 200)
    assert MIDDLE.box((100, 400), (200, 100)) == (0, 175, 100, 225)
    picture = Image.new("RGB", (400, 200), "black")
    picture.paste("white", (100, 0, 300, 200))
    assert np.asarray(fit(picture, 64, 64)).mean() > 245  # only the white middle is left, but for the resampled edge


# ---------------------------------------------------------------- good pixels in odd files

Y, X = np.mgrid[0:96, 0:160]
RAMP = np.stack([X * 255 // 159, Y * 255 // 95, 255 - X * 255 // 159], -1).astype(np.uint8)
GREY = RAMP[..., 0]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def stored(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(extra: bytes, pixels=RAMP) -> bytes:
    content = stored(Image.fromarray(pixels), "PNG")
    return content[:33] + extra + content[33:]


def jpeg(app1: bytes) -> bytes:
    content = stored(Image.fromarray(RAMP), "JPEG", quality=95)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + content[2:]


def exif(*entries: bytes, tail: bytes = b"") -> bytes:
    body = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body.ljust(192, b"\0") + tail


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def tiff(values: np.ndarray, order: str = "<", photometric: int = 1, sample_format: int = 1, orientation: int = 1):
    """A plain TIFF of one strip; big-endian with order ">"."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, bands = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {256: width, 257: height, 258: values.dtype.itemsize * 8, 259: 1, 262: photometric, 273: 0, 274: orientation}
    tags |= {277: bands, 278: height, 279: len(data), 339: sample_format}
    end = 8 + 2 + 12 * len(tags) + 4
    tags[273] = end + 12
    body, tail = struct.pack(order + "H", len(tags)), b""
    for tag, value in tags.items():
        if tag in (258, 339) and bands == 3:
            body += struct.pack(order + "HHII", tag, 3, 3, end + len(tail))
            tail += struct.pack(order + "3H", value, value, value)
        else:
            body += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + body + struct.pack(order + "I", 0) + tail.ljust(12, b"\0") + data


def read(tmp_path, content: bytes, name: str = "picture.bin") -> np.ndarray:
    (tmp_path / name).write_bytes(content)
    image = open_image(tmp_path / name)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


TURNED = entry(0x112, 3, 1, struct.pack("<H", 6))


@pytest.mark.parametrize(
    ("app1", "turned"),
    [
        (exif(TURNED), True),
        # A rational of -1/0 of an unsigned kind, and a text where a number belongs: tags that cannot be written back.
        (exif(TURNED, entry(0x11B, 5, 1, struct.pack("<I", 200)), tail=struct.pack("<ii", -1, 0)), True),
        (exif(TURNED, entry(0x11A, 2, 4, b"72\0")), True),
        (exif(entry(0x112, 2, 4, b"abc\0")), False),
        (exif(TURNED, entry(0x8769, 4, 1, struct.pack("<I", 8))), True),
        (b"Exif\0\0" + b"\x00\x08\x00\x02" * 9, False),
        (exif(TURNED)[:19], False),
    ],
)
def test_exif_turns_the_picture_and_never_costs_it(tmp_path, app1, turned):
    right = np.rot90(RAMP, -1) if turned else RAMP
    assert np.abs(read(tmp_path, jpeg(app1)) - right).mean() < 1


WORKFLOW = b'{"nodes": "' + b"node " * 300_000 + b'"}'


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(WORKFLOW)),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(WORKFLOW)),
        chunk(b"iCCP", b"display\0\0" + zlib.compress(bytes(1_500_000))),
        chunk(b"iCCP", b"display\0\0no zlib at all"),
        chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        struct.pack(">I", 4) + b"tEXt" + b"a\0bc" + b"\0\0\0\0",  # a wrong checksum
        struct.pack(">I", 0x7FFFFFFF) + b"tEXta\0b",  # a wrong length
    ],
)
def test_png_chunks_beside_the_pixels_never_cost_them(tmp_path, extra):
    assert np.array_equal(read(tmp_path, png(extra)), RAMP)


def test_a_file_that_lacks_a_few_bytes_is_a_picture_and_half_a_file_is_none(tmp_path):
    for progressive in (False, True):
        content = stored(Image.fromarray(RAMP), "JPEG", quality=95, progressive=progressive)
        assert np.abs(read(tmp_path, content[:-20]) - RAMP).mean() < 3
    pictures = {"save_all": True, "append_images": [Image.fromarray(RAMP[::2, ::2])]}
    phone = stored(Image.fromarray(RAMP), "MPO", quality=95, **pictures)
    assert np.abs(read(tmp_path, phone[: phone.find(b"\xff\xd9") - 20]) - RAMP).mean() < 3
    whole = png(b"")
    assert np.array_equal(read(tmp_path, whole[:-12]), RAMP)
    for half in (whole[: len(whole) // 2], stored(Image.fromarray(RAMP), "JPEG")[:900]):
        with pytest.raises(UserError, match="is damaged"):
            read(tmp_path, half)


@pytest.mark.parametrize("words", ["<svg> by a person", "<!DOCTYPE html>", "xxCR"])
def test_a_comment_does_not_make_another_file_of_a_picture(tmp_path, words):
    content = stored(Image.fromarray(RAMP), "JPEG", quality=95)
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(words)) + words.encode()
    assert np.abs(read(tmp_path, content[:2] + comment + content[2:]) - RAMP).mean() < 3
    assert np.array_equal(read(tmp_path, png(chunk(b"tEXt", b"Comment\0" + words.encode()))), RAMP)
    assert np.array_equal(read(tmp_path, png(b""), "IMG_1.dng"), RAMP)


def test_bright_colours_of_a_deep_jpeg_2000_stay_bright(tmp_path):
    _, content = cv2.imencode(
        ".jp2", RAMP[..., ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    )
    assert RAMP.max() == 255 and np.abs(read(tmp_path, content.tobytes()) - RAMP).max() <= 1


SHARE = np.where(Y + X > 0, X / 159, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("values", "options"),
    [
        ((SHARE * 65535).astype(np.uint16), {}),
        ((65535 - SHARE * 65535).astype(np.uint16), {"photometric": 0}),
        (SHARE.astype(np.float32), {"sample_format": 3}),
        ((SHARE * 255).astype(np.float32), {"sample_format": 3}),
        (np.where((X < 2) & (Y < 2), np.inf, SHARE).astype(np.float32), {"sample_format": 3}),
        ((SHARE * (2**31 - 1)).astype(np.int32), {"sample_format": 2}),
        ((SHARE * 65535).astype(np.int32), {"sample_format": 2}),
        ((SHARE * (2**32 - 1)).astype(np.uint32), {}),
        (np.rot90(SHARE * 65535).astype(np.uint16), {"orientation": 6}),
    ],
)
def test_deep_grey_keeps_its_brightness(tmp_path, order, values, options):
    got = read(tmp_path, tiff(np.ascontiguousarray(values), order, **options))
    assert got.shape == RAMP.shape and np.abs(got - GREY[..., None]).max() <= 1


@pytest.mark.parametrize("values", [(RAMP / 255).astype(np.float32), RAMP.astype(np.uint16) * 257])
def test_deep_colours_keep_theirs(tmp_path, values):
    options = {"photometric": 2, "sample_format": 3 if values.dtype.kind == "f" else 1}
    assert np.abs(read(tmp_path, tiff(values, ">", **options)) - RAMP).max() <= 1
    turned = np.ascontiguousarray(np.rot90(values))
    assert np.abs(read(tmp_path, tiff(turned, orientation=6, **options)) - RAMP).max() <= 1


@pytest.mark.parametrize(
    ("format", "options", "within"),
    [("HEIF", {"quality": 95}, 1), ("AVIF", {"quality": 95}, 1), ("JPEG2000", {}, 0), ("MPO", {"quality": 95}, 1)],
)
def test_containers_of_phones_and_archives(tmp_path, format, options, within):
    pillow_heif.register_heif_opener()  # the reader alone cannot write
    assert np.abs(read(tmp_path, stored(Image.fromarray(RAMP), format, **options)) - RAMP).mean() <= within


@pytest.mark.parametrize("format", ["HEIF", "AVIF", "MPO"])
def test_they_are_turned_as_they_say_and_only_once(tmp_path, format):
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    for orientation, turn in {1: None, **images._TURNS}.items():
        exif[images.ORIENTATION] = orientation
        picture = Image.fromarray(RAMP)
        shown = picture.transpose(turn) if turn is not None else picture
        found = read(tmp_path, stored(picture, format, quality=95, exif=exif))
        assert found.shape == np.asarray(shown).shape and np.abs(found - np.asarray(shown, int)).mean() <= 1


def test_of_a_heic_that_turns_itself_exif_does_not_count():
    box = lambda kind, body: struct.pack(">I4s", 8 + len(body), kind) + body  # noqa: E731
    beginning = box(b"ftyp", b"heic" + bytes(4))
    assert picture_files.turns_itself(beginning + box(b"meta", bytes(4) + box(b"irot", b"\1")))
    assert not picture_files.turns_itself(beginning + box(b"meta", bytes(8)) + box(b"mdat", b"irot"))
    assert not picture_files.turns_itself(b"meta") and not picture_files.turns_itself(b"")


def test_an_icon_and_an_uncompressed_ycbcr_tiff(tmp_path):
    assert read(tmp_path, stored(Image.fromarray(RAMP), "ICO", sizes=[(64, 64), (32, 32)])).shape == (38, 64, 3)
    assert np.abs(read(tmp_path, stored(Image.fromarray(RAMP).convert("YCbCr"), "TIFF")) - RAMP).mean() < 1.5


@pytest.mark.hardening(15)
def test_an_icon_that_holds_a_bomb_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    inner = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 64, 64, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(UserError, match="20000 x 20000 pixels"):
        read(tmp_path, icon)


# ---------------------------------------------------------------- colour

P3 = np.array([[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0, 0.04511, 1.04394]])
BT709 = np.array([[0.41239, 0.35758, 0.18048], [0.21264, 0.71517, 0.07219], [0.01933, 0.11919, 0.95053]])
BT2020 = np.array([[0.63696, 0.14462, 0.16888], [0.26270, 0.67800, 0.05930], [0, 0.02807, 1.06099]])
SOFT = (0.5 * RAMP + 64).astype(np.uint8)  # inside every gamut


def light(srgb: np.ndarray, primaries: np.ndarray) -> np.ndarray:
    values = srgb / 255
    values = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return values @ (np.linalg.inv(primaries) @ BT709).T


def in_p3(srgb: np.ndarray) -> np.ndarray:
    values = light(srgb, P3)
    values = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return (255 * values).round().astype(np.uint8)


def display_p3() -> bytes:
    """An ICC profile with Display P3's primaries and sRGB's curve."""
    adapted = np.array([[1.04781, 0.02289, -0.05013], [0.02954, 0.99048, -0.01705], [-0.00923, 0.01504, 0.75213]]) @ P3

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"p\0" + bytes(78)}
    tags |= {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    for band, name in enumerate((b"r", b"g", b"b")):
        tags |= {name + b"XYZ": b"XYZ " + bytes(4) + fixed(*adapted[:, band]), name + b"TRC": curve}
    table, body, begin = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = (
        struct.pack(">I4sI", begin + len(body), b"lcms", 0x02400000)
        + b"mntrRGB XYZ "
        + struct.pack(">6H", 2020, *[1] * 5)
    )
    head += b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_wide_gamut_profile_is_applied(tmp_path, format, alpha):
    image = Image.fromarray(in_p3(SOFT))
    assert np.abs(np.asarray(image).astype(int) - SOFT).mean() > 3, "unread, the colours are pale"
    if alpha:
        image.putalpha(255)
    options = {"lossless": True} if format == "WEBP" else {}
    got = read(tmp_path, stored(image, format, icc_profile=display_p3(), **options))
    assert np.abs(got - SOFT).max() <= 1


def test_a_png_that_says_its_colours_in_its_own_chunks(tmp_path):
    p3 = chunk(b"cICP", bytes([12, 13, 0, 1]))
    assert np.abs(read(tmp_path, png(p3, in_p3(SOFT))) - SOFT).max() <= 1
    linear = (255 * light(RAMP, BT709)).round().astype(np.uint8)
    assert np.abs(read(tmp_path, png(chunk(b"gAMA", struct.pack(">I", 100_000)), linear)) - RAMP)[RAMP > 40].max() <= 3
    assert np.array_equal(read(tmp_path, png(chunk(b"gAMA", struct.pack(">I", 45_455)))), RAMP)
    deep = stored(
        Image.fromarray((65535 * light(np.repeat(GREY[..., None], 3, 2), BT709)[..., 0]).round().astype(np.uint16)),
        "PNG",
    )
    deep = deep[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + deep[33:]
    assert np.abs(read(tmp_path, deep) - GREY[..., None])[GREY > 40].max() <= 3


@pytest.mark.parametrize("white", [100, 203])
def test_an_hdr_png_is_as_bright_as_its_ordinary_self(tmp_path, white):
    """PQ, BT.2020, with white at what is usual: in the middle range within rounding of 8 bits."""
    power = (np.clip(light(RAMP, BT2020), 0, 1) * white / 10_000) ** (2610 / 16384)
    codes = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    pixels = (255 * codes).round().astype(np.uint8)
    assert RAMP.mean() - pixels.mean() > 15, "unread it is too dark"
    got = read(tmp_path, png(chunk(b"cICP", bytes([9, 16, 0, 1])), pixels))
    assert np.abs(got - RAMP).mean() < 2 and abs(got.mean() - RAMP.mean()) < 1.5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scan.pdf", b"%PDF-1.7 ...", r"is a PDF, not a picture"),
        ("new.jxl", b"\xff\x0a\x00\x10", r"is a JPEG XL picture, not a picture that can be read; save it as PNG, JPEG"),
        ("IMG_1.CR2", b"II*\0\x10\0\0\0CR\2\0", r"is a camera's raw file"),
        ("clip.png", b"\0\0\0\x18ftypisom", r"is a video"),
        (
            "iphone.heic",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(3000),
            r"begins as a HEIC picture, but is damaged",
        ),
    ],
)
def test_what_is_refused_is_named(tmp_path, name, content, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, content, name)
