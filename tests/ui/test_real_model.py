"""The app as users start it, with the model that ships: `python app.py`, a picture, a prompt, a moving clip; and what
it says of weight files that are not right."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from tests import lora_files
from tests.ui.conftest import App, card_says, choose, press, shoot, until, wait_for_playing
from wan_ui.catalog import load_catalog
from wan_ui.files import places
from wan_ui.files.dit_file import read_parameters
from wan_ui.media import muxer
from wan_ui.settings import ROOT, Settings

FAULTS = {
    "missing": r"1 of 8 files missing",
    "truncated": r"tiny-LowNoise\S*\.gguf: .*(truncated|end|cut)",
    "foreign": r"no Wan DIT in original names or Diffusers' \(.*; it says that its architecture is 'sd3'\)",
    "exchanged": r"this is the low-noise expert, expected the high-noise one\. Are the high and low files exchanged\?",
}


def spoil(name: str, root) -> None:
    (high,), (low,) = (list((root / folder).glob("*.gguf")) for folder in ("HighNoise", "LowNoise"))
    match name:
        case "missing":
            (root / "Wan2.1_VAE.pth").unlink()
        case "truncated":
            content = low.read_bytes()
            low.unlink()
            (root / "LowNoise" / "tiny-LowNoise-Q8_0.gguf").write_bytes(content[: len(content) // 2])
        case "foreign":
            content = high.read_bytes()
            found = re.search(rb"general\.architecture.{12}wan", content, re.S)
            content = content[: found.end() - 3] + b"sd3" + content[found.end() :]
            high.write_bytes(content.replace(b"patch_embedding.weight", b"patch_projector.weight"))
        case "exchanged":  # each put into the other's folder
            high.rename(root / "LowNoise" / high.name)
            low.rename(root / "HighNoise" / low.name)


@pytest.fixture(scope="module")
def real_app(tmp_path_factory):
    """Its catalog has Wan-Tiny, and Wan-Tiny with each fault, which is in the GGUF files."""
    folder = tmp_path_factory.mktemp("real")
    model = load_catalog(Settings().catalog)["wan-tiny"]
    missing = places.availability(model, model.scheme(""), Settings())
    if missing:
        pytest.skip(f"Wan-Tiny cannot run here: {missing}")
    (folder / "loras").mkdir()
    lora_files.write(folder / "loras" / "odd.safetensors", shapes(model), rank=4, size=0.3)
    text = Settings().catalog.read_text()
    entry = text[text.index("[wan-tiny]") : text.index("[i2v-a14b]")]
    catalog = [entry]
    for name in FAULTS:
        shutil.copytree(ROOT / "assets" / "wan-tiny", folder / name)
        spoil(name, folder / name)
        faulty = entry.replace('default_scheme = "bf16"', 'default_scheme = "gguf-Q8_0"').replace("Wan-Tiny", name)
        faulty = faulty.replace("wan-tiny]", f"{name}]").replace("[wan-tiny.", f"[{name}.")
        catalog.append(faulty.replace("embedded:assets/wan-tiny", f"embedded:{folder / name}"))
    (folder / "catalog.toml").write_text("".join(catalog))
    settings = {"WAN_UI_CACHE": str(ROOT / "build" / "test-cache"), "WAN_UI_LORAS": str(folder / "loras")}
    settings |= {"WAN_UI_CATALOG": str(folder / "catalog.toml"), "WAN_UI_THREADS": "1"}  # others compute beside it
    app = App(folder, module=None, **settings)
    yield app.start()
    app.stop()


@pytest.fixture(scope="module")
def page(open_new, real_app, picture):
    """One for all, with a picture in its form."""
    page = open_new(real_app.url)
    card_says(page, "Ready: Wan-Tiny", 180)
    choose(page, picture)
    yield page
    page.close()


def test_wan_tiny_from_the_page(page, real_app, tmp_path):
    shoot(page, "30-real-ready")
    page.get_by_role("radio", name="17 · 1.1 s").check()
    press(page, "zoom in")
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


def test_a_lora_changes_the_clip_by_its_strength_and_goes_without_a_trace(page, real_app):
    page.get_by_role("radio", name="17 · 1.1 s").check()
    page.fill("#seed input", "5")
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


def test_faults_are_said_in_the_page_the_command_line_and_the_job(page, real_app, picture):
    """Weight files that are missing, cut off, exchanged or of another model: the same words everywhere, before minutes
    are spent, and the model that was loaded before still runs."""
    environ = {name: value for name, value in real_app.environ.items() if name != "WAN_UI_PORT"}
    for number, (name, words) in enumerate(FAULTS.items()):  # the first leaves no job
        row = page.locator(f".w-scheme[data-scheme='{name} gguf-Q8_0']")
        page.get_by_role("tab", name="Models").click()
        if name != "missing":  # what is missing cannot be loaded, the others look whole from outside
            row.get_by_role("button", name="Load").click()
            expect(row).to_contain_text("wan-tiny bf16 is still loaded.")
            page.locator("#card", has_text="could not be loaded").wait_for(state="attached")
            expect(page.locator(".w-scheme[data-scheme='wan-tiny bf16']")).to_contain_text("loaded")
        expect(row).to_contain_text(re.compile(words, re.S))
        command = [sys.executable, "-m", "wan_ui", "generate", "--model", name, "--image", picture, "--prompt", "x"]
        done = subprocess.run(
            [*command, "--out", real_app.folder / "x.mp4"], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 1 and re.search(words, done.stderr, re.S), done.stderr
        if name != "missing":
            page.get_by_role("tab", name="Create").click()
            expect(page.locator("#history .w-tile.failed")).to_have_count(number)
            page.locator("#history .w-tile.failed").first.click()
            expect(page.locator("#result")).to_contain_text(re.compile(words, re.S))
    shoot(page, "44-bad-weights", full=True)
