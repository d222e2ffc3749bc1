"""The app as users start it, with the model that ships: `python app.py`, a picture, a prompt, a moving clip."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.ui.conftest import App, card_says, generate, shoot, wait_for_playing
from wan_ui import muxer, weights
from wan_ui.catalog import load_catalog
from wan_ui.settings import ROOT, Settings


@pytest.fixture(scope="module")
def real_app(tmp_path_factory):
    model = load_catalog(Settings().catalog)["wan-tiny"]
    missing = weights.availability(model, model.scheme(""), Settings())
    if missing:
        pytest.skip(f"Wan-Tiny cannot run here: {missing}")
    app = App(tmp_path_factory.mktemp("real"), module=None, WAN_UI_CACHE=str(ROOT / "build" / "test-cache"))
    yield app.start()
    app.stop()


def test_wan_tiny_from_the_page(open_page, real_app, picture, tmp_path):
    page = open_page(real_app.url)
    card_says(page, "Ready: Wan-Tiny", 180)
    shoot(page, "30-real-ready")
    page.get_by_role("radio", name="17 · 1.1 s").check()
    generate(page, picture, "zoom in")
    card_says(page, "denoise step", 180)
    shoot(page, "31-real-denoising")
    card_says(page, "Done in", 300)
    wait_for_playing(page)
    page.get_by_text("How it was made").click()
    expect(page.locator(".w-how")).to_contain_text("diffusers")
    shoot(page, "32-real-done")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "clip.mp4")
    frames, _ = muxer.read_frames(tmp_path / "clip.mp4")
    assert len(frames) == 17
    # Something moves, and it is not noise: neighbours are alike, the ends are not.
    first, second, last = (frames[index].astype(np.float32) for index in (0, 1, -1))
    assert np.abs(first - last).mean() > 1.5 * np.abs(first - second).mean() > 0
    maps = Path(f"/proc/{real_app.process.pid}/maps")
    assert not maps.is_file() or "libtorch" not in maps.read_text()  # the page's own process stays light
