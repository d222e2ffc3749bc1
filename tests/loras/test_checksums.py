"""LoRAs by what is in them: what a clip says of its own, and what a stranger's says."""

import hashlib
import json

from tests import lora_files
from wan_ui.loras import checksums
from wan_ui.loras.folder import scan
from wan_ui.request import LoraSpec
from wan_ui.settings import Settings


def test_a_file_is_found_under_another_name_and_a_changed_one_is_not(tmp_path):
    shapes = {"blocks.0.self_attn.q.weight": (8, 8)}
    for name, seed in (("sepia.safetensors", 1), ("noir.safetensors", 2)):
        lora_files.write(tmp_path / name, shapes, seed=seed)
    settings = Settings(loras=tmp_path)
    content = checksums.to_carry([LoraSpec("sepia.safetensors"), LoraSpec("gone.safetensors")], settings)
    known = checksums.read(content)
    raw = (tmp_path / "sepia.safetensors").read_bytes()
    assert known == {"sepia.safetensors": {(len(raw), hashlib.sha256(raw).hexdigest())}}
    files = known["sepia.safetensors"]
    assert checksums.find("sepia.safetensors", files, scan(tmp_path)).name == "sepia.safetensors"
    (tmp_path / "sepia.safetensors").rename(tmp_path / "brown.safetensors")
    assert checksums.find("sepia.safetensors", files, scan(tmp_path)).name == "brown.safetensors"
    (tmp_path / "brown.safetensors").rename(tmp_path / "sepia.safetensors")
    (tmp_path / "noir.safetensors").rename(tmp_path / "sepia.safetensors")  # another file of the same name and size
    assert checksums.find("sepia.safetensors", files, scan(tmp_path)) is None


def test_what_a_stranger_says_of_loras_is_read_as_far_as_it_goes():
    digest = "ab" * 32
    good = {"file": "a", "files": [{"size": 3, "sha256": digest}, {"size": 3, "sha256": "../x"}, 7, {"size": -1}]}
    assert checksums.read(json.dumps([good, 7, {"file": 3}, {"file": "b", "files": "all"}]).encode()) == {
        "a": {(3, digest)}
    }
    for content in (b"", b"\xff\xfe", b"{}", b"3", b"[" * 100_000, b'[{"file": "a", "files": [{"size": 1e400}]}]'):
        assert checksums.read(content) == {}
