"""What stands around a picture's pixels: good pixels are worth more than damaged metadata.

Editors, phones and messengers leave whole workflows, broken profiles and wrong checksums in files whose pixels are
whole. Pillow refuses some of those files, so PNG and JPEG are cut down to what the pixels need before they are opened.
What is no picture is named, so that the person knows what to do instead.
"""

import io
import struct
import zlib
from typing import Any

from PIL import TiffImagePlugin

PNG = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 16_000_000  # bytes of a colour profile; real ones have up to 4 MB
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"gAMA", b"sRGB", b"eXIf")

# Of what cannot be read here: how the file begins (or what stands near its beginning), and what that is.
_RAW = "a camera's raw file"
_BEGINNINGS = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"v/1\x01", "an OpenEXR picture"),
    (b"#?R", "a Radiance HDR picture"),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIU\0", _RAW),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\3\4", "a ZIP archive"),
)
_OURS = (
    (PNG, "a PNG picture"),
    (b"\xff\xd8", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"BM", "a BMP picture"),
)
_BRANDS = {b"crx ": _RAW} | dict.fromkeys((b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1"), "a video")
_RAW_ENDINGS = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")


def foreign(name: str, content: bytes) -> str:
    """What a file is that is no picture of ours: "a PDF"; empty when that is not known."""
    head = content[:1024]
    ours = claimed(content)
    if ours == "a TIFF picture" and (name.lower().endswith(_RAW_ENDINGS) or head[8:10] == b"CR"):
        return _RAW
    if ours:  # what else stands in it, a comment, a drawing's name, is no matter
        return ""
    if name.lower().endswith(_RAW_ENDINGS):
        return _RAW
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "")
    lower = head.lower()
    if b"<svg" in lower:
        return "an SVG drawing"
    if b"<html" in lower or b"<!doctype html" in lower:
        return "a web page"
    return next((words for beginning, words in _BEGINNINGS if head.startswith(beginning)), "")


def claimed(content: bytes) -> str:
    """Which of the formats that are read here a file begins as: "a HEIC picture"; empty for none."""
    if content[4:8] == b"ftyp" and content[8:11] in (b"avi", b"hei", b"hev", b"mif", b"msf"):
        return "an AVIF picture" if content[8:11] == b"avi" else "a HEIC picture"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP picture"
    return next((words for beginning, words in _OURS if content.startswith(beginning)), "")


def cut_down(content: bytes) -> tuple[bytes, dict]:
    """The file with only what its pixels need, and what was found for the colours.

    Found: "icc" a PNG's profile; "cicp" (primaries, transfer) as numbers of ITU-T H.273.
    """
    if content.startswith(PNG):
        return _cut_png(content)
    found = {}
    place = content.find(b"colrnclx", 0, 65536)  # AVIF: the box that says which primaries and curve the numbers have
    if content[4:8] == b"ftyp" and place > 0 and len(content) >= place + 12:
        found["cicp"] = struct.unpack(">HH", content[place + 8 : place + 12])
    return content, found


def without_metadata(content: bytes) -> bytes:
    """A JPEG without its APPn segments and comments, but for those that say how the colours are stored."""
    if not content.startswith(b"\xff\xd8"):
        return content
    kept, place = [content[:2]], 2
    while content[place : place + 1] == b"\xff" and place + 4 <= len(content):
        kind, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == 0xDA:  # the pixels begin
            break
        if not (0xE1 <= kind <= 0xED or kind in (0xEF, 0xFE)):
            kept.append(content[place : place + 2 + length])
        place += 2 + length
    return b"".join(kept) + content[place:]


def _cut_png(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Chunks in their order with fresh checksums. Where a length is damaged, the next pixels are looked for."""
    kept, place = [PNG], len(PNG)
    found: dict[str, Any] = {}
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if not kind.isalpha() or (place + 12 + length > len(content) and kind not in (b"IDAT", b"IEND")):
            place = content.find(b"IDAT", place + 4) - 4
            if place < 0:
                break
            continue
        body = content[place + 8 : place + 8 + length]
        place += 12 + length
        if kind in _PIXELS:
            kept.append(_chunk(kind, body))
        elif kind == b"iCCP":
            found["icc"] = _inflate(body.partition(b"\0")[2][1:])
        elif kind == b"cICP" and len(body) >= 2:
            found["cicp"] = (body[0], body[1])
        elif kind == b"IEND":
            break
    return b"".join([*kept, _chunk(b"IEND", b"")]), found


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _inflate(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, MAX_PROFILE)
    except zlib.error:
        return b""


def tiff_tags(content: bytes) -> dict:
    """The tags of a TIFF's first picture by number, with its size (256, 257) among them; empty if it is none."""
    head = content[:4]
    if head not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return {}
    try:
        file = io.BytesIO(content)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if b"+" in head else 8))
        file.seek(tags.next)
        tags.load(file)
        found = dict(tags)
    except Exception:  # Pillow's readers raise whatever the damage leads to
        return {}
    return found if all(isinstance(found.get(side), int) for side in (256, 257)) else {}


def turns_itself(content: bytes) -> bool:
    """Whether a HEIC file says how it is turned in the boxes meant for that, beside which EXIF does not count."""
    place = content.find(b"meta", 0, 4096)
    box = content[place : place - 4 + int.from_bytes(content[place - 4 : place], "big")] if place >= 4 else b""
    return b"irot" in box or b"imir" in box


def jpeg2000_bits(content: bytes) -> int:
    """Bits of the first component of a JPEG 2000 picture; 0 for any other."""
    place = content.find(b"\xff\x4f\xff\x51", 0, 1 << 20)  # the codestream's beginning and its sizes
    if content[:8] != b"\0\0\0\x0cjP  " and place != 0:
        return 0
    return (content[place + 42] & 0x7F) + 1 if 0 <= place < len(content) - 42 else 0


def icon_size(content: bytes) -> tuple[int, int]:
    """The largest size that a PNG inside an icon says of itself; its list may say less. Of other files (256, 256)."""
    sizes = [(256, 256)]
    if content.startswith(b"\0\0\1\0"):
        for entry in range(6, min(len(content) - 16, 6 + 16 * int.from_bytes(content[4:6], "little")) + 1, 16):
            begin = int.from_bytes(content[entry + 12 : entry + 16], "little")
            inner = content[begin : begin + 24]
            if inner.startswith(PNG) and len(inner) == 24:
                sizes.append(struct.unpack(">II", inner[16:]))
    return max(sizes, key=lambda size: size[0] * size[1])
