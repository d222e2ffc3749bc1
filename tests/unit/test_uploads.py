"""Leftovers in the upload folder."""

import os

from wan_ui.ui.uploads import collect


def test_broken_uploads_and_old_files_go(tmp_path):
    now = 1_000_000.0

    def put(name: str, age: float) -> None:
        path = tmp_path / name
        if len(name) == 64:
            path.mkdir()
            (path / "hills.png").write_bytes(b"x")
        else:
            path.write_bytes(b"x")
        os.utime(path, (now - age, now - age))

    put("tmpbroken", 100)
    put("tmparriving", 5)
    put("a" * 64, 100_000)
    put("b" * 64, 1000)
    put("notes.txt", 100_000)
    (tmp_path / "tmplink").symlink_to(tmp_path / "notes.txt")
    assert collect(tmp_path, now) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"tmparriving", "b" * 64, "notes.txt", "tmplink"}
    assert collect(tmp_path / "absent", now) == 0
