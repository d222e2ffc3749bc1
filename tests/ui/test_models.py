"""The Models tab: what is here, what is missing and how large; loading and downloading from the page."""

import json
import os
import re
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.hub import Hub
from tests.ui.conftest import FACTS, PATIENCE, card_says, generate, shoot, until, wait_for_playing
from wan_ui.catalog import load_catalog
from wan_ui.families import FAMILIES
from wan_ui.files import places
from wan_ui.files.dit_file import parameters
from wan_ui.media import muxer
from wan_ui.qa import layouts, synthetic

MEGABYTES = 6
HALF = 10 << 20  # bytes of the four files of that size: in the middle of one
OTHER = """
[other]
title = "Other (to be downloaded)"
family = "a14b"
tasks = ["image-to-video", "first-last-frame"]
root = "test/other"
needs_gpu = false
sizes = ["256x256", "320x192"]
frames = [17]
default_frames = 17
steps = [1, 8]
default_steps = 4
shift = 5.0
boundary = 0.9
fps = 16
default_scheme = "bf16"

[other.schemes.bf16]
title = "bf16"
kind = "bf16"
distilled = false
high = "test/experts:high_noise.safetensors"
low = "test/experts:low_noise.safetensors"
lora_high = "test/loras:high_noise.safetensors"
lora_low = "test/loras:low_noise.safetensors"
"""
LARGE = OTHER.replace("other]", "large]").replace("[other.", "[large.").replace("Other (to", "Large (to")
LARGE = LARGE.replace("needs_gpu = false", "needs_gpu = true")
# A card of 5 GiB, by what this app sees of one: the driver's program and its library.
LIBRARY = """
from types import SimpleNamespace
class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
NVML_TEMPERATURE_GPU = 0
nvmlInit = nvmlShutdown = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlDeviceGetHandleByIndex = lambda number: number
nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=5 << 30, used=1 << 30)
nvmlDeviceGetTemperature = lambda handle, sensor: 40
nvmlDeviceGetUUID = lambda handle: "GPU-aa"
nvmlDeviceGetName = lambda handle: "A card"
"""


@pytest.fixture
def gpu(tmp_path):
    """The environment of an app that finds a GPU."""
    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "pynvml.py").write_text(LIBRARY)
    (folder / "nvidia-smi").write_text("#!/bin/sh\n")
    (folder / "nvidia-smi").chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "TEST_MODULES": str(folder)}


