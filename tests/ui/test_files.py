"""The doors of the page: what can be read is taken when it is chosen, dropped or pasted."""

import base64
import io
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import draw_scene

# As browsers do it: a list of files with the types that they know, and no type for the rest.
ACT = """([act, place, name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const how = { bubbles: true, cancelable: true }, target = document.querySelector(place);
  if (act === 'paste') return target.dispatchEvent(new ClipboardEvent('paste', { ...how, clipboardData: data }));
  return target.dispatchEvent(new DragEvent('drop', { ...how, dataTransfer: data }));
}"""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    tone = ["-f", "lavfi", "-i", "sine=300:sample_rate=8000:duration=1"]
    picture = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=5:duration=1"]
    for name, inputs in {"v.amr": tone, "v.caf": tone, "v.mkv": [*tone, *picture], "v.mov": [*tone, *picture]}.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, "-ac", "1", str(folder / name)]
        subprocess.run(command, check=True)
    return folder


def scene(kind: str, upright: bool) -> bytes:
    file, image = io.BytesIO(), draw_scene(40)
    if kind == "heic":
        pytest.importorskip("pillow_heif").from_pillow(image.rotate(90 * upright, expand=True)).save(file)
    else:
        image.rotate(90 * upright, expand=True).save(file, kind)
    return file.getvalue()


def bring(page: Page, act: str, place: str, name: str, content: bytes, type: str = "") -> None:
    if act == "choose":
        page.set_input_files(f"{place} input[type=file]", {"name": name, "mimeType": type, "buffer": content})
    else:
        taken = not page.evaluate(ACT, [act, place, name, type, base64.b64encode(content).decode()])
        assert taken, "the browser would open the file in place of the page"


@pytest.fixture
def without_picture(used_page, app) -> Page:
    """A used page. Beside a voice a face would be looked for in each picture."""
    page = used_page(app.url)
    if page.locator("#picture-crop img").count():
        page.get_by_role("button", name="Remove Image").click()
        expect(page.locator("#picture-crop img")).to_have_count(0)
    return page


def test_pictures(without_picture: Page):
    """Upright and wide in turn, so that each is seen to take the place of the one before."""
    page = without_picture
    steps = [
        ("choose", "#picture-part", "heic", "image/heic"),
        ("drop", "#picture .upload-container", "jpeg2000", ""),
        ("paste", "#prompt textarea", "tiff", "image/tiff"),
        ("choose", "#picture-part", "jpeg2000", ""),
        ("paste", "body", "heic", ""),
        ("drop", "#examples", "png", "image/png"),  # it misses the field
    ]
    for number, (act, place, kind, type) in enumerate(steps):
        bring(page, act, place, f"photo.{kind}", scene(kind, number % 2), type)
        expect(page.locator("#picture-note")).to_contain_text("192 × 320" if number % 2 else "320 × 192")
        expect(page.locator("#picture-crop img")).to_have_js_property("complete", True)
    page.locator("#picture").get_by_label("Paste from clipboard").press("Enter")
    expect(page.locator("#picture-crop img")).to_have_count(0)
    bring(page, "drop", "#picture", "photo.jp2", scene("jpeg2000", True))
    expect(page.locator("#picture-note")).to_contain_text("192 × 320")
    page.locator("#picture .upload-container input[type=file]").evaluate("input => input.click()")
    assert ".heic" in page.locator("#picture input[type=file]").get_attribute("accept")
    expect(page.locator("[data-testid=toast-body]")).to_have_count(0)


# Without a clip on the stage; the app is shared, and a clip of another test may be there.
READ = re.compile("The sound can be read|It cannot be given speech")


def test_voices(without_picture: Page, sounds: Path):
    page = without_picture
    note, player = page.locator("#voice-note"), page.locator("#voice audio.standard-player")
    bring(page, "choose", "#voice-part", "v.caf", (sounds / "v.caf").read_bytes())
    expect(note).to_contain_text(READ)
    expect(player).to_have_attribute("data-unshown", "")
    expect(page.locator("#voice .controls")).to_be_hidden()  # nothing that cannot be used
    steps = [
        ("drop", "#voice", "v.mkv", "video/x-matroska"),
        ("paste", "#prompt textarea", "v.mov", "video/quicktime"),
        ("drop", "#examples", "v.amr", ""),
    ]
    for act, place, name, type in steps:
        with page.expect_request(f"**/{name}"):  # by the player
            bring(page, act, place, name, (sounds / name).read_bytes(), type)
        expect(note).to_contain_text(READ)
    page.get_by_label("Record audio").click()
    expect(note).to_be_hidden()
    bring(page, "drop", "#voice", "v.mov", (sounds / "v.mov").read_bytes())
    expect(note).to_contain_text(READ)
    bring(page, "drop", "#voice", "page.html", b"<script>alert(1)</script>", "text/html")
    # Beside what is said of the clip that is shown, which may be another test's.
    expect(note.get_by_role("alert").filter(has_text="page.html is not audio that can be read")).to_have_count(1)


def test_a_video_for_its_settings(used_page, app, sounds: Path):
    page = used_page(app.url)
    message = page.locator("#from-video-message")
    bring(page, "drop", "#history-part", "v.mov", (sounds / "v.mov").read_bytes())
    expect(message).to_contain_text("v.mov carries no Wan UI settings", ignore_case=True)
    bring(page, "choose", "#history-part", "v.mkv", (sounds / "v.mkv").read_bytes(), "video/x-matroska")
    expect(message).to_contain_text("this is not an MP4 file")
