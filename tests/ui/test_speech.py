"""Speech: a voice beside the picture, the face looked for beforehand, and speech added to a clip that is there."""

import re

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.lipsync.conftest import tone
from tests.lipsync.random_musetalk import write_musetalk
from tests.sounds import voice as spoken
from tests.sounds import write_wav
from tests.ui.conftest import CLIP, FACTS, card_says, choose, generate, press, shoot, until, wait_for_playing
from tests.ui.test_looks import PHONE, faults, in_both_colours
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
    """2.4 s of it, longer than twice 17 frames."""
    return write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", spoken(2.4))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """1 s of a voice, within 17 frames."""
    return write_wav(tmp_path_factory.mktemp("short") / "short.wav", spoken(1.0))


@pytest.fixture(scope="module")
def silence(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("silence") / "silence.wav", tone(2.4, level=0.0))


@pytest.fixture(scope="module")
def couple(tmp_path_factory):
    """The portrait's face twice, the second mirrored."""
    image = Image.new("RGB", (256, 256), (120, 130, 140))
    face = Image.open(PORTRAIT).convert("RGB").crop((60, 40, 190, 220)).resize((128, 177))
    image.paste(face, (0, 40))
    image.paste(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (128, 40))
    image.save(path := tmp_path_factory.mktemp("couple") / "couple.png")
    return path


def speak(page: Page, voice) -> None:
    page.set_input_files("#voice input[type=file]", voice)
    page.locator("#voice .waveform-container").wait_for(state="attached")


def clip_of(app, page: Page):
    job = page.locator("#history .w-tile[aria-pressed=true]").get_attribute("data-tile")
    return app.folder / "outputs" / "clips" / job


def test_before_anything_is_made_the_face_is_looked_for_and_the_sound_heard(
    open_page, speech_app, picture, voice, silence, tmp_path
):
    page = open_page(speech_app.url)
    choose(page, picture)
    expect(page.locator("#voice-note p")).to_have_count(0)
    speak(page, voice)
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("No face was found")
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("the clip may stay silent")
    shoot(page, "60-no-face", full=True)
    page.get_by_role("button", name="Remove Image").click()
    page.set_input_files("#picture input[type=file]", PORTRAIT)
    expect(page.locator("#voice-note")).to_contain_text("One face was found. It will speak this.")
    assert faults(page, part="#voice-part") == []
    shoot(page, "61-face", full=True)
    page.locator("#voice").get_by_role("button", name="Clear").click()
    speak(page, silence)
    expect(page.locator("#voice-note [role=alert]")).to_contain_text("silence: nothing is louder than")
    expect(page.locator("#voice-note")).not_to_contain_text("will speak")
    page.locator("#voice").get_by_role("button", name="Clear").click()
    (tmp_path / "noise.wav").write_bytes(b"not a sound at all")
    with page.expect_response("**/gradio_api/upload*"):
        page.set_input_files("#voice input[type=file]", tmp_path / "noise.wav")
    page.get_by_role("button", name="Clear").wait_for()
    press(page, "with garbage")
    expect(page.locator("#voice-note [role=alert], #message [role=alert]").first).to_contain_text("noise.wav")


def test_of_several_faces_the_one_that_is_clicked_speaks(open_page, speech_app, couple, short):
    page = open_page(speech_app.url, 1440, 900)
    page.get_by_role("radio", name="17 · 1.1 s").check()
    choose(page, couple)
    speak(page, short)
    faces = page.locator(".w-faces", has=page.get_by_role("img", name="The picture")).locator(".w-face")
    expect(faces).to_have_count(2)
    expect(page.locator("#voice-note")).to_contain_text("2 faces were found; the largest one will speak")
    faces.nth(1).click()
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#voice-note")).to_contain_text("2 faces were found; number 2 from the left will speak")
    expect(page.locator("#using")).to_contain_text(re.compile("face.2.speaks"))
    in_both_colours(page, True, "67-faces", "67-faces-dark", part="#voice-part")
    page.reload(wait_until="domcontentloaded")
    expect(faces.nth(1)).to_have_attribute("aria-pressed", "true")
    faces.nth(0).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#voice-note")).to_contain_text("number 1 from the left will speak")
    faces.nth(0).click()
    expect(page.locator("#voice-note")).to_contain_text("the largest one will speak")
    faces.nth(1).click()
    expect(page.locator("#voice-note")).to_contain_text("number 2 from the left will speak")
    press(page, "two of them")
    page.locator(CLIP, has_text="two of them").wait_for(timeout=300_000)  # torch and the networks are loaded
    card_says(page, re.compile(r"Done in.*encode.*speech", re.S))  # what it said meanwhile may be over in a second
    made = clip_of(speech_app, page)
    assert muxer.read_metadata(made / "clip.mp4")["speaking"]["face"] == 2
    assert (made / "silent.mp4").is_file()
    page.locator("#voice").get_by_role("button", name="Clear").click()
    expect(page.locator("#voice .waveform-container")).to_have_count(0)
    page.get_by_role("button", name="Load settings", exact=True).click()
    page.locator("#voice .waveform-container").wait_for(state="attached")
    expect(page.locator("#using")).to_contain_text("the voice above")  # said when all of it has been filled in


