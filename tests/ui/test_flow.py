"""A person at the page: from a picture to a playing clip, and everything around it."""

import json
import re
import sqlite3
import subprocess
import sys
import zipfile

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.scripted_engine import go_on
from tests.ui.conftest import CLIP, PATIENCE, card_says, generate, shoot, until, wait_for_playing
from tests.ui.test_form import choose
from tests.ui.test_looks import faults, in_both_colours
from wan_ui.engines.base import READY
from wan_ui.media import muxer
from wan_ui.queue.jobs import Jobs
from wan_ui.settings import ROOT
from wan_ui.ui import form


@pytest.fixture
def filled(used_page, app, picture) -> Page:
    """A used page, with some picture in it, of whose size the clip will be, and no words."""
    page = used_page(app.url)
    if not page.locator("#picture-crop img").count():
        page.set_input_files("#picture input[type=file]", picture)
        page.locator("#picture-crop img").wait_for()
    choose(page, "#size", "auto")
    page.fill("#prompt textarea", "")
    return page


def press(page: Page, prompt: str) -> None:
    """Of a page that has its picture."""
    page.fill("#prompt textarea", prompt)
    page.click("#generate")


# Adds up by how much of the window things move while nobody touches anything, as browsers measure it.
WATCH_SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => { for (const shift of list.getEntries()) window.shifted += shift.value; })
    .observe({ type: "layout-shift" });
}"""


def stage_of(page: Page) -> list[float]:
    """Where the stage is below the top of the card, and how large."""
    boxes = [page.locator(part).bounding_box() for part in ("#card", "#result .w-stage")]
    card, stage = (box or {} for box in boxes)
    return [stage["y"] - card["y"], stage["width"], stage["height"]]


def test_picture_to_clip_to_history(page: Page, app, picture, tmp_path):
    card_says(page, "Ready: Wan-Tiny, bf16")
    shoot(page, "01-empty")
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    expect(page.locator("#picture-note")).to_contain_text("320 × 192")
    page.get_by_role("radio", name="256 × 256").check()
    page.get_by_role("radio", name="17 · 1.1 s").check()
    expect(page.locator("#picture-note")).to_contain_text("Used at 256 × 256; the dimmed edges are cut off")
    phrases = page.get_by_role("group", name="Add to the prompt")
    phrases.get_by_text("zoom in").click()
    phrases.get_by_text("sunset light").click()
    assert page.input_value("#prompt textarea") == "zoom in, sunset light"
    expect(page.locator("#reading")).to_have_text("Understood: zoom in, sunset")
    page.fill("#prompt textarea", "slowly zoom in, sunset light, a dragon")
    expect(page.locator("#reading")).to_have_text("Understood: slow zoom in, sunset; not: dragon")
    page.fill("#prompt textarea", "slowly zoom in, sunset light, look=1, denoise:3=hold")
    shoot(page, "02-form-filled")
    before = stage_of(page)

    page.keyboard.press("Control+Enter")
    card_says(page, "denoise step 3 of 4, low-noise expert")
    expect(page.locator(".w-stages .now")).to_have_text("Denoise 3/4")
    expect(page.locator("#cancel")).to_be_visible()
    expect(page.locator("#result .w-stage img.w-preview")).to_be_visible()
    expect(page.locator("#card img")).to_have_count(0)
    assert stage_of(page) == before
    shoot(page, "03-denoising")
    page.evaluate("window.scrollTo(0, 600)")
    expect(page.locator("#card")).to_be_in_viewport(ratio=0.99)
    expect(page.locator("#result .w-stage")).to_be_in_viewport(ratio=0.99)
    page.evaluate(WATCH_SHIFTS)
    go_on(app.jobs())
    wait_for_playing(page)
    card_says(page, "Done in")
    assert page.evaluate("window.shifted") < 0.01
    assert stage_of(page) == before
    expect(page.locator("#cancel")).to_be_hidden()
    shoot(page, "04-done")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"wan-slowly-zoom-in-sunset-light-.*-\d+\.mp4", download.value.suggested_filename)
    saved = tmp_path / "clip.mp4"
    download.value.save_as(saved)
    settings = muxer.read_metadata(saved)
    assert settings["prompt"].startswith("slowly zoom in") and (settings["width"], settings["height"]) == (256, 256)
    shown = "(v => [v.videoWidth, v.loop, v.muted])(document.querySelector('#clip'))"
    assert page.evaluate(shown) == [256, False, True], "once, for who asks for less motion"

    seed = str(settings["seed"])
    expect(page.locator("#result")).to_contain_text(seed)
    page.get_by_role("button", name="Reuse seed").click()
    expect(page.locator("#seed input")).to_have_value(seed)

    tile = page.locator("#history .w-tile").first
    expect(tile).to_contain_text("slowly zoom in")
    job = tile.get_attribute("data-tile")
    page.fill("#prompt textarea", "something else")
    page.get_by_role("radio", name="33 · 2.1 s").check()
    tile.click()
    page.get_by_role("button", name="Load settings", exact=True).click()
    expect(page.locator("#prompt textarea")).to_have_value(settings["prompt"])
    expect(page.locator("#frames label.selected")).to_have_text("17 · 1.1 s")
    expect(page.locator("#size label.selected")).to_have_text("256 × 256")
    # The picture comes back as it was used, so that the same seed gives the same clip.
    expect(page.locator("#picture-note")).to_have_text("Used at 256 × 256.")

    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(f"#history .w-tile[data-tile='{job}']")).to_have_count(0)

    page.fill("#prompt textarea", "to be replaced")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load settings from a video").click()
    chooser.value.set_files(saved)
    expect(page.locator("#from-video-message")).to_contain_text("Settings and picture loaded from clip.mp4")
    expect(page.locator("#prompt textarea")).to_have_value(settings["prompt"])
    expect(page.locator("#seed input")).to_have_value(seed)


def jobs_of(app) -> list[dict]:
    """Requests of all jobs, oldest first."""
    with sqlite3.connect(app.folder / "outputs" / "wan_ui.sqlite") as database:
        return [json.loads(row) for (row,) in database.execute("SELECT request FROM jobs ORDER BY created, rowid")]


@pytest.mark.hardening(21)
def test_reload_in_the_middle_finds_the_job_again(page: Page, app, picture):
    """And the whole form, which says what it will use; so does a page that is opened after the last was closed."""
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    page.get_by_role("radio", name="256 × 256").check()
    page.get_by_role("radio", name="17 · 1.1 s").check()
    page.fill("#seed input", "77")
    page.locator("#lora-add input").click()
    page.get_by_role("option", name="teal").click()
    page.locator(".w-lora").wait_for()
    expect(page.locator("#using p")).to_contain_text("teal")
    press(page, "reload me, denoise:2=hold")
    card_says(page, "denoise step 2 of 4")
    older = page.evaluate("localStorage.getItem('wan-ui')")
    page.locator("#steps input[type=number]").fill("3")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Quick draft").click()
    page.locator("#draft input").check()
    words = "Wan-Tiny, bf16, with the LoRA .*teal.*×1 · 256 × 256 · 17 frames · 3 steps · seed 77 · draft$"
    words = re.compile(words.replace(" ", r"\s"))
    expect(page.locator("#using p")).to_have_text(words)
    expect(page.locator("#examples-note")).to_contain_text("teal")  # an example is made with it as well
    # Without a pause, as if an older answer had been the last to reach the storage; then as soon as the page is there.
    back = "older => { if (older) localStorage.setItem('wan-ui', older); location.reload(); }"
    for stored in (older, None):
        with page.expect_navigation(wait_until="domcontentloaded"):
            page.evaluate(back, stored)
        card_says(page, "denoise step 2 of 4")
        expect(page.locator("#using p")).to_have_text(words)
    page.locator("#picture-crop img").wait_for()
    expect(page.locator("#seed input")).to_have_value("77")
    expect(page.locator("#prompt textarea")).to_have_value("reload me, denoise:2=hold")
    press(page, "waiting then")
    card_says(page, "1 more of yours in line")
    context, url = page.context, page.url
    page.close()  # one job runs, one waits, nobody looks
    go_on(app.jobs())
    page, jobs = context.new_page(), Jobs(app.folder / "outputs" / "wan_ui.sqlite")
    until(page, lambda: not jobs.in_state("queued", "running"))
    page.goto(url, wait_until="domcontentloaded")
    card_says(page, "Done in")
    wait_for_playing(page)
    expect(page.locator("#history .w-tile", has_text="reload me")).to_have_count(1)
    expect(page.locator(CLIP)).to_contain_text("waiting then")
    (made,) = (job for job in jobs_of(app) if job["prompt"] == "waiting then")
    assert (made["width"], made["frames"], made["steps"], made["seed"], len(made["loras"])) == (256, 17, 3, 77, 1)
    assert made["draft"] is True
    tile = page.locator("#history .w-tile", has_text="waiting then")
    expect(tile).to_contain_text("draft")
    clip = app.folder / "outputs" / "clips" / tile.get_attribute("data-tile") / "clip.mp4"
    assert muxer.read_metadata(clip)["draft"] is True
    expect(page.locator("#result")).to_contain_text("this engine has nothing quicker")
    page.locator(".w-lora").get_by_role("button", name="Remove").click()
    expect(page.locator("#examples-note")).not_to_contain_text("teal")


def test_what_a_page_tells_of_its_form_before_it_has_shown_it_is_not_kept(app):
    """Its fields are drawn one after the other, and each that is drawn tells of all of them."""
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as web:
        config = web.get("/config").json()
        components = {entry["id"]: entry for entry in config["components"]}
        handlers = {entry["api_name"]: entry for entry in config["dependencies"]}

        def ask(name: str, *values) -> dict:
            """The answer: BrowserState's value and the number of the page's last filling in, where they are sent."""
            body = {"fn_index": handlers[name]["id"], "data": values, "session_hash": "filled-in"}
            assert web.post("/gradio_api/queue/join", json=body).status_code == 200
            with web.stream("GET", "/gradio_api/queue/data", params={"session_hash": "filled-in"}) as answer:
                done = json.loads(next(line for line in answer.iter_lines() if "process_completed" in line)[6:])
            assert done["success"], done
            kinds = [components[output] for output in handlers[name]["outputs"]]
            sent = {}
            for kind, value in zip(kinds, done["output"]["data"], strict=True):
                if kind["type"] == "browserstate" and "form" in value:
                    sent["form"] = value["form"]
                if kind["type"] == "number" and not kind["props"].get("elem_id"):
                    sent["filled"] = value
            return sent

        kept = {"size": "256x256", "frames": 17, "steps": 3, "fps": 16, "seed": 77, "draft": True, "model": "wan-tiny"}
        browser, scheme = {"form": kept}, {"scheme": "bf16"}  # with no owner yet, so that every answer has it
        arrived = ask("arrive", browser, None)
        filled = arrived["form"]
        assert filled.items() >= (kept | scheme).items() and arrived["filled"] > 0

        def held(**values) -> list:
            return [values.get(name) for name in form.FIELDS]

        half_drawn = held(prompt="", size="256x256", frames=33, steps=4, fps=16, seed=-1, draft=False)
        assert ask("remember", browser, None, *half_drawn, 0, 1)["form"] == filled
        changed = ask("remember", browser, None, *held(**filled | {"frames": 33}, prompt=""), arrived["filled"], 2)
        assert changed["form"] == filled | {"frames": 33}  # that was a person


def test_examples_run_with_one_click(filled: Page):
    page = filled
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#picture-crop img")).to_have_count(0)
    page.locator("[data-example='1']").click()
    expect(page.locator("#prompt textarea")).to_have_value("pan left")
    page.locator("#picture-crop img").wait_for()
    expect(page.locator(CLIP)).to_have_text("pan left")
    wait_for_playing(page)
    page.evaluate("window.dispatchEvent(new Event('pagehide'))")  # as when it is loaded again, see there
    assert page.evaluate("sessionStorage.getItem('wan-ui-prompt')") == "pan left"


@pytest.mark.hardening(22)
def test_cancel_running_and_queued(filled: Page, app):
    page = filled
    press(page, "cancel me, denoise:1=stay, denoise:2=sleep:3, denoise:3=hang")
    card_says(page, "denoise step 1")
    press(page, "and me")
    card_says(page, "1 more of yours in line")
    page.locator("#history .w-tile.queued", has_text="and me").click()
    expect(page.locator("#result .w-prompt")).to_have_text("and me")
    page.locator("#result").get_by_role("button", name="Cancel").click()
    expect(page.locator("#result")).to_contain_text("Cancelled before it was finished")
    card_says(page, "denoise step")
    page.locator("#cancel").click()
    card_says(page, "Cancelling")
    shoot(page, "05-cancelling")
    go_on(app.jobs())
    card_says(page, "Cancelled")
    for prompt in ("cancel me", "and me"):
        expect(page.locator("#history .w-tile.cancelled", has_text=prompt)).to_have_count(1)
    expect(page.locator("#cancel")).to_be_hidden()


@pytest.mark.hardening(17)
def test_what_is_missing_or_too_much_is_said(filled: Page, picture, tmp_path):
    """Where it is, in view, until the fault is mended."""
    page = filled
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#picture-crop img")).to_have_count(0)
    for name, content, words in (
        ("fake.png", b"not a picture at all", "fake.png is not a picture that can be read"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "drawing.svg"),
        ("page.html", b"<script>alert(1)</script>", "page.html"),
    ):
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#picture input[type=file]", tmp_path / name)
        expect(page.locator("#picture-note [role=alert]")).to_contain_text(words)
        expect(page.locator("#picture-crop img")).to_have_count(0)
        shoot(page, f"06-refused-{name.split('.')[0]}")

    message = page.locator("#message [role=alert]")
    page.click("#generate")
    expect(message).to_contain_text("Prompt: say what should happen")
    expect(message).to_be_in_viewport(ratio=1)
    page.fill("#prompt textarea", "x" * 2345)
    page.click("#generate")
    expect(message).to_contain_text("2,345 characters; the limit is 2,000")
    page.fill("#prompt textarea", "zoom in")
    expect(message).to_be_hidden()
    page.click("#generate")
    expect(message).to_contain_text("choose a picture first")
    expect(page.locator("#picture-note [role=alert]")).to_contain_text("choose a picture first")
    page.set_input_files("#picture input[type=file]", picture)
    expect(message).to_have_count(0)
    page.fill("#seed input", "-7")
    page.click("#generate")
    expect(message).to_contain_text("-7 is not between 0 and")
    page.get_by_role("radio", name="256 × 256").check()  # something else
    page.wait_for_timeout(300)
    expect(message).to_be_visible()
    page.fill("#seed input", "7")
    expect(message).to_have_count(0)
    for words in ("", "zoom in", ""):  # the same complaint again is seen again
        page.fill("#prompt textarea", words)
        if not words:
            page.click("#generate")
            expect(message).to_be_visible()


@pytest.mark.hardening(17)
def test_a_prompt_is_text_wherever_it_is_shown(filled: Page):
    page, prompt = filled, """<img src=x onerror="document.title='owned'"><b>bold</b> ${7*7} {{7*7}} `x` "quoted" 🌊"""
    press(page, prompt)
    expect(page.locator(CLIP)).to_have_text(prompt)
    wait_for_playing(page)
    expect(page.locator("#history .w-tile-prompt").first).to_have_text(prompt)
    assert page.locator("#result b, #history b").count() == 0
    assert page.title() == "Wan UI"


def test_choosing_weights_loads_them_and_says_so(filled: Page, tmp_path):
    """And a prompt that rests is encoded for them before it is asked for."""
    page = filled

    def choose(title: str) -> None:
        page.locator("#scheme input").click()
        page.get_by_role("option", name=title).click()

    press(page, "before choosing")
    expect(page.locator(CLIP)).to_have_text("before choosing")
    card_says(page, "Done in")
    choose("GGUF Q8_0")
    card_says(page, "Ready: Wan-Tiny, GGUF Q8_0")
    choose("fp8, scaled")  # the scripted engine calls this file damaged
    card_says(page, "Wan-Tiny, fp8, scaled could not be loaded")
    shoot(page, "07-load-failed")
    choose("bf16")
    card_says(page, "Ready: Wan-Tiny, bf16")
    prepared = tmp_path / "prepared"
    prompt = f"after a failed load, prepare=mark:{prepared}"
    page.fill("#prompt textarea", prompt)
    until(page, prepared.exists)
    page.click("#generate")
    expect(page.locator(CLIP)).to_have_text(prompt)
    wait_for_playing(page)
    page.get_by_text("How it was made").click()
    expect(page.locator(".w-how")).to_contain_text(READY)


def test_a_double_click_makes_one_job_and_two_presses_two(filled: Page, app):
    page, before = filled, len(jobs_of(app))
    page.fill("#prompt textarea", "once")
    page.locator("#generate").dblclick()
    expect(page.locator(CLIP)).to_have_text("once")
    card_says(page, "Done in")
    page.locator("[data-example='0']").dblclick()
    expect(page.locator(CLIP)).to_have_text("zoom in, sunset light")
    page.keyboard.down("Control")
    for _ in range(4):  # a key that is held down repeats
        page.keyboard.down("Enter")
    page.keyboard.up("Control")
    page.fill("#prompt textarea", "another at once")
    page.click("#generate")
    expect(page.locator(CLIP)).to_have_text("another at once")
    assert len(jobs_of(app)) == before + 4


def test_lists_that_are_passed_close_and_choose_nothing(filled: Page, app):
    page = filled
    page.fill("#seed input", "-7")
    press(page, "keys alone")
    message = page.locator("#message [role=alert]")
    expect(message).to_contain_text("-7 is not between")
    for part in ("#model", "#scheme", "#lora-add"):
        box = page.locator(f"{part} input")
        for leave in ("Tab", "Shift+Tab", "Escape", "click"):
            box.click()
            expect(box).to_have_attribute("aria-expanded", "true")
            page.keyboard.press("Control")
            page.locator("h1").click() if leave == "click" else page.keyboard.press(leave)
            expect(box).to_have_attribute("aria-expanded", "false")
            if leave == "Escape":
                page.keyboard.press("Enter")  # in a closed list
    page.wait_for_timeout(500)
    expect(page.locator(".w-lora")).to_have_count(0)
    expect(page.locator("#lora-message [role=alert]")).to_have_count(0)
    expect(message).to_contain_text("-7 is not between")  # a true complaint stays
    expect(page.locator("#scheme input")).to_have_value("bf16")
    page.fill("#seed input", "5")
    page.locator("#lora-add input").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator(CLIP)).to_have_text("keys alone")
    made = jobs_of(app)[-1]
    assert (made["prompt"], made["loras"], made["scheme"], made["seed"]) == ("keys alone", [], "bf16", 5)


ANEW = """tile => {
  const drawn = tile.cloneNode(true);
  drawn.setAttribute("aria-pressed", tile.getAttribute("aria-pressed") === "true" ? "false" : "true");
  tile.replaceWith(drawn);
}"""


def test_a_clip_that_is_watched_stays_and_the_new_one_is_offered(filled: Page, app, picture, tmp_path):
    """While one is made at the terminal, which has the same history here, and while one of this page is made."""
    page = filled
    press(page, "watched")
    expect(page.locator(CLIP)).to_have_text("watched")
    command = [sys.executable, "-m", "wan_ui", "generate", "--image", picture, "--prompt", "from the terminal"]
    environ = {name: value for name, value in app.environ.items() if name != "WAN_UI_PORT"}
    subprocess.run([*command, "--out", tmp_path / "x.mp4"], cwd=ROOT, env=environ, check=True, capture_output=True)
    page.locator("#history .w-tile", has_text="from the terminal").wait_for()
    expect(page.locator(CLIP)).to_have_text("watched")

    press(page, "asked for here, denoise:2=hold")
    card_says(page, "denoise step 2")
    tile = page.locator("#history .w-tile", has_text="watched").first
    page.mouse.wheel(0, 1)  # who scrolls is not taken back to what was asked for, a second later, away from the tile
    tile.hover()
    page.mouse.down()
    tile.evaluate(ANEW)  # an answer that comes in this moment says that another one is chosen
    page.mouse.up()
    expect(page.locator(CLIP)).to_have_text("watched")
    wait_for_playing(page)
    page.evaluate(
        "() => { const v = document.querySelector('#clip'); window.video = v; window.reloads = 0;"
        " for (const name of ['loadstart', 'emptied']) v.addEventListener(name, () => window.reloads++) }"
    )
    shown = page.locator("#card .w-timing").inner_text()
    expect(page.locator("#card .w-timing")).not_to_have_text(shown)  # the page has looked again
    assert page.evaluate("[document.querySelector('#clip') === window.video, window.reloads]") == [True, 0]
    go_on(app.jobs())
    card_says(page, "Done in")
    expect(page.locator(CLIP)).to_have_text("watched")
    page.locator("#card").get_by_role("button", name="Show it").click()
    expect(page.locator(CLIP)).to_contain_text("asked for here")
    expect(page.locator("#card").get_by_role("button", name="Show it")).to_have_count(0)


def test_nothing_moves_under_a_press(used_page, app):
    page = used_page(app.url, 390, 500)
    page.emulate_media(reduced_motion="no-preference")  # smoothly, as it is for most people
    page.evaluate("document.documentElement.style.overflowAnchor = 'none'")  # only what we scroll
    bring = "wanUi.bring(document.querySelector('#card'))"
    press = (
        "document.body.dispatchEvent(new MouseEvent('mousedown', { bubbles: true }))"  # before anything else happens
    )
    page.evaluate(f"() => {{ {bring}; {press} }}")
    before = page.evaluate("window.scrollY")
    page.evaluate("document.querySelector('#left').style.paddingTop = '900px'")  # what is drawn meanwhile
    page.wait_for_timeout(1200)
    assert page.evaluate("window.scrollY") == before
    # and otherwise it comes into view, also where something above it is drawn seconds later, or it grows
    later = (
        "setTimeout(() => { document.querySelector('#left').style.paddingTop = '2700px'; window.drawn = true; }, 2000)"
    )
    page.evaluate(f"() => {{ {bring}; {later} }}")
    page.wait_for_function(
        "window.drawn && document.querySelector('#card').getBoundingClientRect().top < window.innerHeight"
    )
    page.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
    grow = "document.querySelector('#prompt').style.paddingBottom = '150px'"
    later = f"setTimeout(() => {{ {grow}; window.grown = true; }}, 2000)"
    page.evaluate(f"() => {{ wanUi.bring('#prompt'); {later} }}")
    page.wait_for_function("window.grown")
    expect(page.locator("#prompt")).to_be_in_viewport(ratio=0.99)
    page.evaluate("document.querySelector('#left').style.paddingTop = ''")
    page.evaluate("document.querySelector('#prompt').style.paddingBottom = ''")
    page.evaluate("document.documentElement.style.overflowAnchor = ''")


def test_several_clips_from_one_press(filled: Page, app, examples):
    """A grid that plays together; kept, deleted, cancelled; then pictures in a tray, which a reload brings back."""
    page = filled
    page.fill("#prompt textarea", "three at once, denoise:2=hold")
    page.get_by_role("button", name="Several at once").click()
    page.locator("#clips").get_by_role("radio", name="3", exact=True).check()
    expect(page.locator("#generate")).to_have_text("Generate 3 clips")
    before = set(app.jobs())
    page.click("#generate")
    cells = page.locator(".w-batch-cell")
    expect(cells).to_have_count(3)
    cells.nth(2).get_by_role("button", name="Cancel").click()
    expect(cells.nth(2)).to_contain_text("Cancelled")
    go_on(set(app.jobs()) - before)
    expect(page.locator(".w-batch video")).to_have_count(2)
    page.wait_for_function("() => [...document.querySelectorAll('.w-batch video')].every(v => v.currentTime > 0)")
    shoot(page, "06-several")
    first, second, _ = jobs_of(app)[-3:]
    assert first["seed"] != second["seed"] and first["batch"] == second["batch"] != ""
    page.get_by_role("button", name="Pause all").click()
    page.wait_for_function("() => [...document.querySelectorAll('.w-batch video')].every(v => v.paused)")
    cells.nth(1).get_by_role("button", name="Keep").click()
    expect(page.locator(".w-batch-cell.kept")).to_have_count(1)
    page.locator("#clips").get_by_role("radio", name="1", exact=True).check()
    expect(page.locator("#generate")).to_have_text("Generate")
    expect(page.locator("#using")).not_to_contain_text("3 clips")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose pictures").click()
    chooser.value.set_files([examples / "dusk.jpg", examples / "noon.jpg", examples / "examples.json"])
    expect(page.locator("#tray")).to_contain_text("1 file is no picture")
    page.get_by_label("Words for noon.jpg").fill("pan left")
    page.get_by_label("Size of noon.jpg").select_option("256x256")
    page.fill("#prompt textarea", "zoom in")
    expect(page.locator("#generate")).to_have_text("Generate 2 clips")
    in_both_colours(page, False, "06-several-kept", "06-several-kept-dark", part="#result, #tray")
    cells.nth(0).locator(".w-batch-open").click()
    expect(page.locator("#result")).to_contain_text(str(first["seed"]))
    page.get_by_role("button", name="All 3 clips").click()
    page.get_by_role("button", name="Delete the others").click()
    expect(page.locator(CLIP)).to_contain_text("three at once")
    expect(page.locator(".w-batch")).to_have_count(0)

    expect(page.locator("#tray input[value='pan left']")).to_have_count(1)  # the server has it
    expect(page.locator("#tray option[selected][value='256x256']")).to_have_count(1)
    page.evaluate("() => new Promise(done => setTimeout(done, 2000))")  # and the browser's storage, by the page's clock
    page.reload(wait_until="domcontentloaded")
    expect(page.get_by_label("Words for noon.jpg")).to_have_value("pan left")
    expect(page.locator("#generate")).to_have_text("Generate 2 clips")
    expect(page.locator("#prompt textarea")).to_have_value("zoom in")
    page.click("#generate")
    expect(page.locator(".w-batch video")).to_have_count(2)
    dusk, noon = jobs_of(app)[-2:]
    assert (dusk["prompt"], dusk["width"], noon["prompt"], noon["width"]) == ("zoom in", 320, "pan left", 256)
    page.get_by_role("button", name="Empty the tray").click()
    expect(page.locator("#generate")).to_have_text("Generate")


def test_waiting_clips_are_moved_changed_doubled_and_paused(filled: Page, app):
    """With the mouse and the keyboard."""
    page = filled
    rows, names = page.locator(".w-queue-row"), page.locator(".w-queue-words b")
    before = set(app.jobs())
    press(page, "queue zero, denoise:2=hold")
    card_says(page, "denoise step 2")
    for number, name in enumerate(("one", "two", "three"), start=1):
        press(page, name)
        expect(rows).to_have_count(number)
    rows.nth(2).get_by_role("button", name="Move up").focus()
    page.keyboard.press("Enter")
    expect(names).to_have_text(["one", "three", "two"])
    page.keyboard.press("Alt+ArrowUp")
    expect(names).to_have_text(["three", "one", "two"])
    rows.nth(2).evaluate("""(to) => {
        const [from] = document.querySelectorAll(".w-queue-row"), dataTransfer = new DataTransfer();
        const tell = (row, name) => row.dispatchEvent(new DragEvent(name, { bubbles: true, dataTransfer }));
        tell(from, "dragstart"), tell(to, "dragover"), tell(to, "drop"), tell(from, "dragend");
    }""")
    expect(names).to_have_text(["one", "two", "three"])
    rows.nth(0).get_by_role("button", name="The same once more").click()
    expect(names).to_have_text(["one", "one", "two", "three"])
    rows.nth(2).get_by_role("button", name="Change").click()
    expect(page.locator("#generate")).to_have_text("Save the waiting clip")
    expect(page.locator("#prompt textarea")).to_have_value("two")
    page.fill("#prompt textarea", "two, changed")
    page.click("#generate")
    expect(names).to_have_text(["one", "one", "two, changed", "three"])
    expect(page.locator("#generate")).to_have_text("Generate")
    page.get_by_role("button", name="Pause after this one").click()
    expect(page.locator("#queue")).to_contain_text("none of these begins")
    assert faults(page, part="#queue") == []
    shoot(page, "07-queue")
    assert stage_of(page)[0] == (page.locator("#card").bounding_box() or {})["height"]  # right below it
    go_on(set(app.jobs()) - before)
    card_says(page, "Paused")
    expect(rows).to_have_count(4)
    for number in (3, 2):
        rows.nth(number).get_by_role("button", name="Cancel").click()
        expect(rows).to_have_count(number)
    page.get_by_role("button", name="Go on").click()
    expect(rows).to_have_count(0)
    card_says(page, "Done in")
    first, second = (job for job in jobs_of(app) if job["prompt"] == "one")
    assert first["seed"] != second["seed"]

    # All of them at once, on a phone, where Cancel is in sight however far it is scrolled.
    page.set_viewport_size({"width": 390, "height": 844})
    press(page, "at last, denoise:2=hold")
    card_says(page, "denoise step 2")
    for number, name in enumerate(("waits", "waits too"), start=1):
        press(page, name)
        expect(rows).to_have_count(number)
    for part in ("#prompt", "#result", "#queue", "#history-part"):
        page.locator(part).evaluate("part => (part.firstElementChild ?? part).scrollIntoView({ behavior: 'instant' })")
        expect(page.locator("#cancel")).to_be_in_viewport(ratio=0.99)
    assert faults(page, part="#queue") == []
    page.locator("#queue").get_by_role("button", name="Cancel all").click()
    card_says(page, "Cancelled")
    expect(rows).to_have_count(0)
    expect(page.locator("#cancel")).to_be_hidden()
    expect(page.locator("#history .w-tile.cancelled", has_text="at last")).to_be_hidden()
    page.locator("#history .w-cancelled summary").click()
    for name in ("at last", "waits too"):
        expect(page.locator("#history .w-tile.cancelled", has_text=name)).to_be_visible()
    expect(page.locator("#history .w-day").first).to_have_text(re.compile("Today|Yesterday"))
    shoot(page, "09-cancelled-phone")


def in_the_menu_of_a_tile(page: Page, app) -> None:
    """By keyboard and by pointer, while the history is drawn anew."""
    oldest = page.locator("#history [data-more]").last.get_attribute("data-more")
    tile = page.locator(f"#history li:has([data-more='{oldest}'])")
    more, menu = tile.locator(".w-more"), page.locator("#tile-menu [role=menu]")
    more.focus()
    page.keyboard.press("Enter")
    expect(menu.get_by_role("menuitem")).to_have_text(
        ["Download", "★ Keep", "Load settings", "Continue", "Add speech", "Make another", "Delete"]
    )
    expect(menu.get_by_role("menuitem", name="Download")).to_be_focused()
    expect(more).to_have_attribute("aria-expanded", "true")
    boxes = [part.bounding_box() or {} for part in (more, *menu.get_by_role("menuitem").all())]
    assert all(box["height"] >= 44 and box["width"] >= 44 for box in boxes)
    assert faults(page, part="#history-part") == []
    shoot(page, "09-menu")
    page.keyboard.press("ArrowUp")
    expect(menu.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(more).to_be_focused()
    more.click()
    menu.get_by_role("menuitem", name="★ Keep", exact=True).click()
    expect(tile.locator(".w-state.star")).to_be_visible()
    more.hover()
    page.mouse.down()
    more.evaluate("(button) => button.replaceWith(button.cloneNode(true))")  # drawn anew in this moment
    page.mouse.up()
    before = set(app.jobs())
    with page.expect_download() as download:
        menu.get_by_role("menuitem", name="Download").click()
    assert download.value.suggested_filename.startswith("wan-a-needle-in-the-hay-")
    more.click()
    menu.get_by_role("menuitem", name="Make another").click()
    until(page, lambda: set(app.jobs()) - before)
    (made,) = set(app.jobs()) - before
    new = page.locator(f"#history li:has([data-more='{made.name}'])")
    new.locator(".w-tile.done").wait_for()
    first = made.parent / (more.get_attribute("data-more") or "")
    assert len({muxer.read_metadata(folder / "clip.mp4")["seed"] for folder in (first, made)}) == 2
    new.locator(".w-more").click()
    menu.get_by_role("menuitem", name="Delete").click()
    expect(new).to_have_count(0)
    expect(page.locator("#undo")).to_contain_text("1 clip deleted.")


def test_the_history_is_searched_chosen_from_deleted_and_linked(open_page, app, picture, tmp_path):
    page = open_page(f"{app.url}/?clip=another")
    expect(page.locator("#result-message")).to_contain_text("no such clip of yours")
    for words in ("a needle in the hay", "a needle again"):
        generate(page, picture, words)
        expect(page.locator(CLIP)).to_have_text(words)
    page.get_by_text("Earlier prompts").click()
    page.locator("#earlier").get_by_role("button", name="a needle in the hay").click()
    expect(page.locator("#prompt textarea")).to_have_value("a needle in the hay")
    tiles = page.locator("#history .w-tile")
    page.fill("#history-bar input", "NEEDLE wan-tiny")
    expect(tiles).to_have_count(2)
    page.locator("#result [data-do=star]").click()
    page.locator("#history-bar [data-starred]").click()
    expect(tiles).to_have_count(1)
    page.locator("#history-bar [data-starred]").click()
    expect(tiles).to_have_count(2)
    page.locator("[data-choose_many]").click()
    for number in (0, 1):
        tiles.nth(number).click()
    expect(page.locator(".w-many")).to_contain_text("2 chosen")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as ZIP").click()
    download.value.save_as(tmp_path / "clips.zip")
    with zipfile.ZipFile(tmp_path / "clips.zip") as packed:
        names = sorted(packed.namelist())
        packed.extractall(tmp_path)
    assert [muxer.read_metadata(tmp_path / name)["prompt"] for name in names] == [
        "a needle in the hay",
        "a needle again",
    ]
    page.locator("[data-many=remove_many]").click()
    expect(tiles).to_have_count(0)
    shoot(page, "08-undo")
    page.get_by_role("button", name="Undo").click()
    expect(tiles).to_have_count(2)
    for number in (1, 0):
        tiles.nth(number).click()
    before = set(app.jobs())
    page.get_by_role("button", name="Join", exact=True).click()
    until(page, lambda: set(app.jobs()) - before)
    (joined,) = set(app.jobs()) - before
    until(page, (joined / "clip.mp4").is_file)
    page.locator("[data-choose_many]").click()
    in_the_menu_of_a_tile(page, app)
    older = tiles.last.get_attribute("data-tile")
    page.goto(f"{app.url}/?clip={older}", wait_until="domcontentloaded")
    expect(page.locator(CLIP)).to_have_text("a needle in the hay")
