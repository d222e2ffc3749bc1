"""What leaves the machine carries no folder, name or secret of it."""

import shutil
import time

import pytest

from wan_ui.loras.folder import SHIPPED
from wan_ui.reports.own_files import clean_files
from wan_ui.scrub import clean
from wan_ui.settings import Settings


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(outputs=tmp_path / "out", loras=tmp_path / "my loras", models=tmp_path / "models")


@pytest.mark.parametrize(
    "text",
    [
        "/opt/privat/models/x is missing",
        "cannot open /nas/privat/x.safetensors",
        "/workspace/privat: no such file",
        "[Errno 2] No such file or directory: '/nas/My privat/a b.pth'",
        "reading /nas/My privat files/x.bin failed",
        r"C:\Users\privat\models\x.gguf is damaged",
        r"D:/privat/x and E:\My privat\y.bin",
        r"\\server\privat\x.bin",
        "at ~/privat/x",
        "file:///privat/x",
        "PATH=/usr/bin:/privat/bin",
        "(/privat)",
        "path:/privat/x",
        '"/privat/x y z"',
    ],
)
def test_paths_go(settings, text):
    assert "privat" not in clean(text, settings)


@pytest.mark.parametrize(
    "text",
    [
        "matched 80/80 layers, high noise and/or low noise",
        "https://huggingface.co/Wan-AI/Wan2.2/resolve/main/x.safetensors",
        "image/png, 12.3 it/s, n/a, 1 / 2",
        "frames: 5 is not a whole number",
        "<outputs>/clips",
    ],
)
def test_other_words_stay(settings, text):
    assert clean(text, settings) == text


def test_known_folders_have_names(settings):
    assert clean(f"in {settings.outputs}/clips, {settings.models}/x", settings) == "in <outputs>/clips, <models>/x"


def test_names_of_own_files_go_those_of_the_catalog_stay(settings):
    settings.loras.mkdir()
    mine = settings.loras / "My privat style.safetensors"
    shutil.copyfile(next(SHIPPED.glob("*teal*.safetensors")), mine)
    words = f"loras: {mine.name} cannot be used; grandma.jpg; {mine}; Wan2.1_VAE.pth"
    cleaned = clean_files(words, settings)
    assert "My privat" not in cleaned and "grandma" not in cleaned and "<file>.jpg" in cleaned


def test_it_is_quick_whatever_the_text(settings):
    for text in ("/" * 50_000, "a b " * 20_000, "/a b" * 10_000, "'/" * 20_000, r"C:\a b" * 5_000, "/a" * 30_000):
        begun = time.process_time()
        clean(text, settings)
        assert time.process_time() - begun < 20
