"""On a public address every browser is a person of its own; on this machine all are one, who also has the terminal."""

import json
import re
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.job_requests import job_request
from tests.scripted_engine import go_on
from tests.ui.conftest import CLIP, PATIENCE, card_says, generate, shoot, wait_for_playing
from wan_ui.queue.jobs import Jobs
from wan_ui.request import Result
from wan_ui.settings import ROOT, Settings
from wan_ui.ui.session import identify


@pytest.fixture(scope="module")
def public_app(scripted):
    return scripted(WAN_UI_HOST="0.0.0.0", WAN_UI_MCP="1")


def no_folder_is_seen(page: Page, app) -> None:
    """Of the server's, in nothing that is drawn or sent: panels, addresses of clips, a job's error."""
    page.fill("#prompt textarea", "denoise=refuse")
    page.click("#generate")
    card_says(page, "refuses this")
    page.locator("#history .w-tile.done").click()
    expect(page.locator(CLIP)).to_have_text("yours alone")
    for name in ("Compare", "Doctor"):
        page.get_by_role("tab", name=name).click()
        page.locator(f"h2:has-text('{name}')").wait_for()
    shown = page.content() + httpx.get(f"{app.url}/config", timeout=PATIENCE).text
    for place in (app.folder / "outputs", ROOT, Path.home(), Settings().models, Settings().loras, Settings().cache):
        assert str(place) not in shown, place
    assert re.fullmatch(r"gradio_api/file=clips/[^/]+/clip.mp4", page.locator("#clip").get_attribute("src"))


def nothing_can_be_started(page: Page) -> None:
    """In the tab Doctor, from another machine."""
    expect(page.locator("#doctor summary", has_text="LightX2V cannot be used here")).to_be_visible()
    expect(page.locator("[data-patch=fp8_sgl]")).to_be_hidden()
    for button in page.locator("#doctor [data-doctor]").all():
        expect(button).to_be_disabled()
    page.locator("[data-doctor=stages]").evaluate("button => { button.disabled = false; button.click() }")
    expect(page.locator("#doctor [role=alert]")).to_contain_text("only the person at this machine")


@pytest.mark.hardening(23)
def test_two_people_share_the_queue_and_nothing_else(open_page, public_app, picture):
    """Neither sees anything of the other's, a folder of the server, or can start what is for who sits at it."""
    first, second = open_page(public_app.url), open_page(public_app.url)
    table = Jobs(public_app.folder / "outputs" / "wan_ui.sqlite")
    before = len(table.all())
    generate(first, picture, "mine alone, denoise:2=hold")
    card_says(first, "denoise step")
    generate(second, picture, "yours alone")
    card_says(second, "In line: 1 clip is ahead of yours")
    shoot(second, "13-in-line")
    own = second.locator(".w-queue-row")
    mine = own.get_attribute("data-row")
    running = next(job.id for job in table.all() if job.state == "running")
    own.evaluate("(e, id) => e.dataset.row = id", running)  # another's: nothing becomes of it
    for act in ("stop_job", "double_job", "edit_job"):
        own.locator(f"[data-do={act}]").click()
    second.wait_for_timeout(700)
    assert [table.get(job).state for job in (running, mine)] == ["running", "queued"]
    assert len(table.all()) == before + 2 and not table.get(running).cancel
    own.evaluate("(e, id) => e.dataset.row = id", mine)
    go_on(public_app.jobs())
    card_says(first, "Done in")
    card_says(second, "Done in")
    wait_for_playing(second)
    expect(first.locator("#history .w-tile")).to_have_count(1)
    expect(second.locator("#history .w-tile")).to_have_count(1)
    expect(second.locator("#history")).to_contain_text("yours alone")

    # A forged id selects nothing, deletes nothing.
    theirs = first.locator("#history .w-tile").get_attribute("data-tile")
    tile = second.locator("#history .w-tile")
    tile.evaluate("(e, id) => e.dataset.tile = id", theirs)
    tile.click()
    second.locator("[data-do=remove]").evaluate("(e, id) => { e.dataset.job = id; delete e.dataset.confirm }", theirs)
    second.locator("[data-do=remove]").click()
    second.locator("[data-choose_many]").click()
    second.evaluate("id => wanUi.chosenTiles.add(id) && wanUi.choosing()", theirs)
    for act in ("pack", "star_many", "remove_many"):
        second.locator(f"[data-many={act}]").click()
        second.evaluate("id => wanUi.chosenTiles.add(id) && wanUi.choosing()", theirs)
    expect(second.locator("#archive")).to_contain_text("choose some that are finished")
    second.locator("[data-choose_many]").click()
    second.locator("#result [data-do=star]").evaluate("(e, id) => { e.dataset.job = id }", theirs)
    second.locator("#result [data-do=star]").click()
    second.wait_for_timeout(700)
    assert not table.get(theirs).star
    expect(second.locator(CLIP)).to_have_text("yours alone")
    first.reload(wait_until="domcontentloaded")
    expect(first.locator("#history .w-tile")).to_have_count(1)
    expect(first.locator(CLIP)).to_contain_text("mine alone")
    no_folder_is_seen(second, public_app)
    nothing_can_be_started(second)


