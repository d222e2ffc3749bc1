"""Pictures, sound and video taken apart into their blocks (PNG chunks, JPEG segments, RIFF chunks, MP4 boxes), and put
together again with lengths and checksums that fit after a block was changed, moved, doubled or left out."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzz import mutations

PNG = b"\x89PNG\r\n\x1a\n"
FULL = (b"meta",)  # boxes with four bytes before what is inside
NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta", b"edts", b"dinf", b"iprp", b"ipco", b"ilst", b"meta")


@dataclass
class Block:
    kind: bytes
    body: bytes


@dataclass(frozen=True)
class Form:
    """split   content -> what stands before the blocks, and the blocks; raises ValueError where it is none of these
    join    the other way round
    kinds   of blocks that may be put in"""

    split: Callable[[bytes], tuple[bytes, list[Block]]]
    join: Callable[[bytes, list[Block]], bytes]
    kinds: tuple[bytes, ...]


def change(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """A file whose blocks are others; of a kind that has none that are known here, its bytes."""
    form = next((form for begins, form in FORMS if begins(base)), None)
    if form is None or random.random() < 0.3:
        return mutations.of_bytes(random, base, others)
    head, blocks = form.split(base)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _change_blocks(random, form, blocks, others)
    whole = form.join(head, blocks)
    return mutations.of_bytes(random, whole, others) if random.random() < 0.1 else whole


def _change_blocks(random: Random, form: Form, blocks: list[Block], others: list[bytes]) -> None:
    if not blocks:
        return
    place = random.randrange(len(blocks))
    block = blocks[place]
    inner = block.kind in NESTED and form is BOXES
    match random.randrange(10):
        case 0:
            del blocks[place]
        case 1:
            blocks.insert(random.randrange(len(blocks) + 1), Block(block.kind, block.body))
        case 2:
            blocks.insert(random.randrange(len(blocks) + 1), blocks.pop(place))
        case 3:
            block.kind = random.choice(form.kinds)
        case 4:
            body = random.choice((b"", random.randbytes(12), bytes(300), b"x\0\0" + zlib.compress(bytes(100_000))))
            blocks.insert(random.randrange(len(blocks) + 1), Block(random.choice(form.kinds), body))
        case _ if inner and random.random() < 0.9:
            skip = 4 if block.kind in FULL else 0
            _, inside = _split_boxes(block.body[skip:])
            _change_blocks(random, form, inside, others)
            block.body = block.body[:skip] + _join_boxes(b"", inside)
        case _:
            block.body = mutations.of_bytes(random, block.body, others)


def _split_png(content: bytes) -> tuple[bytes, list[Block]]:
    blocks, place = [], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        blocks.append(Block(content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return content[:8], blocks


def _join_png(head: bytes, blocks: list[Block]) -> bytes:
    return head + b"".join(
        struct.pack(">I", len(one.body)) + one.kind + one.body + struct.pack(">I", zlib.crc32(one.kind + one.body))
        for one in blocks
    )


def _split_jpeg(content: bytes) -> tuple[bytes, list[Block]]:
    blocks, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] not in (0xDA, 0xD9):
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        blocks.append(Block(content[place : place + 2], content[place + 4 : place + 2 + length]))
        place += 2 + length
    return content[:2], [*blocks, Block(b"", content[place:])]


def _join_jpeg(head: bytes, blocks: list[Block]) -> bytes:
    return head + b"".join(
        one.kind + (struct.pack(">H", min(len(one.body) + 2, 65_535)) if one.kind else b"") + one.body for one in blocks
    )


def _split_riff(content: bytes) -> tuple[bytes, list[Block]]:
    blocks, place = [], 12
    while place + 8 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        blocks.append(Block(content[place : place + 4], content[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return content[:12], blocks


def _join_riff(head: bytes, blocks: list[Block]) -> bytes:
    inside = b"".join(
        one.kind + struct.pack("<I", len(one.body)) + one.body + bytes(len(one.body) % 2) for one in blocks
    )
    return head[:4] + struct.pack("<I", len(inside) + 4) + head[8:12] + inside


def _split_boxes(content: bytes) -> tuple[bytes, list[Block]]:
    blocks, place = [], 0
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        length = length if length >= 8 else len(content) - place
        blocks.append(Block(content[place + 4 : place + 8], content[place + 8 : place + length]))
        place += length
    return b"", blocks


def _join_boxes(head: bytes, blocks: list[Block]) -> bytes:
    return head + b"".join(struct.pack(">I", len(one.body) + 8) + one.kind + one.body for one in blocks)


BOXES = Form(
    _split_boxes,
    _join_boxes,
    (b"moov", b"mdat", b"ftyp", b"free", b"meta", b"iprp", b"ispe", b"colr", b"irot", b"iloc", b"udta", b"tkhd",
     b"stsd", b"stco", b"stts", b"elst", b"hdlr", b"uuid", b"jp2h", b"jp2c", b"\0\0\0\0"),
)  # fmt: skip
FORMS: tuple[tuple[Callable[[bytes], bool], Form], ...] = (
    (
        lambda content: content.startswith(PNG),
        Form(
            _split_png,
            _join_png,
            (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"cICP", b"gAMA", b"eXIf", b"acTL", b"fcTL", b"fdAT",
             b"tEXt", b"zTXt", b"iTXt", b"sRGB", b"\0\0\0\0", b"abcd"),
        ),
    ),
    (
        lambda content: content.startswith(b"\xff\xd8"),
        Form(_split_jpeg, _join_jpeg, tuple(b"\xff%c" % kind for kind in (*range(0xC0, 0xD0), *range(0xDB, 0xFF)))),
    ),
    (
        lambda content: content.startswith(b"RIFF"),
        Form(
            _split_riff,
            _join_riff,
            (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"fmt ", b"data", b"LIST", b"fact",
             b"avih", b"strh", b"idx1"),
        ),
    ),
    (lambda content: content[4:8] in (b"ftyp", b"jP  "), BOXES),
)  # fmt: skip


def with_part(content: bytes, start: int, end: int, new: bytes) -> bytes:
    """An MP4 with other bytes from `start` to `end`; the boxes around them say how long they are then."""
    whole = bytearray(content)
    for place in range(start - 8):
        size = int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        known = kind in NESTED or kind == b"data" or kind[:3] == bytes(3)
        if known and size >= 8 and place + size >= end and place + size <= len(content):
            whole[place : place + 4] = struct.pack(">I", size + len(new) - (end - start))
    return bytes(whole[:start]) + new + bytes(whole[end:])
