"""The app as users start it, with the model that ships: `python app.py`, a picture, a prompt, a moving clip."""

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests import lora_files
from tests.ui.conftest import App, card_says, generate, shoot, until, wait_for_playing
from wan_ui.catalog import load_catalog
from wan_ui.files import places
from wan_ui.files.dit_file import read_parameters
from wan_ui.media import muxer
from wan_ui.settings import ROOT, Settings


@pytest.fixture(scope="module")
def real_app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    model = load_catalog(Settings().catalog)["wan-tiny"]
    missing = places.availability(model, model.scheme(""), Settings())
    if missing:
        pytest.skip(f"Wan-Tiny cannot run here: {missing}")
    (folder / "loras").mkdir()
    lora_files.write(folder / "loras" / "odd.safetensors", shapes(model), rank=4, size=0.3)
    folders = {"WAN_UI_CACHE": str(ROOT / "build" / "test-cache"), "WAN_UI_LORAS": str(folder / "loras")}
    app = App(folder, module=None, **folders)
    yield app.start()
    app.stop()


def test_wan_tiny_from_the_page(open_page, real_app, picture, tmp_path):
    page = open_page(real_app.url)
    card_says(page, "Ready: Wan-Tiny", 180)
    shoot(page, "30-real-ready")
    page.get_by_role("radio", name="17 · 1.1 s").check()
    generate(page, picture, "zoom in")
    card_says(page, re.compile("denoise step|Done in"), 300)  # a busy browser may miss the steps of a second or two
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


def shapes(model) -> dict:
    return read_parameters(ROOT / model.root.partition(":")[2] / "high_noise_model" / "config.json")


def test_a_lora_changes_the_clip_by_its_strength_and_goes_without_a_trace(open_page, real_app, picture):
    page = open_page(real_app.url)
    page.get_by_role("radio", name="17 · 1.1 s").check()
    page.fill("#seed input", "5")
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    page.fill("#prompt textarea", "pan left")
    page.locator("#steps input[type=number]").fill("2")

    def clip() -> np.ndarray:
        """What the page plays after Generate."""
        before = set(real_app.jobs())
        page.click("#generate")
        until(page, lambda: set(real_app.jobs()) - before)
        (folder,) = set(real_app.jobs()) - before
        page.locator(f"#history .w-tile.done[data-tile='{folder.name}']").wait_for(timeout=300_000)
        return muxer.read_frames(folder / "clip.mp4")[0]

    base = clip()
    page.locator("#lora-add input").click()
    page.get_by_role("option", name="odd").click()
    page.locator(".w-lora").wait_for()
    whole = clip()
    expect(page.locator(".w-lora")).to_contain_text("Matched")
    expect(page.locator(".w-lora")).to_contain_text(
        re.compile(r"(\d+)/\1 layers, high noise; (\d+)/\2 layers, low noise")
    )
    shoot(page, "53-real-lora", full=True)
    page.locator(".w-lora").get_by_label("as a number").fill("0.5")
    page.keyboard.press("Tab")
    half = clip()
    page.locator(".w-lora").get_by_role("button", name="Remove").click()
    again = clip()
    assert np.array_equal(base, again)
    assert not np.array_equal(base, whole) and not np.array_equal(base, half) and not np.array_equal(half, whole)
