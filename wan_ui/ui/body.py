"""How much a request may bring. Checked before anything parses it: a parser is where the memory goes.

A page or a program sends a few dozen values; 15 MB of empty lists would hold the page for half a minute.
"""

import asyncio
import json
import re
import time

from wan_ui import limits
from wan_ui.valid_text import valid_text

DRAIN_BYTES, DRAIN_SECONDS = 300_000_000, 10.0  # of a refused body, read and dropped so that the answer is heard

# The closing quote may be missing and nothing is tried twice: linear whatever the text.
STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
BRACKET, NUMBER = re.compile(r"[\[\]{}]"), re.compile(r"[0-9]+")


class BodyRefused(Exception):
    """status: of the answer."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


async def next_part(receive, deadline: float) -> dict:
    """The next message of a body. Raises BodyRefused when nothing comes."""
    try:
        return await asyncio.wait_for(receive(), max(0.01, min(limits.IDLE_SECONDS, deadline - time.monotonic())))
    except TimeoutError:
        raise BodyRefused(408, "The request did not arrive in time; send it again.") from None


def in_time(receive, seconds: float):
    """The same messages, as long as they come in time: BodyRefused is raised then."""
    deadline, ended = time.monotonic() + seconds, False

    async def timed() -> dict:
        nonlocal ended
        if ended:
            return await receive()
        part = await next_part(receive, deadline)
        ended = not part.get("more_body")
        return part

    return timed


async def read_body(receive, limit: int, length: str, what: str) -> bytes:
    """A whole body of at most `limit` bytes. length: what its header says. Raises BodyRefused."""
    words = f"{what}: at most {limit:,} bytes are taken in one request."
    deadline = time.monotonic() + limits.JSON_SECONDS
    if length.isdigit() and len(length) < 20 and int(length) > limit:
        await drain(receive)
        raise BodyRefused(413, words)
    body = bytearray()
    while True:
        part = await next_part(receive, deadline)
        if part["type"] == "http.disconnect":
            raise BodyRefused(400, "The request was broken off.")
        body += part.get("body", b"")
        if len(body) > limit:
            if part.get("more_body"):
                await drain(receive)
            raise BodyRefused(413, words)
        if not part.get("more_body"):
            return bytes(body)


async def drain(receive) -> None:
    """Read on and drop it, for a while: a client that is still sending does not hear an answer."""
    dropped, deadline = 0, time.monotonic() + DRAIN_SECONDS
    while dropped < DRAIN_BYTES and time.monotonic() < deadline:
        try:
            part = await next_part(receive, deadline)
        except BodyRefused:
            return
        dropped += len(part.get("body", b""))
        if part["type"] == "http.disconnect" or not part.get("more_body"):
            return


def check_json(body: bytes):
    """The values of a JSON text, every string made valid. Raises BodyRefused."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BodyRefused(400, "json: the request's body is not UTF-8.") from None
    bare = STRING.sub('""', text)
    brackets = BRACKET.findall(bare)
    if len(brackets) // 2 + bare.count(",") > limits.JSON_VALUES:
        raise BodyRefused(413, f"json: at most {limits.JSON_VALUES:,} values are taken in one request.")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in "[{" else -1
        if depth > limits.JSON_DEPTH:
            raise BodyRefused(400, f"json: values are nested more than {limits.JSON_DEPTH} deep.")
    longest = max(map(len, NUMBER.findall(bare)), default=0)
    if longest > limits.JSON_DIGITS:
        raise BodyRefused(400, f"json: a number has {longest:,} digits; at most {limits.JSON_DIGITS} are taken.")
    try:
        return map_strings(json.loads(text), valid_text)
    except (ValueError, RecursionError):
        raise BodyRefused(400, "json: the request's body cannot be read as JSON.") from None


def map_strings(value, change):
    """`change` on every string of JSON values, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_strings(entry, change) for entry in value]
    if isinstance(value, dict):
        return {change(key): map_strings(entry, change) for key, entry in value.items()}
    return value