@pytest.mark.hardening(23)
def test_twenty_people_at_once(public_app, picture):
    """First come, first served; everybody gets the clip of his own seed."""
    with httpx.Client(base_url=public_app.url, timeout=60) as web:
        path = web.post("/gradio_api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()[0]
        image = {"path": path, "meta": {"_type": "gradio.FileData"}}

        def ask(seed: int) -> dict:
            body = {"data": [image, "a crowd", "", "", "256x256", 17, 1, seed, "", None]}
            call = web.post("/gradio_api/call/generate", json=body).json()["event_id"]
            answer = web.get(f"/gradio_api/call/generate/{call}").text
            return json.loads(answer.split("data: ")[-1])[1]

        with ThreadPoolExecutor(20) as people:
            answers = list(people.map(ask, range(20)))
    assert [answer["seed"] for answer in answers] == list(range(20))
    assert len({answer["job"] for answer in answers}) == 20
    with sqlite3.connect(public_app.folder / "outputs" / "wan_ui.sqlite") as database:
        rows = database.execute(
            "SELECT owner, started FROM jobs WHERE json_extract(request, '$.prompt') = 'a crowd' ORDER BY rowid"
        ).fetchall()
    assert len({owner for owner, _ in rows}) == len(rows) == 20
    by_arrival = [started for _, started in rows]
    assert by_arrival == sorted(by_arrival)


def test_a_program_on_a_shared_address_sees_its_own_jobs_alone(public_app, picture):
    """It is known by the token of its first job; over plain HTTP, by the page's endpoints and as an assistant."""
    with httpx.Client(base_url=public_app.url, timeout=PATIENCE) as web:
        path = web.post("/api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()["path"]
        mine = web.post("/api/jobs", json={"image": path, "prompt": "mine, denoise:2=hold"}).json()
        theirs = web.post("/api/jobs", json={"image": path, "prompt": "theirs"}).json()
        assert mine["token"] != theirs["token"] and len(mine["token"]) == 32
        me, them = {"wan-ui-token": mine["token"]}, {"wan-ui-token": theirs["token"]}
        again = web.post("/api/jobs", json={"image": path, "prompt": "mine too"}, headers=me).json()
        assert again["token"] == mine["token"]
        listed = web.get("/api/jobs", headers=me).json()["jobs"]
        assert [job["prompt"] for job in listed] == ["mine too", "mine, denoise:2=hold"]
        for asked in ("", "/result", "/clip"):
            assert web.get(f"/api/jobs/{mine['job']}{asked}", headers=them).status_code == 404
        assert web.post(f"/api/jobs/{mine['job']}/cancel", headers=them).status_code == 404
        for wrong in ({}, {"wan-ui-token": "local"}, {"wan-ui-token": "a" * 31}):
            answer = web.get("/api/jobs", headers=wrong)
            assert (answer.status_code, answer.json()["field"]) == (400, "token")
        # A header that says to be the person at this machine says nothing.
        assert web.get("/api/jobs", headers={"wan-ui-visitor": "local"}).status_code == 400
        call = {"method": "tools/call", "jsonrpc": "2.0", "id": 1}
        ask = {"accept": "application/json, text/event-stream", "wan-ui-visitor": "local"}

        def tool(name: str, **values) -> str:
            body = {**call, "params": {"name": name, "arguments": values}}
            return web.post("/gradio_api/mcp/", json=body, headers=ask).text

        assert "there is no job" in tool("status", job=mine["job"], token=theirs["token"])
        assert "token: use the one that submit" in tool("list")
        assert "mine too" in tool("list", token=mine["token"])
        done = web.post("/gradio_api/run/status", json={"data": [mine["job"], theirs["token"]]})
        assert "there is no job" in done.text
        assert web.post(f"/api/jobs/{mine['job']}/cancel", headers=me).json()["job"] == mine["job"]
        while web.get(f"/api/jobs/{again['job']}", headers=me).json()["state"] != "done":
            time.sleep(0.1)
        assert str(public_app.folder) not in tool("result", job=again["job"], token=mine["token"])


def test_a_shared_visitor_is_sent_no_folder_of_the_server(public_app, picture):
    """The addresses of what was sent and made; no other file can be asked for."""
    with httpx.Client(base_url=public_app.url, timeout=60) as web:
        path = web.post("/gradio_api/upload", files={"files": ("hills.png", picture.read_bytes())}).json()[0]
        assert re.fullmatch(r"/uploads/[0-9a-f]{64}/hills.png", path)
        assert web.get(f"/gradio_api/file={path}").content == picture.read_bytes()
        image = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [image, "/uploads/x stays", "", "", "256x256", 17, 1, 5, "", None]}
        event = web.post("/gradio_api/call/generate", json=body).json()["event_id"]
        answer = web.get(f"/gradio_api/call/generate/{event}").text
        assert str(public_app.folder) not in answer
        clip, settings = json.loads(answer.split("data: ")[-1])
        assert settings["prompt"] == "/uploads/x stays"
        assert clip["path"].startswith("/uploads/") and web.get(clip["url"]).headers["content-type"] == "video/mp4"
    outside = ("/uploads/../wan_ui.sqlite", "/uploads/", "clips/../wan_ui.sqlite", "clips/..%2fwan_ui.sqlite", "clips/")
    for place in (*outside, "clips//etc/passwd", "clips"):
        assert httpx.get(f"{public_app.url}/gradio_api/file={place}", timeout=PATIENCE).status_code == 403, place


@pytest.mark.hardening(1, 23)
def test_a_forged_owner_sees_nothing(public_app):
    job, token = "20260101-000000-0123456789abcdef", "ab" * 16
    table = Jobs(public_app.folder / "outputs" / "wan_ui.sqlite")
    table.add(job, f"browser-{token}", job_request(prompt="not for others"))
    table.finish(job, "done", result=Result(clip="clip.mp4"))
    with httpx.Client(base_url=public_app.url, timeout=60) as web:

        def arrive(browser) -> str:
            call = web.post("/gradio_api/call/arrive", json={"data": [browser, None]}).json()["event_id"]
            return web.get(f"/gradio_api/call/arrive/{call}").text

        theirs = arrive({"owner": token})
        assert "w-tile" in theirs and "not for others" in theirs
        forged_owners = ("local", "browser-", f"browser-{token}")
        forgeries = [{"owner": owner} for owner in forged_owners]
        for forged in ({}, *forgeries, {"owner": "", "job": job}, [], "local", None):
            answer = arrive(forged)
            assert "event: complete" in answer and "w-tile" not in answer and "not for others" not in answer


@pytest.mark.hardening(39, 40)
def test_login(scripted, chromium):
    """On the real page: what is there before it, tries that are slowed down and say so, and the page after it."""
    app = scripted(WAN_UI_AUTH="ada:secret")
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as web:
        for path in ("/gradio_api/info", "/config", "/gradio_api/heartbeat/x", "/gradio_api/queue/data?session_hash=x"):
            assert web.get(path).status_code == 401, path
        for path in ("cancel", "reset", "queue/join", "upload", "process_recording"):
            assert web.post(f"/gradio_api/{path}", json={"event_id": "x"}).status_code in (401, 403), path
        context = chromium.new_context()
        page = context.new_page()
        page.goto(app.url)
        wrong = [web.post("/login", data={"username": "ada", "password": "wrong"}).status_code for _ in range(9)]
        page.get_by_label("username").fill("ada")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.locator("#card", has_not_text="Connecting").wait_for(timeout=PATIENCE * 1000)
        while wrong[-1] == 400 and len(wrong) < 60:  # another is allowed each half minute, and a busy machine is slow
            wrong.append(web.post("/login", data={"username": "ada", "password": "wrong"}).status_code)
        assert wrong[:19] == [400] * 19 and wrong[-1] == 429
        context.clear_cookies()
        page.reload()
        expect(page.get_by_text("After 10 wrong tries this form waits for half a minute")).to_be_visible()
        context.close()


@pytest.mark.hardening(33)
@pytest.mark.parametrize("forged", [None, "local", {"owner": "local"}, {"owner": ["local"]}, {"owner": "A" * 32}])
def test_a_forged_token_is_replaced(forged):
    kept, owner = identify(forged, Settings(host="0.0.0.0"))
    assert owner == f"browser-{kept['owner']}" and len(kept["owner"]) == 32 and kept["owner"] != "A" * 32
    assert identify(kept, Settings(host="0.0.0.0"))[1] == owner
    assert identify(forged, Settings())[1] == "local"
