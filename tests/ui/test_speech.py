"""Speech: a voice beside the picture, the face looked for beforehand, and speech added to a clip that is there."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.lipsync.conftest import tone
from tests.lipsync.random_musetalk import write_musetalk
from tests.sounds import write_wav
from tests.ui.conftest import card_says, generate, shoot, wait_for_playing
from tests.ui.test_looks import PHONE, faults
from wan_ui.lipsync.choice import OFFICIAL
from wan_ui.media import muxer
from wan_ui.settings import ROOT

PORTRAIT = ROOT / "assets" / "examples" / "portrait.jpg"


@pytest.fixture(scope="module")
def speech_app(scripted, tmp_path_factory):
    """Small random MuseTalk weights: what comes out is not looked at, only that it does."""
    models = tmp_path_factory.mktemp("models")
    write_musetalk(models / OFFICIAL, seconds=2)
    return scripted(WAN_UI_MODELS=str(models))


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    """2.4 s of sound, longer than twice 17 frames."""
    return write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", tone(2.4))


@pytest.fixture(scope="module")
def silence(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("silence") / "silence.wav", tone(2.4, level=0.0))


def speak(page: Page, voice) -> None:
    page.set_input_files("#voice input[type=file]", voice)
    page.locator("#voice .waveform-container").wait_for(state="attached")


def clip_of(app, page: Page):
    job = page.locator("#history .w-tile[aria-pressed=true]").get_attribute("data-tile")
    return app.folder / "outputs" / "clips" / job


def test_the_face_is_looked_for_before_anything_is_made(open_page, speech_app, picture, voice, silence):
    page = open_page(speech_app.url)
    page.set_input_files("#picture input[type=file]", picture)
    page.locator("#picture-crop img").wait_for()
    expect(page.locator("#voice-note p")).to_have_count(0)
    speak(page, voice)
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("No face was found")
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("the clip may stay silent")
    shoot(page, "60-no-face", full=True)
    page.get_by_role("button", name="Remove Image").click()
    page.set_input_files("#picture input[type=file]", PORTRAIT)
    expect(page.locator("#voice-note")).to_contain_text("One face was found. It will speak this.")
    assert faults(page) == []
    shoot(page, "61-face", full=True)
    page.locator("#voice").get_by_role("button", name="Clear").click()
    speak(page, silence)
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("silence: nothing is louder than")
    expect(page.locator("#voice-note")).not_to_contain_text("will speak")


def test_a_clip_that_speaks_and_speech_for_a_clip_that_is_there(open_page, speech_app, voice):
    page = open_page(speech_app.url)
    page.get_by_role("radio", name="17 · 1.1 s").check()
    generate(page, PORTRAIT, "a silent one")
    card_says(page, "Done in")
    expect(page.locator(".w-prompt")).to_have_text("a silent one")
    silent = clip_of(speech_app, page) / "clip.mp4"

    page.get_by_role("button", name="Add speech").click()
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("choose a sound file with speech first")
    speak(page, voice)
    expect(page.locator("#voice-note")).to_contain_text("The clip that is shown: one face was found. It will speak")
    page.get_by_role("button", name="Add speech").click()
    card_says(page, "Adding speech")
    expect(page.locator(".w-stages li")).to_have_text([re.compile("Speech")])
    card_says(page, "Done in", 300)  # torch and the networks are loaded
    expect(page.locator(".w-facts").first).to_contain_text(re.compile(r"Speech\d+\.\d s"))
    expect(page.locator("#history .w-tile").first).to_contain_text("speaks")
    spoken = clip_of(speech_app, page) / "clip.mp4"
    assert spoken != silent and len(muxer.read_frames(spoken)[0]) > 2 * len(muxer.read_frames(silent)[0])
    wait_for_playing(page)
    assert page.evaluate("(v => [v.muted, v.loop])(document.querySelector('#clip'))") == [False, False]
    shoot(page, "62-speaks", full=True)

    page.fill("#prompt textarea", "one that speaks at once")
    page.click("#generate")
    expect(page.locator(".w-stages")).to_contain_text("Encode")
    expect(page.locator(".w-stages")).to_contain_text("Speech")
    card_says(page, re.compile("frame|Done in"), 300)  # a busy browser may miss a second or two of frames
    shoot(page, "63-adding-speech")
    card_says(page, "Done in", 300)
    expect(page.locator(".w-prompt")).to_have_text("one that speaks at once")
    assert (clip_of(speech_app, page) / "silent.mp4").is_file()

    page.reload(wait_until="domcontentloaded")
    expect(page.locator("#voice .waveform-container")).to_have_count(0)
    page.get_by_role("button", name="Load settings", exact=True).click()
    page.locator("#voice .waveform-container").wait_for(state="attached")

    # Settings of speech that was added are those of its clip, the picture as well.
    page.get_by_role("radio", name="33 · 2.1 s").check()
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#picture-crop img")).to_have_count(0)
    page.locator("#history .w-tile").nth(1).click()
    expect(page.locator(".w-prompt")).to_have_text("a silent one")
    page.get_by_role("button", name="Load settings", exact=True).click()
    page.locator("#picture-crop img").wait_for()
    expect(page.get_by_role("radio", name="17 · 1.1 s")).to_be_checked()


def test_a_clip_whose_speech_fails_is_kept(open_page, speech_app, picture, voice):
    page = open_page(speech_app.url)
    speak(page, voice)
    generate(page, picture, "nobody is there")
    card_says(page, "The clip is made, but it could not be given speech")
    wait_for_playing(page)
    expect(page.locator("#result")).to_contain_text("the clip has no face that can speak")
    shoot(page, "64-no-speech", full=True)


def test_what_is_not_a_sound_is_refused_by_name(open_page, speech_app, tmp_path):
    page = open_page(speech_app.url)
    (tmp_path / "noise.wav").write_bytes(b"not a sound at all")
    with page.expect_response("**/gradio_api/upload*"):
        page.set_input_files("#voice input[type=file]", tmp_path / "noise.wav")
    page.get_by_role("button", name="Clear").wait_for()
    generate(page, PORTRAIT, "with garbage")
    expect(page.locator("#voice-note [role=alert], #message [role=alert]").first).to_contain_text("noise.wav")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_a_phone(open_page, speech_app, voice, dark):
    page = open_page(speech_app.url, *PHONE, dark=dark)
    page.set_input_files("#picture input[type=file]", PORTRAIT)
    speak(page, voice)
    expect(page.locator("#voice-note")).to_contain_text("New clip: one face was found")
    expect(page.locator("#voice-note")).to_contain_text(re.compile("The clip that is shown: (no|one) face was found"))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert faults(page) == []
    shoot(page, f"65-voice-phone-{'dark' if dark else 'light'}", full=True)
