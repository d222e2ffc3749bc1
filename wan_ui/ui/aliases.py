"""Paths of uploads as a shared visitor sees them: "/uploads/..." instead of where the server keeps them.

Gradio tells a browser the path of each file it holds, and takes that path back in the next call. `Aliases` stands
inside of Gradio's compression and puts the alias into answers to visitors; `guard.Guard` puts the folder back.
"""

import json
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders

from wan_ui.tasks import FORM

ALIAS = "/uploads"
# Of values that may hold one; those of the form: see form.to_keep.
FIELDS = ("path", "url", *(entry.part for entry in FORM if entry.file))
KINDS = ("application/json", "text/event-stream", "text/html")


def to_real(value, folder: Path):
    """JSON values with the folder for the alias, in FIELDS alone: a prompt stays what it is."""
    if isinstance(value, list):
        return [to_real(entry, folder) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        key: path_to_real(entry, folder) if key in FIELDS and isinstance(entry, str) else to_real(entry, folder)
        for key, entry in value.items()
    }


def path_to_real(text: str, folder: Path) -> str:
    if text.startswith(f"{ALIAS}/"):
        return f"{folder}{text.removeprefix(ALIAS)}"
    return text.replace(f"/gradio_api/file={ALIAS}/", f"/gradio_api/file={folder}/", 1)


class Aliases:
    """ASGI middleware for the answers. header: by which `Guard` says who asks."""

    def __init__(self, app, folder: Path, header: str):
        self.app, self.header = app, header
        places = {str(folder), str(folder.resolve())}
        forms = {form for place in places for form in (place, json.dumps(place)[1:-1], quote(place))}
        self.forms = [form.encode() for form in sorted(forms, key=len, reverse=True)]

    def hide(self, content: bytes) -> bytes:
        for form in self.forms:
            content = content.replace(form, ALIAS.encode())
        return content

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or Headers(scope=scope).get(self.header) == "local":
            return await self.app(scope, receive, send)
        start: dict | None = None  # of an answer whose length is told before its content, until that is known
        held = bytearray()
        hidden = False

        async def hiding(message) -> None:
            nonlocal start, hidden
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                hidden = headers.get("content-type", "").startswith(KINDS)
                if hidden and "content-length" in headers:
                    start = message
                    return
            elif hidden and message["type"] == "http.response.body":
                if start is None:
                    message = {**message, "body": self.hide(message.get("body", b""))}
                else:
                    held.extend(message.get("body", b""))
                    if message.get("more_body"):
                        return
                    content = self.hide(bytes(held))
                    MutableHeaders(scope=start)["content-length"] = str(len(content))
                    await send(start)
                    message = {**message, "body": content}
            await send(message)

        await self.app(scope, receive, hiding)
