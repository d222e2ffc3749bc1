"""What the guard answers before the page does."""

import io
import threading

import pytest
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from wan_ui.settings import Settings
from wan_ui.ui.guard import Guard


def test_a_browser_that_comes_while_the_page_starts_tries_again_by_itself():
    """A page that was opened before events are answered would stay at "Connecting" until it is reloaded."""
    ready = threading.Event()
    guard = Guard(PlainTextResponse("the page"), None, Settings(), ready)

    web = TestClient(guard, base_url="http://127.0.0.1:7860", follow_redirects=False)
    early = web.get("/")
    assert (early.status_code, early.headers["refresh"], early.text) == (503, "1", "Wan UI is starting ...")
    assert web.get("/gradio_api/startup-events").status_code == 200  # by which Gradio starts itself
    ready.set()
    assert web.get("/").text == "the page"


@pytest.mark.parametrize("settings", [Settings(), Settings(root_path="/wan"), Settings(auth="me:secret")])
def test_a_browser_can_install_the_page_before_a_login_and_below_a_path(settings):
    guard = Guard(PlainTextResponse("Gradio's"), None, settings, threading.Event())
    web = TestClient(guard, base_url="http://127.0.0.1:7860", follow_redirects=False)
    root = settings.root_path.rstrip("/")
    answer = web.get(f"{root}/manifest.json")
    assert answer.headers["content-type"] == "application/manifest+json"
    manifest = answer.json()
    assert manifest["display"] == "standalone" and manifest["start_url"] == manifest["scope"] == "./"
    for icon in manifest["icons"]:
        drawn = Image.open(io.BytesIO(web.get(f"{root}/{icon['src']}").content))
        assert f"{drawn.width}x{drawn.height}" == icon["sizes"] and drawn.format == "PNG"
    assert {icon["purpose"] for icon in manifest["icons"]} == {"any", "maskable"}
    assert {"192x192", "512x512"} <= {icon["sizes"] for icon in manifest["icons"]}  # what browsers ask for
