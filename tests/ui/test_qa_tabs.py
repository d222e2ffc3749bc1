"""The Compare and Doctor tabs, in a real browser; the scripted engine's clips zoom as far as their seed says."""

import json
from types import SimpleNamespace

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import PATIENCE
from tests.ui.test_looks import DESK, PHONE, in_both_colours
from wan_ui.machine.probes import PROBES
from wan_ui.machine.probing import run
from wan_ui.machine.shapes import default_shapes
from wan_ui.settings import Settings
from wan_ui.ui import doctor_tab


@pytest.fixture(scope="module")
def qa_app(scripted, open_new, kept_pages, picture, tmp_path_factory):
    """Two finished clips, an examination that found a fault, and a probe."""
    folder = tmp_path_factory.mktemp("qa-app")
    settings = Settings(outputs=folder / "outputs", cache=folder / "cache")
    place = settings.cache / "doctor"
    place.mkdir(parents=True)
    (place / "stages.json").write_text(json.dumps(EXAMINATION))
    (place / "dit-low-blocks.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>')
    probes = tuple(entry for entry in PROBES if entry.kind == "modulate")
    run(settings, default_shapes(settings)[:1], probes=probes)
    app = scripted(folder, WAN_UI_CACHE=str(settings.cache))
    page = kept_pages[app.url] = open_new(app.url)
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    for seed in (1, 9):
        page.fill("#prompt textarea", "slowly zoom in")
        page.fill("#seed input", str(seed))
        page.click("#generate")
        page.locator("#result", has_text=f"Seed{seed}").wait_for()
    return app


STAGE = {
    "seconds": 0.1, "peak_bytes": 2**20, "dtype": "bfloat16", "device": "cuda:0", "shape": [16, 5, 8, 8], "nan": 0,
    "inf": 0, "mean": 0.0, "std": 1.0, "error": 0.01, "cosine": 0.999, "passed": True, "why": "within 0.02",
}  # fmt: skip
EXAMINATION = {
    "model": "wan-tiny", "scheme": "fp8", "engine": {"engine": "lightx2v"}, "reference": "stored", "when": "today",
    "stages": [{**STAGE, "name": "text"}, {**STAGE, "name": "dit low", "passed": False, "nan": 7, "why": "7 NaN"}],
    "first_failing": "dit low", "blocks": [{"stage": "dit low", "verdict": "block 5 is the first with NaN"}],
    "pictures": {"dit low blocks": "dit-low-blocks.svg"},
    "patches": [{"name": "fp8_sgl", "state": "applied", "why": "no sgl_kernel", "figures": "relative error 0.030"}],
}  # fmt: skip


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def no_fault(page: Page, name: str) -> None:
    """None that is serious for axe, on a phone and on a desk."""
    for where, size in (("phone", PHONE), ("desk", DESK)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        in_both_colours(page, True, f"{name}-{where}-light", f"{name}-{where}-dark")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_doctor_names_what_is_wrong(used_page, qa_app):
    page = used_page(qa_app.url)
    open_tab(page, "Doctor")
    doctor = page.locator("#doctor")
    expect(doctor).to_contain_text("The first stage that is wrong: dit low")
    expect(doctor).to_contain_text("block 5 is the first with NaN")
    expect(doctor.locator("tr", has_text="fp8_sgl")).to_contain_text("relative error 0.030")
    expect(doctor.locator("img[alt='dit low blocks']")).to_be_visible()
    expect(doctor.locator("tr", has_text="LightX2V triton")).to_contain_text("absent")
    no_fault(page, "30-doctor")
    page.get_by_role("button", name="Make a report").click()
    link = doctor.locator("a", has_text="report.md")
    link.wait_for(timeout=2 * PATIENCE * 1000)
    with page.expect_download() as download:
        link.click()
    text = download.value.path().read_text()
    assert "**First failing: dit low**" in text and str(qa_app.folder) not in text


def test_a_patch_is_left_out_by_a_new_worker(used_page, qa_app):
    page = used_page(qa_app.url)
    open_tab(page, "Doctor")
    box = page.locator("[data-patch=fp8_sgl]")
    box.evaluate("box => box.closest('details')?.setAttribute('open', '')")  # folded where LightX2V is not
    box.uncheck()
    box.evaluate("box => { box.before = true; }")
    page.get_by_role("button", name="Reload with the ticked patches only").click()
    expect(box).not_to_have_js_property("before", True)  # answered, and drawn anew
    expect(box).not_to_be_checked()
    page.reload()
    open_tab(page, "Doctor")
    expect(box).not_to_be_checked()


def test_a_report_that_ends_while_the_board_is_drawn_is_looked_at_again(monkeypatch):
    running = [True]
    monkeypatch.setattr(doctor_tab, "identify", lambda *values: ({}, "local"))
    monkeypatch.setattr(doctor_tab, "PIPELINE", SimpleNamespace(settings=Settings()))
    monkeypatch.setattr(doctor_tab, "busy", lambda: bool(running))
    monkeypatch.setattr(doctor_tab, "board_html", lambda allowed: f"running: {running.pop()}")
    answer = doctor_tab.look({})
    assert answer["board"] == "running: True" and answer["timer"].active


def with_no_comparison(page: Page) -> Page:
    """Where its tab was opened before, the late answer to its opening would take away what is chosen."""
    page.reload(wait_until="domcontentloaded")
    page.locator("#card", has_not_text="Connecting").wait_for()
    return page


def compare(page: Page) -> None:
    page.locator("[data-pick]").nth(1).click()  # the older one is the measure
    page.locator("[data-pick]").nth(0).click()
    page.locator("[data-cmp=compare]").click()
    page.locator(".w-cmp[data-ready]").wait_for()
    page.wait_for_function("() => [...document.querySelectorAll('.w-cmp video')].every(v => v.readyState >= 2)")


TIMES = "() => [...document.querySelectorAll('.w-cmp video')].map((v) => v.currentTime)"


def test_two_clips_in_step(used_page, qa_app):
    """And one of them again in another scheme, which is compared with it."""
    page = with_no_comparison(used_page(qa_app.url))
    open_tab(page, "Compare")
    expect(page.locator("[data-cmp=compare]")).to_be_disabled()
    compare(page)
    table = page.locator(".w-cmp table").first
    expect(table).to_contain_text("seed 9")
    expect(table).to_contain_text("dB")
    expect(page.locator(".w-cmp table").last).to_contain_text("seed")
    assert page.locator(".w-cmp-plot").count() == 2
    no_fault(page, "31-compare")

    page.locator("[data-step='1']").click()
    page.locator("[data-step='1']").click()
    expect(page.locator(".w-cmp-label")).to_have_text("frame 3 of 33")
    times = page.evaluate(TIMES)
    assert times[0] == times[1] == pytest.approx(2.5 / 16)
    page.locator("[data-play]").click()
    page.wait_for_function("() => [...document.querySelectorAll('.w-cmp video')].every(v => v.currentTime > 0.5)")
    page.locator("[data-play]").click()
    times = page.evaluate(TIMES)
    assert times[0] == times[1], "paused, they show the same frame"

    page.locator("[data-mode-is=difference]").click()
    page.wait_for_function(
        "() => { const c = document.querySelector('.w-cmp-heat'); if (!c.width) return false;"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some((value, k) => k % 4 < 3 && value > 0) }"
    )
    page.locator("[data-mode-is=wipe]").click()
    page.locator(".w-cmp-wipe").fill("25")
    clip = page.locator(".w-cmp-clip").nth(1).evaluate("e => e.style.clipPath")
    assert "25%" in clip

    page.locator("[data-cmp=export]").click()
    page.locator("#compare-message a", has_text="contact-sheet.png").wait_for()
    for link in page.locator("#compare-message a").all():
        answer = page.request.get(f"{qa_app.url}/{link.get_attribute('href')}")
        assert answer.ok and len(answer.body()) > 500

    page.locator("[data-pick][aria-pressed=true]").evaluate_all("tiles => tiles.forEach(tile => tile.click())")
    page.locator("[data-pick]").first.click()
    page.locator("#compare-picker summary").click()
    for box in page.locator(".w-cmp-schemes input").all():
        box.set_checked(box.get_attribute("value") == "gguf-Q8_0")
    page.get_by_role("button", name="Make and compare them").click()
    page.locator(".w-cmp table", has_text="gguf-Q8_0").first.wait_for()
    expect(page.locator(".w-cmp table").first).to_contain_text("100.00 dB")  # the scripted engine knows no schemes


# Two English words in a row, outside of what people typed, of names and of this file's own examination.
ENGLISH = """() => {
  const typed = 'textarea, [translate=no], [data-phrase], [data-prompt]';
  const found = [], kept = `${typed}, script, style, code, pre, kbd, footer, #doctor`;
  const walker = document.createTreeWalker(document.querySelector('.gradio-container'), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.closest(kept)) continue;
    const words = node.data.replace(/slowly zoom in, sunset light|理解为：.*/, '');
    if (/[A-Za-z]{2,}[,.]? [a-z]{2,}(?![\\w])/.test(words)) found.push(node.parentElement.outerHTML);
  }
  return found;
}"""


def test_the_page_in_chinese_and_back(used_page, qa_app):
    page = with_no_comparison(used_page(qa_app.url))
    page.locator("#card", has_not_text="Connecting").wait_for()
    labels, language = page.locator("#left :is(summary, .label-wrap, [data-testid=block-info])"), page.locator("html")
    english = labels.all_inner_texts()
    page.locator("[data-language]").click()
    expect(language).to_have_attribute("lang", "zh-CN")
    assert "提示词" in labels.all_inner_texts()
    page.locator("[data-language]").click()
    expect(language).to_have_attribute("lang", "en")
    assert labels.all_inner_texts() == english
    page.locator("[data-language]").click()
    expect(page.locator("#generate")).to_have_text("生成")
    expect(page.locator("#prompt textarea")).to_have_attribute(
        "placeholder", "要发生什么？例如：slowly zoom in, sunset light"
    )
    for fold in page.locator("#left summary, #left .label-wrap").all():
        fold.click()
    page.fill("#prompt textarea", "")
    page.click("#generate")
    expect(page.locator("#message")).to_contain_text("请写下要发生什么")
    assert page.evaluate(ENGLISH) == []
    page.get_by_role("tab", name="模型").click()
    page.locator("#models-panel, #models").first.wait_for()
    assert page.evaluate(ENGLISH) == []
    page.get_by_role("tab", name="诊断").click()
    expect(page.locator("#doctor")).to_contain_text("第一个出错的阶段：DiT 低噪声")
    page.get_by_role("tab", name="对比").click()
    compare(page)
    expect(page.locator("[data-pick]").nth(1)).to_contain_text("基准")
    assert page.evaluate(ENGLISH) == []

    page.reload(wait_until="domcontentloaded")  # the browser keeps it
    expect(page.locator("#generate")).to_have_text("生成")
    page.locator("[data-language]").click()
    expect(language).to_have_attribute("lang", "en")
    expect(page.locator("#generate")).to_have_text("Generate")
