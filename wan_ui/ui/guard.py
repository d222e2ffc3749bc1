"""What stands in front of all of Gradio: which requests come through, and what browsers may do with the answers.

`Guard` knows the addresses that the page needs, refuses names and pages of strangers (see visitor.py), asks for the
login where there is one, bounds how often somebody may ask (pace.py), what a request may bring (body.py) and what waits
in the folder of uploads (uploads.py).
"""

import asyncio
import json
import logging
import math
import re
import threading
import time
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_space, get_upload_folder
from starlette.datastructures import Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, Response

from wan_ui import limits
from wan_ui.settings import Settings
from wan_ui.ui import body, examples, frontend, health, lora_get, pwa
from wan_ui.ui.aliases import path_to_real, to_real
from wan_ui.ui.api_values import PARAMETERS
from wan_ui.ui.markup import CLIPS
from wan_ui.ui.own_memory import OwnMemory
from wan_ui.ui.pace import Pace
from wan_ui.ui.security import EXAMPLES
from wan_ui.ui.uploads import Full, Uploads
from wan_ui.ui.visitor import from_here, group, is_cross_site, is_known_host, origin_host, split_host, visitor

log = logging.getLogger(__name__)

# Headers by which `Guard` tells handlers who asks: "local" or "shared", and who is counted as one
# by their address; programs of this machine may ask for many people.
VISITOR, ADDRESS = b"wan-ui-visitor", b"wan-ui-address"
# All that the page and programs need; the rest of Gradio (screen recordings, component functions, streams, proxying,
# monitoring, run history ...) is not there. After API_PREFIX or at the root.
PAGES = re.compile(
    r"/|/(config|login|logout|favicon\.ico|theme\.css|robots\.txt|manifest\.json|words/zh\.json|icon-\w+\.png)/?|/(static|assets|svelte)/.+"
    r"|/gradio_api/(info|openapi\.json|user|login_check|app_id|upload|upload_progress|startup-events|theme\.css)/?"
    r"|/gradio_api/(queue/(join|data)|cancel|reset)/?|/gradio_api/heartbeat/[^/]+"
    r"|/gradio_api/(run|api|call)/[^/]+/?|/gradio_api/call/(?!v2/)[^/]+/[^/]+|/gradio_api/call/v2/generate(/[^/]+|/)?"
    r"|/gradio_api/file[=/].+|/api/.+"
)
MCP = re.compile(r"/gradio_api/mcp(/http)?/?")  # where the tools are, if they are switched on
# Of them, what is there before a login ...
OPEN = re.compile(
    r"/|/(login|logout|favicon\.ico|theme\.css|robots\.txt|manifest\.json|words/zh\.json|icon-\w+\.png)/?|/(static|assets|svelte)/.+"
    r"|/gradio_api/(user|login_check|theme\.css|startup-events)/?"
)
# ... and what is not answered while the page is short of memory; who has it open goes on.
NEW = re.compile(r"/|/gradio_api/upload/?|/gradio_api/(run|api|call)/.+|/api/(upload|jobs|after|lora-files)/?")
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


class Refused(Exception):
    """status: of the answer. wait: seconds after which it may be tried again; 0: it need not be."""

    def __init__(self, status: int, words: str, wait: float = 0.0):
        super().__init__(words)
        self.status, self.wait = status, wait


def _is_program(path: str) -> bool:
    """Whether it is an address for programs alone."""
    return path.startswith("/api/") or MCP.fullmatch(path) is not None


def _check_names(values) -> None:
    """Of a call that names its values; Gradio itself breaks on a wrong one. Raises Refused."""
    if not isinstance(values, dict):
        raise Refused(400, f"json: expected an object; its values are any of {', '.join(PARAMETERS)}.")
    for name in values:
        if name not in PARAMETERS:
            raise Refused(400, f"{name[:80]!r} is not a value of generate; known are {', '.join(PARAMETERS)}.")


