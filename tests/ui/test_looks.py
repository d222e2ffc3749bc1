"""Light and dark, desk and phone, mouse and keyboard; axe-core finds no serious fault in any of them."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.scripted_engine import go_on
from tests.ui.conftest import CLIP, card_says, generate, shoot, until, wait_for_playing
from wan_ui.queue.jobs import Jobs
from wan_ui.request import Request, Result

DESK, PHONE = (1360, 900), (390, 844)


def faults(page: Page, *rules: str, part: str = "") -> list[str]:
    """Serious and critical findings of axe-core, in words. rules: no others than these; part: only there."""
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = Axe().run(page, context=part or None, options=options).response["violations"]
    return [
        f"{fault['impact']}: {fault['id']}: {fault['help']}: {[node['html'][:160] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


# Of rows that differ in their words alone one is looked at: the list has forty, each with its files.
ONE_OF_EACH = """() => {
  const kinds = new Set();
  for (const row of document.querySelectorAll("#models .w-scheme")) {
    const kind = row.outerHTML.replace(/>[^<]*</g, "><").replace(/ (data-[a-z-]+|aria-label|title)="[^"]*"/g, " $1");
    if (kinds.has(kind)) row.remove();
    kinds.add(kind);
  }
  return kinds.size;
}"""


def in_both_colours(page: Page, full: bool, *names: str, part: str = "") -> None:
    """Nothing for axe to find, and a picture of each; at the end it is light again. Dark differs in colours alone, and
    those are the same on a phone."""
    for dark, name in ((True, names[1]), (False, names[0])):
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=dark)
        page.wait_for_function(
            "() => !document.getAnimations().some(on => on instanceof CSSTransition && on.playState !== 'finished')"
        )
        if not dark or page.viewport_size["width"] > PHONE[0]:
            assert faults(page, *(["color-contrast"] if dark else []), part=part) == [], name
        shoot(page, name, full=full)


@pytest.fixture(scope="module")
def gallery_app(scripted, open_new, picture):
    """An app with a clip and a failure in its history, before them speech for a video from elsewhere."""
    app = scripted()
    jobs = Jobs(app.folder / "outputs" / "wan_ui.sqlite")
    speech = Request("lip-sync", {"audio": "voice.wav", "video": "base.mp4"}, 256, 256, 17)
    jobs.add("20200101-000000-0123456789abcdef", "local", speech)
    jobs.finish("20200101-000000-0123456789abcdef", "done", result=Result(clip="clip.mp4"))
    page = open_new(app.url)
    generate(page, picture, "a failure, denoise=bug")
    card_says(page, "This clip failed")
    generate(page, picture, "slowly zoom in, sunset light")
    card_says(page, "Done in")
    page.close()
    return app


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_serious_fault_for_axe(open_page, gallery_app, picture, size):
    name = "phone" if size == PHONE else "desk"
    page = open_page(gallery_app.url, *size, new=True)
    expect(page.locator("#hint")).to_contain_text("comes with Wan UI and needs no GPU")
    wait_for_playing(page)
    page.get_by_role("tab", name="Models").click()
    page.locator(".w-scheme").first.wait_for()
    page.evaluate("() => { for (const list of document.querySelectorAll('#models details')) list.open = true }")
    assert faults(page, "duplicate-id-aria", part="#models") == []
    assert page.evaluate(ONE_OF_EACH) > 1
    in_both_colours(page, False, f"23-{name}-models", f"23-{name}-models-dark", part="#models")
    page.get_by_role("tab", name="Create").click()
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    page.locator("#history .w-tile.failed").scroll_into_view_if_needed()
    in_both_colours(page, False, f"20-{name}-light", f"20-{name}-dark")
    page.locator("#history .w-tile.failed").click()
    page.fill("#prompt textarea", "")
    page.click("#generate")
    page.locator("#message [role=alert]").wait_for()
    new = "#card, #result, #message, #prompt"
    in_both_colours(page, True, f"21-{name}-light-failed", f"21-{name}-dark-failed", part=new)


LAPTOP = (1280, 720)


def test_what_an_action_makes_comes_into_view(open_page, gallery_app, picture):
    """The clip, the row, the field; or the complaint: wherever the page was scrolled to. Nobody scrolls sideways."""
    narrow = "document.documentElement.scrollWidth <= window.innerWidth"

    def seen(*parts: str) -> None:
        for part in parts:
            expect(page.locator(part)).to_be_in_viewport(ratio=0.99)

    for size in (PHONE, LAPTOP):
        page = open_page(gallery_app.url, *size, moving=True)  # it is scrolled to smoothly, as for most people
        wait_for_playing(page)
        assert page.evaluate("document.querySelector('#clip').loop")
        assert page.evaluate(narrow)
        page.set_input_files("#picture input[type=file]", picture)
        page.locator("#picture-crop img").wait_for()
        page.click("#generate")
        seen("#message [role=alert]", "#generate")
        page.fill("#prompt textarea", "in view, denoise:2=hold")
        page.click("#generate")
        card_says(page, "denoise step")
        seen("#card")
        assert page.evaluate(narrow)
        shoot(page, f"22-running-{size[0]}")
        go_on(gallery_app.jobs())
        expect(page.locator(CLIP)).to_contain_text("in view")
        seen("#card", "#result video")
        page.locator("[data-example='1']").click()
        expect(page.locator(CLIP)).to_have_text("pan left")
        seen("#card", "#result video")
        page.locator("#history .w-tile.failed").click()
        seen("#card", "#result .w-stage")
        page.locator("#history .w-tile", has_text="pan left").first.click()
        seen("#result video")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Add speech").click()
        chooser.value.set_files(picture)  # is no sound
        seen("#result-message [role=alert]")
        page.get_by_role("button", name="Load settings", exact=True).click()
        seen("#prompt")
        page.get_by_role("button", name="Reuse seed").click()
        seen("#seed")
        page.locator("#lora-add input").click()
        page.get_by_role("option").first.click()
        seen("#lora-rows li")
        page.locator("#lora-add input").click()
        page.get_by_role("option").first.click()
        seen("#lora-message [role=alert]")
        page.locator("#lora-rows").get_by_role("button", name="Remove").click()
        expect(page.locator("#lora-message [role=alert]")).to_have_count(0)
        page.close()


def test_speech_for_a_video_has_a_title_and_offers_no_settings(used_page, gallery_app):
    page = used_page(gallery_app.url)
    tile = page.locator("#history .w-tile").last
    expect(tile).to_contain_text("Speech for a video")
    tile.click()
    expect(page.locator(".w-prompt")).to_have_text("Speech for a video")
    expect(page.locator("#result .w-button")).to_have_text(["Delete"])


PARTS = [
    "picture",
    "prompt",
    "phrases",
    "model",
    "scheme",
    "size",
    "frames",
    "steps",
    "seed",
    "loras",
    "voice",
    "generate",
]
PARTS += ["result", "examples", "history"]


def test_the_keyboard_is_enough(used_page, gallery_app):
    """Tab reaches every control in the order of the page, and its focus can be seen."""
    page = used_page(gallery_app.url)
    page.locator("#history .w-tile.done").first.click()
    expect(page.locator(CLIP)).to_have_count(1)
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    while PARTS[-1] not in reached and len(reached) < 300:
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("ids => document.activeElement.closest(ids.map(id => '#' + id).join())?.id ?? ''", PARTS)
        )
    order = list(dict.fromkeys(part for part in reached if part))
    assert order == PARTS
    page.locator("#history .w-tile.failed").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".w-prompt")).to_contain_text("a failure")


# The first answer that has `words` is on its way until `release` is called, whatever comes meanwhile.
HOLD = """(words) => {
  const ask = window.fetch;
  let held = null, released = false;
  window.release = () => { released = true; };
  window.fetch = async (...request) => {
    const response = await ask(...request);
    if (!new URL(request[0].url ?? request[0], location.href).pathname.endsWith("/queue/data")) return response;
    let rest = "";
    const late = new TransformStream({ transform(part, lines) {
      const whole = (rest + part).split("\\n\\n");
      rest = whole.pop();
      for (const line of whole) {
        if (held === null && line.includes("process_completed") && line.includes(words)) {
          held = line;
          window.overtaken = "held";
          continue;
        }
        if (held && released) {
          lines.enqueue(held + "\\n\\n");
          held = "";
          window.overtaken = "there";
        }
        lines.enqueue(line + "\\n\\n");
      }
    } });
    const body = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(late);
    return new Response(body.pipeThrough(new TextEncoderStream()), response);
  };
}"""


def test_an_answer_that_is_overtaken_does_not_stay(used_page, gallery_app):
    page = used_page(gallery_app.url)
    page.locator("#history .w-tile.done").first.click()
    expect(page.locator(CLIP)).to_have_count(1)
    page.evaluate(HOLD, "a bug in the engine")
    failed = "document.querySelector('.w-prompt').textContent.includes('a failure')"
    page.locator("#history .w-tile.failed").click()
    while page.wait_for_function(f"window.overtaken ?? ({failed} && 'shown')").json_value() == "shown":
        page.locator("#history .w-tile").last.click()  # it came by a stream that was open already
        expect(page.locator(".w-prompt")).to_have_text("Speech for a video")
        page.locator("#history .w-tile.failed").click()
    page.locator("#history .w-tile").last.click()
    expect(page.locator(".w-prompt")).to_have_text("Speech for a video")
    page.wait_for_timeout(2500)  # a busy machine takes seconds
    page.evaluate("window.release()")
    page.wait_for_function("window.overtaken === 'there'")
    page.wait_for_timeout(300)
    expect(page.locator(".w-prompt")).to_have_text("Speech for a video")
    expect(page.locator("#history .w-tile").last).to_have_attribute("aria-pressed", "true")


# Counts the frames that the page asks for. Beside it something else asks for one at each frame, not through the page's
# own function: as an extension does, or what drives a browser.
FRAMES = """
  const ask = window.requestAnimationFrame;
  window.frames_asked = window.frames_beside = 0;
  window.requestAnimationFrame = (callback) => { window.frames_asked += 1; return ask(callback); };
  const tick = () => { window.frames_beside += 1; ask(tick); };
  tick();
