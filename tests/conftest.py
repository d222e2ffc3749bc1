"""Shared fixtures: settings in a temporary folder, a catalog entry for the scripted engine, a picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wan_ui import weights
from wan_ui.settings import ROOT, Settings

SCRIPTED = """
[scripted]
title = "Scripted engine"
family = "a14b"
root = "embedded:{root}"
needs_gpu = false
sizes = ["64x64", "96x64", "64x96"]
frames = [5, 9]
default_frames = 5
steps = [1, 8]
default_steps = 4
shift = 5.0
boundary = 0.9
fps = 16
default_scheme = "bf16"
schemes.bf16 = {{ title = "bf16", kind = "bf16" }}
schemes.fp8 = {{ title = "fp8", kind = "fp8" }}
schemes.slow = {{ title = "slow", kind = "bf16" }}
"""


def pytest_addoption(parser):
    parser.addoption("--store", action="store_true", help="write the reference numbers again, where a test makes some")


def pytest_collection_modifyitems(config, items):
    """With two processes (pytest -n 2 --dist loadgroup) one has the browser, which waits a lot, the other the rest."""
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            folder = item.path.relative_to(ROOT / "tests").parts[0]
            item.add_marker(pytest.mark.xdist_group("browser" if folder in ("ui", "cold") else "rest"))


@pytest.fixture
def scripted_settings(tmp_path) -> Settings:
    """Settings whose only model is the scripted one; everything lives in tmp_path."""
    root = tmp_path / "scripted-model"
    names = ["high_noise_model/config.json", "low_noise_model/config.json", weights.T5_FILE, weights.VAE_FILE]
    names += [*weights.TOKENIZER_FILES, "HighNoise/x-Q8_0.gguf", "LowNoise/x-Q8_0.gguf"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(SCRIPTED.format(root=root))
    return Settings(
        outputs=tmp_path / "outputs",
        models=tmp_path / "models",
        cache=tmp_path / "cache",
        catalog=catalog,
        model="scripted",
        stage_timeout=60,
    )


@pytest.fixture
def tiny_settings(tmp_path) -> Settings:
    """Settings for the real embedded model; the derived weights are kept between tests."""
    if not list((ROOT / "assets" / "wan-tiny").glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    return replace(Settings(), outputs=tmp_path / "outputs", cache=Path(ROOT / "build" / "test-cache"))


@pytest.fixture
def picture(tmp_path) -> Path:
    """A small smooth picture."""
    y, x = np.mgrid[0:120, 0:160] / 160
    pixels = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    path = tmp_path / "picture.png"
    Image.fromarray((pixels * 255).astype(np.uint8)).save(path)
    return path
