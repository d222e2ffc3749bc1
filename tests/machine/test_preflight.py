"""What a machine may lack is said in one line before anything starts, with the variable to set."""

import ast
import io
import socket
import sys
import tempfile
from collections import namedtuple
from dataclasses import replace

import pytest

from wan_ui.errors import UserError
from wan_ui.machine import preflight
from wan_ui.settings import ROOT, Settings


@pytest.fixture
def values(tmp_path) -> Settings:
    return Settings(outputs=tmp_path / "outputs", cache=tmp_path / "cache")


def test_folders_that_can_be_written_are_made(values):
    preflight.check_folders(values)
    assert values.outputs.is_dir() and values.cache.is_dir() and not list(values.outputs.iterdir())


@pytest.mark.parametrize("name", ["outputs", "cache"])
def test_a_folder_that_cannot_be_written_is_named_with_its_variable(values, name):
    # Root may write everywhere, but nobody makes a folder in /proc.
    with pytest.raises(UserError, match=rf"^{name}: /proc/wan-ui cannot be written \(.*\); set WAN_UI_{name.upper()}"):
        preflight.check_folders(replace(values, **{name: "/proc/wan-ui"}))


def test_a_full_disk_is_seen(values, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(
        UserError, match=r"^outputs: .* cannot be written \(No space left on device\); set WAN_UI_OUTPUTS"
    ):
        preflight.check_folders(values)


def test_a_full_or_missing_folder_of_temporary_files_is_said(values, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 97, 3e6)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"temporary files: only 3 MB are free in .*; set TMPDIR"):
        preflight.check_folders(values)

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(UserError, match="temporary files: none of the usual folders can be written; set TMPDIR"):
        preflight.check_folders(values)


def test_what_cannot_be_listened_on(values):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port: {port} is in use by another program; .*WAN_UI_PORT"):
            preflight.check_port(replace(values, port=port))
    for host in ("203.0.113.7", "no-such-name.invalid", "2001:db8::7"):
        with pytest.raises(UserError, match=f"^host: cannot listen on {host}, port .*; set WAN_UI_HOST"):
            preflight.check_port(replace(values, host=host))


def test_a_terminal_without_a_character_gets_a_question_mark(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    preflight.say_anything()
    print("“clip” \udce9", flush=True)
    assert written.getvalue() == b"?clip? ?\n"


def test_files_are_read_and_written_as_utf_8_whatever_the_locale():
    """Python's default is the locale's encoding, GBK or Latin-1 on some machines."""
    wrong = []
    for path in (ROOT / "app.py", *(ROOT / "wan_ui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            mode = ast.unparse(node.args[1]) if name == "open" and len(node.args) > 1 else given.get("mode", "'r'")
            text = name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute)
            text |= given.get("text") == "True"
            text |= name == "open" and isinstance(node.func, ast.Name) and "b" not in mode
            if text and "encoding" not in given:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong
