"""Done is heard: the title, the icon, a notification and a sound, as a person has asked for them."""

import re

from playwright.sync_api import expect

from tests.scripted_engine import go_on
from tests.ui.conftest import card_says, generate, shoot

# A browser in which one looks elsewhere when `look(false)` is called, and that writes down what it is asked to show and
# to play. `answer` is what the person says to its question.
BROWSER = """
window.shown = [], window.tones = [], window.asked = 0;
let looking = true;
document.hasFocus = () => looking;
Object.defineProperty(document, "hidden", { get: () => !looking });
window.look = (on) => {
  looking = on;
  document.dispatchEvent(new Event("visibilitychange"));
};
window.Notification = class {
  static permission = sessionStorage.getItem("answer") === "granted" ? "granted" : "default";
  static async requestPermission() {
    window.asked += 1;
    return (Notification.permission = sessionStorage.getItem("answer") ?? "denied");
  }
  constructor(title, options) { window.shown.push([title, options.body]); }
};
const Tone = window.OscillatorNode;
window.OscillatorNode = class extends Tone {
  constructor(context, options) {
    super(context, options);
    window.tones.push(options.frequency);
  }
};
"""
UP, DOWN = [659.25, 987.77], [440, 329.63]


def test_done_is_heard(open_page, app, picture):
    page = open_page(app.url, script=BROWSER)
    icon = page.locator("link[rel~=icon]")
    expect(page).to_have_title("Wan UI")
    expect(page.locator("#heard details")).to_be_hidden()

    generate(page, picture, "heard, denoise:1=hold")
    card_says(page, "denoise step 1")
    expect(page).to_have_title("(1) Wan UI")
    expect(icon).to_have_attribute("href", re.compile("^data:image/svg.*circle"))
    page.get_by_text("Tell me when it is done").click()
    box = page.get_by_label("Notification, while you look elsewhere")
    assert page.evaluate("asked") == 0  # nobody is asked before they have pressed
    box.click()
    expect(page.locator("#heard [role=status]")).to_contain_text("does not let this page notify you")
    expect(box).not_to_be_checked()
    page.evaluate("sessionStorage.setItem('answer', 'granted')")
    box.check()
    expect(page.locator("#heard [role=status]")).to_be_empty()
    page.get_by_label("A soft sound").check()
    page.wait_for_function("tones.length === 2")  # so that one knows what to listen for
    assert page.evaluate("tones") == UP
    expect(page.locator("#heard summary")).to_have_text("Tells you when it is done: notification, sound")
    shoot(page, "30-heard")

    page.evaluate("look(false)")
    go_on(app.jobs())
    expect(page).to_have_title("Done – Wan UI")
    assert page.evaluate("shown") == [["Your clip is done", "heard, denoise:1=hold"]]
    page.wait_for_function("tones.length === 4")
    page.evaluate("look(true)")
    expect(page).to_have_title("Wan UI")
    expect(icon).not_to_have_attribute("href", re.compile("circle"))

    page.reload(wait_until="domcontentloaded")  # it is remembered, and what was told is not told again
    expect(page.locator("#heard summary")).to_have_text("Tells you when it is done: notification, sound")
    page.locator("#picture-crop img").wait_for()
    page.fill("#prompt textarea", "unheard of, denoise=bug")
    page.click("#generate")
    card_says(page, "This clip failed")
    page.wait_for_function("tones.length === 2")
    assert page.evaluate("[tones, shown, asked]") == [DOWN, [], 0]
    expect(page).to_have_title("Wan UI")  # who looks at it needs no word