class Guard:
    """ASGI application in front of Gradio's."""

    def __init__(self, app, rest, settings: Settings, ready: threading.Event):
        """rest: what is below /api. ready: events are answered, which they are not yet in the moment in which the port
        is."""
        self.app, self.rest, self.settings, self.ready = app, rest, settings, ready
        self.page = frontend.smaller(app)
        self.page_policy = PAGE_POLICY + (SPACES if get_space() else "")
        self.uploads = Uploads(Path(get_upload_folder()), settings)
        self.requests = Pace(settings.max_requests_per_minute, 60.0) if settings.max_requests_per_minute else None
        self.logins = Pace(limits.LOGIN_TRIES, limits.LOGIN_SECONDS)
        self.memory = OwnMemory(settings.max_page_gb)
        self.told: set[str] = set()  # each reason is logged once

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = self._path(scope["path"])
        if path in health.ADDRESSES and scope["method"] in ("GET", "HEAD"):
            state = "short of memory" if self.memory.is_short() else "ok" if self.ready.is_set() else "starting"
            found = await health.answer(path, scope, self.settings, state, self.logins)
            return await found(scope, receive, self._answering(scope, send))
        try:
            scope, receive = await self._checked(scope, receive)
            if scope["method"] == "GET" and scope["path"] == "/" and not self.ready.is_set():
                wait = PlainTextResponse("Wan UI is starting ...", 503, {"refresh": "1", "retry-after": "1"})
                return await wait(scope, receive, self._answering(scope, send))
            await self._serve(scope, receive, self._answering(scope, send))
        except (Refused, body.BodyRefused) as error:
            headers = {"connection": "close"}
            if isinstance(error, Refused) and error.wait:
                headers["retry-after"] = str(math.ceil(error.wait))
            if error.status == 401 and _is_program(path):
                headers["www-authenticate"] = "Basic"
            answer: Response = PlainTextResponse(str(error), error.status, headers)
            if path.startswith("/api/"):
                answer = JSONResponse({"error": str(error), "field": ""}, error.status, headers)
            return await answer(scope, receive, self._answering(scope, send))

    async def _serve(self, scope, receive, send) -> None:
        """What was checked goes on. Raises Refused before anything is answered."""
        posted, path = scope["method"] == "POST", scope["path"].rstrip("/")
        if posted and path.endswith("/upload"):
            await self._take_upload(scope, receive, send)
        elif posted and path == "/login":
            await self._log_in(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD") and (found := self._kept(path, scope)) is not None:
            await found(scope, receive, send)
        else:
            await self._app(path)(scope, receive, send)

    def _kept(self, path: str, scope) -> Response | None:
        return pwa.answer(path) or frontend.answer(path, Headers(scope=scope))

    def _app(self, path: str):
        return self.rest if path.startswith("/api/") else self.app if path.strip("/") else self.page

    async def _take_upload(self, scope, receive, send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        most = self.settings.max_upload_mb * 2**20
        size = min(int(length), most) if length.isdigit() and len(length) < 20 else most
        try:
            await asyncio.to_thread(self.uploads.begin, size)
        except Full as error:
            await body.drain(receive)
            raise Refused(507, str(error), 60) from None
        try:
            await self._app(scope["path"])(scope, self._counted(receive, length), send)
        finally:
            self.uploads.end(size)

    async def _log_in(self, scope, receive, send) -> None:
        asker = group(visitor(scope, self.settings)[1])
        if wait := self.logins.take(asker):
            raise Refused(429, health.too_many_logins(wait), wait)

        async def heard(message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.logins.forget(asker)
            await send(message)

        await self.app(scope, receive, heard)

    def _is_logged_in(self, scope, headers: Headers) -> bool:
        """Whether the browser or program has the cookie that Gradio gives for a right login; programs that ask below
        /api or for tools may send the login with each request instead (HTTP Basic). Raises Refused."""
        if "authorization" in headers and _is_program(scope["path"]):
            asker = group(visitor(scope, self.settings)[1])
            if wait := self.logins.take(asker):
                raise Refused(429, health.too_many_logins(wait), wait)
            if health.signed_in(headers, self.settings):
                self.logins.forget(asker)
                return True
        cookies = cookie_parser(headers.get("cookie", ""))
        names = (f"access-token-{self.app.cookie_id}", f"access-token-unsecure-{self.app.cookie_id}")
        return any(cookies.get(name) in self.app.tokens for name in names)

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
        if not PAGES.fullmatch(scope["path"]) and not (settings.mcp and MCP.fullmatch(scope["path"])):
            raise Refused(403 if scope["path"].startswith("/gradio_api/") else 404, "There is nothing at this address.")
        local, address = visitor(scope, settings)
        if not local and self.requests is not None and (wait := self.requests.take(group(address))):
            raise Refused(429, "Too many requests from your address; try again in a moment.", wait)
        if settings.auth and not OPEN.fullmatch(scope["path"]) and not self._is_logged_in(scope, headers):
            raise Refused(401, "This Wan UI asks for a login.")
        if self.memory.is_short() and NEW.fullmatch(scope["path"]):
            raise Refused(503, "This Wan UI is short of memory now; try again in a moment.", 10)
        asker = "" if from_here(scope) else group(address)
        added = {VISITOR: b"local" if local else b"shared", ADDRESS: asker.encode("latin-1", "replace")}
        page = origin_host(headers)
        if page and not split_host(host)[1]:  # the proxy has left out the port, and answers carry whole addresses
            added |= {b"host": page.encode("latin-1")}
            if "x-forwarded-host" in headers:
                added |= {b"x-forwarded-host": page.encode("latin-1")}
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in added]
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
            return scope, receive  # see `_take_upload`
        if scope["path"] == lora_get.ADDRESS:  # larger than all else; see there what bounds it
            return scope, body.in_time(receive, limits.UPLOAD_SECONDS)
        if scope["path"].startswith("/login"):
            content = await body.read_body(receive, limits.LOGIN_BYTES, length, "login")
        else:
            content = await body.read_body(receive, limits.JSON_BYTES, length, "json")
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
        deadline, seen, ended = time.monotonic() + limits.UPLOAD_SECONDS, 0, False

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