@pytest.fixture(scope="module")
def hub():
    server = Hub().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def catalog(scripted_catalog, hub, tmp_path_factory):
    """The shipped catalog and a model for any machine, whose files lie in the small hub."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.toml"
    path.write_text(scripted_catalog.read_text() + OTHER + LARGE)
    model = load_catalog(path)["other"]
    for number, ref in enumerate(places.needed_files(model, model.scheme(""), "diffusers")):
        repo, file = places.split(ref)
        hub.files[f"/{repo}/resolve/main/{file}"] = bytes([number]) * (MEGABYTES << 20 if "noise." in file else 999)
    return path


@pytest.fixture
def start(scripted, catalog, hub, tmp_path):
    """An app with an empty models folder: start(WAN_UI_...=...)."""

    def start(**environ):
        values = {"WAN_UI_MODELS": str(tmp_path / "models"), "WAN_UI_HUB": hub.url, "HF_HUB_CACHE": str(tmp_path)}
        return scripted(WAN_UI_CATALOG=str(catalog), **{**values, **environ})

    hub.pause, hub.limit = 0.0, None
    hub.sent.clear()
    return start


@pytest.fixture(scope="module")
def offline_app(scripted, catalog, tmp_path_factory):
    """For what is done without the hub."""
    folder = tmp_path_factory.mktemp("offline")
    values = {"WAN_UI_MODELS": str(folder / "models"), "HF_HUB_CACHE": str(folder), "WAN_UI_HUB": "http://127.0.0.1:9"}
    return scripted(folder, WAN_UI_CATALOG=str(catalog), **values)


def row(page: Page, scheme: str):
    return page.locator(f".w-scheme[data-scheme='{scheme}']")


def open_models(page: Page) -> None:
    page.get_by_role("tab", name="Models").click()
    page.locator(".w-scheme").first.wait_for()


def open_form(page: Page) -> None:
    page.get_by_role("tab", name="Create").click()
    page.locator("#prompt").wait_for()


def without_gpu(catalog: Path) -> bool:
    return places.lacks_gpu(load_catalog(catalog)["i2v-a14b"])


def write_transformers(folder: Path) -> None:
    """A pair as an installation of ComfyUI has it: released names and shapes in sparse files, and nothing else."""
    layout = {name: ("BF16", shape) for name, shape in parameters(layouts.dit_config(FAMILIES["a14b"])).items()}
    for side in ("high", "low"):
        synthetic.write_hole(folder / f"mine_{side}_noise_lightning.safetensors", layout, "")


def test_download_then_load_then_a_clip(open_page, start, catalog, hub, picture, tmp_path):
    folder = tmp_path / "comfy" / "models" / "diffusion_models"
    folder.mkdir(parents=True)
    app = start(WAN_UI_COMFYUI=str(tmp_path / "comfy"))
    page = open_page(app.url)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#model input").click()
    expect(page.get_by_role("option")).to_have_text([re.compile("Wan-Tiny")])
    page.keyboard.press("Escape")
    open_models(page)
    other = row(page, "other bf16")
    expect(other).to_contain_text("10 of 10 files missing")
    expect(other).to_contain_text("base model with the distill LoRA pair attached, one LoRA on each expert")
    other.get_by_text("0 of 10 files are here").click()
    expect(other).to_contain_text(f"from {hub.url}/test/experts/resolve/main/high_noise.safetensors")
    expect(row(page, "wan-tiny bf16")).to_contain_text("loaded")
    expect(row(page, "i2v-a14b fp8")).to_contain_text(re.compile("needs a CUDA GPU|files missing"))
    expect(row(page, "i2v-a14b fp8")).to_contain_text("GiB of GPU memory")
    shoot(page, "40-models", full=True)
    if not without_gpu(catalog):
        expect(page.locator(".w-cannot")).to_have_count(0)
    else:  # folded, and what was unfolded stays so while the table is drawn anew
        expect(row(page, "i2v-a14b fp8")).to_be_hidden()
        words = re.compile(r"Needs a CUDA GPU, which is not here: \d+ models")
        page.locator(".w-cannot > summary", has_text=words).click()
        expect(row(page, "i2v-a14b fp8")).to_be_visible()

    hub.limit = HALF
    other.get_by_role("button", name="Download").click()
    expect(page.locator("#download")).to_contain_text(re.compile(r"Downloading Other.* of 0\.03 GB .* left", re.S))
    expect(other).to_contain_text("is being downloaded")
    expect(other.get_by_text("high_noise.safetensors").first).to_be_visible()  # the list was left open
    shoot(page, "41-downloading", full=True)
    hub.limit = None
    expect(page.locator("#download")).to_contain_text("Other, bf16 is downloaded")
    expect(other).to_contain_text("can run here")
    if without_gpu(catalog):
        expect(row(page, "i2v-a14b fp8")).to_be_visible()
    open_form(page)
    page.locator("#model input").click()
    expect(page.get_by_role("option")).to_have_count(2)
    page.keyboard.press("Escape")

    open_models(page)
    other.get_by_role("button", name="Load").click()
    expect(other).to_contain_text("loaded")
    expect(row(page, "wan-tiny bf16")).to_contain_text("can run here")
    open_form(page)
    card_says(page, "Ready: Other, bf16")
    expect(page.locator("#model input")).to_have_value("Other")
    page.set_input_files("#end input[type=file]", picture)
    page.locator("#end-crop img").wait_for()
    generate(page, picture, "with the other model")
    wait_for_playing(page)
    expect(page.locator(FACTS).first).to_contain_text("Other, bf16")
    expect(page.locator("#using")).to_contain_text("ends at the second picture")
    (job,) = app.jobs()
    assert muxer.read_metadata(job / "clip.mp4")["kind"] == "first-last-frame" and (job / "end.png").is_file()

    write_transformers(folder)
    expect(page.locator(".w-scheme[data-scheme^='other found-mine']")).to_contain_text("can run here")
    page.locator("#scheme input").click()
    page.get_by_role("option", name="Found here: mine").click()
    card_says(page, "Ready: Other, Found here: mine")
    page.click("#generate")
    expect(page.locator(FACTS).first).to_contain_text("Found here: mine")
    assert "found-mine" in {muxer.read_metadata(job / "clip.mp4")["scheme"][:10] for job in app.jobs()}


def test_a_large_model_is_got_from_the_first_hint_and_its_download_is_everybody_s(open_page, start, gpu, hub):
    app = start(**gpu)
    first, second = open_page(app.url, new=True), open_page(app.url, new=True)
    first.on("dialog", lambda dialog: dialog.accept())
    open_models(second)
    hub.limit = HALF
    expect(first.locator("#hint")).to_contain_text("The GPU here has 5 GiB: that is enough for Large as bf16.")
    shoot(first, "45-hint")
    first.locator("#hint").get_by_role("button", name="Get Large:").click()
    expect(first.locator("#download")).to_be_visible()  # its tab is open
    expect(second.locator("#download")).to_contain_text("Downloading Large")
    first.close()  # it is the app's, not the tab's
    expect(second.locator("#download")).to_contain_text(re.compile(r"0\.0[1-9] of"))
    until(second, lambda: sum(hub.sent.values()) >= HALF)
    assert any(0 < sent < len(hub.files[path]) for path, sent in hub.sent.items())
    hub.pause, hub.limit = 5.0, None  # in the middle of that file until it is cancelled
    second.get_by_role("button", name="Cancel the download").click()
    expect(second.locator("#download")).to_contain_text("Download of Large, bf16 cancelled")
    hub.pause = 0.0
    hub.requests.clear()
    second.on("dialog", lambda dialog: dialog.accept())
    row(second, "large bf16").get_by_role("button", name="Download").click()
    expect(second.locator("#download")).to_contain_text("is downloaded")
    assert any(start > 0 for method, _, start in hub.requests), "nothing was resumed"
    open_form(second)
    expect(second.locator("#hint")).to_contain_text("Large is here: choose it under Model.")
    second.get_by_role("button", name="Close this hint").click()
    second.reload(wait_until="domcontentloaded")
    expect(second.locator("#hint .w-hint")).to_have_count(1)
    expect(second.locator("#hint .w-hint")).to_be_hidden()


def weights_say(page: Page, title: str) -> None:
    """The form, the card and the row of the table agree, and go on agreeing."""
    card_says(page, f"Ready: Wan-Tiny, {title}")
    expect(page.locator("#scheme input")).to_have_value(title)
    page.wait_for_timeout(700)  # answers that are late have come by then
    expect(page.locator("#scheme input")).to_have_value(title)
    expect(page.locator("#model input")).to_have_value(re.compile("Wan-Tiny"))
    expect(page.locator("#card")).to_contain_text(f"Ready: Wan-Tiny, {title}")


def test_what_is_loaded_is_what_the_form_says(used_page, offline_app):
    page = used_page(offline_app.url)
    titles = {"gguf-Q5_0": "GGUF Q5_0", "gguf-Q8_0": "GGUF Q8_0", "gguf-Q4_0": "GGUF Q4_0", "bf16": "bf16"}
    for number, (scheme, title) in enumerate([*titles.items()] * int(os.environ.get("ROUNDS", 1))):
        if number % 2:  # a list is open: the press on the tab closes it
            page.locator("#scheme input" if number % 4 == 1 else "#model input").click()
            page.get_by_role("option").first.wait_for()
        open_models(page)
        row(page, f"wan-tiny {scheme}").get_by_role("button", name="Load").click()
        open_form(page)
        weights_say(page, title)
    open_models(page)
    expect(page.locator("#memory")).to_contain_text("Taken on this machine, by all programs")
    page.locator("#memory").get_by_role("button", name="Unload").click()
    expect(page.locator("#memory").get_by_role("button")).to_have_count(0)
    expect(row(page, f"wan-tiny {scheme}").get_by_role("button", name="Load")).to_be_visible()
    page.reload(wait_until="domcontentloaded")
    open_models(page)
    expect(page.locator("#memory")).to_contain_text("Taken on this machine")


def test_a_choice_made_after_load_was_pressed_counts(used_page, offline_app):
    page = used_page(offline_app.url)
    open_models(page)  # Gradio draws a tab when it is opened, and keeps it
    open_form(page)
    for chosen in ("GGUF Q8_0", "bf16"):
        page.evaluate("document.querySelector(\"[data-scheme='gguf-Q5_0'][data-do=load_model]\").click()")
        page.locator("#scheme input").click()
        page.get_by_role("option", name=chosen).click()
        weights_say(page, chosen)


@pytest.mark.hardening(28)
def test_without_a_network_the_page_says_what_to_fetch_from_where(used_page, offline_app):
    page = used_page(offline_app.url)
    open_models(page)
    row(page, "other bf16").get_by_role("button", name="Download").click()
    expect(page.locator("#download")).to_contain_text("Other, bf16 could not be downloaded")
    address = "http://127.0.0.1:9/test/experts/resolve/main/high_noise.safetensors"
    expect(page.locator("#download")).to_contain_text(
        re.compile(re.escape(f"{address} -> {offline_app.folder}/models/test/experts/high_noise.safetensors"))
    )
    shoot(page, "42-no-network", full=True)


def test_a_load_that_fails_is_said_in_its_row(used_page, offline_app):
    page = used_page(offline_app.url)
    open_models(page)
    row(page, "wan-tiny fp8").get_by_role("button", name="Load").click()
    expect(row(page, "wan-tiny fp8")).to_contain_text("the fp8 file is damaged")  # by the scripted engine
    expect(row(page, "wan-tiny fp8")).to_contain_text("no model is loaded now; the next job loads its own")
    shoot(page, "43-load-failed", full=True)
    row(page, "wan-tiny bf16").get_by_role("button", name="Load").click()
    open_form(page)
    card_says(page, "Ready: Wan-Tiny, bf16")


@pytest.mark.parametrize("allowed", [False, True])
def test_on_a_shared_address(start, hub, allowed):
    """What a page is sent to show, and what becomes of a press there: the app is asked as a page asks it."""
    hub.requests.clear()
    app = start(WAN_UI_HOST="0.0.0.0", WAN_UI_SHARED_DOWNLOADS=str(int(allowed)))
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as web:
        handlers = {entry["api_name"]: entry["id"] for entry in web.get("/config").json()["dependencies"]}

        def ask(name: str, **event: str) -> dict:
            body = {"fn_index": handlers[name], "data": [{}, None], "session_hash": "a-page", "event_data": event}
            body["data"] += [""] * (name == "arrive")
            assert web.post("/gradio_api/queue/join", json=body).status_code == 200
            with web.stream("GET", "/gradio_api/queue/data", params={"session_hash": "a-page"}) as answer:
                return json.loads(next(line for line in answer.iter_lines() if "process_completed" in line)[6:])

        def shown(part: str) -> str:
            sent = ask("arrive")["output"]["data"]
            return next(html for html in sent if isinstance(html, str) and part in html)

        table = shown('data-scheme="other bf16"')
        assert "a model is loaded with the clip that asks for it" in table
        assert 'data-do="load_model"' not in table
        assert ('data-do="download_model" data-model="other" data-scheme="bf16"' in table) == allowed
        assert not ask("load_model", model="wan-tiny", scheme="fp8")["success"]
        for name in ("stop_download", "download_model"):  # who is not allowed to has forged it
            assert ask(name, model="other", scheme="bf16")["success"] == allowed
        if allowed:
            while "Other, bf16 is downloaded" not in shown('class="w-download'):
                time.sleep(0.1)
        else:
            assert "is being downloaded" not in shown('data-scheme="other bf16"') and not hub.requests
