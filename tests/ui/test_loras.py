"""The LoRA picker: add in two clicks, see where it goes and why, change it, remove it; stored and loaded back."""

import json
import re
import sqlite3

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors.numpy import save_file

from tests.hub import Hub
from tests.ui.conftest import CLIP, FACTS, card_says, generate, shoot, until, wait_for_playing
from tests.ui.test_looks import PHONE, in_both_colours
from wan_ui.media import muxer


def write(path, width=256, layers=2, **metadata):
    """A LoRA for a model of that width: Wan-Tiny has 256, A14B 5120."""
    tensors = {}
    for layer in range(layers):
        module = f"diffusion_model.blocks.{layer}.self_attn.q"
        tensors[f"{module}.lora_A.weight"] = np.full((4, width), 0.01, np.float32)
        tensors[f"{module}.lora_B.weight"] = np.full((width, 4), 0.01, np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    about = {"trigger_words": "sepia tone, old photo", "notes": "brown and warm", "modelspec.tags": "film, colour"}
    write(folder / "styles" / "sepia.safetensors", **about)
    Image.new("RGB", (400, 300), "peru").save(folder / "styles" / "sepia.png")
    write(folder / "gleam-high.safetensors")
    write(folder / "gleam-low.safetensors", **{"modelspec.tags": "film"})
    (folder / "gleam-low.jpg").write_bytes(b"no picture")
    write(folder / "whirl_high_noise.safetensors")
    write(folder / "whirl_low_noise.safetensors")
    write(folder / "grain_low_noise.safetensors")
    write(folder / "large.safetensors", width=5120)
    (folder / "renamed.safetensors").write_bytes(b"\x80\x04 a pickle")
    return folder


@pytest.fixture(scope="module")
def lora_app(scripted, folder):
    return scripted(WAN_UI_LORAS=str(folder))


def add(page: Page, name: str) -> None:
    """Two clicks: the list, the LoRA."""
    page.locator("#lora-add input").click()
    page.get_by_role("option", name=name).click()
    page.locator(".w-lora", has_text=name).wait_for()


@pytest.fixture
def bare(used_page, lora_app) -> Page:
    """A used page, with no LoRA and no words."""
    page = used_page(lora_app.url)
    while left := page.locator(".w-lora").count():
        page.locator(".w-lora").first.get_by_role("button", name="Remove").click()
        expect(page.locator(".w-lora")).to_have_count(left - 1)
    page.fill("#prompt textarea", "")
    return page


def row(page: Page, name: str):
    return page.locator(".w-lora", has_text=name)


def set_strength(page: Page, name: str, value: str) -> None:
    number = row(page, name).get_by_label("as a number")
    number.fill(value)
    number.press("Tab")


def test_a_new_file_is_found_without_a_restart_and_a_lost_one_is_said(open_page, scripted, picture, tmp_path):
    hub = Hub().start()
    app = scripted(WAN_UI_LORAS=str(tmp_path / "loras"), WAN_UI_HUB=hub.url)
    page = open_page(app.url)
    expect(page.locator("#lora-rows")).to_contain_text(
        f"For LoRAs of your own, put .safetensors files into {tmp_path}/loras"
    )
    write(tmp_path / "loras" / "late.safetensors")
    page.locator("#lora-refresh").click()
    expect(page.locator("#lora-rows")).not_to_contain_text("of your own")
    add(page, "late")
    generate(page, picture, "with it")
    card_says(page, "Done in")
    (tmp_path / "loras" / "late.safetensors").unlink()
    expect(row(page, "late").get_by_role("alert")).to_contain_text("is not in the LoRA folder")
    page.click("#generate")
    expect(page.locator("#message [role=alert]")).to_contain_text("Loras: 'late.safetensors' is not in the LoRA folder")
    row(page, "late").get_by_role("button", name="Remove").click()
    page.click("#generate")
    expect(page.locator("#history .w-tile")).to_have_count(2)

    # One is sent, one is fetched: both are on the shelf and in the list at once.
    write(tmp_path / "sent" / "sent.safetensors", trigger_words="sent word")
    (tmp_path / "sent" / "bad.safetensors").write_bytes(b"\x80\x04 a pickle" + bytes(100))
    hub.files["/a/b/resolve/main/fetched.safetensors"] = (tmp_path / "sent" / "sent.safetensors").read_bytes()
    page.get_by_role("button", name="LoRA shelf").click()
    get, shelf = page.locator("#lora-get"), page.locator("#lora-shelf")
    get.locator("input[type=file]").set_input_files(tmp_path / "sent" / "bad.safetensors")
    expect(get.locator("[data-said]")).to_contain_text("bad.safetensors is not what its name says")
    get.locator("input[type=file]").set_input_files(tmp_path / "sent" / "sent.safetensors")
    expect(get.locator("[data-said]")).to_have_text("sent.safetensors is on the shelf.")
    expect(shelf.locator("[data-shelf='sent.safetensors']")).to_contain_text("sent word")
    link = get.get_by_label("A Hugging Face link")
    link.fill("https://example.com/a/b/fetched.safetensors")
    link.press("Enter")
    expect(page.locator("#lora-message")).to_contain_text("only files of Hugging Face are fetched")
    link.fill("https://huggingface.co/a/b/blob/main/fetched.safetensors")
    get.get_by_role("button", name="Fetch").click()
    expect(get).to_contain_text("the same file is here already, as sent.safetensors")
    write(tmp_path / "sent" / "fetched.safetensors", trigger_words="another")
    hub.files["/a/b/resolve/main/fetched.safetensors"] = (tmp_path / "sent" / "fetched.safetensors").read_bytes()
    get.get_by_role("button", name="Fetch").click()
    expect(get).to_contain_text("fetched.safetensors is on the shelf.")
    expect(shelf.locator("[data-shelf='fetched.safetensors']")).to_contain_text("another")
    add(page, "fetched")
    hub.stop()
    assert sorted(path.name for path in (tmp_path / "loras").iterdir()) == ["fetched.safetensors", "sent.safetensors"]


def test_add_change_generate_and_load_back(bare: Page, picture, tmp_path):
    page = bare
    page.locator("#lora-add input").click()
    expect(page.get_by_role("option")).to_have_text(
        # a pair is one entry, what does not fit is not offered, what came with Wan UI stands last
        [
            re.compile(name)
            for name in (
                "gleam-high",
                "gleam-low",
                "grain",
                "sepia",
                "whirl",
                "wan-tiny-spiral",
                "wan-tiny-teal-orange",
            )
        ]
    )
    page.keyboard.press("Tab")
    expect(page.locator(".w-lora-others")).to_contain_text("2 files do not fit")
    expect(page.locator(".w-lora-others")).to_contain_text("large.safetensors is for Wan2.2 A14B")
    expect(page.locator(".w-lora-others")).to_contain_text("renamed.safetensors cannot be used")

    add(page, "sepia")
    sepia = row(page, "sepia")
    expect(sepia.get_by_role("radio", name="Both")).to_be_checked()
    expect(sepia).to_contain_text("The file has 2 layers")
    sepia.get_by_role("button", name="old photo").click()
    expect(page.locator("#prompt textarea")).to_have_value("old photo")
    add(page, "whirl (high + low)")
    expect(row(page, "whirl")).to_contain_text("Suggested: both, it has a file for each expert.")
    expect(row(page, "whirl")).to_contain_text("2 layers for high noise and 2 layers for low noise")
    add(page, "grain_low_noise")
    grain = row(page, "grain")
    expect(grain.get_by_role("radio", name="Low noise")).to_be_checked()
    expect(grain).to_contain_text("Suggested: low noise, its name says low-noise.")
    expect(grain.get_by_role("alert")).to_have_count(0)
    grain.get_by_role("radio", name="High noise").check()
    expect(grain.get_by_role("alert")).to_contain_text("was made for the low-noise expert")
    expect(grain).to_contain_text("Low noise is suggested")
    shoot(page, "50-loras", full=True)
    set_strength(page, "sepia", "0.35")
    set_strength(page, "sepia", "")  # emptied: it stays as it was
    expect(sepia.locator("input[type=range]")).to_have_value("0.35")
    remove = row(page, "whirl").get_by_role("button", name="Remove")
    remove.hover()
    page.mouse.down()
    remove.evaluate("button => button.replaceWith(button.cloneNode(true))")  # the rows are drawn anew meanwhile
    page.mouse.up()
    expect(page.locator(".w-lora")).to_have_count(2)

    generate(page, picture, "old photo, zoom in")
    wait_for_playing(page)
    facts = page.locator(FACTS).first
    expect(facts).to_contain_text("styles/sepia.safetensors x0.35: high noise 8/8 layers, low noise 8/8 layers")
    expect(facts).to_contain_text("grain_low_noise.safetensors x1: high noise 8/8 layers")
    expect(grain).to_contain_text("Matched 8/8 layers, high noise; 0, low noise.")
    shoot(page, "51-loras-done", full=True)

    page.reload(wait_until="domcontentloaded")
    expect(page.locator(".w-lora")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "clip.mp4")
    expected = [
        {"file": "styles/sepia.safetensors", "strength": 0.35, "target": "both"},
        {"file": "grain_low_noise.safetensors", "strength": 1.0, "target": "high_noise"},
    ]
    assert muxer.read_metadata(tmp_path / "clip.mp4")["loras"] == expected

    for how in ("history", "video"):
        for name in ("sepia", "grain"):
            row(page, name).get_by_role("button", name="Remove").click()
        expect(page.locator(".w-lora")).to_have_count(0)
        if how == "history":
            page.get_by_role("button", name="Load settings", exact=True).click()
        else:
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Load settings from a video").click()
            chooser.value.set_files(tmp_path / "clip.mp4")
        expect(page.locator(".w-lora")).to_have_count(2)
        expect(row(page, "sepia").get_by_label("as a number")).to_have_value("0.35")
        expect(row(page, "grain").get_by_role("radio", name="High noise")).to_be_checked()


@pytest.mark.hardening(10)
def test_who_may_not_write_there_sends_nothing(lora_app, folder):
    """A page of strangers, a visitor behind a proxy, and what is said to be something else."""
    address, content = f"{lora_app.url}/api/lora-files?name=x.safetensors", b"\x80\x04" + bytes(100)
    proxied = httpx.post(address, content=content, headers={"x-forwarded-for": "203.0.113.9"})
    assert (proxied.status_code, proxied.json()["error"][:14]) == (403, "Files are put ")
    assert httpx.post(address, content=content, headers={"origin": "http://evil.example"}).status_code == 403
    assert httpx.post(address, content=iter([content])).status_code == 411  # no length
    refused = httpx.post(address, content=content)
    assert (refused.status_code, refused.json()["field"]) == (400, "file")
    assert "safetensors file" in httpx.post(address.replace(".safetensors", ".pt"), content=b"{").json()["error"]
    assert not [path for path in folder.rglob("*") if path.name.startswith(("x.", ".arriving"))]


def test_on_a_phone_and_with_the_keyboard(bare: Page):
    page = bare
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.locator("#lora-add input").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name="grain").wait_for()
    page.keyboard.type("grain")
    page.keyboard.press("Enter")
    grain = row(page, "grain")
    grain.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    slider = grain.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(grain.get_by_label("as a number")).to_have_value("0.95")
    page.keyboard.press("ArrowLeft")  # the focus stays although the row may have been drawn anew
    expect(grain.get_by_label("as a number")).to_have_value("0.9")
    grain.get_by_role("radio", name="Low noise").focus()
    page.keyboard.press("ArrowLeft")
    expect(grain.get_by_role("alert")).to_contain_text("was made for the low-noise expert")
    page.keyboard.press("ArrowRight")
    expect(grain.get_by_role("alert")).to_have_count(0)
    expect(grain.get_by_role("radio", name="Low noise")).to_be_focused()
    in_both_colours(page, True, "52-loras-phone-light", "52-loras-phone-dark", part="#loras")


