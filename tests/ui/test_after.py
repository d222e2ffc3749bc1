"""More with this clip: parts, joins, loops and other files, on the real page."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import CLIP, FACTS, card_says, generate, shoot, wait_for_playing
from tests.ui.test_looks import PHONE, in_both_colours
from wan_ui.media import muxer


@pytest.fixture(scope="module")
def after_app(scripted):
    return scripted()


def made(app, page: Page):
    job = page.locator("#history .w-tile[aria-pressed=true]").first.get_attribute("data-tile")
    return app.folder / "outputs" / "clips" / job


def open_more(page: Page) -> None:
    page.locator("#after summary").click()
    page.locator("#after .w-after-body").wait_for()


def test_a_clip_becomes_another_and_stays(used_page, after_app, picture):
    page = used_page(after_app.url, 1440, 900)
    expect(page.locator("#after summary")).to_have_count(0)
    generate(page, picture, "the first")
    card_says(page, "Done in")
    wait_for_playing(page)
    first = made(after_app, page)
    before = (first / "clip.mp4").read_bytes()
    expect(page.locator("#after .w-after-body")).to_be_hidden()
    open_more(page)
    start, end = page.get_by_label("Begins at"), page.get_by_label("Ends at")
    start.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    end.focus()
    page.keyboard.press("ArrowLeft")
    whole = int(end.get_attribute("max"))
    expect(page.locator(".w-trim-words")).to_contain_text(f"0.25 s to {(whole - 1) / 16:.2f} s")
    page.locator("#after [name=loop]").select_option("ping-pong")
    page.locator("#after [name=times]").select_option("2")
    page.locator("#after [name=file]").select_option("gif")
    in_both_colours(page, True, "80-after", "80-after-dark", part="#after")
    page.get_by_role("button", name="Make a new clip").click()
    expect(page.locator(FACTS).first).to_contain_text("there and back")
    kept = whole - 5
    frames = 2 * ((kept - 1) * 2 + 1) - 2
    expect(page.locator(FACTS).first).to_contain_text(f"{frames} frames")
    second = made(after_app, page)
    assert second != first and (first / "clip.mp4").read_bytes() == before
    assert (second / "clip.gif").read_bytes().startswith(b"GIF89a")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download GIF").click()
    assert download.value.suggested_filename.endswith(".gif")

    # The first one again, from its tile, with the second behind it.
    page.locator("#history .w-tile").nth(1).click()
    expect(page.locator("#after details")).to_have_attribute("data-job", first.name)
    open_more(page)
    expect(page.locator("#after [name=loop]")).to_have_value("")
    page.locator(".w-next").first.click()
    expect(page.locator(".w-next").first).to_have_attribute("aria-pressed", "true")
    page.locator("#after [name=fade]").fill("0")
    shoot(page, "81-join", full=True)
    page.get_by_role("button", name="Make a new clip").click()
    expect(page.locator(FACTS).first).to_contain_text(re.compile(r"Length\d+ frames"))
    expect(page.locator("#history .w-tile")).to_have_count(3)
    card_says(page, "Done in")
    joined = made(after_app, page)
    assert muxer.read_metadata(joined / "clip.mp4")["changes"]["original"] == first.name
    assert (joined / "next-1.mp4").is_file()


def test_what_cannot_be_done_is_said_beside_the_clip_and_all_of_it_is_in_view_on_a_phone(used_page, after_app, picture):
    page = used_page(after_app.url, 1280, 720)
    before = set(after_app.jobs())
    generate(page, picture, "another")
    expect(page.locator(CLIP)).to_have_text("another")
    (job,) = set(after_app.jobs()) - before
    expect(page.locator("#after details")).to_have_attribute("data-job", job.name)
    open_more(page)
    clip = job / "clip.mp4"
    clip.rename(clip.with_name("away.mp4"))
    page.get_by_role("button", name="Make a new clip").click()
    expect(page.locator("#result-message [role=alert]")).to_contain_text("that clip is not there any more")
    clip.with_name("away.mp4").rename(clip)

    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    in_both_colours(page, True, "82-after-phone-light", "82-after-phone-dark", part="#after")
