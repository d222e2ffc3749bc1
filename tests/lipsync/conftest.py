import numpy as np
import pytest
from PIL import Image

from tests.lipsync.random_musetalk import write_musetalk
from wan_ui.settings import ROOT


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder with a small MuseTalk of random weights: faces of 64 pixels, segments of 2 s."""
    return write_musetalk(tmp_path_factory.mktemp("weights") / "musetalk", seconds=2)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(240, 240, 3) uint8 RGB: a person whose face is about 90 pixels wide."""
    image = Image.open(ROOT / "assets/examples/astronaut.jpg").convert("RGB")
    return np.asarray(image.crop((100, 0, 340, 240)))


def tone(seconds: float, rate: int = 16_000, hertz: float = 220.0, level: float = 0.3) -> np.ndarray:
    """(n,) float32"""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
