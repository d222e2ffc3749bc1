"""The real app as a subprocess, and a real Chromium in front of it."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.ui.apps import PATIENCE, App, Forks
from wan_ui.families import VAE_21
from wan_ui.files import places
from wan_ui.settings import ROOT

expect.set_options(timeout=PATIENCE * 1000)

CLIP = "#result .w-stage:has(#clip) + .w-about .w-prompt"  # what is said of a clip that is there and on the stage
FACTS = "#result .w-stage:has(#clip) + .w-about .w-facts"

FAILED = pytest.StashKey[bool]()
ARTIFACTS = ROOT / "test-artifacts" / "ui"
# The shell without a window first: it takes half the time of the whole browser, and the same engine draws.
CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--autoplay-policy=no-user-gesture-required",
    "--process-per-site",  # see new_browser
]


def chromium_path() -> str | None:
    """None: the one that Playwright has installed."""
    return next((found for found in map(shutil.which, CHROMIUM) if found), None)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        except PlaywrightError as error:
            pytest.skip(f"no Chromium: `python tools/install_chromium.py` installs one ({str(error)[:120]})")
        # What moves all the time while a page waits is a third of what its browser computes, without a GPU.
        browser.new_context = functools.partial(browser.new_context, reduced_motion="reduce")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def scripted_catalog(tmp_path_factory) -> Path:
    """The shipped catalog, whose Wan-Tiny has (empty) files: the scripted engine reads none of them."""
    folder = tmp_path_factory.mktemp("catalog")
    names = ["high_noise_model/config.json", "low_noise_model/config.json", places.T5_FILE, VAE_21.file]
    names += [*places.TOKENIZER_FILES, "HighNoise/x-Q8_0.gguf", "LowNoise/x-Q8_0.gguf"]
    for name in names:
        (folder / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "model" / name).write_text('{"dim": 256}' if name.endswith("config.json") else "")
    text = (ROOT / "configs" / "catalog.toml").read_text()
    assert '"embedded:assets/wan-tiny"' in text
    (folder / "catalog.toml").write_text(text.replace("embedded:assets/wan-tiny", f"embedded:{folder / 'model'}"))
    return folder / "catalog.toml"


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for name, shift in (("dusk.jpg", 0), ("noon.jpg", 90)):
        draw_scene(shift).save(folder / name)
    entries = [{"image": "dusk.jpg", "prompt": "zoom in, sunset light"}, {"image": "noon.jpg", "prompt": "pan left"}]
    (folder / "examples.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="session")
def scripted(scripted_catalog, examples, tmp_path_factory):
    """Start apps with the scripted engine: scripted(folder, WAN_UI_...=...). own: as a process of its own, see Forks.

    Each is stopped with the test or the file that started it: a dozen idle apps take a core from the others.
    """

    def start(folder: Path | None = None, own: bool = not hasattr(os, "pidfd_open"), **environ: str) -> App:
        own = own or any(name.startswith("PYTHON") for name in environ)  # which an interpreter reads when it begins
        if not own and not start.forks:
            start.forks.append(Forks())
        defaults = {"WAN_UI_CATALOG": str(scripted_catalog), "TEST_EXAMPLES": str(examples)}
        forks = None if own else start.forks[0]
        start.apps.append(App(folder or tmp_path_factory.mktemp("app"), forks=forks, **{**defaults, **environ}))
        return start.apps[-1].start()

    start.apps, start.kept, start.forks = [], [], []
    yield start
    stop_apps(start, 0, kept=True)
    for forks in start.forks:
        forks.close()


def stop_apps(scripted, first: int, kept: bool = False) -> None:
    for app in scripted.apps[first:]:
        if kept or app not in scripted.kept:
            app.stop(signal.SIGKILL)


@pytest.fixture(autouse=True, scope="module")
def apps_of_this_file(scripted):
    first = len(scripted.apps)
    yield
    stop_apps(scripted, first)


@pytest.fixture(autouse=True)
def apps_of_this_test(scripted):
    first = len(scripted.apps)  # those of the file are there already: fixtures of a file come before
    yield
    stop_apps(scripted, first)


# What other people's machines have: proxies that loopback must not go through, a Kubernetes Service of the app's name,
# a language that is not written in UTF-8.
HOSTILE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "WAN_UI_SERVICE_HOST": "10.43.0.7",
    "WAN_UI_PORT_7860_TCP": "tcp://10.43.0.7:7860",
    "GRADIO_SERVER_PORT": "tcp://10.43.0.7:7860",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


@pytest.fixture(scope="session")
def app(scripted) -> App:
    """One app that most tests share, on a machine as machines are."""
    scripted.kept.append(scripted(own=True, **HOSTILE, WAN_UI_MCP="1"))
    return scripted.kept[-1]


def new_browser(chromium) -> BrowserContext:
    """Another person's. It keeps what it has fetched and compiled of the page, and, for a page of the apps' site that
    stays open in it, the process that draws them: half of what opening a page takes."""
    context = chromium.new_context()
    stays = context.new_page()
    stays.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"))
    stays.goto("http://127.0.0.1/")
    return context


@pytest.fixture(scope="session")
def browsers(chromium):
    """Those that there are; a page is opened in the first of them that has none open."""
    contexts: list[BrowserContext] = []
    yield contexts
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def open_new(chromium, browsers):
    """Open a page: open_new(url, width=..., dark=...). Each that is open is in a browser of its own: another person's,
    who has closed the hint for new ones (unless `new`), and asks for less motion (unless `moving`). script: what runs
    before the page's own."""

    def open_new(
        url: str, width=1360, height=900, dark: bool = False, new: bool = False, moving: bool = False, script: str = ""
    ) -> Page:
        browser = next((free for free in browsers if len(free.pages) == 1), None)  # the page that stays
        if browser is None:
            browsers.append(browser := new_browser(chromium))
        page = browser.new_page()
        browser.clear_cookies()  # it has seen nothing yet
        kept = {"origin": url, "storageTypes": "local_storage,indexeddb,service_workers,cache_storage"}
        browser.new_cdp_session(page).send("Storage.clearDataForOrigin", kept)
        if not new:
            page.add_init_script("try { localStorage.setItem('wan-ui-hint', 'closed'); } catch {}")
        if script:
            page.add_init_script(script)
        page.set_viewport_size({"width": width, "height": height})
        motion = "no-preference" if moving else "reduce"
        page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion=motion)
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(url, wait_until="domcontentloaded")
        page.locator("#card", has_not_text="Connecting").wait_for()
        return page

    return open_new


