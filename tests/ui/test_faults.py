"""What goes wrong behind the page: failing jobs, a crashing worker, a killed app, two apps at once."""

import re
import shutil
import signal
import sqlite3
import subprocess

import pytest
from playwright.sync_api import expect

from tests.scripted_engine import go_on
from tests.ui.conftest import CLIP, App, card_says, choose, press, shoot, wait_for_playing
from wan_ui.queue.jobs import Jobs


@pytest.mark.hardening(30)
def test_a_second_app_is_told_what_is_wrong(app):
    same_port = App(app.folder, None, **{**app.environ, "WAN_UI_OUTPUTS": str(app.folder / "others")})
    same_port.environ["WAN_UI_PORT"] = str(app.port)
    words = fails(same_port)
    assert f"port: {app.port} is in use" in words and "WAN_UI_PORT" in words
    same_outputs = App(app.folder, None, **{name: app.environ[name] for name in ("WAN_UI_CATALOG", "WAN_UI_OUTPUTS")})
    words = fails(same_outputs)
    assert "another Wan UI is using" in words and "WAN_UI_OUTPUTS" in words


def test_a_wrong_setting_is_said_before_anything_starts(app, tmp_path):
    given = {name: app.environ[name] for name in ("WAN_UI_CATALOG",)}
    assert "WAN_UI_AUTH: expected" in fails(App(tmp_path, None, **given, WAN_UI_AUTH="ada"))
    assert "WAN_UI_MODEL='wan-giant': expected one of wan-tiny" in fails(
        App(tmp_path, None, **given, WAN_UI_MODEL="wan-giant")
    )


