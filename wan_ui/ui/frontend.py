"""Gradio's own scripts and styles, a hundred files: compressed once, kept by browsers, answered from memory.

Gradio reads and compresses each anew for every browser, says nothing of how long it may be kept, and sends the page
itself, three quarters of a megabyte, as it is. The names of these files change with what is in them, so a browser need
never ask for one again.
"""

import gzip
import re
from functools import cache
from pathlib import Path

import brotli
import gradio
from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

FOLDER = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
NAME = re.compile(r"/assets/([\w-]+(?:\.[\w-]+)*\.(?:js|css))", re.ASCII)
TYPES = {".js": "text/javascript", ".css": "text/css"}  # some machines have others in their tables
NOT_AT_ALL = re.compile(r"q=0(\.0*)?")
KEEP = "public, max-age=31536000, immutable"
LEAST = 400  # bytes that are worth it


def answer(path: str, headers: Headers) -> Response | None:
    """The file as the browser takes it; None for other addresses."""
    name = NAME.fullmatch(path)
    if name is None or not (FOLDER / name[1]).is_file():
        return None
    words = [word.partition(";") for word in headers.get("accept-encoding", "").replace(" ", "").split(",")]
    taken = [word for word, _, weight in words if not NOT_AT_ALL.fullmatch(weight)]
    encoding = next((one for one in ("br", "gzip") if one in taken), "")
    content, encoding = packed(name[1], encoding)
    said = {"cache-control": KEEP, "vary": "accept-encoding"} | ({"content-encoding": encoding} if encoding else {})
    return Response(content, headers=said, media_type=TYPES[Path(name[1]).suffix])


@cache
def packed(name: str, encoding: str) -> tuple[bytes, str]:
    """The file, and in which encoding it is; "": as it is."""
    content = (FOLDER / name).read_bytes()
    if len(content) < LEAST or not encoding:
        return content, ""
    return (brotli.compress(content, quality=5) if encoding == "br" else gzip.compress(content, 6)), encoding


def smaller(app):
    """The page itself, compressed."""
    return GZipMiddleware(app, minimum_size=LEAST, compresslevel=4)