def _go_on(route) -> None:
    route.continue_()


# That Generate does not wait for an answer for ever is out of the way: it has to come.
NEVER = """
const later = window.setTimeout;
window.setTimeout = (act, milliseconds, ...rest) => (milliseconds === 10000 ? 0 : later(act, milliseconds, ...rest));
"""


def test_forged_choices_reach_no_file_and_once_refused_hold_up_nothing(bare: Page, lora_app, picture):
    page = bare
    page.evaluate(NEVER)
    add(page, "sepia")
    kept = row(page, "sepia").get_by_role("button", name="Remove")
    kept.evaluate("e => { e.dataset.file = '../../etc/passwd' }")
    kept.click()
    expect(page.locator(".w-lora")).to_have_count(1)
    number = row(page, "sepia").locator(".w-lora-strength input").last
    held = []  # the last change is slow to arrive: Generate waits for it
    slow = "**/gradio_api/queue/join*"
    page.route(slow, lambda route: (held.append if "-99" in (route.request.post_data or "") else _go_on)(route))
    for value in ("1e999", "nan", "<b>", "-99"):
        number.evaluate("(e, value) => { e.type = 'text'; e.value = value }", value)
        number.dispatch_event("change")
    generate(page, picture, "still fine")
    until(page, lambda: held)
    page.wait_for_timeout(600)
    assert len(held) == 1
    held[0].continue_()
    expect(page.locator(CLIP)).to_have_text("still fine")
    page.unroute(slow)
    with sqlite3.connect(lora_app.folder / "outputs" / "wan_ui.sqlite") as database:
        (request,) = database.execute("SELECT request FROM jobs ORDER BY created DESC LIMIT 1").fetchone()
    assert json.loads(request)["loras"] == [{"file": "styles/sepia.safetensors", "strength": -4.0, "target": "both"}]


