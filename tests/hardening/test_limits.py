"""Every limit of wan_ui/limits.py: what is taken at it, and what is said one above. The table in docs/limits.md."""

import asyncio
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.state_holder import StateHolder
from PIL import Image
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient

from tests.hardening.marks import marked
from tests.queue.test_quota import KB, UNLIMITED, prune, put
from tests.sounds import write_wav
from wan_ui import limits
from wan_ui.errors import UserError
from wan_ui.media import images, muxer, picture_files, sound, video
from wan_ui.queue import quota
from wan_ui.queue.intake import Draft, resolve
from wan_ui.queue.jobs import Jobs, QueueFull
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.segments_intake import look_before, read_prompts
from wan_ui.queue.worker import Worker
from wan_ui.request import Progress
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import compare_tab, launch, own_memory, security
from wan_ui.ui.body import BodyRefused, check_json, read_body
from wan_ui.ui.comparisons import Comparisons
from wan_ui.ui.guard import Guard
from wan_ui.ui.own_memory import OwnMemory
from wan_ui.ui.pace import Pace
from wan_ui.ui.uploads import Full, Uploads, collect

NAMES = [name for name in vars(limits) if name.isupper()]


def test_the_table_has_every_limit_as_it_is_and_each_has_a_test():
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == NAMES
    settings = {field.name.upper(): field.default for field in fields(Settings)}
    for name, value, setting, above in rows:
        assert eval(value.split()[0], {}) == getattr(limits, name), name
        assert (setting.strip() == f"`WAN_UI_{name}`") == (name in settings), name
        assert settings.get(name, getattr(limits, name)) == getattr(limits, name) and above.strip(), name
    tested = {name for names in marked("limit").values() for name in names}
    assert set(NAMES) == tested


# ---------------------------------------------------------------- what is sent


