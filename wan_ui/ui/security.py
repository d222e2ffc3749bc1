"""What Gradio leaves open and this page does not want.

Fetching URLs. Target: `processing_utils.async_ssrf_protected_get` and `routes.secure_url_stream_response`
of gradio 6. Why: any API call may carry a URL where a file is expected, and `/gradio_api/file=https://...`
streams any public page, so that the server fetches for strangers. This page takes uploads only. How:
both functions are replaced by a refusal; everything in Gradio that fetches goes through one of them.
Remove when: Gradio has a switch for it.

Form fields. Target: `route_utils.GradioMultiPartParser`. Why: a form field without a file name is kept in memory
whole, 200 MB and more, and a thousand files in one form take a thousand file descriptors. How: `OneFile` takes its
place, which takes a single file. Remove when: Gradio bounds both.

Requests. `Guard` stands in front of all of Gradio: it knows the addresses that the page needs, refuses names and
pages of strangers (see visitor.py), bounds what a request may bring (body.py) and says what browsers may do with
the answer.
"""

import inspect
import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

import gradio as gr
import httpx
from fastapi import HTTPException
from gradio import route_utils
from gradio.exceptions import InvalidPathError
from gradio.utils import get_space, get_upload_folder
from pydantic import ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse

from wan_ui.errors import UserError
from wan_ui.settings import Settings
from wan_ui.ui import body, examples, health, seams
from wan_ui.ui.aliases import path_to_real, to_real
from wan_ui.ui.api_values import PARAMETERS
from wan_ui.ui.examples import load_examples
from wan_ui.ui.markup import CLIPS
from wan_ui.ui.visitor import is_cross_site, is_known_host, origin_host, split_host, visitor

log = logging.getLogger(__name__)

