"""What the guard answers before the page does."""

import asyncio
import threading

import httpx
from starlette.responses import PlainTextResponse

from wan_ui.settings import Settings
from wan_ui.ui.security import Guard


def test_a_browser_that_comes_while_the_page_starts_tries_again_by_itself():
    """A page that was opened before events are answered would stay at "Connecting" until it is reloaded."""
    ready = threading.Event()
    guard = Guard(PlainTextResponse("the page"), Settings(), ready)

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://127.0.0.1:7860") as web:
            return await web.get(path)

    early = asyncio.run(ask("/"))
    assert (early.status_code, early.headers["refresh"], early.text) == (503, "1", "Wan UI is starting ...")
    assert asyncio.run(ask("/gradio_api/startup-events")).status_code == 200  # by which Gradio starts itself
    ready.set()
    assert asyncio.run(ask("/")).text == "the page"