class Gradio:
    """Takes the place of Gradio's application: answers, and knows one login."""

    cookie_id, tokens = "x", {"right": "ada"}

    def __init__(self):
        self.heard = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        self.heard.append(scope["path"])
        content = b""
        while True:
            part = await receive()
            content += part.get("body", b"")
            if not part.get("more_body"):
                break
        wrong = scope["path"] == "/login" and b"password=secret" not in content
        answer = JSONResponse({"detail": "Incorrect credentials."}, 400) if wrong else PlainTextResponse("the page")
        await answer(scope, receive, send)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A browser elsewhere in front of the guard: web(setting=...)."""
    monkeypatch.setattr("wan_ui.ui.guard.get_upload_folder", lambda: str(tmp_path))

    def start(peer: str = "192.0.2.7", **values) -> TestClient:
        ready = threading.Event()
        ready.set()
        guard = Guard(Gradio(), None, Settings(**{"host": "0.0.0.0", **values}), ready)
        client = TestClient(guard, base_url="http://127.0.0.1:7860", client=(peer, 5), follow_redirects=False)
        client.guard = guard
        return client

    return start


@pytest.mark.hardening(41)
@pytest.mark.limit("MAX_REQUESTS_PER_MINUTE")
def test_requests_of_one_address(web):
    client = web(max_requests_per_minute=5)
    assert [client.get("/config").status_code for _ in range(6)] == [200] * 5 + [429]
    refused = client.get("/config")
    assert "Too many requests from your address" in refused.text and int(refused.headers["retry-after"]) == 12
    client.guard.requests.clock = lambda: time.monotonic() + 13
    assert [client.get("/config").status_code for _ in range(2)] == [200, 429], "one of five comes back in 12 s"
    other = TestClient(client.guard, base_url="http://127.0.0.1:7860", client=("192.0.2.8", 5))
    assert other.get("/config").status_code == 200
    here = web("127.0.0.1", host="127.0.0.1", max_requests_per_minute=5)
    assert {here.get("/config").status_code for _ in range(20)} == {200}, "the person at this machine"
    unlimited = web(max_requests_per_minute=0)
    assert {unlimited.get("/config").status_code for _ in range(20)} == {200}


@pytest.mark.hardening(39)
@pytest.mark.limit("LOGIN_TRIES", "LOGIN_SECONDS")
def test_wrong_logins_are_slowed_down_wherever_they_are_tried(web):
    client = web(auth="ada:secret")
    wrong, right = {"username": "ada", "password": "x"}, {"username": "ada", "password": "secret"}
    assert [client.post("/login", data=wrong).status_code for _ in range(11)] == [400] * 10 + [429]
    refused = client.post("/login/", data=right)
    assert refused.status_code == 429 and "Too many wrong logins from your address; try again in 30 s" in refused.text
    assert client.get("/metrics", auth=("ada", "secret")).status_code == 429, "the same password is asked for there"
    client.guard.logins.clock = lambda: time.monotonic() + limits.LOGIN_SECONDS / limits.LOGIN_TRIES + 1
    assert client.post("/login", data=right).status_code == 200
    assert client.post("/login", data=wrong).status_code == 400, "a right one makes up for the wrong ones"
    client = web(auth="ada:secret")
    codes = [client.get("/metrics", auth=("ada", "x")).status_code for _ in range(12)]
    assert codes == [401] * 10 + [429] * 2 and client.post("/login", data=right).status_code == 429


@pytest.mark.hardening(40)
def test_nothing_but_the_login_is_there_before_it(web):
    client = web(auth="ada:secret")
    for path in ("cancel", "reset", "queue/join", "call/generate", "run/generate", "upload"):
        assert client.post(f"/gradio_api/{path}", json={}).status_code == 401, path
    for path in ("/config", "/gradio_api/heartbeat/x", "/gradio_api/app_id", "/gradio_api/file=/etc/passwd"):
        assert client.get(path).status_code == 401, path
    assert client.guard.app.heard == []
    for path in ("/", "/theme.css", "/gradio_api/theme.css", "/assets/x.js", "/gradio_api/login_check"):
        assert client.get(path).status_code == 200, path
    for name in ("access-token-x", "access-token-unsecure-x"):
        assert client.post("/gradio_api/cancel", json={}, headers={"cookie": f"{name}=right"}).status_code == 200
        assert client.post("/gradio_api/cancel", json={}, headers={"cookie": f"{name}=wrong"}).status_code == 401
    assert web().post("/gradio_api/cancel", json={}).status_code == 200, "where no login is asked for"


@pytest.mark.limit("ADDRESSES")
def test_askers_are_forgotten_from_the_one_that_was_longest_away(monkeypatch):
    monkeypatch.setattr(limits, "ADDRESSES", 3)
    pace = Pace(1, 60.0, lambda: 0.0)
    assert [pace.take(name) for name in "abc"] == [0, 0, 0] and pace.take("a") == 60
    assert pace.take("d") == 0 and pace.take("a") == 60, "three are known: b is not"
    assert pace.take("b") == 0


@pytest.mark.limit("MAX_PAGE_GB")
def test_a_page_that_is_short_of_memory_takes_nobody_new(web, monkeypatch):
    taken = [1.0]
    monkeypatch.setattr(OwnMemory, "_taken", lambda self: taken[0] * 1e9)
    monkeypatch.setattr(own_memory, "FRESH", 0.0)
    client = web(max_page_gb=1)
    assert client.get("/").status_code == 200
    taken[0] = 1.01
    for ask in (lambda: client.get("/"), lambda: client.post("/gradio_api/upload", files={"files": ("a", b"x")})):
        answer = ask()
        assert answer.status_code == 503 and "short of memory" in answer.text and answer.headers["retry-after"]
    assert client.post("/gradio_api/queue/join", json={}).status_code == 200, "who has it open goes on"
    taken[0] = 1.0
    assert client.get("/").status_code == 200


@pytest.mark.hardening(41)
@pytest.mark.limit("SESSIONS")
def test_open_pages_are_remembered_up_to_a_number_and_cheaply(monkeypatch):
    told = {}
    page = SimpleNamespace(queue=lambda **_: None, _queue=gr.Blocks()._queue, local_url="")
    page.launch = lambda **options: told.update(options)
    for name in ("harden", "server.install", "uploads.keep_clean"):
        monkeypatch.setattr(f"wan_ui.ui.launch.{name}", lambda *_, **__: None)
    launch.launch(page, Settings(), "clips")
    with gr.Blocks() as blocks:
        kept = [gr.State(), gr.Textbox()]
    blocks.state_session_capacity = told["state_session_capacity"]
    monkeypatch.setattr("gradio.state_holder.SessionState", security.Session)
    holder = StateHolder()
    holder.set_blocks(blocks)
    for number in range(limits.SESSIONS):
        holder[f"page {number}"][kept[0]._id] = number
    assert len(holder.session_data) == limits.SESSIONS and "page 0" in holder
    holder["page 0"][kept[1]._id] = gr.Textbox("new", render=False)
    assert len(holder["page one more"].config_values) == 0
    assert len(holder.session_data) == limits.SESSIONS
    assert "page 0" in holder and "page 1" not in holder, "the one that was not heard of for the longest time goes"
    session = holder["page 0"]
    assert session[kept[0]._id] == 0 and session[kept[1]._id].value == "new" and not session.config_values


def arrived(folder: Path, number: int, size: int, age: float) -> Path:
    path = folder / f"{number:064x}"
    path.mkdir()
    (path / "hills.png").write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.hardening(8)
@pytest.mark.limit("MAX_UPLOADS_GB", "UPLOAD_LIFE")
def test_the_folder_of_uploads_has_a_quota(tmp_path):
    uploads = Uploads(tmp_path, replace(Settings(), max_uploads_gb=1e-3))  # a megabyte
    new = arrived(tmp_path, 1, 300_000, limits.UPLOAD_LIFE - 60)
    old, older = (arrived(tmp_path, number, 300_000, limits.UPLOAD_LIFE * number) for number in (2, 3))
    uploads.begin(100_000)
    assert old.exists() and older.exists(), "the megabyte is full now"
    uploads.begin(1)
    assert old.exists() and not older.exists(), "the oldest makes room"
    uploads.begin(400_000)
    assert not old.exists() and new.exists()
    with pytest.raises(Full, match="no room for more uploads now"):
        uploads.begin(200_000)
    assert new.exists(), "what was just sent is about to be used"
    uploads.end(400_000)
    uploads.begin(200_000)


@pytest.mark.limit("UPLOADS")
def test_and_so_has_their_number(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UPLOADS", 3)
    uploads = Uploads(tmp_path, Settings())
    for number in (1, 2):
        arrived(tmp_path, number, 1, 0)
    uploads.begin(1)
    arrived(tmp_path, 3, 1, 0)
    with pytest.raises(Full):
        uploads.begin(1)


def test_no_upload_is_taken_while_the_disk_is_nearly_full(web, monkeypatch):
    monkeypatch.setattr(limits, "MIN_FREE_MB", 10**12)
    answer = web().post("/gradio_api/upload", files={"files": ("a.png", b"x")})
    assert answer.status_code == 507 and "disk of this Wan UI is full" in answer.text


@pytest.mark.limit("UPLOAD_DAYS")
def test_an_upload_stays_for_a_day(tmp_path):
    day = limits.UPLOAD_DAYS * 86_400
    kept, gone = arrived(tmp_path, 1, 1, day - 60), arrived(tmp_path, 2, 1, day + 60)
    assert collect(tmp_path, time.time()) == 1 and kept.exists() and not gone.exists()


@pytest.mark.hardening(8)
def test_a_clean_stop_leaves_no_part_of_an_upload(tmp_path, monkeypatch):
    settings = Settings(outputs=tmp_path)
    folder = tmp_path / "uploads"
    folder.mkdir()
    whole, part = arrived(folder, 1, 1, 0), folder / "tmparriving"
    part.write_bytes(b"x")
    monkeypatch.setattr("wan_ui.ui.launch.get_upload_folder", lambda: str(folder))
    launch.tidy(Settings(outputs=tmp_path / "other"))
    assert part.exists(), "a folder that others use too"
    launch.tidy(settings)
    assert whole.exists() and not part.exists()


def run(reading):
    with ThreadPoolExecutor(1) as thread:  # the browser's tests have a loop that runs in this one
        return thread.submit(asyncio.run, reading).result()


def parts(*contents: bytes):
    waiting = [{"type": "http.request", "body": content, "more_body": True} for content in contents]
    waiting[-1]["more_body"] = False

    async def receive():
        return waiting.pop(0)

    return receive


@pytest.mark.limit("JSON_BYTES", "LOGIN_BYTES")
@pytest.mark.parametrize("path, most", [("gradio_api/queue/join", limits.JSON_BYTES), ("login", limits.LOGIN_BYTES)])
def test_bytes_of_a_request(web, path, most):
    client = web(auth="")
    content = b'"' + b"x" * (most - 2) + b'"'
    assert client.post(f"/{path}", content=content).status_code in (200, 400)
    refused = client.post(f"/{path}", content=content + b" ")
    assert refused.status_code == 413 and f"at most {most:,} bytes" in refused.text


@pytest.mark.limit("JSON_VALUES", "JSON_DEPTH", "JSON_DIGITS")
@pytest.mark.parametrize(
    "right, wrong, words",
    [
        (f"[{'1,' * (limits.JSON_VALUES - 1)}1]", f"[{'1,' * limits.JSON_VALUES}1]", "5,000 values"),
        ("[" * limits.JSON_DEPTH + "]" * limits.JSON_DEPTH, "[" * 33 + "]" * 33, "nested more than 32 deep"),
        (f"[{'9' * limits.JSON_DIGITS}]", f"[{'9' * (limits.JSON_DIGITS + 1)}]", "a number has 41 digits"),
    ],
)
def test_values_of_a_request(right, wrong, words):
    check_json(right.encode())
    with pytest.raises(BodyRefused, match=words):
        check_json(wrong.encode())


@pytest.mark.limit("JSON_SECONDS", "UPLOAD_SECONDS")
def test_seconds_of_a_request(web, monkeypatch):
    assert run(read_body(parts(b"a", b"b"), 9, "", "json")) == b"ab"
    monkeypatch.setattr(limits, "JSON_SECONDS", -1.0)

    async def later():
        await asyncio.sleep(3600)

    with pytest.raises(BodyRefused, match="did not arrive in time"):
        run(read_body(later, 9, "", "json"))
    guard = web().guard
    assert run(guard._counted(parts(b"a"), "1")())["body"] == b"a"
    monkeypatch.setattr(limits, "UPLOAD_SECONDS", -1.0)
    with pytest.raises(Exception, match="did not arrive in time"):
        run(guard._counted(later, "1")())


# ---------------------------------------------------------------- what is in it


@pytest.mark.limit("IMAGE_MEGAPIXELS", "IMAGE_BYTES")
def test_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "IMAGE_MEGAPIXELS", 0.09)
    for name, size in (("right.png", (300, 300)), ("wrong.png", (301, 300))):
        Image.new("RGB", size, "red").save(tmp_path / name)
    assert images.open_image(tmp_path / "right.png").size == (300, 300)
    with pytest.raises(UserError, match=r"wrong\.png has 301 x 300 pixels; the limit is 0\.09 megapixels"):
        images.open_image(tmp_path / "wrong.png")
    size = (tmp_path / "right.png").stat().st_size
    monkeypatch.setattr(limits, "IMAGE_BYTES", size)
    images.open_image(tmp_path / "right.png")
    monkeypatch.setattr(limits, "IMAGE_BYTES", size - 1)
    with pytest.raises(UserError, match="is larger than"):
        images.open_image(tmp_path / "right.png")


@pytest.mark.limit("IMAGES_AT_ONCE")
def test_pictures_are_decoded_a_few_at_a_time(picture, monkeypatch):
    inside, most, read = [], [], picture_files.cut_down
    full = threading.Barrier(limits.IMAGES_AT_ONCE)  # which as many pass together

    def slowly(content):
        inside.append(1)
        most.append(len(inside))
        full.wait(60)
        inside.pop()
        return read(content)

    monkeypatch.setattr(picture_files, "cut_down", slowly)
    with ThreadPoolExecutor(12) as threads:
        sizes = list(threads.map(lambda _: images.open_image(picture).size, range(6 * limits.IMAGES_AT_ONCE)))
    assert len(sizes) == 6 * limits.IMAGES_AT_ONCE and max(most) == limits.IMAGES_AT_ONCE


@pytest.mark.limit("FRAME_MEGAPIXELS")
def test_pixels_of_a_frame(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    muxer.write_mp4(np.zeros((3, 64, 96, 3), np.uint8), path, 16)
    monkeypatch.setattr(limits, "FRAME_MEGAPIXELS", 96 * 64 / 1e6 + 0.01)  # ffmpeg adds what its decoder needs
    assert (video.look(path).width, sum(1 for _ in video.frames(video.look(path)))) == (96, 3)
    monkeypatch.setattr(limits, "FRAME_MEGAPIXELS", (96 * 64 - 1) / 1e6)
    with pytest.raises(UserError):
        list(video.frames(video.look(path)))


@pytest.mark.limit("MAX_CLIP_SECONDS")
def test_seconds_of_a_clip_that_goes_on(tmp_path):
    path = tmp_path / "a.mp4"
    muxer.write_mp4(np.zeros((32, 64, 64, 3), np.uint8), path, 16)
    assert look_before(str(path), replace(Settings(), max_clip_seconds=2)).seconds == 2
    with pytest.raises(UserError, match=r"lasts 2 s; at most 1\.9 s"):
        look_before(str(path), replace(Settings(), max_clip_seconds=1.9))


@pytest.mark.limit("MAX_AUDIO_SECONDS")
def test_seconds_of_a_voice(tmp_path):
    path = tmp_path / "voice.wav"
    write_wav(path, np.sin(np.arange(2 * 16_000) / 9))
    assert len(sound.decode(path, 2.0)) == 2 * 16_000
    with pytest.raises(UserError, match=r"1\.9"):
        sound.decode(path, 1.9)


@pytest.mark.limit("MAX_PROMPT", "MAX_SEGMENTS", "MAX_JOB_MEGAPIXELS")
def test_what_one_job_may_be(scripted_settings, picture, tmp_path):
    given = {"image": str(picture), "prompt": "x" * 50}
    config = replace(scripted_settings, max_prompt=50, max_segments=3)
    assert resolve(Draft(given, size="64x64"), config, tmp_path).sampling.prompt == "x" * 50
    with pytest.raises(UserError, match="prompt: 51 characters; the limit is 50"):
        resolve(Draft({**given, "prompt": "x" * 51}), config, tmp_path)
    assert read_prompts("a|b", "c", config) == ["c", "a", "b"]
    with pytest.raises(UserError, match="4 prompts; one clip takes at most 3"):
        read_prompts("a|b|d", "c", config)
    three = Draft({**given, "segments": "a|b"}, size="64x64", frames=9)
    pixels = 3 * 9 * 64 * 64 / 1e6
    resolve(three, replace(config, max_job_megapixels=pixels), tmp_path)
    with pytest.raises(UserError, match=r"size: 27 frames of 64x64 .* make it smaller or shorter") as refused:
        resolve(three, replace(config, max_job_megapixels=pixels - 0.001), tmp_path)
    assert refused.value.field == "size"


# ---------------------------------------------------------------- who waits


@pytest.mark.hardening(41)
@pytest.mark.limit("ADDRESS_SHARE")
def test_one_address_cannot_fill_the_queue_as_many_people(scripted_settings, picture):
    """Each call of the API is a person of its own, and a browser says who it is: the address is what stays."""
    pipeline = Pipeline()
    config = replace(scripted_settings, max_queue=8, max_queue_per_visitor=2)
    with suppress(Exception):
        pipeline.open(config, warm=False, engine_factory="tests.scripted_engine:create_engine")
    pipeline.pool.close()  # nobody takes jobs out of the line
    draft = Draft({"image": str(picture), "prompt": "x"}, size="64x64")

    def ask(number: int) -> bool:
        try:
            pipeline.submit(draft, f"api-{number}", "192.0.2.7")
        except QueueFull as error:
            assert "4 jobs from your address are waiting already" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(12))) == 4
    pipeline.submit(draft, "api-other", "192.0.2.8")
    pipeline.cancel(pipeline.jobs.line()[0], pipeline.jobs.all()[0].owner)
    assert ask(20) and not ask(21)
    pipeline.close()


@pytest.mark.hardening(20)
@pytest.mark.limit("STAGE_TIMEOUT")
def test_each_stage_has_its_deadline(scripted_settings):
    worker = Worker(replace(scripted_settings, stage_timeouts="load=1800, denoise=5"))
    patience = {stage: worker._patience(Progress(stage)) for stage in ("start", "load", "denoise", "decode")}
    assert patience == {"start": 60, "load": 1800, "denoise": 5, "decode": 60}
    for wrong in ("denoise", "denoise=0", "denoise=x", "sleep=5", "load=1;text=2"):
        with pytest.raises(UserError, match=r"WAN_UI_STAGE_TIMEOUTS.*expected seconds of stages such as"):
            Settings(stage_timeouts=wrong)


@pytest.mark.limit("COMPARISONS", "COMPARISONS_PER_VISITOR")
def test_comparisons_that_wait(monkeypatch):
    monkeypatch.setattr("wan_ui.ui.comparisons.CHILD", ("-c", "import time; time.sleep(3600)"))
    monkeypatch.setattr("wan_ui.ui.comparisons.LEFT", 3600.0)
    asked = Comparisons()
    asked._run = lambda: None  # nothing is measured: they wait
    for number in range(limits.COMPARISONS):
        asked.ask(f"browser-{number // limits.COMPARISONS_PER_VISITOR}", [{"path": str(number)}])
    for owner in ("browser-0", "browser-new"):
        with pytest.raises(UserError, match="other comparisons are being made"):
            asked.ask(owner, [{"path": "one more"}])


@pytest.mark.limit("COMPARISON_CLIPS")
def test_clips_of_one_comparison(monkeypatch):
    monkeypatch.setattr(compare_tab, "_look", lambda owner, state: len(state["shown"]))
    assert [compare_tab._shown(["job"] * count, "local", {}) for count in (5, 6, 7)] == [5, 6, 6]


# ---------------------------------------------------------------- what is kept


@pytest.fixture
def table(tmp_path) -> Jobs:
    (tmp_path / "clips").mkdir()
    return Jobs(tmp_path / "wan_ui.sqlite")


@pytest.mark.hardening(26)
@pytest.mark.limit("MAX_VISITORS_GB")
def test_visitors_share_a_quota_and_the_person_here_is_not_touched(table):
    put(table, "mine", "local", kilobytes=500)
    for number in range(4):
        put(table, f"v{number}", f"api-{number}")  # each call another person, whose newest clip would stay
    put(table, "waits", "api-5", state="queued")
    assert prune(table, replace(UNLIMITED, max_visitors_gb=50.1 * KB)) == []
    assert prune(table, replace(UNLIMITED, max_visitors_gb=49.9 * KB)) == ["v0"]
    assert prune(table, replace(UNLIMITED, max_visitors_gb=1 * KB)) == ["v1", "v2", "v3"]
    assert [job.id for job in table.all()] == ["mine", "waits"]
    assert prune(table, replace(UNLIMITED, max_visitors_gb=0)) == []


@pytest.mark.limit("FAILED_ENTRIES", "VISITORS_FAILED_ENTRIES")
def test_entries_without_a_clip_are_not_kept_without_end(table, monkeypatch):
    monkeypatch.setattr(limits, "FAILED_ENTRIES", 2)
    monkeypatch.setattr(limits, "VISITORS_FAILED_ENTRIES", 3)
    put(table, "clip", "local")
    for number in range(2):
        put(table, f"l{number}", "local", state="failed")
    for number in range(3):
        put(table, f"v{number}", f"api-{number}", state="failed")
    assert prune(table, UNLIMITED) == []
    put(table, "l2", "local", state="cancelled")
    put(table, "v3", "api-3", state="failed")
    assert prune(table, UNLIMITED) == ["l0", "v0"]
    assert table.get("clip")


@pytest.mark.limit("MAX_CACHE_GB")
def test_the_cache_has_a_quota(tmp_path):
    for number, name in enumerate(("used today", "old", "older")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(bytes(1000))
        os.utime(tmp_path / name, (time.time() - number * 2 * quota.CACHED,) * 2)
    (tmp_path / "probes.json").write_bytes(bytes(5000))
    assert quota.prune_cache(tmp_path, 3e-6) == []
    assert quota.prune_cache(tmp_path, 2.9e-6) == ["older"]
    assert quota.prune_cache(tmp_path, 1e-9) == ["old"], "what was used today stays"
    assert quota.prune_cache(tmp_path, 0) == [] and quota.prune_cache(tmp_path / "absent", 1) == []
    assert {path.name for path in tmp_path.iterdir()} == {"used today", "probes.json"}


def test_bodies_of_refused_uploads_are_not_kept(web, tmp_path):
    client = web(max_uploads_gb=0.001, max_upload_mb=2)
    answer = client.post("/gradio_api/upload", files={"files": ("a.png", bytes(1_100_000))})
    assert answer.status_code == 507 and list(tmp_path.iterdir()) == []
    assert client.guard.uploads._arriving == 0