EXAMPLES = "examples/"  # stands for the folder of the examples in addresses
VISITOR = b"wan-ui-visitor"  # the header by which `Guard` tells handlers who asks: "local" or "shared"
# All that the page and programs need; the rest of Gradio (screen recordings, component functions, streams, proxying,
# monitoring, run history ...) is not there. After API_PREFIX or at the root.
PAGES = re.compile(
    r"/|/(config|login|logout|favicon\.ico|theme\.css|robots\.txt|manifest\.json)/?|/(static|assets|svelte)/.+"
    r"|/gradio_api/(info|openapi\.json|user|login_check|app_id|upload|upload_progress|startup-events|theme\.css)/?"
    r"|/gradio_api/(queue/(join|data)|cancel|reset)/?|/gradio_api/heartbeat/[^/]+"
    r"|/gradio_api/(run|api|call)/[^/]+/?|/gradio_api/call/(?!v2/)[^/]+/[^/]+|/gradio_api/call/v2/generate(/[^/]+|/)?"
    r"|/gradio_api/file[=/].+"
)
# What files may be shown as. Anything else is bytes: it is never run by a browser, whatever its name says.
TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp", ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".wav": "audio/wav",
    ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".ogg": "audio/ogg", ".oga": "audio/ogg",
    ".opus": "audio/ogg", ".flac": "audio/flac", ".json": "application/json",
}  # fmt: skip
OF_FILES = (b"content-length", b"content-range", b"accept-ranges", b"etag", b"last-modified", b"date")
FILE_POLICY = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; sandbox"
PAGE_POLICY = (
    # Gradio writes its configuration into the page and makes functions of `js_on_load`.
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
SPACES = " https://huggingface.co https://*.hf.space"  # which show a Space in a frame


async def _refuse_fetch(url: str):
    """The one address that is taken is that of an example, which is read from the disk and not fetched."""
    name = url.partition(f"/gradio_api/file={EXAMPLES}")[2]
    for example in load_examples():
        for file in example.inputs.values():
            if isinstance(file, Path) and file.name == name:
                return httpx.Response(200, content=file.read_bytes())
    raise gr.Error("Only uploaded files are accepted, not addresses.", print_exception=False)


async def _refuse_stream(url: str, request):
    raise HTTPException(403, "Only files are served here, not addresses.")


class OneFile(route_utils.GradioMultiPartParser):
    """The parser of uploads, for one file and nothing beside it. What was written of a broken one is deleted."""

    def __init__(self, headers, stream, **options):
        super().__init__(headers, stream, **{**options, "max_files": 1})

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        field = self._current_part.field_name
        if field != "files" or self._current_part.file is None:
            raise MultiPartException(f"{field[:80]!r}: send one file with a file name, in the field 'files'.")

    async def parse(self):
        try:
            form = await super().parse()
            if not form.getlist("files"):
                raise MultiPartException("files: the form has no whole file.")
        except BaseException as error:
            for file in self._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            if isinstance(error, (MultipartParseError, AttributeError, FileNotFoundError)):
                raise MultiPartException("files: the form cannot be read.") from None
            raise
        return form


class CheckedBlocks(gr.Blocks):
    """Blocks that say which value of a call cannot be used, before a handler sees them.

    Target: `Blocks.preprocess_data` and `call_function` of gradio 6. Why: it looks for files in every value, and
    answers a wrong one with nothing and a traceback in the log. Remove when: it names the component.
    """

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        if block_fn.fn is None:
            raise gr.Error("This event is answered in the browser.", print_exception=False)
        # A caller who knows an older version sends fewer values: the last ones have defaults.
        parameters = list(inspect.signature(block_fn.fn).parameters.values())[len(inputs) : len(block_fn.inputs)]
        if all(parameter.default is not parameter.empty for parameter in parameters):
            inputs = [*inputs, *(parameter.default for parameter in parameters)]
        if len(inputs) < len(block_fn.inputs):
            name, needed = block_fn.api_name or block_fn.name, len(block_fn.inputs)
            words = f"data: {name} takes {needed} values, not {len(inputs)}"
            raise gr.Error(words, print_exception=False)
        for component, value in zip(block_fn.inputs, inputs, strict=False):
            name = getattr(component, "label", None) or component.elem_id or component.get_block_name()
            is_file = isinstance(value, dict) and isinstance(value.get("path"), str)
            if getattr(component, "data_model", None) and not component.stateful and value is not None and not is_file:
                raise gr.Error(f"{name}: send an uploaded file", print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except InvalidPathError:
            raise gr.Error("Only uploaded files are accepted, not paths.", print_exception=False) from None
        except ValidationError:
            raise gr.Error(
                "data: a file's record cannot be read; send an uploaded file", print_exception=False
            ) from None

    async def call_function(self, *args, **options):
        try:
            return await super().call_function(*args, **options)
        except gr.Error as error:  # also of a path in what came with an event
            error.print_exception = False
            raise


def harden() -> None:
    """Put the refusals in place, once, before the page is served."""
    seams.replace("gradio.processing_utils:async_ssrf_protected_get", _refuse_fetch)
    seams.replace("gradio.routes:secure_url_stream_response", _refuse_stream)
    seams.replace("gradio.route_utils:GradioMultiPartParser", OneFile)


class Refused(Exception):
    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


def _check_names(values) -> None:
    """Of a call that names its values; Gradio itself breaks on a wrong one. Raises Refused."""
    if not isinstance(values, dict):
        raise Refused(400, f"json: expected an object; its values are any of {', '.join(PARAMETERS)}.")
    for name in values:
        if name not in PARAMETERS:
            raise Refused(400, f"{name[:80]!r} is not a value of generate; known are {', '.join(PARAMETERS)}.")


class Guard:
    """ASGI application in front of Gradio's."""

    def __init__(self, app, settings: Settings, ready: threading.Event):
        """ready: events are answered, which they are not yet in the moment in which the port is."""
        self.app, self.settings, self.ready = app, settings, ready
        self.page_policy = PAGE_POLICY + (SPACES if get_space() else "")
        self.told: set[str] = set()  # each reason is logged once

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = self._path(scope["path"])
        if path in health.ADDRESSES and scope["method"] in ("GET", "HEAD"):
            found = await health.answer(path, scope, self.settings, self.ready.is_set())
            return await found(scope, receive, self._answering(scope, send))
        try:
            scope, receive = await self._checked(scope, receive)
            if scope["method"] == "GET" and scope["path"] == "/" and not self.ready.is_set():
                wait = PlainTextResponse("Wan UI is starting ...", 503, {"refresh": "1", "retry-after": "1"})
                return await wait(scope, receive, self._answering(scope, send))
        except (Refused, body.BodyRefused) as error:
            answer = PlainTextResponse(str(error), error.status, {"connection": "close"})
            return await answer(scope, receive, self._answering(scope, send))
        await self.app(scope, receive, self._answering(scope, send))

    async def _checked(self, scope, receive):
        settings, headers = self.settings, Headers(scope=scope)
        path = self._path(scope["path"])
        if path.startswith(f"/gradio_api/file={CLIPS}"):
            path = path.replace(CLIPS, f"{settings.outputs / 'clips'}/", 1)
        if path.startswith(f"/gradio_api/file={EXAMPLES}"):
            path = path.replace(EXAMPLES, f"{examples.FOLDER}/", 1)
        path = path_to_real(path, Path(get_upload_folder()))
        scope = {**scope, "path": path}
        host = headers.get("host", "")
        for name in (*headers.getlist("host"), *headers.getlist("x-forwarded-host")):
            if not is_known_host(name.partition(",")[0], settings):
                self._tell(f"a request for the host {name[:200]!r} was refused; see WAN_UI_HOSTS")
                name = split_host(name)[0][:200]
                raise Refused(
                    403,
                    f"This Wan UI does not answer under the name {name!r}. If the name is yours, start it with "
                    f"WAN_UI_HOSTS={name} (several are separated by commas).",
                )
        method = scope["method"]
        if ("origin" in headers or method not in ("GET", "HEAD")) and is_cross_site(headers, settings):
            page = headers.get("origin", "another site")[:200]
            self._tell(f"a request from {page!r} to {host[:200]!r} was refused; see WAN_UI_HOSTS")
            raise Refused(
                403,
                f"Requests from other sites are refused: the page is {page}, and this is {host[:200]}. If that page is "
                "this app behind a proxy, name its host in WAN_UI_HOSTS.",
            )
        if not PAGES.fullmatch(scope["path"]):
            raise Refused(403 if scope["path"].startswith("/gradio_api/") else 404, "There is nothing at this address.")
        added = {VISITOR: b"local" if visitor(scope, settings)[0] else b"shared"}
        page = origin_host(headers)
        if page and not split_host(host)[1]:  # the proxy has left out the port, and answers carry whole addresses
            added |= {b"host": page.encode("latin-1")}
            if "x-forwarded-host" in headers:
                added |= {b"x-forwarded-host": page.encode("latin-1")}
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in (VISITOR, *added)]
        scope["headers"] = [*kept, *added.items()]
        if method not in ("GET", "HEAD", "OPTIONS"):
            scope, receive = await self._bounded(scope, receive, headers)
        return scope, receive

    def _path(self, path: str) -> str:
        """Without the proxy's own part, which some proxies take off and others leave."""
        root = "/" + re.sub(r"https?://[^/]*", "", self.settings.root_path).strip("/")
        return path[len(root) :] or "/" if root != "/" and f"{path}/".startswith(f"{root}/") else path

    async def _bounded(self, scope, receive, headers: Headers):
        length = headers.get("content-length", "")
        if scope["path"].rstrip("/").endswith("/upload"):
            return scope, self._counted(receive, length)
        if scope["path"].startswith("/login"):
            content = await body.read_body(receive, body.MAX_FORM, length, "login")
        else:
            content = await body.read_body(receive, body.MAX_BYTES, length, "json")
            if content:  # what was checked is what is parsed
                values = body.check_json(content)
                if scope["path"].startswith("/gradio_api/call/v2/"):
                    _check_names(values)
                content = json.dumps(to_real(values, Path(get_upload_folder()))).encode()
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"transfer-encoding")]
        scope = {**scope, "headers": [*kept, (b"content-length", str(len(content)).encode())]}
        parts = [{"type": "http.request", "body": content, "more_body": False}]

        async def replay():
            return parts.pop() if parts else await receive()

        return scope, replay

    def _counted(self, receive, length: str):
        """An upload as it arrives. What ends it early is raised as the parser's own error: then it cleans up."""
        limit = self.settings.max_upload_mb * 2**20 + 1_000_000  # with the form around it; Gradio counts the file
        deadline, seen, ended = time.monotonic() + body.LONGEST_UPLOAD, 0, False

        async def counted():
            nonlocal seen, ended
            if ended:
                return await receive()
            try:
                part = await body.next_part(receive, deadline)
            except body.BodyRefused as error:
                raise MultiPartException(str(error)) from None
            if part["type"] == "http.disconnect":
                raise MultiPartException("The upload was broken off.")
            seen += len(part.get("body", b""))
            ended = not part.get("more_body")
            if seen > limit or (length.isdigit() and len(length) < 20 and int(length) > limit):
                if not ended:
                    await body.drain(receive)
                ended = True
                raise MultiPartException(
                    f"File size exceeded maximum allowed size of {self.settings.max_upload_mb} MB "
                    f"({self.settings.max_upload_mb * 2**20} bytes)."
                )
            return part

        return counted

    def _answering(self, scope, send):
        is_file = "/gradio_api/file" in scope["path"]

        async def answering(message):
            if message["type"] == "http.response.start":
                if is_file and message["status"] in (200, 206):
                    message = {**message, "headers": [p for p in message["headers"] if p[0].lower() in OF_FILES]}
                    headers = MutableHeaders(scope=message)
                    suffix = Path(scope["path"]).suffix.lower()
                    headers["content-type"] = TYPES.get(suffix, "application/octet-stream")
                    name = quote(Path(scope["path"]).name)
                    headers["content-disposition"] = f"attachment; filename*=utf-8''{name}"
                    headers["content-security-policy"] = FILE_POLICY
                    headers["cache-control"] = "private, max-age=3600"
                else:
                    headers = MutableHeaders(scope=message)
                    headers["content-security-policy"] = self.page_policy
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "same-origin"
                headers["cross-origin-resource-policy"] = "same-origin"
            await send(message)

        return answering

    def _tell(self, words: str) -> None:
        if words not in self.told and len(self.told) < 100:
            self.told.add(words)
            log.warning("%s", words)


def uploaded(value: dict | None, field: str = "image") -> str:
    """The path of an uploaded file as it arrived from the browser or the API; "" when there is none.

    Gradio has looked at the path already where it recognised a file; a value that it did not recognise
    (a bare text, a record without its marker) must not become a path either.
    """
    if not value:
        return ""
    path = value.get("path") if isinstance(value, dict) else None
    if (
        not isinstance(path, str)
        or "\0" in path
        or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(get_upload_folder()))
    ):
        raise UserError(f"{field}: send an uploaded file", field=field)
    return path