@pytest.fixture
def open_page(open_new, browsers):
    """`open_new` for a test, at whose end all that it has opened is closed."""
    before = {page for browser in browsers for page in browser.pages}  # those of its file
    yield open_new
    for browser in browsers:
        for page in browser.pages[1:]:  # all but the one that stays
            if page not in before:
                page.close()


@pytest.fixture
def page(open_page, app) -> Page:
    return open_page(app.url)


@pytest.fixture(scope="module")
def kept_pages():
    """address -> the page that is kept for the next test of the file."""
    pages: dict[str, Page] = {}
    yield pages
    for page in pages.values():
        page.close()


@pytest.fixture
def used_page(open_new, kept_pages, request):
    """used_page(url): as `open_page`, but a test of the same file may have used it: to open one takes a second or more.

    For tests that need no fresh one. Each brings it to where it begins, and looks at what it made itself; one that
    fails leaves it to nobody. What it asks is answered with yes. They come last in their file, if they can: a page that
    is open for half a minute computes as much as another that is opened.
    """

    def used_page(url: str, width=1360, height=900) -> Page:
        if url not in kept_pages or kept_pages[url].is_closed():
            kept_pages[url] = open_new(url)
            kept_pages[url].on("dialog", lambda dialog: dialog.accept())
        page = kept_pages[url]
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
        return page

    yield used_page
    if request.node.stash.get(FAILED, False):
        for page in kept_pages.values():
            page.close()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request):
    """A job that a failed test left waiting is not in the way of the tests after it."""
    yield
    if request.node.stash.get(FAILED, False) and "app" in request.fixturenames:
        app = request.getfixturevalue("app")
        app.stop(signal.SIGKILL)
        app.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A failure brings what the page and the app said last, and a picture of each page."""
    report = yield
    if report.failed and report.when == "call":
        item.stash[FAILED] = True
        browsers, apps = item.funcargs.get("browsers", []), item.funcargs.get("scripted")
        for number, page in enumerate(page for browser in browsers for page in browser.pages[1:]):
            with contextlib.suppress(PlaywrightError):
                said = page.locator("#card").inner_text(timeout=2000)
                report.sections.append((f"card of {page.url}", said))
                shoot(page, f"failed-{re.sub(r'[^0-9A-Za-z]+', '-', item.name)[:80]}-{number}", always=True)
        for app in apps.apps if apps else []:
            if app.process.poll() is None:
                report.sections.append((f"end of the log of {app.url}", app.log()[-1500:]))
    return report


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "hills.png"
    draw_scene(40).save(path)
    return path


def draw_scene(shift: int) -> Image.Image:
    """A little landscape, wider than high, so that a crop has something to cut off."""
    rows = np.linspace(0, 1, 360)[:, None, None]
    sky = np.array([70 + shift, 90, 160]) * (1 - rows) + np.array([250, 180, 120]) * rows
    image = Image.fromarray(np.broadcast_to(sky, (360, 640, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((400, 130, 500, 230), fill=(255, 236, 190))
    draw.polygon([(0, 360), (0, 250), (190, 150), (360, 290), (520, 210), (640, 270), (640, 360)], fill=(52, 60, 92))
    draw.polygon([(0, 360), (0, 320), (260, 260), (640, 340), (640, 360)], fill=(28, 32, 54))
    return image


def shoot(page: Page, name: str, full: bool = False, always: bool = False) -> None:
    """A picture of the page to look at, if TEST_PICTURES is set. The page is scrolled to its top in any case."""
    page.evaluate("window.scrollTo(0, 0)")
    if always or os.environ.get("TEST_PICTURES"):
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=full)


def generate(page: Page, picture: Path, prompt: str) -> None:
    """Choose a picture, write the prompt, press Generate."""
    choose(page, picture)
    press(page, prompt)


def choose(page: Page, picture: Path) -> None:
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()


def press(page: Page, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#generate")


def until(page: Page, condition: Callable[[], object]) -> None:
    """Until a condition outside the page holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        page.wait_for_timeout(50)


def card_says(page: Page, words: str | re.Pattern, seconds: float = PATIENCE) -> None:
    page.locator("#card", has_text=words).wait_for(timeout=seconds * 1000)


def wait_for_playing(page: Page) -> None:
    """Or until it has been played: a clip that speaks does that once."""
    page.wait_for_function(
        "() => { const v = document.querySelector('#clip');"
        " return v && v.readyState >= 2 && v.videoWidth > 0 && (!v.paused || v.ended) && v.currentTime > 0 }"
    )
