"""Real requests at the running app: nothing but clips is served, nothing is fetched, nobody else's page may post."""

import functools
import gzip
import html
import http.server
import json
import socket
import sqlite3
import threading
import time
import uuid
from pathlib import Path

import brotli
import gradio as gr
import httpx
import pytest
from playwright.sync_api import expect

from tests.ui.conftest import CLIP, PATIENCE, App, generate, wait_for_playing
from wan_ui.settings import ROOT
from wan_ui.ui import frontend
from wan_ui.ui.refusals import guard

# Of the endpoint `generate`, after image and prompt: model, scheme, size, frames, steps, seed, loras, audio.
REST = ["", "", "auto", None, None, -1, "", None]


@pytest.fixture(scope="module")
def web(app):
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as client:
        yield client


def call(web: httpx.Client, name: str, data: list) -> str:
    """Call an endpoint the way any program can, with whatever data; the answer's events as text."""
    answer = web.post(f"/gradio_api/call/{name}", json={"data": data})
    if answer.status_code != 200:
        return answer.text
    return web.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text


def file_data(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.hardening(1, 2)
def test_only_clips_are_served(web, app):
    outputs = app.folder / "outputs"
    assert (outputs / "wan_ui.sqlite").is_file()
    for path in (
        "/etc/passwd",
        ROOT / "app.py",
        ROOT / "configs" / "catalog.toml",
        outputs / "wan_ui.sqlite",
        outputs / "clips",
        f"{outputs}/clips/../wan_ui.sqlite",
        f"{outputs}/clips/%2e%2e/wan_ui.sqlite",
        f"{outputs}/CLIPS/../wan_ui.sqlite",
        app.log_file,
        "/proc/self/environ",
        "file:///etc/passwd",
    ):
        assert web.get(f"/gradio_api/file={path}").status_code == 403, path
    assert web.get("/gradio_api/file=nothing-here").status_code in (403, 404)


@pytest.mark.hardening(2)
def test_a_link_out_of_the_clips_folder_is_not_followed(web, app):
    link = app.folder / "outputs" / "clips" / "link"
    link.symlink_to("/etc/passwd")
    try:
        assert web.get(f"/gradio_api/file={link}").status_code == 403
    finally:
        link.unlink()


@pytest.mark.hardening(1)
@pytest.mark.parametrize(
    "image",
    [
        file_data("/etc/passwd"),
        file_data(str(ROOT / "assets")),
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "url": "data:image/png;base64,AAAA"},
        "/etc/passwd",
        [file_data("/etc/passwd")],
        {"path": None, "url": "http://127.0.0.1/"},
    ],
)
def test_a_path_that_was_not_uploaded_is_refused(web, app, image):
    before = count_jobs(app)
    answer = call(web, "generate", [image, "x", *REST])
    assert "event: error" in answer and "root:" not in answer
    assert count_jobs(app) == before


