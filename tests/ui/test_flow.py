"""A person at the page: from a picture to a playing clip, and everything around it."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import card_says, generate, shoot, wait_for_playing
from wan_ui import muxer


def test_picture_to_clip_to_history(page: Page, picture, tmp_path):
    card_says(page, "Ready: Wan-Tiny, bf16")
    shoot(page, "01-empty")
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#crop img").wait_for()
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
    page.fill("#prompt textarea", "slowly zoom in, sunset light, denoise=sleep:0.6")
    shoot(page, "02-form-filled")

    page.keyboard.press("Control+Enter")
    card_says(page, "denoise step 3 of 4, low-noise expert")
    expect(page.locator(".w-stages .now")).to_have_text("Denoise 3/4")
    expect(page.locator("#cancel")).to_be_visible()
    shoot(page, "03-denoising")
    wait_for_playing(page)
    card_says(page, "Done in")
    expect(page.locator("#cancel")).to_be_hidden()
    shoot(page, "04-done")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"wan-slowly-zoom-in-sunset-light-.*-\d+\.mp4", download.value.suggested_filename)
    saved = tmp_path / "clip.mp4"
    download.value.save_as(saved)
    settings = muxer.read_metadata(saved)
    assert settings["prompt"].startswith("slowly zoom in") and (settings["width"], settings["height"]) == (256, 256)
    assert page.evaluate("(v => [v.videoWidth, v.loop, v.muted])(document.querySelector('#clip'))") == [256, True, True]

    seed = str(settings["seed"])
    expect(page.locator("#result")).to_contain_text(seed)
    page.get_by_role("button", name="Reuse seed").click()
    expect(page.locator("#seed input")).to_have_value(seed)

    tile = page.locator("#history .w-tile").first
    expect(tile).to_contain_text("slowly zoom in")
    page.fill("#prompt textarea", "something else")
    page.get_by_role("radio", name="33 · 2.1 s").check()
    tile.click()
    page.get_by_role("button", name="Load settings", exact=True).click()
    expect(page.locator("#prompt textarea")).to_have_value(settings["prompt"])
    expect(page.locator("#frames label.selected")).to_have_text("17 · 1.1 s")
    expect(page.locator("#size label.selected")).to_have_text("256 × 256")
    # The picture comes back as it was used, so that the same seed gives the same clip.
    expect(page.locator("#picture-note")).to_have_text("Used at 256 × 256.")

    count = page.locator("#history .w-tile").count()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#history .w-tile")).to_have_count(count - 1)

    page.fill("#prompt textarea", "to be replaced")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load settings from a video").click()
    chooser.value.set_files(saved)
    expect(page.locator("#from-video-message")).to_contain_text("Settings loaded from clip.mp4")
    expect(page.locator("#prompt textarea")).to_have_value(settings["prompt"])
    expect(page.locator("#seed input")).to_have_value(seed)


def test_reload_in_the_middle_finds_the_job_again(page: Page, picture):
    generate(page, picture, "reload me, denoise=sleep:0.8")
    card_says(page, "denoise step 2 of 4")
    page.reload(wait_until="domcontentloaded")
    card_says(page, "denoise step")
    card_says(page, "Done in")
    wait_for_playing(page)
    expect(page.locator(".w-prompt")).to_contain_text("reload me")
    page.reload(wait_until="domcontentloaded")
    wait_for_playing(page)
    expect(page.locator(".w-prompt")).to_contain_text("reload me")
    expect(page.locator("#prompt textarea")).to_have_value("reload me, denoise=sleep:0.8")


def test_cancel_running_and_queued(page: Page, picture):
    generate(page, picture, "cancel me, denoise=sleep:1.5")
    card_says(page, "denoise step 1")
    page.fill("#prompt textarea", "and me")
    page.click("#generate")
    card_says(page, "1 more of yours in line")
    waiting = page.locator("#history .w-tile.queued")
    waiting.click()
    page.locator("#result").get_by_role("button", name="Cancel").click()
    expect(page.locator("#result")).to_contain_text("Cancelled before it was finished")
    card_says(page, "denoise step")
    page.locator("#cancel").click()
    card_says(page, "Cancelling", 3)
    shoot(page, "05-cancelling")
    card_says(page, "Cancelled", 5)
    expect(page.locator("#history .w-tile.cancelled")).to_have_count(2)
    expect(page.locator("#cancel")).to_be_hidden()


def test_polling_leaves_a_playing_video_alone(page: Page, picture):
    generate(page, picture, "watch me")
    expect(page.locator(".w-prompt")).to_have_text("watch me")
    wait_for_playing(page)
    page.evaluate(
        "() => { const v = document.querySelector('#clip'); window.video = v; window.reloads = 0;"
        " for (const name of ['loadstart', 'emptied']) v.addEventListener(name, () => window.reloads++) }"
    )
    generate(page, picture, "another, denoise=sleep:0.5")
    card_says(page, "denoise step 4")
    assert page.evaluate("[document.querySelector('#clip') === window.video, window.reloads]") == [True, 0]
    card_says(page, "Done in")
    expect(page.locator(".w-prompt")).to_contain_text("another")


def test_examples_run_with_one_click(page: Page):
    page.locator("[data-example='1']").click()
    expect(page.locator("#prompt textarea")).to_have_value("pan left")
    page.locator("#crop img").wait_for()
    wait_for_playing(page)
    expect(page.locator(".w-prompt")).to_have_text("pan left")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("fake.png", b"not a picture at all", "fake.png is not a picture that can be read"),
        ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "drawing.svg"),
        ("page.html", b"<script>alert(1)</script>", "page.html"),
    ],
)
def test_refused_pictures_say_why(page: Page, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    page.set_input_files("#picture input[type=file]", tmp_path / name)
    if name.endswith(".html"):  # Gradio's own check in the browser is faster than ours
        expect(page.locator("[data-testid=toast-body]")).to_contain_text("image")
        return
    expect(page.locator("#picture-note [role=alert]")).to_contain_text(words)
    expect(page.locator("#crop img")).to_have_count(0)
    shoot(page, f"06-refused-{name.split('.')[0]}")


def test_what_is_missing_or_too_much_is_said(page: Page, picture):
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_contain_text("Prompt: say what should happen")
    expect(page.locator("#message [role=alert]")).to_be_in_viewport(ratio=1)
    page.fill("#prompt textarea", "x" * 2345)
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_contain_text("2,345 characters; the limit is 2,000")
    page.fill("#prompt textarea", "zoom in")
    page.click("#generate")
    expect(page.locator("#picture-note [role=alert]")).to_contain_text("choose a picture first")
    page.set_input_files("#picture input[type=file]", picture)
    page.fill("#seed input", "-7")
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_contain_text("-7 is not between 0 and")


def test_a_prompt_is_text_wherever_it_is_shown(page: Page, picture):
    prompt = """<img src=x onerror="document.title='owned'"><b>bold</b> ${7*7} {{7*7}} `x` "quoted" 🌊"""
    generate(page, picture, prompt)
    wait_for_playing(page)
    expect(page.locator(".w-prompt")).to_have_text(prompt)
    expect(page.locator("#history .w-tile-prompt").first).to_have_text(prompt)
    assert page.locator("#result b, #history b").count() == 0
    assert page.title() == "Wan UI"


def test_choosing_weights_loads_them_and_says_so(page: Page, picture):
    def choose(title: str) -> None:
        page.locator("#scheme input").click()
        page.get_by_role("option", name=title).click()

    generate(page, picture, "before choosing")
    card_says(page, "Done in")
    choose("GGUF Q8_0")
    card_says(page, "Ready: Wan-Tiny, GGUF Q8_0")
    choose("fp8, scaled")  # the scripted engine calls this file damaged
    card_says(page, "Wan-Tiny, fp8, scaled could not be loaded")
    shoot(page, "07-load-failed")
    choose("bf16")
    card_says(page, "Ready: Wan-Tiny, bf16")
    generate(page, picture, "after a failed load")
    wait_for_playing(page)