"""


# How many components Gradio has a state of loading of, and draws, after each of its changes.
LOADINGS = """async () => {
  window.loadings = [];
  const file = performance.getEntriesByType("resource").find(({ name }) => /statustracker-[^/]*js$/.test(name)).name;
  const { prototype } = Object.values(await import(file)).find((part) => part?.prototype?.resolve_args);
  const { update } = prototype;
  prototype.update = function (event) {
    update.call(this, event);
    window.loadings.push(Object.keys(this.current).length);
  };
}"""


def test_a_page_at_which_nothing_happens_asks_for_no_frames_and_what_asks_beside_it_goes_on(open_page, app):
    """Gradio measured its first "Loading" frame by frame, for as long as a page was open."""
    page = open_page(app.url, script=FRAMES)

    def still() -> bool:
        before = page.evaluate("window.frames_asked")
        page.wait_for_timeout(500)
        return page.evaluate("window.frames_asked") == before

    until(page, still)
    for _ in range(4):
        before = page.evaluate("window.frames_beside")
        page.wait_for_timeout(500)
        page.wait_for_function("(before) => window.frames_beside > before", arg=before)
    page.evaluate(LOADINGS)
    page.fill("#prompt textarea", "moves again")
    expect(page.locator("#reading")).to_be_visible()
    page.wait_for_function("window.loadings.length > 4")
    assert set(page.evaluate("window.loadings")) == {0}


# How often Gradio looks at an event to find those of each component, and whether it finds what there is. Of two events
# of one target it takes the first; one without a name, as of an opened page, is none.
EVENTS = """async () => {
  const file = performance.getEntriesByType("resource").find(({ name }) => /core-[^/]*js$/.test(name)).name;
  const { prototype } = (await import(file)).AppTree;
  const parts = gradio_config.components.map(({ id }) => ({ id, props: { shared_props: {} } }));
  const two = [[parts[0].id, "a"], [parts[0].id, "b"]];
  const targets = [...gradio_config.dependencies.map(({ targets }) => targets), two];
  let looks = 0;
  const events = targets.map((targets) => ({ get targets() { looks += 1; return targets; } }));
  for (const part of parts) prototype.find_attached_events(part, events);
  const right = (id) => targets.map((own) => own.find(([target]) => target === id)?.[1]).filter(Boolean);
  const wrong = parts.filter(({ id, props }) => props.shared_props.attached_events.join() !== right(id).join());
  const others = prototype.find_attached_events(parts[0], [{ targets: [[parts[0].id, "other"]] }]);
  const other = others.props.shared_props.attached_events.join();
  return { parts: parts.length, wrong: wrong.length, each: looks / events.length, other };
}"""


def test_the_browser_finds_nothing_against_installing_the_page(used_page, app):
    page = used_page(app.url)
    page.wait_for_function("document.querySelector('link[rel=manifest]').getAttribute('href') === './manifest.json'")
    browser = page.context.new_cdp_session(page)
    manifest = browser.send("Page.getAppManifest")
    assert manifest["url"] == f"{app.url}/manifest.json" and manifest["errors"] == []
    # a test's context is as a private window, in which nothing is installed
    against = {error["errorId"] for error in browser.send("Page.getInstallabilityErrors")["installabilityErrors"]}
    assert against <= {"in-incognito"}


def test_events_are_looked_through_once_for_all_components(used_page, app):
    """Gradio did so for each: a sixth of the script that runs while a page is opened."""
    found = used_page(app.url).evaluate(EVENTS)
    assert found["parts"] > 200 and found["wrong"] == 0
    assert found["each"] == 1
    assert found["other"] == "other", "other events in the same moment, as of a page that is drawn anew"


def test_a_question_mark_lists_the_keys_but_is_typed_into_a_prompt(used_page, app):
    page = used_page(app.url)
    page.fill("#prompt textarea", "")
    keys = page.locator(".w-shortcuts")
    page.locator("#prompt textarea").press_sequentially("why?")
    expect(page.locator("#prompt textarea")).to_have_value("why?")
    expect(keys).to_be_hidden()
    page.locator(".w-help").focus()
    page.keyboard.press("?")
    expect(keys).to_be_visible()
    expect(keys).to_contain_text("Ctrl + EnterGenerate")
    in_both_colours(page, False, "shortcuts", "shortcuts-dark", part=".w-shortcuts")
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.locator(".w-help").click()
    keys.get_by_role("button", name="Close").click()
    expect(keys).to_be_hidden()
