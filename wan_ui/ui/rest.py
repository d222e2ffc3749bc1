"""Jobs over plain HTTP, below /api: POST /api/jobs and /api/after, GET /api/jobs and /api/jobs/ID, its result, clip,
file and cancel.

What each does is in api_jobs.py; the guard (guard.py) has looked at the request before. /api/openapi.json describes
these addresses and no others.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from gradio import route_utils
from gradio.utils import get_upload_folder
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from wan_ui.errors import UserError
from wan_ui.queue.jobs import ID, QueueFull, TableError
from wan_ui.scrub import clean
from wan_ui.settings import Settings
from wan_ui.tasks import FORM
from wan_ui.ui import api_jobs, lora_get
from wan_ui.ui.aliases import ALIAS, path_to_real
from wan_ui.ui.api_values import AFTER, AFTER_WORDS, PARAMETERS, WORDS
from wan_ui.ui.body import BodyRefused, drain
from wan_ui.ui.lora_pictures import small_picture

VISITOR, ADDRESS = "wan-ui-visitor", "wan-ui-address"  # headers of the guard: who asks
TOKEN = "wan-ui-token"  # the header by which a caller on a shared address is known
FILES = {entry.name for entry in FORM if entry.file}
AFTER_FILES = {"clip", "sound"}  # and of `join` what is no id
STATUS_CODES = {api_jobs.NoSuchJob: 404, api_jobs.NotDone: 409, QueueFull: 429, TableError: 503}
DESCRIPTION = (
    "Clips from pictures and words, as jobs of the queue that the page shows. On a shared address the first POST to "
    f"/api/jobs answers with a token; send it as the header {TOKEN} from then on: others' jobs are not told. Where a "
    "login is asked for (WAN_UI_AUTH), send it as HTTP Basic."
)


class Status(BaseModel):
    job: str
    state: str = Field(description="queued, running, done, failed, cancelled or interrupted")
    ahead: int = Field(description="jobs that run or wait before this one")
    stage: str = Field(description="of a job that runs: load, text, image, denoise, decode, encode, lipsync ...")
    step: int = Field(description="of the stage, counted from 1; 0: it has none")
    steps: int
    seconds_left: float | None = Field(description="null: not known")
    error: str = Field(description="why there is no clip, or what it lacks")
    prompt: str
    model: str
    seed: int | None
    created: float = Field(description="seconds since 1970")
    finished: float | None
    clip: str = Field(description="address of the clip, once it is there")


class Submitted(Status):
    jobs: list[str] = Field(description="ids: of several clips the status is the first one's")
    token: str | None = Field(None, description="on a shared address: by which this caller is known")


class Jobs(BaseModel):
    jobs: list[Status]


class Result(BaseModel):
    clip: str = Field(description="address of the clip, an MP4")
    settings: dict[str, Any] = Field(description="seed, model, size, seconds per stage and more")


class Uploaded(BaseModel):
    path: str = Field(description=f"what to send as {', '.join(sorted(FILES))}")


class Refusal(BaseModel):
    error: str
    field: str = Field(description="the value that is wrong; empty: none alone")


def _values(parameters: dict[str, Any], words: dict[str, str], files: set[str]) -> dict[str, Any]:
    """The schema of what POST /api/jobs or /api/after takes."""
    known: dict[type, Any] = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        type(None): ["number", "null"],
    }
    properties = {}
    for name, default in parameters.items():
        said = f"{words[name]}; a path that POST /api/upload has answered" if name in files else words[name]
        kind = ["string", "null"] if name in files or name == "negative" else known[type(default)]
        properties[name] = {"type": kind, "default": default, "description": said}
        if name == "join":
            properties[name] |= {"type": ["array", "null"], "items": {"type": "string"}}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _body(kind: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema, **more}}}}


FILE = {"type": "string", "format": "binary"}
UPLOAD = _body("multipart/form-data", {"type": "object", "properties": {"files": FILE}, "required": ["files"]})
EXAMPLE = {"image": f"{ALIAS}/.../photo.jpg", "prompt": "the camera slowly zooms in", "seed": 7}
JOB = _body("application/json", _values(PARAMETERS, WORDS, FILES), example=EXAMPLE)
CHANGING = {"job": "20261126-120000-0123456789abcdef", "start": 0.5, "loop": "ping-pong", "file": "gif"}
CHANGE = _body("application/json", _values(AFTER, AFTER_WORDS, AFTER_FILES), example=CHANGING)
Token = Annotated[str | None, Header(alias=TOKEN, description="on a shared address; see above")]
REFUSED: dict[int | str, dict[str, Any]] = {400: {"model": Refusal, "description": "a value is wrong"}}
UNKNOWN = {**REFUSED, 404: {"model": Refusal, "description": "no such job of yours"}}
NOT_DONE = {**UNKNOWN, 409: {"model": Refusal, "description": "there is no clip, or not yet"}}
FULL = {**REFUSED, 429: {"model": Refusal, "description": "too many jobs wait"}}
KINDS = {
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".webm": "video/webm",
    ".zip": "application/zip",
    ".png": "image/png",
}
BESIDE = {**NOT_DONE, 200: {"content": {kind: {"schema": FILE} for kind in KINDS.values()}}}
CLIP = {**NOT_DONE, 200: {"content": {"video/mp4": {"schema": FILE}}}}


class Rest(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Without FastAPI's own refusal, which is answered as ours are."""
        described = super().openapi()
        for methods in described["paths"].values():
            for method in methods.values():
                method["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            described["components"]["schemas"].pop(name, None)
        return described


def build_rest(settings: Settings) -> FastAPI:
    """The ASGI application of these addresses."""
    app = Rest(
        title="Wan UI",
        version="1",
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )

    def local(request: Request) -> bool:
        return request.headers[VISITOR] == "local"

    async def answered(request: Request, what: Callable[..., Any], *given: Any) -> Any:
        *values, token = given
        caller = api_jobs.Caller(token, local(request), request.headers[ADDRESS])
        return await run_in_threadpool(what, *values, caller)

    async def sent(request: Request, known: dict[str, Any], files: set[str]) -> dict[str, Any]:
        values = json.loads(await request.body() or b"null")  # JSON it is: the guard has read it
        if not isinstance(values, dict):
            raise UserError(f"json: expected an object; its values are any of {', '.join(known)}")
        return {name: _file(value) if name in files else value for name, value in values.items()}

    def address(job: str) -> str:
        return f"{settings.root_path.rstrip('/')}/api/jobs/{job}/clip"

    def record(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "clip": address(found["job"]) if found["clip"] else ""}

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> JSONResponse:
        words = str(error) if local(request) else clean(str(error), settings)
        code = next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 400)
        return JSONResponse({"error": words, "field": error.field or ""}, code)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        return JSONResponse({"error": f"{field}: {first['msg']}", "field": field}, 400)

    @app.exception_handler(HTTPException)
    async def nothing(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail), "field": ""}, error.status_code)

    @app.post("/api/upload", summary="Send a file", status_code=201, responses=REFUSED, openapi_extra=UPLOAD)
    async def upload(request: Request) -> Uploaded:
        """One file, in the form field `files`. It is kept for a day; a job makes a copy of its own."""
        folder = Path(get_upload_folder())
        try:
            most = settings.max_upload_mb * 2**20
            files, *_ = await route_utils.upload_fn(request, str(folder), most, None)
        except MultiPartException as error:
            raise UserError(f"files: {error.message}", field="files") from None
        return Uploaded(path=f"{ALIAS}/{Path(files[0]).relative_to(folder).as_posix()}")

    @app.post("/api/jobs", summary="Put a clip in the queue", status_code=201, responses=FULL, openapi_extra=JOB)
    async def submit(request: Request, token: Token = None) -> Submitted:
        """What is left out is chosen. Answers at once; ask for its status from time to time."""
        given = await sent(request, PARAMETERS, FILES)
        return Submitted(**record(await answered(request, api_jobs.submit, given, token)))

    @app.post("/api/after", summary="Change a finished clip", status_code=201, responses=FULL, openapi_extra=CHANGE)
    async def change(request: Request, token: Token = None) -> Submitted:
        """A job of its own, which answers as POST /api/jobs does; the original stays."""
        given = await sent(request, AFTER, AFTER_FILES)
        if isinstance(given.get("join"), list):
            given["join"] = [clip if _is_id(clip) else _file(clip) for clip in given["join"]]
        return Submitted(**record(await answered(request, api_jobs.after, given, token)))

    @app.get("/api/jobs", summary="Your jobs, newest first", responses=REFUSED)
    async def listed(
        request: Request, limit: Annotated[int, Query(ge=1, le=api_jobs.MOST)] = 50, token: Token = None
    ) -> Jobs:
        found = await answered(request, api_jobs.listed, limit, token)
        return Jobs(jobs=[Status(**record(job)) for job in found["jobs"]])

    @app.get("/api/jobs/{job}", summary="How a job is", responses=UNKNOWN)
    async def status(request: Request, job: str, token: Token = None) -> Status:
        return Status(**record(await answered(request, api_jobs.status, job, token)))

    @app.post("/api/jobs/{job}/cancel", summary="Stop a job", responses=UNKNOWN)
    async def cancel(request: Request, job: str, token: Token = None) -> Status:
        """At once where it waits, at its next step where it runs."""
        return Status(**record(await answered(request, api_jobs.cancel, job, token)))

    @app.get("/api/jobs/{job}/result", summary="The clip's address and settings", responses=NOT_DONE)
    async def result(request: Request, job: str, token: Token = None) -> Result:
        _, made = await answered(request, api_jobs.result, job, token)
        return Result(clip=address(job), settings=made)

    @app.get("/api/jobs/{job}/clip", summary="The clip itself", response_class=FileResponse, responses=CLIP)
    async def clip(request: Request, job: str, token: Token = None) -> FileResponse:
        path, _ = await answered(request, api_jobs.result, job, token)
        return FileResponse(path, media_type="video/mp4")

    @app.get("/api/jobs/{job}/file", summary="What was made beside it", response_class=FileResponse, responses=BESIDE)
    async def file(request: Request, job: str, token: Token = None) -> FileResponse:
        """A GIF, WebP or WebM, its frames as a zip, or the last one."""
        path = Path(await answered(request, api_jobs.file_of, job, token))
        return FileResponse(path, media_type=KINDS[path.suffix])

    @app.post(lora_get.ADDRESS, include_in_schema=False, status_code=201)
    async def lora_file(request: Request, name: str) -> dict[str, str]:
        """A file for the LoRA folder, as the body, from who may write there; see lora_get.py."""
        length, seen = request.headers.get("content-length", ""), 0
        if not (local(request) or settings.shared_downloads):
            raise HTTPException(403, "Files are put into the LoRA folder by who runs this app.")
        if not length.isdigit() or len(length) > 15:
            raise HTTPException(411, "file: the request must say how long it is (Content-Length).")

        async def parts() -> AsyncIterator[bytes]:
            nonlocal seen
            try:
                async for part in request.stream():
                    seen += len(part)
                    yield part
            except (BodyRefused, ClientDisconnect) as error:
                raise UserError(f"file: it was broken off ({error}); send it again", field="file") from None

        try:
            return {"name": await lora_get.receive_file(name, int(length), parts(), settings)}
        except UserError:
            if seen < int(length):
                await drain(request.receive)  # who is still sending does not hear the answer
            raise

    @app.get("/api/lora-pictures/{key}", include_in_schema=False)
    async def lora_picture(key: str) -> Response:
        """For the shelf of the page, which was given the key."""
        try:
            content = await run_in_threadpool(small_picture, key, settings)
        except UserError as error:
            raise HTTPException(404, error.words) from None
        return Response(content, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    return app


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(ID, value) is not None


def _file(value: Any) -> Any:
    """A path as POST /api/upload has answered it -> as Gradio's own record of a file; see security.uploaded."""
    if not isinstance(value, str) or not value:
        return value or None
    return {"path": path_to_real(value, Path(get_upload_folder()))}
