"""Damaged and hostile weight files: a UserError that names the file, in under a second."""

import json
import re
import struct
import time
import tracemalloc

import pytest

from wan_ui.errors import UserError
from wan_ui.files.dit_file import read_parameters
from wan_ui.files.headers import check_pth, expert_side, gguf_header, read_header, safetensors_header


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def gguf(*, version=3, tensors=0, metadata=0, body=b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, metadata) + body


def tensor(name=b"x", dims=(32,), kind=0, offset=0, n_dims=None) -> bytes:
    n_dims = len(dims) if n_dims is None else n_dims
    return string(name) + struct.pack("<I", n_dims) + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


BAD_GGUF = {
    "empty": (b"", "ends early"),
    "other magic": (b"GGML" + bytes(60), "no GGUF magic"),
    "version": (gguf(version=99), "version 99"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
    "tensor count": (gguf(tensors=2**63), "9223372036854775808 tensors"),
    "metadata count": (gguf(metadata=2**63), "metadata entries"),
    "truncated counts": (gguf()[:-4], "ends early"),
    "string of 2^63 bytes": (gguf(metadata=1, body=struct.pack("<Q", 2**63)), "string of"),
    "metadata type": (gguf(metadata=1, body=string(b"a") + struct.pack("<I", 77)), "unknown type 77"),
    "array of 2^62 numbers": (gguf(metadata=1, body=string(b"a") + struct.pack("<IIQ", 9, 4, 2**62)), "ends early"),
    "array of 2^62 strings": (gguf(metadata=1, body=string(b"a") + struct.pack("<IIQ", 9, 8, 2**62)), "array of"),
    # nested arrays recurse in gguf-py; the 43 bytes on which it hangs are of this kind
    "array of arrays": (gguf(metadata=1, body=string(b"a") + struct.pack("<IIQ", 9, 9, 2**40)), "array of"),
    "43 bytes": (gguf(metadata=1, body=string(b"a") + struct.pack("<IIQ", 9, 9, 2**40))[:43], "ends early"),
    "dimensions": (gguf(tensors=1, body=tensor(n_dims=2**31)), "dimensions"),
    "GGML type": (gguf(tensors=1, body=tensor(kind=999)), "unknown GGML type 999"),
    "blocks": (gguf(tensors=1, body=tensor(dims=(33,), kind=8)), "do not divide into Q8_0 blocks"),
    "data missing": (gguf(tensors=1, body=tensor()), "truncated"),
    "huge dims": (gguf(tensors=1, body=tensor(dims=(2**40, 2**40))), "truncated"),
    "twice": (gguf(tensors=2, body=tensor(dims=(0,)) * 2 + bytes(64)), "appears twice"),
    "overlapping": (gguf(tensors=2, body=tensor(b"x") + tensor(b"y") + bytes(200)), "does not fit the tensor before"),
    "not aligned": (gguf(tensors=1, body=tensor(offset=4) + bytes(200)), "does not fit the tensor before"),
    "a hole": (gguf(tensors=1, body=tensor(offset=64) + bytes(400)), "does not fit the tensor before"),
    "a dimension of 2^60": (gguf(tensors=1, body=tensor(dims=(0, 2**60))), "dimension"),
    "alignment true": (
        gguf(metadata=1, body=string(b"general.alignment") + struct.pack("<I?", 7, True)),
        "alignment True",
    ),
    "alignment": (gguf(metadata=1, body=string(b"general.alignment") + struct.pack("<II", 4, 0)), "alignment 0"),
}


@pytest.mark.hardening(12)
@pytest.mark.parametrize("case", BAD_GGUF)
def test_bad_gguf(case, tmp_path):
    pytest.importorskip("gguf")
    content, words = BAD_GGUF[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(UserError, match=r"bad\.gguf.*damaged") as error:
        read_header(path)
    assert words in str(error.value)
    assert time.process_time() - started < 20  # not the minutes and gigabytes that its counts promise


def safetensors(header, data=b"", length=None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin=0, end=8, dtype="F32", shape=(2,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


BAD_SAFETENSORS = {
    "empty": (b"", "not a safetensors file"),
    "short": (b"\0\0", "not a safetensors file"),
    "header of 100 MB": (safetensors(b"{}", length=10**8), "header of 100000000 bytes"),
    "header of 2^63": (safetensors(b"{}", length=2**63), "not a safetensors file"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "pickle": (b"PK\x03\x04" + bytes(200), "not a safetensors file"),
    "not JSON": (safetensors(b"{nope}"), "is not JSON"),
    "deep JSON": (safetensors(b"[" * 200_000), "is not JSON"),
    "a list": (safetensors([1]), "is not a table"),
    "no offsets": (safetensors({"x": {"dtype": "F32"}}), "without dtype"),
    "text offsets": (safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}}), "no sizes"),
    "unknown type": (safetensors({"x": entry(dtype="Z9")}, bytes(8)), "unknown type 'Z9'"),
    "shape": (safetensors({"x": entry(shape=(3,))}, bytes(8)), "do not fit shape"),
    "hole": (safetensors({"x": entry(4, 12)}, bytes(12)), "does not fit"),
    "overlap": (safetensors({"x": entry(), "y": entry(4, 12)}, bytes(12)), "does not fit"),
    "negative shape": (safetensors({"x": entry(shape=(-1, -2))}, bytes(8)), "no sizes"),
    "float shape": (safetensors({"x": entry(shape=(2.0,))}, bytes(8)), "no sizes"),
    "bool shape": (safetensors({"x": entry(0, 4, shape=(True,))}, bytes(4)), "no sizes"),
    "bool offsets": (safetensors({"x": entry(False, 8)}, bytes(8)), "no sizes"),
    "shape of 4,000 digits": (safetensors({"x": entry(shape=(10**4000, 10**4000))}, bytes(8)), "no sizes"),
    "shape of 5,000 digits": (safetensors(b'{"x": {"shape": [' + b"9" * 5000 + b"]}}"), "is not JSON"),
    "a list as type": (safetensors({"x": entry() | {"dtype": [1]}}, bytes(8)), "unknown type"),
    "text as entry": (safetensors({"x": "y"}, bytes(8)), "without dtype"),
    "half of a surrogate pair": (
        safetensors(b'{"\\ud800": ' + json.dumps(entry()).encode() + b"}", bytes(8)),
        "is called",
    ),
    "header of 17 MB": (safetensors(b" " * 17_000_000), "17 MB"),
    "truncated": (safetensors({"x": entry()}, bytes(7)), "truncated"),
    "trailing": (safetensors({"x": entry()}, bytes(9)), "too long"),
    "twice": (safetensors(b'{"x": 1, "x": 2}'), "a name twice"),
}


@pytest.mark.hardening(13)
@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_bad_safetensors(case, tmp_path):
    content, words = BAD_SAFETENSORS[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.safetensors.*damaged") as error:
        read_header(path)
    assert words in str(error.value)


def test_good_files(tmp_path):
    path = tmp_path / "good.safetensors"
    path.write_bytes(safetensors({"__metadata__": {"a": "b"}, "y": entry(8, 16), "x": entry()}, bytes(16)))
    header = safetensors_header(path)
    assert header.metadata == {"a": "b"} and list(header.tensors) == ["x", "y"]
    assert header.tensors["y"].offset == path.stat().st_size - 8

    path.write_bytes(
        safetensors(b'{"__metadata__": {"a": 1e999, "b": [1], "c": "\\ud800", "d": ' + b"9" * 4000 + b"}}")
    )
    assert safetensors_header(path).metadata == {"c": "\ufffd"}

    gguf_library = pytest.importorskip("gguf")
    import numpy as np

    writer = gguf_library.GGUFWriter(tmp_path / "good.gguf", "wan")
    writer.add_array("list", ["a", "b"])
    writer.add_tensor("x", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf_header(tmp_path / "good.gguf")
    info = header.tensors["x"]
    assert header.metadata == {"general.architecture": "wan", "list": ["a", "b"]} and info.shape == (2, 32)
    stored = np.fromfile(tmp_path / "good.gguf", np.float32, offset=info.offset, count=64)
    assert np.array_equal(stored, np.arange(64))


@pytest.mark.hardening(12)
def test_long_arrays_cost_nothing(tmp_path):
    """40 MB of numbers and a tokenizer's words in the metadata: passed over."""
    words = string(b"tokens") + struct.pack("<IIQ", 9, 8, 50_000) + string(b"ab") * 50_000
    numbers = string(b"numbers") + struct.pack("<IIQ", 9, 4, 10_000_000) + bytes(40_000_000)
    shape = string(b"comfy.gguf.orig_shape.x") + struct.pack("<IIQ5i", 9, 5, 5, 1, 2, 3, 4, 5)
    path = tmp_path / "long.gguf"
    path.write_bytes(gguf(metadata=3, body=words + numbers + shape))
    tracemalloc.start()
    header = gguf_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.metadata == {"comfy.gguf.orig_shape.x": [1, 2, 3, 4, 5]} and peak < 10_000_000
    path.write_bytes(gguf(metadata=1, body=string(b"text") + string(b"y" * 17_000_000).join((b"\x08\0\0\0", b""))))
    with pytest.raises(UserError, match="string of 17000000"):
        gguf_header(path)


@pytest.mark.hardening(11)
def test_pth(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match=r"x\.pth: not a torch checkpoint"):
        check_pth(tmp_path / "x.pth")
    with pytest.raises(UserError, match="file not found"):
        check_pth(tmp_path / "y.pth")


@pytest.mark.parametrize(
    ("name", "metadata", "side"),
    [
        ("wan2.2_i2v_A14b_high_noise_lightx2v_4step.safetensors", {}, "high"),
        ("Wan2.2-I2V-A14B-LowNoise-Q4_K_M.gguf", {}, "low"),
        ("renamed_low_noise.gguf", {"general.name": "wan high_noise"}, "high"),
        ("high-noise.gguf", {"general.name": "Wan-Tiny I2V", "general.alignment": 32}, "high"),
        ("high_noise_and_low_noise.gguf", {}, ""),
        ("dit.gguf", {}, ""),
    ],
)
def test_expert_side(name, metadata, side, tmp_path):
    assert expert_side(tmp_path / name, metadata) == side


CONFIG = {"dim": 16, "ffn_dim": 8, "num_layers": 1, "in_dim": 16, "out_dim": 16, "num_heads": 2}
ANIMATE = {"model_type": "animate", "face_size": 16, "motion_encoder_dim": 8, "face_width": 8, "clip_width": 8}


@pytest.mark.hardening(13)
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_heads": 0}, "num_heads is 0 where dim is 16"),
        ({"num_heads": 3}, "num_heads is 3 where dim is 16"),
        ({"num_heads": "2"}, "num_heads is '2' where dim is 16"),
        ({"dim": 16.0}, "num_heads is 2 where dim is 16.0"),
        ({**ANIMATE, "face_size": 16.0}, "face_size is 16.0"),
        ({**ANIMATE, "face_size": float("inf")}, "face_size is inf"),
        ({"ffn_dim": None}, "a size of None"),
    ],
)
def test_a_config_whose_numbers_make_no_model(changed, words, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | ANIMATE if "face_size" in changed else CONFIG))
    assert "head.head.weight" in read_parameters(path)
    path.write_text(json.dumps(CONFIG | changed))
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        read_parameters(path)
    assert str(refused.value).startswith(f"{path}: not a WanModel config")
