"""What an MP4 carries behind its clip: it stays a clip, and a file of anything is read within its bounds."""

import json
import struct

import numpy as np
import pytest

from wan_ui import limits
from wan_ui.media import carried, muxer

FRAMES = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 32, 48, 3), 40, np.uint8)


@pytest.fixture
def clip(tmp_path):
    muxer.write_mp4(FRAMES, tmp_path / "clip.mp4", 16, {"prompt": "a lake"})
    return tmp_path / "clip.mp4"


def test_what_is_carried_comes_back_and_the_clip_is_as_it_was(clip):
    frames, plain = muxer.read_frames(clip)[0], clip.read_bytes()
    assert carried.read(clip) == {}
    files = {"image": b"\x89PNG picture", "loras": json.dumps([1]).encode()}
    carried.append(clip, files)
    assert carried.read(clip) == files
    assert clip.read_bytes().startswith(plain)
    assert np.array_equal(muxer.read_frames(clip)[0], frames)
    assert muxer.read_metadata(clip) == {"prompt": "a lake"} and muxer.examine(clip) == (5, 48, 32)
    muxer.write_metadata(clip, {"prompt": "a river"})
    assert muxer.read_metadata(clip) == {"prompt": "a river"} and carried.read(clip) == files


def test_a_disk_that_is_full_leaves_the_clip_as_it_was(clip, monkeypatch):
    before = clip.read_bytes()
    limited = type("Limited", (), {})
    opened = type(clip).open

    def full(path, mode="r", *args, **more):
        file = opened(path, mode, *args, **more)
        if mode != "r+b":
            return file
        limited.file = file
        write = file.write

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def __getattr__(self, name):
                return getattr(file, name)

            def write(self, content):
                write(content[:10])
                raise OSError(28, "No space left on device")

        return Full()

    monkeypatch.setattr(type(clip), "open", full)
    carried.append(clip, {"image": b"x" * 1000})
    assert clip.read_bytes() == before


def box(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", 8 + len(body) if size is None else size, kind) + body


OURS = carried.OURS + b"\x05image"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", {}),
        (b"\0" * 7, {}),
        (b"\0" * 64, {}),
        (box(b"uuid", OURS + b"abc"), {"image": b"abc"}),
        (box(b"free", b"x") + box(b"uuid", OURS + b"abc"), {"image": b"abc"}),
        (box(b"uuid", OURS + b"abc", 0), {"image": b"abc"}),  # as far as the file goes
        (struct.pack(">I4sQ", 1, b"uuid", 16 + len(OURS) + 3) + OURS + b"abc", {"image": b"abc"}),
        (struct.pack(">I4sQ", 1, b"uuid", 2**63) + OURS + b"abc", {}),
        (struct.pack(">I4sQ", 1, b"free", 0) + box(b"uuid", OURS + b"abc"), {}),
        (box(b"uuid", OURS + b"abc")[:-1], {}),  # cut off
        (box(b"uuid", OURS + b"abc", 7) * 2, {}),
        (box(b"uuid", OURS + b"abc", 2**32 - 1), {}),
        (box(b"uuid", OURS), {}),  # empty
        (box(b"uuid", carried.OURS), {}),
        (box(b"uuid", carried.OURS + b"\xff" + b"name"), {}),  # a name that is longer than what is there
        (box(b"uuid", carried.OURS + b"\x02\xc3\xa9abc"), {}),
        (box(b"uuid", b"\0" * 16 + b"\x05imageabc"), {}),  # somebody else's
        (box(b"uuid", OURS + b"abc") + box(b"uuid", OURS + b"xyz"), {"image": b"abc"}),
    ],
    ids=range(18),
)
def test_a_file_of_anything_is_read_as_far_as_it_goes(tmp_path, content, found):
    (tmp_path / "any.mp4").write_bytes(content)
    assert carried.read(tmp_path / "any.mp4") == found
    assert carried.read(tmp_path / "none.mp4") == {} and carried.read(tmp_path) == {}


def test_no_more_boxes_are_looked_at_than_a_film_has(tmp_path):
    (tmp_path / "many.mp4").write_bytes(box(b"free", b"") * carried.BOXES + box(b"uuid", OURS + b"abc"))
    assert carried.read(tmp_path / "many.mp4") == {}


def test_what_is_too_large_is_neither_written_nor_read(clip, monkeypatch):
    carried.append(clip, {"image": b"x" * 101})
    monkeypatch.setattr(limits, "CARRIED_BYTES", 100)
    assert carried.read(clip) == {}
    before = clip.read_bytes()
    carried.append(clip, {"image": b"x" * 101})
    assert clip.read_bytes() == before