def fails(app: App) -> str:
    process = app.popen(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    words, _ = process.communicate(timeout=180)
    assert process.returncode == 1, words
    assert words.startswith("error: ") and "Traceback" not in words
    return words


@pytest.fixture
def shown(used_page, app, picture):
    """A page with a picture in its form."""
    page = used_page(app.url)
    if not page.locator("#picture-crop img").count():
        choose(page, picture)
    return page


def test_a_failed_job_says_why_and_is_kept(shown, app):
    page = shown
    press(page, "refused one, denoise=refuse")
    card_says(page, "the scripted engine refuses this")
    press(page, "broken one, denoise=bug")
    card_says(page, "Unexpected error: ZeroDivisionError: a bug in the engine (the traceback is in the app's log)")
    assert "Traceback (most recent call last)" in app.log() and "a bug in the engine" in app.log()
    page.locator("#history .w-tile.failed", has_text="refused one").click()
    expect(page.locator("#result")).to_contain_text("the scripted engine refuses this")
    shoot(page, "09-failed")


def test_a_clip_that_failed_is_run_again(shown):
    page = shown
    press(page, "fails twice, denoise=bug")
    tiles = page.locator("#history .w-tile.failed", has_text="fails twice")
    expect(tiles).to_have_count(1)
    card_says(page, "This clip failed")
    shoot(page, "09-run-again")
    page.locator("#card").get_by_role("button", name="Run again").click()
    expect(tiles).to_have_count(2)
    card_says(page, "This clip failed")


@pytest.mark.hardening(37)
def test_what_does_not_fit_into_memory_runs_smaller_at_one_press(shown):
    page = shown
    press(page, f"too large, denoise=memory:{256 * 256 * 17}")
    card_says(page, "The machine ran out of memory at 320x192, 33 frames")
    button = page.locator("#card [data-fit]")
    smaller = button.text_content()  # 17 frames, or what another test has made here, which is known to fit
    assert smaller.startswith("Run again at ")
    shoot(page, "09-out-of-memory")
    page.locator("#history .w-tile.failed", has_text="too large").click()  # from the history as well
    expect(page.locator("#result [data-do='fit']")).to_have_text(smaller)
    page.locator("#result [data-do='fit']").click()
    card_says(page, "Done in")
    expect(page.locator("#history .w-tile.done", has_text="too large")).to_have_count(1)
    frames = re.search(r"\d+ frames", smaller)
    expect(page.locator("#using")).to_contain_text(frames[0] if frames else "33 frames")  # the form has it too


@pytest.mark.hardening(19)
def test_a_crash_of_the_worker_costs_one_job(shown, app):
    page = shown
    press(page, "crash, denoise:1=hold, denoise:2=segfault")
    card_says(page, "denoise step 1")
    crashing = app.jobs()
    press(page, "the next one, denoise:2=hold")
    card_says(page, "1 more of yours in line")
    go_on(crashing)
    card_says(page, "The clip before it failed. The worker was ended by SIGSEGV during denoise step 2/4")
    shoot(page, "10-after-a-crash")
    go_on(app.jobs())
    card_says(page, "Done in")
    expect(page.locator(CLIP)).to_contain_text("the next one")
    wait_for_playing(page)


@pytest.fixture(scope="module")
def own_app(scripted):
    """Of it a stream of answers is closed late, and it may be killed."""
    return scripted(TEST_LATE_CLOSE="0.5")


@pytest.fixture(scope="module")
def own_page(open_new, own_app, picture):
    page = open_new(own_app.url)
    choose(page, picture)
    yield page
    page.close()


def test_an_answer_whose_stream_was_just_closed_is_not_lost(own_page, own_app):
    app, page = own_app, own_page
    press(page, "held, denoise:2=hold")
    for _ in range(2):
        card_says(page, "denoise step 2 of 4")
        page.reload(wait_until="domcontentloaded")
        expect(page.locator("#prompt textarea")).to_have_value("held, denoise:2=hold")
    go_on(app.jobs())
    card_says(page, "Done in")
    expect(page.locator(CLIP)).to_contain_text("held")


@pytest.mark.hardening(24, 35)
def test_kill_and_restart_keep_the_history(own_page, own_app):
    app, page = own_app, own_page
    before = page.locator("#history .w-tile").count()
    press(page, "finished before")
    expect(page.locator(CLIP)).to_have_text("finished before")
    card_says(page, "Done in")
    press(page, "running then, denoise:1=stay")
    card_says(page, "denoise step 1")
    press(page, "queued then")
    card_says(page, "1 more of yours in line")
    app.stop(signal.SIGKILL)
    toast = page.locator("[data-testid=toast-body]")
    expect(toast).to_contain_text("Connection to the server was lost")
    shoot(page, "11-server-gone")

    first = sorted(app.jobs())[0]  # which is done
    shutil.copytree(first, first.with_name("damaged"))
    with sqlite3.connect(app.folder / "outputs" / "wan_ui.sqlite") as table:
        damaged = (
            "damaged",
            "local",
            "done",
            '{"prompt": "by another version", "seed": [], "hologram": "x.png"}',
            "[",
        )
        table.execute("INSERT INTO jobs (id, owner, state, request, result) VALUES (?, ?, ?, ?, ?)", damaged)
    app.start()  # the open page finds it by itself
    expect(page.locator("#history .w-tile")).to_have_count(before + 4)
    expect(page.locator("#history .w-tile.interrupted")).to_contain_text("running then")
    expect(page.locator(CLIP)).to_have_text("queued then")
    wait_for_playing(page)
    page.locator("#history .w-tile.interrupted").click()
    expect(page.locator("#result")).to_contain_text("The app ended while this job was running")
    shoot(page, "12-after-restart")
    page.locator("#history .w-tile", has_text="by another version").click()
    expect(page.locator("#result")).to_contain_text("cannot be read: image, model, scheme, engine, width, height")
    expect(page.locator("#result")).to_contain_text("not known to this version: hologram")
    wait_for_playing(page)  # its clip is there
    expect(page.locator("#result")).not_to_contain_text("0 frames")

    press(page, "stopped in a long step, denoise:1=sleep:300")
    card_says(page, "denoise step 1")
    app.stop(signal.SIGTERM)
    assert app.process.returncode == 0, app.log()
    assert "Traceback" not in app.log()
    newest = Jobs(app.folder / "outputs" / "wan_ui.sqlite").all()[-1]
    assert (newest.state, newest.error) == ("interrupted", "The app was stopped.")
