"""What Gradio leaves open and this page does not want.

Fetching URLs. Target: `processing_utils.async_ssrf_protected_get` and `routes.secure_url_stream_response`
of gradio 6. Why: any API call may carry a URL where a file is expected, and `/gradio_api/file=https://...`
streams any public page, so that the server fetches for strangers. This page takes uploads only. How:
both functions are replaced by a refusal; everything in Gradio that fetches goes through one of them.
Remove when: Gradio has a switch for it.

Cross-site requests. Any website can make a visitor's browser POST to http://127.0.0.1:7860. Browsers say
so in `Sec-Fetch-Site`, older ones in `Origin`; such requests are refused. Programs send neither header.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from fastapi import HTTPException
from gradio import processing_utils, routes
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from wan_ui.errors import UserError


async def _refuse_fetch(url: str):
    raise gr.Error("Only uploaded files are accepted, not addresses.", print_exception=False)


async def _refuse_stream(url: str, request):
    raise HTTPException(403, "Only files are served here, not addresses.")


def forbid_fetching() -> None:
    processing_utils.async_ssrf_protected_get = _refuse_fetch
    routes.secure_url_stream_response = _refuse_stream


class SameSiteOnly:
    """ASGI middleware: a request that changes something must come from the page itself or a program."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            headers = Headers(scope=scope)
            if is_cross_site(headers):
                return await PlainTextResponse("Requests from other sites are refused.", 403)(scope, receive, send)
        await self.app(scope, receive, send)


def is_cross_site(headers: Headers) -> bool:
    origin, fetch_site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin == "null":
        return True
    if fetch_site:
        return fetch_site not in ("same-origin", "none")
    if origin is None:
        return False
    hosts = (headers.get("host"), headers.get("x-forwarded-host"))
    return urlsplit(origin).netloc not in hosts


def uploaded(value: dict | None, field: str = "image") -> str:
    """The path of an uploaded file as it arrived from the browser or the API; "" when there is none.

    Gradio has looked at the path already where it recognised a file; a value that it did not recognise
    (a bare text, a record without its marker) must not become a path either.
    """
    if not value:
        return ""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not Path(os.path.realpath(path)).is_relative_to(
        os.path.realpath(get_upload_folder())
    ):
        raise UserError(f"{field}: send an uploaded file", field=field)
    return path
