"""What a request may bring, before anything parses it."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wan_ui import limits
from wan_ui.ui.body import BodyRefused, check_json, read_body


@pytest.mark.hardening(8, 33)
@pytest.mark.parametrize(
    "text, words",
    [
        (b'{"data":[' + b"[]," * 600_000 + b"[]]}", "at most 5,000 values"),
        (b"[" * 2000, "nested more than 32 deep"),
        (b"[" * 50_000 + b"]" * 50_000, "at most 5,000 values"),
        (b"[" + b"1" * 5000 + b"]", "5,000 digits"),
        (b"[1.5e" + b"1" * 50 + b"]", "50 digits"),
        (b'"' + b'\\"' * 900_000, "cannot be read as JSON"),
        (b'["', "cannot be read"),
        (b"{", "cannot be read"),
        (b'["\xe9"]', "not UTF-8"),
        (b'["\xed\xa0\x80"]', "not UTF-8"),
        ('{"data": []}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_refused(text, words):
    begun = time.process_time()
    with pytest.raises(BodyRefused, match=words):
        check_json(text)
    assert time.process_time() - begun < 10  # not minutes


def test_what_a_page_sends_passes():
    values = {"data": [None, 'zoom, [in] "quoted" {x}', 3, -1.5, True, {"path": "a"}], "session_hash": "x" * 1_000_000}
    assert check_json(json.dumps(values).encode()) == values
    assert check_json(b'["\\ud83d\\ude00", "a\\ud800b", {"\\udfff": 1}]') == ["😀", "a\ufffdb", {"\ufffd": 1}]
    assert check_json(b"[18446744073709551616]") == [2**64]


def receiver(*parts):
    waiting = list(parts)

    async def receive():
        if not waiting:
            await asyncio.sleep(3600)
        return waiting.pop(0)

    return receive


def part(content: bytes, more: bool = False) -> dict:
    return {"type": "http.request", "body": content, "more_body": more}


def run(reading) -> bytes:
    """In a thread of its own: the browser's tests, in the same process, have a loop that runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, reading).result()


@pytest.mark.limit("IDLE_SECONDS")
def test_a_body_is_bounded_whatever_its_header_says(monkeypatch):
    assert run(read_body(receiver(part(b"ab", True), part(b"c")), 3, "3", "json")) == b"abc"
    for length in ("4", "", "x", "9" * 30):
        with pytest.raises(BodyRefused, match="at most 3 bytes") as refused:
            run(read_body(receiver(part(b"ab", True), part(b"cd")), 3, length, "json"))
        assert refused.value.status == 413
    with pytest.raises(BodyRefused, match="broken off"):
        run(read_body(receiver(part(b"ab", True), {"type": "http.disconnect"}), 3, "3", "json"))
    monkeypatch.setattr(limits, "IDLE_SECONDS", 0.05)
    with pytest.raises(BodyRefused, match="did not arrive in time") as refused:
        run(read_body(receiver(part(b"ab", True)), 3, "3", "json"))
    assert refused.value.status == 408
