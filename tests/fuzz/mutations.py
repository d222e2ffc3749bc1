"""One input made from others: bytes that are wrong here and there, texts with other words in them, JSON values that
nobody expects. All of it follows from the random numbers that are given."""

import json
import re
import struct
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    16,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    1023,
    1024,
    4096,
    32767,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**48,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    10**9,
    10**18,
    10**30,
)
TOKENS = (
    "0",
    "-1",
    "1e999",
    "-0.0",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e-400",
    "9" * 30,
    "9" * 5000,
    "null",
    "true",
    "false",
    '""',
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    '{"":{}}',
    '"\\ud800"',
    '"\\u0000"',
    '"\\uffff"',
    '"x"',
    '"../../etc/passwd"',
    "'",
    '"' + "x" * 3000 + '"',
    "[" * 2000,
    "{" * 50,
    '{"a":' * 1200,
    "²",
    "nan",
    "1_000",
    "0x10",
    '"F8_E4M3"',
    '"F4"',
    '"__metadata__"',
    '"1"',
    '"both"',
    '"\\u202e"',
    "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
    '"<script>"',
    '"%s%n"',
    '"\\n"',
)
TEXTS = (
    "",
    " ",
    "x",
    "\0",
    "\ud800",
    "\u202e",
    "..",
    "../../etc/passwd",
    "/",
    "/dev/zero",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "²",
    "1_0",
    "9" * 400,
    "x" * 5000,
    "\n",
    "a|b|c",
    "|",
    ":" * 9,
    "auto",
    "both",
    "file:///etc/passwd",
    "http://127.0.0.1/",
    "http://a..b/",
    "https://%s/x?y=z" % ("x" * 70),
    "https://[::1]:99999/",
    "http://[fe80::1%25lo]:80/",
    "0x0",
    "256x256",
    "99999999x1",
    "x.safetensors:1:2:3",
    "true",
    "None",
    "é" * 300,
    "\x1b[31m",
    "%s",
    "{x}",
    "<b>",
    "'; --",
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.]+(?:[eE][+-]?[0-9]+)?|true|false|null|[{}\[\],:=]|[\w.-]+')


def of_bytes(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """Damage as disks, programs and enemies do it: a few places, each in its own way."""
    content = bytearray(base)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        # Most of what is decided stands at the beginning.
        end = len(content) if random.random() < 0.4 else min(len(content), 400)
        place = random.randrange(end + 1)
        match random.randrange(10):
            case 0 if content:
                content[place % len(content)] ^= 1 << random.randrange(8)
            case 1 if content:
                content[place % len(content)] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
            case 2 | 3:
                code, size = random.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8)))
                number = random.choice(NUMBERS) % 2 ** (8 * size)
                content[place : place + size] = struct.pack(random.choice("<>") + code, number)
            case 4:
                del content[place : place + random.choice((1, 2, 4, 8, 100, 10_000))]
            case 5:
                part = content[place : place + random.choice((1, 4, 8, 30, 300))]
                content[place:place] = part * random.choice((1, 1, 2, 50))
            case 6:
                content[place:place] = random.randbytes(random.choice((1, 4, 8, 64)))
            case 7:
                del content[random.randrange(len(content) + 1) :]
            case 8:
                other = random.choice(others)
                start = random.randrange(len(other) + 1)
                content[place : place + random.choice((0, 40))] = other[start : start + random.choice((8, 60, 500))]
            case _:
                content = bytearray(exchange(random, bytes(content[:20_000]))) + content[20_000:]
    return bytes(content)


def of_text(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """A text whose words are exchanged; now and then its bytes."""
    if random.random() < 0.25:
        return of_bytes(random, base, others)
    for _ in range(random.choice((1, 1, 2, 4))):
        base = exchange(random, base)
    return base


def exchange(random: Random, text: bytes) -> bytes:
    tokens = list(_TOKEN.finditer(text))
    if not tokens:
        return text
    one = random.choice(tokens)
    new = random.choice((*TOKENS, str(random.choice(NUMBERS)))).encode("utf-8", "surrogatepass")
    match random.randrange(4):
        case 0:
            new = random.choice(tokens).group()
        case 1:
            new = b""
    return text[: one.start()] + new + text[one.end() :]


def of_values(random: Random, base: bytes, others: list[bytes]) -> bytes:
    """A JSON object of which some values are others, some are gone and some are new."""
    if random.random() < 0.05:
        return of_text(random, base, others)
    values = json.loads(base)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        change(random, values)
    return json.dumps(values).encode()


def change(random: Random, values: Any) -> None:
    places = list(values) if isinstance(values, dict) else list(range(len(values)))
    if not places or random.random() < 0.05:
        if isinstance(values, dict):
            values[random.choice(TEXTS)] = value(random)
        else:
            values.append(value(random))
        return
    place = random.choice(places)
    if isinstance(values[place], dict | list) and values[place] and random.random() < 0.6:
        change(random, values[place])
    elif random.random() < 0.1:
        del values[place]
    else:
        values[place] = value(random)


def value(random: Random, depth: int = 0) -> Any:
    """Of any type that JSON has."""
    match random.randrange(9 if depth < 3 else 6):
        case 0:
            return random.choice(NUMBERS) * random.choice((1, 1, -1))
        case 1:
            return random.choice((0.5, -0.5, 1e300, -1e300, float("nan"), float("inf"), 5e-324, 16.0, 1e18))
        case 2 | 3:
            return random.choice(TEXTS)
        case 4:
            return random.choice((True, False, None))
        case 5:
            return "".join(
                chr(random.choice((65, 0xE9, 0x4E2D, 0x1F600, 0xD800, 10, 0, 34))) for _ in range(random.randrange(9))
            )
        case 6:
            return [value(random, depth + 1) for _ in range(random.randrange(5))]
        case 7:
            return {random.choice(TEXTS): value(random, depth + 1) for _ in range(random.randrange(4))}
        case _:
            deep: Any = value(random, 9)
            for _ in range(random.choice((3, 30, 300))):
                deep = [deep] if random.random() < 0.5 else {"a": deep}
            return deep
