"""A small hub on loopback, for tests of downloads: sizes, checksums, ranges, and faults on demand."""

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 1 << 20


class Hub(ThreadingHTTPServer):
    """Serves `files` {"/owner/repo/resolve/main/path": bytes} as huggingface.co does.

    cut, spoil  how many answers break off half way, or have the wrong bytes; pause: seconds before each megabyte
    limit       bytes of all files together after which it sends nothing more, until there is another or None
    refuse      the status of every answer to GET, once it is set
    gated       {"owner/repo": tokens that may have it}; tokens: the Authorization of every request
    store       large files are on another host, to which the answers lead, as they are with the real one
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.cut, self.spoil, self.pause = {}, [], 0, 0, 0.0
        self.refuse, self.limit = 0, None
        self.gated, self.tokens, self.store = {}, [], False
        self.sent = {}  # path -> bytes of its newest answer that are on their way

    def start(self) -> "Hub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        hub.requests.append((self.command, self.path, start))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        hub.tokens.append(token)
        path = self.path.removeprefix("/store")
        content = hub.files.get(path)
        repo = path.partition("/resolve/")[0].lstrip("/")
        if self.path == path and token not in hub.gated.get(repo, [token]):
            self.send_response(403 if token else 401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        refused = hub.refuse if self.command == "GET" else 0
        if content is None or refused:
            self.send_response(refused or 404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = hashlib.sha256(content).hexdigest()
        if self.path.endswith(".json"):
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if hub.store and self.path == path and not path.endswith(".json"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{hub.server_port}/store{path}")
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            if hub.spoil:
                hub.spoil, content = hub.spoil - 1, bytes(len(content))
            if hub.cut:
                hub.cut, content = hub.cut - 1, content[: start + (len(content) - start) // 2]
            for at in range(start, len(content), PIECE):
                while hub.limit is not None and sum(hub.sent.values()) >= hub.limit:
                    time.sleep(0.02)
                time.sleep(hub.pause)
                try:
                    self.wfile.write(content[at : at + PIECE])
                    hub.sent[self.path] = min(at + PIECE, len(content))
                except (BrokenPipeError, ConnectionResetError):
                    return
