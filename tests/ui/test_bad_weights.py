"""Weight files that are missing, cut off, exchanged or of another model: the same words in the page, the command
line and the job, before minutes are spent, and the model that was loaded before still runs."""

import re
import shutil
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.ui.conftest import App, card_says, shoot
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
def bad_app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    shipped = ROOT / "assets" / "wan-tiny"
    if not list(shipped.glob("HighNoise/*.gguf")):
        pytest.skip("assets/wan-tiny holds no weights")
    text = Settings().catalog.read_text()
    entry = text[text.index("[wan-tiny]") : text.index("[i2v-a14b]")]
    entry = entry.replace('default_scheme = "bf16"', 'default_scheme = "gguf-Q8_0"')
    catalog = [entry]
    for name in FAULTS:
        shutil.copytree(shipped, folder / name)
        spoil(name, folder / name)
        catalog.append(entry.replace("wan-tiny]", f"{name}]").replace("[wan-tiny.", f"[{name}."))
        catalog[-1] = catalog[-1].replace("embedded:assets/wan-tiny", f"embedded:{folder / name}")
        catalog[-1] = catalog[-1].replace("Wan-Tiny", name)
    (folder / "catalog.toml").write_text("".join(catalog))
    app = App(folder, module=None, WAN_UI_CATALOG=str(folder / "catalog.toml"))
    yield app.start()
    app.stop()


def test_faults_are_said_in_the_page_the_command_line_and_the_job(open_page, bad_app, picture):
    page = open_page(bad_app.url)
    card_says(page, "Ready: Wan-Tiny", 180)
    environ = {name: value for name, value in bad_app.environ.items() if name != "WAN_UI_PORT"}
    for number, (name, words) in enumerate(FAULTS.items()):  # the first leaves no job
        row = page.locator(f".w-scheme[data-scheme='{name} gguf-Q8_0']")
        page.get_by_role("tab", name="Models").click()
        if name != "missing":  # what is missing cannot be loaded, the others look whole from outside
            row.get_by_role("button", name="Load").click()
            expect(row).to_contain_text("wan-tiny gguf-Q8_0 is still loaded.")
            page.locator("#card", has_text="could not be loaded").wait_for(state="attached")
            expect(page.locator(".w-scheme[data-scheme='wan-tiny gguf-Q8_0']")).to_contain_text("loaded")
        expect(row).to_contain_text(re.compile(words, re.S))
        command = [sys.executable, "-m", "wan_ui", "generate", "--model", name, "--image", picture, "--prompt", "x"]
        done = subprocess.run(
            [*command, "--out", bad_app.folder / "x.mp4"], cwd=ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 1 and re.search(words, done.stderr, re.S), done.stderr
        if name != "missing":
            page.get_by_role("tab", name="Create").click()
            expect(page.locator("#history .w-tile.failed")).to_have_count(number)
            page.locator("#history .w-tile.failed").first.click()
            expect(page.locator("#result")).to_contain_text(re.compile(words, re.S))
    shoot(page, "44-bad-weights", full=True)
