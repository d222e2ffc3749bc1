"""What the guard answers before the page does."""

import threading

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