def test_the_shelf(bare: Page, lora_app):
    page = bare
    shelf = page.locator("#lora-shelf")
    expect(shelf.locator("li")).to_have_count(0)  # folded
    shelf.get_by_role("button", name="LoRA shelf").click()
    expect(shelf.locator("li")).to_have_count(7)
    sepia, gleam = shelf.locator("[data-shelf*=sepia]"), shelf.locator("[data-shelf='gleam-low.safetensors']")
    sepia.scroll_into_view_if_needed()  # pictures are fetched when they are near
    page.wait_for_function("document.querySelector('[data-shelf*=sepia] img')?.naturalWidth === 240")
    gleam.scroll_into_view_if_needed()
    expect(gleam.locator("img")).to_have_count(0)  # it is broken: the drawn one stays
    expect(gleam.locator(".w-shelf-picture span")).to_have_text("GL")
    answer = page.request.get(sepia.locator("img").evaluate("image => image.src"))
    headers = answer.headers
    assert (headers["content-type"], headers["x-content-type-options"]) == ("image/webp", "nosniff")
    assert page.request.get(f"{lora_app.url}/api/lora-pictures/{'0' * 32}").status == 404

    search = shelf.get_by_role("searchbox")
    search.fill("warm BROWN")
    expect(shelf.locator("li:visible")).to_have_count(1)
    expect(shelf.get_by_role("status")).to_have_text("1 of 7")
    search.fill("")
    shelf.get_by_role("button", name="film", exact=True).click()
    expect(shelf.locator("li:visible")).to_have_count(2)
    in_both_colours(page, True, "53-shelf-light", "53-shelf-dark", part="#lora-shelf")
    sepia.get_by_role("button", name="old photo").click()
    expect(page.locator("#prompt textarea")).to_have_value("old photo")
    sepia.get_by_role("button", name="Add styles/sepia").click()
    expect(row(page, "sepia")).to_have_count(1)
    expect(sepia.get_by_role("button", name="Add styles/sepia")).to_be_disabled()
    expect(shelf.locator("li:visible")).to_have_count(2)  # what was looked for is still looked for

    gleam.get_by_role("button", name="on high noise").click()
    expect(row(page, "gleam-high").get_by_role("radio", name="High noise")).to_be_checked()
    expect(row(page, "gleam-low").get_by_role("radio", name="Low noise")).to_be_checked()
    shelf.get_by_role("button", name="film", exact=True).click()
    shelf.get_by_role("button", name="Add whirl (high + low)").click()
    expect(page.locator(".w-lora")).to_have_count(4)
    shelf.get_by_role("button", name="Close the shelf").click()
    expect(shelf.locator("li")).to_have_count(0)