def test_a_clip_that_speaks_and_speech_for_a_clip_that_is_there(open_page, speech_app, voice, tmp_path):
    page = open_page(speech_app.url)
    page.get_by_role("radio", name="17 · 1.1 s").check()
    generate(page, PORTRAIT, "a silent one")
    card_says(page, "Done in")
    expect(page.locator(CLIP)).to_have_text("a silent one")
    silent = clip_of(speech_app, page) / "clip.mp4"

    with page.expect_file_chooser() as chooser:  # the form has no voice: the press asks for one
        page.get_by_role("button", name="Add speech").click()
    (tmp_path / "noise.wav").write_bytes(b"not a sound at all")
    chooser.value.set_files(tmp_path / "noise.wav")
    said = page.locator("#result-message [role=alert]")
    expect(said).to_contain_text("noise.wav")
    page.locator("#voice").get_by_role("button", name="Clear").wait_for()  # one that is refused is in the form
    expect(page.locator("#using")).to_contain_text("the voice above")
    turn = said.get_attribute("data-turn")
    page.get_by_role("button", name="Add speech").click()  # with the voice of the form
    expect(said).not_to_have_attribute("data-turn", turn)
    expect(said).to_contain_text("noise.wav")
    page.locator("#voice").get_by_role("button", name="Clear").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add speech").click()
    chooser.value.set_files(voice)
    # torch and the networks are loaded
    expect(page.locator(FACTS).first).to_contain_text(re.compile(r"Speech\d+\.\d s"), timeout=300_000)
    card_says(page, "Done in")
    expect(page.locator("#history .w-tile").first).to_contain_text("speaks")
    speaking = clip_of(speech_app, page) / "clip.mp4"
    assert speaking != silent and len(muxer.read_frames(speaking)[0]) > 2 * len(muxer.read_frames(silent)[0])
    wait_for_playing(page)
    assert page.evaluate("(v => [v.muted, v.loop])(document.querySelector('#clip'))") == [False, False]
    shoot(page, "62-speaks", full=True)

    expect(page.locator("#using")).not_to_contain_text("the voice above")
    speak(page, voice)
    expect(page.locator("#voice-note")).to_contain_text("The clip that is shown: one face was found. It will speak")
    # Settings of speech that was added are those of its clip, the picture as well.
    longer = page.get_by_role("radio", name="33 · 2.1 s")
    longer.click()
    until(page, lambda: longer.is_checked() or longer.click())  # an answer on its way may put it back
    page.get_by_role("button", name="Remove Image").click()
    expect(page.locator("#picture-crop img")).to_have_count(0)
    page.locator("#history .w-tile").first.click()
    expect(page.locator(CLIP)).to_have_text("a silent one")
    page.get_by_role("button", name="Load settings", exact=True).click()
    page.locator("#picture-crop img").wait_for()
    expect(page.get_by_role("radio", name="17 · 1.1 s")).to_be_checked()


def test_a_clip_whose_speech_fails_is_kept(open_page, speech_app, picture, voice):
    page = open_page(speech_app.url, 1440, 900)
    expect(page.get_by_label("From, seconds")).to_be_hidden()
    speak(page, voice)
    # Of its part the handles and the numbers say the same, and a reload brings it back.
    words, part = page.locator("#voice-trim .w-trim-words"), page.locator("#voice-trim")
    expect(words).to_have_text("All of it, 2.4 s")
    part.get_by_label("Begins at").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_label("From, seconds")).to_have_value("0.51")
    page.get_by_label("To, seconds").fill("1.5")
    page.get_by_label("To, seconds").blur()
    expect(words).to_have_text("0.51 s to 1.50 s, 0.99 s")
    part.get_by_label("Ends at").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("To, seconds")).to_have_value("1.6")
    expect(page.locator("#using")).to_contain_text(re.compile(r"0\.51.s.to.1\.6.s"))
    part.get_by_role("button", name="Play this part").click()
    expect(part.get_by_role("button", name="Stop")).to_be_visible()
    expect(part.get_by_role("button", name="Play this part")).to_be_visible()
    assert 1.55 < page.evaluate("document.querySelector('#voice-trim audio').currentTime") < 2.4
    assert faults(page, part="#voice-part") == []
    shoot(page, "66-part", full=True)
    page.reload(wait_until="domcontentloaded")
    expect(words).to_have_text("0.51 s to 1.60 s, 1.09 s")
    generate(page, picture, "nobody is there")
    card_says(page, "The clip is made, but it could not be given speech", 300)
    wait_for_playing(page)
    stored = muxer.read_metadata(clip_of(speech_app, page) / "silent.mp4")
    assert (stored["speaking"]["audio_start"], stored["speaking"]["audio_end"]) == (0.51, 1.6)
    assert stored["audio_seconds"] == 1.09
    # Its copy of the sound is that part, whole; so is another sound.
    page.get_by_role("button", name="Load settings", exact=True).click()
    expect(words).to_have_text("All of it, 1.1 s")
    expect(page.get_by_label("From, seconds")).to_have_value("")
    expect(page.locator("#result")).to_contain_text("the clip has no face that can speak")
    shoot(page, "64-no-speech", full=True)


def test_on_a_phone(open_page, speech_app, voice):
    page = open_page(speech_app.url, *PHONE)
    page.set_input_files("#picture input[type=file]", PORTRAIT)
    speak(page, voice)
    expect(page.locator("#voice-note")).to_contain_text("New clip: one face was found")
    expect(page.locator("#voice-note")).to_contain_text(re.compile("The clip that is shown: (no|one) face was found"))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    in_both_colours(page, True, "65-voice-phone-light", "65-voice-phone-dark", part="#voice-part")
