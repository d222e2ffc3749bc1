"""What the form remembers, and what can be done to the picture in it."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.ui.conftest import CLIP, generate, until, wait_for_playing
from tests.ui.test_files import bring
from wan_ui.media import muxer

# In the line above Generate, which a reload reads.
KEPT_CROP = re.compile(r'"crops": \{"picture": \[0\.81\d*, 0\.5, 1\.2\]')

CLICK_THROUGH = """async () => {
  for (const radio of document.querySelectorAll("#size input[type=radio]")) {
    radio.click();
    await new Promise(drawn => setTimeout(drawn, 30));
  }
}"""


@pytest.fixture
def used_form(used_page, app) -> Page:
    page = used_page(app.url)
    page.get_by_role("tab", name="Create").click()
    return page


def choose(page: Page, part: str, value: str) -> None:
    page.locator(f"{part} input[value='{value}']").dispatch_event("click")  # it may lie below Generate, which sticks
    expect(page.locator(f"{part} input[value='{value}']")).to_be_checked()


def used_at(page: Page, width: int, height: int) -> None:
    """The crop and the line below it come in one answer, and are drawn one after the other."""
    expect(page.locator("#picture-note")).to_contain_text(f"Used at {width} × {height}")
    expect(page.locator(f"#picture-crop .w-crop[data-shape='{width},{height}']")).to_be_visible()


def clip_of(page: Page, app, words: str) -> Path:
    """The clip with these words in its prompt; the app is shared, and has jobs of others that have none."""

    def found() -> list[Path]:
        clips = (app.folder / "outputs" / "clips").glob("*/clip.mp4")
        return [clip for clip in clips if words.encode() in clip.read_bytes()]

    until(page, found)  # its words may be on the stage before it is made
    return found()[0]


def test_presets_and_what_was_typed_outlast_the_tab(page: Page, app, tmp_path):
    page.fill("#prompt textarea", "a quiet lake")
    page.locator("#presets summary").click()
    choose(page, "#size", "192x320")
    expect(page.locator("#using")).to_contain_text("192 × 320")
    page.get_by_label("Name of a new preset").fill("tall")
    page.get_by_label("Name of a new preset").press("Enter")
    expect(page.locator("#presets-told")).to_contain_text("Saved as tall.")
    page.get_by_role("button", name="Begin a new page with tall").click()
    choose(page, "#size", "256x256")
    expect(page.locator("#using")).to_contain_text("256 × 256")

    page.reload()
    expect(page.locator("#size input[value='256x256']")).to_be_checked()  # not a fresh one
    context = page.context
    page.close()
    page = context.new_page()
    page.goto(app.url)
    expect(page.locator("#size input[value='192x320']")).to_be_checked()
    expect(page.locator("#prompt textarea")).to_have_value("a quiet lake")

    page.locator("#presets summary").click()
    choose(page, "#size", "auto")
    page.get_by_role("button", name="Use tall").click()
    expect(page.locator("#presets-told")).to_contain_text("tall is used.")
    expect(page.locator("#size input[value='192x320']")).to_be_checked()
    page.get_by_role("button", name="Rename tall").click()
    page.keyboard.type("wide")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Use wide")).to_be_focused()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export as a file").click()
    saved.value.save_as(tmp_path / "presets.json")
    page.get_by_role("button", name="Delete wide").click()
    expect(page.get_by_role("button", name="Use wide")).to_have_count(0)

    def bring(path) -> None:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import a file").click()
        chooser.value.set_files(path)

    kept = json.loads((tmp_path / "presets.json").read_text())
    assert kept["start"] == "wide" and kept["presets"][0]["settings"]["size"] == "192x320"
    kept["presets"][0]["settings"]["frames"] = "many"
    (tmp_path / "wrong.json").write_text(json.dumps(kept))
    bring(tmp_path / "wrong.json")
    expect(page.locator("#presets-told").get_by_role("alert")).to_contain_text("'wide': frames: 'many'")
    expect(page.get_by_role("button", name="Use wide")).to_have_count(0)
    bring(tmp_path / "presets.json")
    expect(page.get_by_role("button", name="Use wide")).to_be_visible()
    expect(page.get_by_role("button", name="no longer")).to_have_attribute("aria-pressed", "true")


def test_what_was_done_by_hand_after_a_press_stays_when_its_answer_comes_late(page: Page, app, picture):
    choose(page, "#size", "256x256")
    generate(page, picture, "an older evening")
    job = clip_of(page, app, "an older evening").parent.name
    expect(page.locator(CLIP)).to_have_text("an older evening")
    choose(page, "#size", "192x320")
    page.get_by_role("button", name="Quick draft").click()
    held: list[Route] = []

    def late(route: Route) -> None:
        data = (route.request.post_data_json or {}).get("event_data") or {}
        held.append(route) if not held and data.get("job") == job else route.continue_()

    page.route("**/gradio_api/queue/join*", late)
    page.get_by_role("button", name="Load settings", exact=True).click()
    until(page, lambda: held)
    choose(page, "#frames", "25")
    page.fill("#seed input", "77")
    page.fill("#prompt textarea", "a later morning")
    page.fill("#steps input[type=number]", "2")
    page.locator("#draft input").dispatch_event("click")
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#picture-crop img")).to_have_count(0)
    held[0].continue_()
    expect(page.locator("#size input[value='256x256']")).to_be_checked()  # of what was left alone it is the newest

    expect(page.locator("#using")).to_contain_text(re.compile("25.frames.*2.steps.*seed.77.*draft.*no.picture.yet"))
    expect(page.locator("#frames input[value='25']")).to_be_checked()
    expect(page.locator("#seed input")).to_have_value("77")
    expect(page.locator("#prompt textarea")).to_have_value("a later morning")
    expect(page.locator("#steps input[type=number]")).to_have_value("2")
    expect(page.locator("#picture-crop img")).to_have_count(0)
    expect(page.locator("#draft input")).to_be_checked()


def test_changes_in_one_moment_are_asked_about_once_each(used_form: Page, picture):
    """Gradio repeats whole events of which one part waits ("always_last"): a hundred requests a second, for minutes."""
    page = used_form
    choose(page, "#size", "auto")
    page.set_input_files("#picture input[type=file]", picture)
    used_at(page, 320, 192)
    asked: Counter = Counter()

    def count(request: Request) -> None:
        if "/queue/join" in request.url:
            data = request.post_data_json
            asked[data["fn_index"]] += data["trigger_id"] == size

    size = page.evaluate("gradio_config.components.find(part => part.props.elem_id === 'size').id")
    page.on("request", count)
    pressed = page.locator("#size input[type=radio]").count()
    page.evaluate(CLICK_THROUGH)
    page.wait_for_timeout(2000)
    page.remove_listener("request", count)
    assert asked, "nothing is asked about another size"
    assert max(asked.values()) <= pressed, asked


def test_a_clip_that_is_dropped_anywhere_brings_its_settings_and_picture_back(used_form: Page, app, picture):
    page = used_form
    choose(page, "#size", "auto")
    generate(page, picture, "zoom in, a clip to be dropped")
    expect(page.locator(CLIP)).to_have_text("zoom in, a clip to be dropped")  # another's may play there before
    wait_for_playing(page)
    content = clip_of(page, app, "a clip to be dropped").read_bytes()
    for place, name in (("#picture", "one.mp4"), ("#examples", "two.MP4"), ("body", "three.mp4")):
        page.fill("#prompt textarea", "something else")
        page.get_by_role("button", name="Remove Image").click()
        expect(page.locator("#picture-crop img")).to_have_count(0)
        if place == "body":
            page.get_by_role("tab", name="Compare").click()
        bring(page, "drop", place, name, content, "video/mp4" if place == "body" else "")
        expect(page.locator("#from-video-message")).to_contain_text(f"Settings and picture loaded from {name}.")
        expect(page.locator("#prompt textarea")).to_have_value("zoom in, a clip to be dropped")
        expect(page.locator("#picture-note")).to_contain_text("Used at 320 × 192.")
        expect(page.locator("#picture-crop img")).to_have_count(1)


def test_the_crop_is_moved_by_pointer_and_keys_and_outlasts_a_reload(used_form: Page, app, picture):
    page = used_form
    page.set_input_files("#picture input[type=file]", picture)
    choose(page, "#size", "192x320")
    used_at(page, 192, 320)
    expect(page.locator("#picture-note")).to_contain_text("the dimmed edges are cut off")
    box, said = page.locator("#picture-crop .w-crop-box"), page.locator("#picture-crop [role=status]")
    expect(box).to_have_attribute("style", re.compile("width"))  # it is drawn when the picture is
    place = box.bounding_box()
    across, down = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(across, down)
    page.mouse.down()
    page.mouse.move(across + 1000, down, steps=3)  # beyond the picture's edge, where it stops
    page.mouse.up()
    expect(said).to_have_text("83 percent across, 50 percent down, 1.0 times closer")
    box.press("ArrowLeft")
    expect(said).to_have_text("81 percent across, 50 percent down, 1.0 times closer")
    box.press("+")
    expect(said).to_have_text("81 percent across, 50 percent down, 1.1 times closer")
    page.locator("#size input[value='256x256']").dispatch_event("click")  # it is drawn anew, and keeps the focus
    used_at(page, 256, 256)
    expect(box).to_be_focused()
    choose(page, "#size", "192x320")
    used_at(page, 192, 320)
    page.get_by_role("button", name="Use more of the picture").click()
    expect(said).to_have_text("81 percent across, 50 percent down, 1.0 times closer")
    page.get_by_role("button", name="Use less of the picture").click()
    expect(said).to_have_text("81 percent across, 50 percent down, 1.2 times closer")
    expect(page.locator("#using [data-kept]")).to_have_attribute("data-kept", KEPT_CROP)
    page.reload()
    expect(page.locator("#picture-crop .w-crop")).to_have_attribute("data-now", re.compile(r"0\.81\d*,0\.5,1\.2"))

    page.locator("#own-size summary").click()
    page.get_by_label("Width in pixels").fill("130")
    page.get_by_label("Height in pixels").fill("500")
    page.get_by_label("Height in pixels").press("Enter")
    expect(page.locator("#own-size-note")).to_contain_text("128 × 496 is the nearest to 130 × 500: steps of 16 pixels")
    expect(page.locator("#size input[value='128x496']")).to_be_checked()
    used_at(page, 128, 496)
    page.get_by_label("Width in pixels").fill("")
    page.get_by_role("button", name="Use this size").click()
    expect(page.locator("#own-size-note")).to_contain_text("Width: type a number of pixels")
    page.locator("#own-length summary").click()
    page.get_by_label("Length in seconds").fill("1.2")
    page.get_by_label("Length in seconds").press("Enter")
    expect(page.locator("#own-length-note")).to_contain_text("1.1 s: 17 frames at 16 a second, the nearest to 1.2 s")
    expect(page.locator("#frames input[value='17']")).to_be_checked()
    expect(page.locator("#using")).to_contain_text(re.compile("17.frames"))
    for seconds, words in (
        ("0", "Length: type a number of seconds above 0"),
        ("30", "“Longer clip” goes on from there"),
    ):
        page.get_by_label("Length in seconds").fill(seconds)
        page.get_by_role("button", name="Use this length").click()
        expect(page.locator("#own-length-note")).to_contain_text(words)
    page.fill("#prompt textarea", "zoom in, cropped by hand")
    page.click("#generate")
    expect(page.locator(CLIP)).to_have_text("zoom in, cropped by hand")
    settings = muxer.read_metadata(clip_of(page, app, "cropped by hand"))
    assert (settings["width"], settings["height"], settings["frames"]) == (128, 496, 33)
    assert settings["crops"]["image"][2] == 1.2 and 0.8 < settings["crops"]["image"][0] < 0.83