@pytest.mark.hardening(1)
def test_someone_elses_clip_is_not_a_picture_to_start_from(web, app, picture):
    path = web.post("/gradio_api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()[0]
    job = json.loads(call(web, "generate", [file_data(path), "a clip", *REST]).split("data: ")[-1])[1]["job"]
    poster = app.folder / "outputs" / "clips" / job / "poster.jpg"
    assert poster.is_file()
    answer = call(web, "generate", [file_data(str(poster)), "x", *REST])
    assert "event: error" in answer


@pytest.mark.hardening(4)
def test_no_address_is_ever_fetched(web):
    asked = []

    class Trap(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Trap) as trap:
        threading.Thread(target=trap.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{trap.server_port}/x.png"
        for url in (address, "http://169.254.169.254/latest/meta-data/x.png", "https://example.com/x.png"):
            answer = call(web, "generate", [file_data(url), "x", *REST])
            assert "Only uploaded files are accepted" in answer
            # Gradio looks for files in every value, also where a text is expected.
            answer = call(web, "generate", [None, file_data(url), *REST])
            assert "Only uploaded files are accepted" in answer
            assert web.get(f"/gradio_api/file={url}").status_code == 403
            assert web.get(f"/gradio_api/proxy={url}").status_code == 403
        trap.shutdown()
    assert asked == []


@pytest.mark.hardening(6)
def test_requests_from_other_sites_are_refused(web):
    body = {"data": [None, "x", *REST]}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    ):
        assert web.post("/gradio_api/call/generate", json=body, headers=headers).status_code == 403, headers
        assert web.post("/gradio_api/upload", files={"files": ("a.png", b"x")}, headers=headers).status_code == 403
        allowed = web.get("/config", headers=headers).headers.get("access-control-allow-origin", "")
        assert allowed not in ("*", "null", "https://evil.example")
    own = {"Origin": str(web.base_url).rstrip("/")}
    assert web.post("/gradio_api/call/generate", json=body, headers=own).status_code == 200


@pytest.mark.hardening(31)
def test_names_of_others_are_not_answered(web, picture):
    """DNS rebinding: a page of evil.example has given its name the address 127.0.0.1."""
    rebinding = {"Host": "evil.example:7860", "Origin": "http://evil.example:7860", "Sec-Fetch-Site": "same-origin"}
    body = {"data": [None, "x", *REST]}
    for name in ("Host", "X-Forwarded-Host"):
        headers = {**rebinding, name: "evil.example:7860"}
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/file=/etc/hosts", "/gradio_api/heartbeat/x"):
            answer = web.get(path, headers=headers)
            assert answer.status_code == 403 and "WAN_UI_HOSTS" in answer.text, path
        assert web.post("/gradio_api/call/generate", json=body, headers=headers).status_code == 403
        assert web.post("/gradio_api/upload", files={"files": ("a.png", b"x")}, headers=headers).status_code == 403
    assert web.get("/config", headers={"Host": "localhost"}).status_code == 200


@pytest.mark.hardening(32)
def test_behind_a_proxy_nobody_is_the_person_here(web):
    for headers, local in (
        ({}, True),
        ({"X-Forwarded-For": "127.0.0.1"}, False),
        ({"X-Forwarded-Proto": "http"}, False),
    ):
        event = web.post("/gradio_api/call/ask", json={"data": [{}, None]}, headers=headers).json()["event_id"]
        answer = web.get(f"/gradio_api/call/ask/{event}").text
        assert ("only the person at this machine" in answer) is not local


@pytest.mark.hardening(7)
def test_files_are_never_pages(web):
    """Whatever name a file is uploaded under, a browser gets bytes to save."""
    script = b"<script>alert(1)</script>"
    for name in ("voice.html", "voice.svg", "voice.xhtml", "voice.xml", "voice.js", "voice", "voice.HTM", "voice.pdf"):
        path = web.post("/gradio_api/upload", files={"files": (name, script, "text/html")}).json()[0]
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = web.get(f"/gradio_api/file={path}", headers=headers)
            assert answer.status_code in (200, 206) and answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "sandbox" in answer.headers["content-security-policy"]
    page = web.get("/")
    assert "object-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.hardening(8)
def test_a_request_is_bounded_before_it_is_read(web, app):
    post = functools.partial(web.post, headers={"Content-Type": "application/json"})
    for body, status, words in (
        (b'{"data":[' + b"[]," * 1_000_000 + b"[]]}", 413, "at most 2,000,000 bytes"),
        (b'{"data":[' + b"[]," * 100_000 + b"[]]}", 413, "at most 5,000 values"),
        (b'{"data":' + b"[" * 100 + b"]" * 100 + b"}", 400, "nested more than 32 deep"),
        (b'{"data":[' + b"9" * 5000 + b"]}", 400, "5,000 digits"),
    ):
        for path in (
            "call/generate",
            "queue/join",
            "run/generate",
            "api/generate",
            "cancel",
            "reset",
            "call/v2/generate",
        ):
            answer = post(f"/gradio_api/{path}", content=body)
            assert answer.status_code == status and words in answer.text, path
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    field = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + bytes(3_000_000) + b"\r\n--x--\r\n"
    answer = web.post("/gradio_api/upload", content=field, headers=form)
    assert answer.status_code == 400 and "send one file with a file name" in answer.text
    two = [("files", ("a.png", b"x")), ("files", ("b.png", b"x"))]
    assert web.post("/gradio_api/upload", files=two).status_code == 400
    assert web.post("/login", content=b"username=" + b"x" * 100_000).status_code == 413


@pytest.mark.hardening(8)
def test_a_broken_upload_leaves_nothing(web, app):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(200_000)
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"

    def halves() -> list:
        return list((app.folder / "outputs" / "uploads").glob("tmp*"))

    def until(done) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with socket.create_connection(("127.0.0.1", app.port)) as link:
        link.sendall(head + b"Content-Length: 500000\r\n\r\n" + part)
        until(halves)
    until(lambda: not halves())
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert web.post("/gradio_api/upload", content=part, headers=form).status_code == 400
    until(lambda: not halves())


@pytest.mark.hardening(5)
def test_only_this_machine_is_served_and_nothing_is_shared(app):
    """By default: the port listens on 127.0.0.1 alone, and no code asks Gradio for a public link."""
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert [place for place in listening if place.endswith(f":{app.port:04X}")] == [f"0100007F:{app.port:04X}"]
    sources = [ROOT / "app.py", *(ROOT / "wan_ui").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    assert not [path for path in sources if "share=True" in path.read_text(encoding="utf-8")]


@pytest.mark.hardening(1)
def test_component_functions_are_not_reachable(web):
    answer = web.post(
        "/gradio_api/component_server",
        json={"component_id": 1, "fn_name": "ls", "session_hash": uuid.uuid4().hex, "data": ["/etc"]},
    )
    assert answer.status_code >= 400 and "passwd" not in answer.text


@pytest.mark.hardening(8, 9)
@pytest.mark.limit("MAX_UPLOAD_MB")
def test_uploads_are_bounded_and_junk_does_no_harm(open_page, scripted, tmp_path):
    app: App = scripted(WAN_UI_MAX_UPLOAD_MB="1", TEST_EXAMPLES="/nowhere")
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1_200_000))
    page = open_page(app.url)
    expect(page.get_by_text("Try one")).to_have_count(0)  # no examples, no such section
    for part in ("#picture-part", "#voice-part", "#history-part"):
        page.set_input_files(f"{part} input[type=file]", large)
        expect(page.locator(".w-file-note")).to_have_text(
            "large.png has 1.1 MB; at most 1.0 MB can be sent. Make it smaller first."
        )
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as web:
        answer = web.post("/gradio_api/upload", files={"files": ("large.png", large.read_bytes())})
        assert answer.status_code >= 400 and "1048576" in answer.text
        for size, status in ((2**20, 200), (2**20 + 1, 413)):
            assert web.post("/gradio_api/upload", files={"files": ("a.png", bytes(size))}).status_code == status
        junk = {"Content-Type": "multipart/form-data; boundary=x"}
        for body in (b"", b"--x", b"\x00" * 5000, b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n'):
            assert web.post("/gradio_api/upload", content=body, headers=junk).status_code < 600
        named = web.post("/gradio_api/upload", files={"files": ("../../../evil.png", b"x")})
        if named.status_code == 200:
            assert Path(named.json()[0]).is_relative_to(app.folder / "outputs" / "uploads")
        assert web.get("/config").status_code == 200


def test_an_unexpected_error_is_short_in_the_page_and_whole_in_the_log(caplog):
    @guard
    def broken():
        raise ZeroDivisionError

    with pytest.raises(gr.Error, match="That did not work because of an error in Wan UI"):
        broken()
    assert "broken failed" in caplog.text and "Traceback" in caplog.text


def is_own(url: str, base: str) -> bool:
    return url.startswith((base, "data:", "blob:"))


def count_jobs(app: App) -> int:
    with sqlite3.connect(app.folder / "outputs" / "wan_ui.sqlite") as database:
        return database.execute("SELECT count(*) FROM jobs").fetchone()[0]


FORGED = (5, True, 2**70, "\ud800", [[]], {}, {"path": "/etc/passwd"})
FIELDS = ("job", "jobs", "schemes", "what", "off", "file", "value", "example", "model", "scheme")


@pytest.mark.hardening(33)
def test_forged_values_through_every_handler(web, app):
    """Each is answered or refused in words; none is an error of ours or of Gradio's."""
    seen = len(app.log())

    def send(handler: dict, *asked: tuple[list, object]) -> list[str]:
        """What it answers to each of (data, event)."""
        session, headers = f"forged-{handler['id']}", {"Content-Type": "application/json"}
        answers: dict[str, str] = {}
        for number, (data, event) in enumerate(asked):
            body = {"data": data, "fn_index": handler["id"], "session_hash": session, "event_data": event}
            joined = web.post("/gradio_api/queue/join", content=json.dumps(body), headers=headers)
            if joined.status_code == 200:
                answers[joined.json()["event_id"]] = ""
            else:
                answers[f"refused {number}"] = joined.text
        with web.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            lines = stream.iter_lines()
            while not all(answers.values()):
                line = next(lines)
                if '"process_completed"' in line:
                    answers[json.loads(line.removeprefix("data:"))["event_id"]] = line
        return list(answers.values())

    handlers = web.get("/config").json()["dependencies"]
    assert len(handlers) > 25
    for handler in handlers:
        count = len(handler["inputs"])
        events = [value if value in (5, {}) else dict.fromkeys(FIELDS, value) for value in FORGED]
        asked = [([value] * count, event) for value, event in zip(FORGED, events, strict=True)]
        for value, answer in zip(FORGED, send(handler, *asked), strict=True):
            silent = '"success":false' in answer and '"error":null' in answer
            assert "error in Wan UI" not in answer and not silent, (handler["api_name"], value, answer[-500:])
        if count and not handler["js"] and handler["api_visibility"] != "public":  # of those the last have defaults
            (answer,) = send(handler, ([None] * (count - 1), None))
            assert "values, not" in answer
    assert "Traceback" not in app.log()[seen:]
    assert web.get("/").status_code == 200


@pytest.mark.hardening(3)
@pytest.mark.parametrize(
    "place, value, words",
    [
        (1, 5, "prompt: 5 is not text"),
        (1, ["zoom"], "prompt: ['zoom'] is not text"),
        (2, {}, "model: {} is not text"),
        (3, 7, "scheme: 7 is not text"),
        (4, ["64x64"], "size: ['64x64'] is not text"),
        (4, "²56x²56", "is not WIDTHxHEIGHT"),
        (5, "many", "frames: 'many' is not a whole number"),
        (6, True, "steps: True is not a whole number"),
        (7, 10**30, "seed"),
        (8, ["x"], "loras: ['x'] is not text"),
        (0, 5, "image: send an uploaded file"),
        (9, {"path": 5}, "audio: send an uploaded file"),
    ],
)
def test_the_refusal_names_the_field(web, picture, place, value, words):
    path = web.post("/gradio_api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()[0]
    values = [file_data(path), "x", *REST]
    values[place] = value
    answer = call(web, "generate", values)
    assert "event: error" in answer and words in html.unescape(json.loads(answer.split("data: ")[-1])["error"])


@pytest.mark.hardening(3, 9)
def test_a_call_by_names_is_checked_too(web):
    others = ("y", "out", "path", "filename", "id", "seed ")  # of the output the server decides the name
    unknown = [({"image": None, "prompt": "x", name: "../x.mp4"}, f"{name!r} is not a value") for name in others]
    for values, words in (([], "expected an object"), *unknown):
        answer = web.post("/gradio_api/call/v2/generate", json=values)
        assert answer.status_code == 400 and words in answer.text
    for values, words in (({"prompt": 5}, "prompt: 5 is not text"), ({"prompt": "x", "job": 5}, "job: 5 is not text")):
        event = web.post("/gradio_api/call/v2/generate", json=values).json()["event_id"]
        assert words in web.get(f"/gradio_api/call/v2/generate/{event}").text
    assert web.post("/gradio_api/call/v2/x", json={}).status_code == 403


def test_scripts_and_styles_are_packed_once_and_kept_by_browsers(web):
    """Under every encoding they are the files that Gradio brings; nothing else lies there."""
    files = [path for path in frontend.FOLDER.iterdir() if path.suffix in (".js", ".css")]
    smallest, largest = (of(files, key=lambda path: path.stat().st_size) for of in (min, max))
    for file, packed in ((smallest, False), (largest, True)):
        for encoding in ("br", "gzip", "identity"):
            with web.stream("GET", f"/assets/{file.name}", headers={"Accept-Encoding": encoding}) as answer:
                sent = b"".join(answer.iter_raw())
            assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
            assert answer.headers["content-type"].startswith(("text/javascript", "text/css"))
            assert answer.headers["x-content-type-options"] == "nosniff"
            is_packed = packed and encoding != "identity"
            assert answer.headers.get("content-encoding") == (encoding if is_packed else None)
            unpack = {"br": brotli.decompress, "gzip": gzip.decompress}.get(encoding) if is_packed else None
            assert (unpack(sent) if unpack else sent) == file.read_bytes()
    refusing = {"Accept-Encoding": "br;q=0, gzip;q=0.5"}
    assert web.get(f"/assets/{largest.name}", headers=refusing).headers["content-encoding"] == "gzip"
    for name in ("none.js", "../index.html", "..%2Findex.html", "%2e%2e/index.html", "x/../../index.html", ".js"):
        answer = web.get(f"/assets/{name}")
        assert answer.status_code == 404 or answer.headers.get("cache-control") != frontend.KEEP, name


def test_the_page_itself_is_packed(web):
    pages = []
    for encoding in ("gzip", "identity"):
        with web.stream("GET", "/", headers={"Accept-Encoding": encoding}) as answer:
            pages.append(b"".join(answer.iter_raw()))
        assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
        assert "object-src 'none'" in answer.headers["content-security-policy"]
    assert gzip.decompress(pages[0]).count(b"<script") == pages[1].count(b"<script")
    assert len(pages[0]) < len(pages[1]) / 4


def test_a_clip_is_served_in_parts(used_page, app, web, picture):
    page = used_page(app.url)
    generate(page, picture, "served in parts")
    expect(page.locator(CLIP)).to_have_text("served in parts")
    wait_for_playing(page)
    address = "/" + page.locator("#clip").get_attribute("src")
    answer = web.get(address, headers={"Range": "bytes=0-99"})
    assert answer.status_code == 206 and len(answer.content) == 100
    assert answer.headers["content-type"] == "video/mp4"


def test_no_request_leaves_the_machine(used_page, app):
    """The page works without a network: all it asks for comes from the app itself."""
    page = used_page(app.url)
    page.wait_for_timeout(1000)
    asked = page.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert len(asked) > 50 and [url for url in asked if not is_own(url, app.url)] == []
    fonts = page.evaluate("[...document.fonts].map(font => font.family)")
    assert not [font for font in fonts if "Inter" in font or "IBM" in font]
    markup = httpx.get(app.url, timeout=PATIENCE).text
    assert "fonts.googleapis.com" not in markup and "cdnjs" not in markup
    config = json.loads(httpx.get(f"{app.url}/config", timeout=PATIENCE).text)
    assert config["analytics_enabled"] is False and config.get("is_space") in (False, None)
