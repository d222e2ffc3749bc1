"""The download command against a small hub on loopback: plan, resume, checksums, broken connections, no network."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from wan_ui import download, weights
from wan_ui.__main__ import main
from wan_ui.catalog import load_catalog
from wan_ui.errors import UserError
from wan_ui.settings import load_settings, use

CATALOG = load_catalog(load_settings({}).catalog)
MODEL = CATALOG["ti2v-5b"]
SCHEME = MODEL.scheme("")


class Hub(ThreadingHTTPServer):
    """Serves `files` {"/owner/repo/resolve/main/path": bytes} as huggingface.co does."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.cut, self.spoil = {}, [], 0, 0

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
        content = hub.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = hashlib.sha256(content).hexdigest()
        if self.path.endswith(".json"):
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
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
            self.wfile.write(content[start:])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, file: None)
    server.settings = replace(load_settings({}), models=tmp_path / "models", hub=server.url)
    for number, ref in enumerate(weights.needed_files(MODEL, SCHEME, "lightx2v")):
        repo, _, file = ref.partition(":")
        server.files[f"/{repo}/resolve/main/{file}"] = bytes([number]) * (5_000 + 1_000 * number)
    yield server
    server.shutdown()
    server.server_close()


def plan(hub, **options):
    return download.plan(MODEL, SCHEME, hub.settings, "lightx2v", **options)


def test_plan_has_sizes_and_leaves_out_what_the_scheme_replaces(hub):
    items = plan(hub)
    assert {item.file for item in items} >= {
        "config.json",
        "Wan2.2_VAE.pth",
        "models_t5_umt5-xxl-enc-fp8.pth",
        "Wan2_2-TI2V-5B-Turbo-Q8_0.gguf",
    }
    assert not any("diffusion_pytorch_model" in item.file or "enc-bf16" in item.file for item in items)
    assert all(item.size >= 5_000 and item.revision == "c" * 40 and not item.present for item in items)
    assert all(method == "HEAD" for method, *_ in hub.requests)


def test_fetch_then_everything_is_there(hub):
    seen = []
    download.fetch(plan(hub), lambda item, done: seen.append((item.file, done)))
    paths = weights.locate(MODEL, SCHEME, hub.settings, "lightx2v")
    assert paths.vae.name == "Wan2.2_VAE.pth" and paths.t5.name.endswith("fp8.pth")
    assert ("config.json", 5_000) in seen
    assert not list(hub.settings.models.rglob("*.part"))
    hub.requests.clear()
    assert all(item.present for item in plan(hub)) and hub.requests == []


def test_a_broken_connection_is_resumed(hub):
    hub.cut = 1
    items = plan(hub)[:1]
    hub.requests.clear()
    download.fetch(items)
    assert [start for _, _, start in hub.requests] == [0, 2_500]
    assert items[0].target.read_bytes() == bytes([0]) * 5_000


def test_a_killed_download_goes_on_in_the_next_run(hub):
    (item,) = plan(hub)[:1]
    item.target.parent.mkdir(parents=True)
    item.part.write_bytes(bytes(3_000))
    again = plan(hub)[0]
    assert (again.have, again.left) == (3_000, 2_000)
    hub.requests.clear()
    download.fetch([again])
    assert hub.requests == [("GET", again.url.removeprefix(hub.url), 3_000)]


def test_wrong_content_of_the_right_size_is_fetched_again(hub):
    hub.spoil = 1
    items = plan(hub)[1:2]
    download.fetch(items)
    assert items[0].target.read_bytes() == bytes([1]) * 6_000
    items[0].target.write_bytes(bytes([9]) * 6_000)
    assert plan(hub)[1].present, "a plain run trusts files in place"
    damaged = plan(hub, check=True)[1]
    assert not damaged.present
    download.fetch([damaged])
    assert damaged.target.read_bytes() == bytes([1]) * 6_000


def test_content_that_stays_wrong_is_never_used(hub):
    hub.spoil = 99
    items = plan(hub)[:1]
    items = [replace(items[0], etag="0" * 64)]
    with pytest.raises(UserError, match=r"not complete after 5 attempts.*checksum"):
        download.fetch(items)
    assert not items[0].target.exists() and not items[0].part.exists()


def test_no_network_says_which_file_from_where_and_where_to_put_it(hub):
    nowhere = replace(hub.settings, hub="http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        download.plan(MODEL, SCHEME, nowhere, "lightx2v")
    text = str(caught.value)
    assert "http://127.0.0.1:9 cannot be reached" in text
    target = nowhere.models / "Wan-AI/Wan2.2-TI2V-5B/Wan2.2_VAE.pth"
    assert f"http://127.0.0.1:9/Wan-AI/Wan2.2-TI2V-5B/resolve/main/Wan2.2_VAE.pth -> {target}" in text
    assert len(text.splitlines()) == 2 + len(hub.files)


def test_a_file_that_is_gone_and_a_full_disk(hub, monkeypatch):
    items = plan(hub)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(UserError, match=r"disk: .* are needed and .* WAN_UI_MODELS"):
        download.fetch(items)
    del hub.files[items[0].url.removeprefix(hub.url)]
    with pytest.raises(UserError, match=r"config\.json: .*404"):
        plan(hub)


def test_the_command(hub, capsys, monkeypatch):
    use(hub.settings)
    try:
        assert main(["download", "ti2v-5b", "gguf-Q8_0", "--engine", "lightx2v", "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "Wan2_2-TI2V-5B-Turbo-Q8_0.gguf" in shown and "to download" in shown
        assert not hub.settings.models.exists()
        assert main(["download", "ti2v-5b", "gguf-Q8_0", "--engine", "lightx2v"]) == 0
        assert "all files are there" in capsys.readouterr().out
        assert main(["download", "wan-tiny", "bf16"]) == 1
        assert "ships with Wan UI" in capsys.readouterr().err
        assert main(["download", "ti2v-5b", "bf16"]) == 1
        assert "scheme: 'bf16' is not available" in capsys.readouterr().err
    finally:
        use(load_settings({}))
