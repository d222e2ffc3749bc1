"""What the page's form keeps over a reload, and when a complaint is over."""

import re

from gradio.events import EventData
from PIL import Image

from wan_ui.catalog import load_catalog
from wan_ui.crop import Crop
from wan_ui.errors import UserError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import examples, form
from wan_ui.ui import picture as pictures
from wan_ui.ui.handlers import changing
from wan_ui.ui.view import Complaint, View

KEPT = {"size": "256x256", "frames": 17, "steps": 2, "fps": 16, "seed": 7, "model": "wan-tiny"}


def test_what_the_page_was_filled_in_with_is_kept_at_once():
    """A page that is reloaded again before it has told its form must not lose it."""
    view = View(model="wan-tiny", scheme="bf16")
    form.fill(view, size="256x256", frames=17, steps=2, fps=16)
    form.fill(view, seed=7, picture="/uploads/a.png")
    assert form.to_keep(view) == {**KEPT, "picture": "/uploads/a.png", "scheme": "bf16"}


def test_what_the_page_said_before_it_was_filled_in_is_older():
    view, fields = View(), dict.fromkeys(form.FIELDS)
    form.changed(view, fields | {"size": "auto", "seed": -1}, seen=0, turn=1)
    form.fill(view, seed=7)  # while the page fills in the seed, a person chooses a size
    form.changed(view, fields | {"size": "256x256", "seed": -1}, seen=0, turn=2)
    assert (view.form["size"], view.form["seed"]) == ("256x256", 7)
    form.changed(view, fields | {"size": "256x256", "seed": 8}, seen=view.fills, turn=3)
    assert (view.form["size"], view.form["seed"]) == ("256x256", 8)


def test_a_complaint_is_over_when_its_field_is_another_whoever_changed_it():
    view, held = View(), dict.fromkeys(form.FIELDS) | {"seed": -7}
    for mend in (
        lambda: form.fill(view, seed=7),
        lambda: form.changed(view, held | {"seed": 7}, seen=view.fills, turn=9),
    ):
        form.complain(view, "message", UserError("seed: -7 is not between", field="seed"), 5, held)
        form.fill(view, size="auto")
        form.changed(view, held | {"size": "256x256"}, seen=view.fills, turn=6)
        assert view.complaint
        mend()
        assert view.complaint is None


def test_a_clip_that_is_not_there_is_said_until_another_is_chosen():
    """The page tells of its form when it has been opened, sooner or later."""
    view, held = View(), dict.fromkeys(form.FIELDS)
    form.complain(view, "result_message", UserError("clip: there is no such clip of yours", field="link"), 0)
    form.changed(view, held | {"size": "256x256", "segments": "a hat"}, seen=0, turn=1)
    form.changed(view, held | {"size": "192x320"}, seen=view.fills, turn=2)
    assert view.complaint


def test_a_form_of_anything_has_no_value():
    damaged = form.read({"picture": 5, "size": [], "frames": "x", "steps": 1e300, "voice": {"path": 5}})
    assert damaged == dict.fromkeys(form.FIELDS)


def test_a_full_queue_is_no_complaint_any_more_when_there_is_room(monkeypatch):
    model = load_catalog(Settings().catalog)["wan-tiny"]
    complaint = Complaint("message", "queue", "20 jobs are waiting already", turn=1)
    view = View(complaint=complaint, model="wan-tiny", scheme="bf16")
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    for room in (False, True):
        monkeypatch.setattr(PIPELINE, "has_room", lambda owner, room=room: room)
        form.forget_what_is_mended(view, model, "local")
        assert (view.complaint is None) == room


def test_why_a_picture_was_refused_stays_however_often_its_removal_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    monkeypatch.setattr(changing, "uploaded", lambda value, field="": value["path"])
    bad, view = tmp_path / "bad.png", View()
    bad.write_bytes(b"not a picture")
    answer = changing.show_crop(view, {"path": str(bad)}, "auto", "wan-tiny")
    assert "bad.png is not a picture" in answer["picture_note"] and answer["picture"] is None
    for _ in range(3):
        assert changing.show_crop(view, None, "auto", "wan-tiny") == {"picture_crop": ""}
    good = {"path": str(ROOT / "assets" / "examples" / "cat.jpg")}
    assert "Used at" in changing.show_crop(view, good, "auto", "wan-tiny")["picture_note"]
    assert changing.show_crop(view, None, "auto", "wan-tiny") == {"picture_crop": "", "picture_note": ""}


def test_the_end_picture_is_cropped_to_the_shape_of_the_first(monkeypatch, tmp_path):
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    monkeypatch.setattr(changing, "uploaded", lambda value, field="": value["path"])
    view, tall = View(), tmp_path / "tall.png"
    Image.new("RGB", (400, 800)).save(tall)
    wide, tall = {"path": str(ROOT / "assets" / "examples" / "cat.jpg")}, {"path": str(tall)}
    used = re.search(r"Used at \d+ × \d+", changing.show_crop(view, wide, "auto", "i2v-a14b")["picture_note"])
    answer = changing.show_end_crop(view, wide, "auto", "i2v-a14b", tall)
    assert f"{used[0]}; the dimmed edges are cut off" in answer["end_note"] and "<img" in answer["end_crop"]
    assert "720 × 1280" in changing.show_end_crop(view, None, "auto", "i2v-a14b", tall)["end_note"], "its own"
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    answer = changing.show_end_crop(view, wide, "auto", "i2v-a14b", {"path": str(tmp_path / "bad.png")})
    assert answer["end"] is None and "bad.png is not a picture" in answer["end_note"]
    hidden = changing.show_end_crop(view, wide, "auto", "wan-tiny", tall)
    assert hidden == {"end_crop": "", "end_note": ""}, "a model that does not take it says nothing of it"


def test_an_example_of_a_picture_and_words_says_what_a_model_needs_beside_it():
    catalog = load_catalog(Settings().catalog)
    said = {name: examples.note_html("this", model) for name, model in catalog.items()}
    assert "fills in the picture and the words; this needs a voice as well" in said["s2v-14b"]
    assert "this needs a performance as well" in said["animate-14b"]
    assert all("A click makes the clip with this." in said[name] for name in ("wan-tiny", "i2v-a14b", "t2v-a14b"))
    spoken = (*examples.USUAL, "audio")
    assert examples.lacking(catalog["s2v-14b"], spoken) is None
    assert examples.lacking(catalog["animate-14b"], (*examples.USUAL, "pose_video")) is None


def test_the_forms_fields_have_names_of_their_own():
    """A part of the form and a word about the voice were both called "face"."""
    assert len(set(form.FIELDS)) == len(form.FIELDS)


def test_a_crop_that_is_moved_while_it_is_drawn_stays_where_it_was_moved(monkeypatch, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    path, view = str(tmp_path / "a.png"), View()
    draw, moved = pictures.crop_html, pictures.Cropped(path, Crop(0.8, 0.5, 1.2), own=True)
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    monkeypatch.setattr(changing, "uploaded", lambda path, field="": path)

    def meanwhile(*given):
        view.crops["picture"] = moved
        return draw(*given)

    changing.show_crop(view, path, "256x256", "wan-tiny")
    assert view.crops["picture"].crop.zoom == 1
    monkeypatch.setattr(pictures, "crop_html", meanwhile)
    changing.show_crop(view, path, "192x320", "wan-tiny")
    assert view.crops["picture"] is moved


def test_a_crop_that_is_moved_by_hand_says_the_size_that_was_chosen_meanwhile(monkeypatch, tmp_path):
    """Its answer comes last where the machine is busy."""
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    path, view, event = str(tmp_path / "a.png"), View(), EventData(None, {"part": "picture", "crop": [0.8, 0.5, 1.2]})
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    monkeypatch.setattr(changing, "uploaded", lambda path, field="": path)
    monkeypatch.setattr(changing, "observe", lambda browser, view: {})
    for size in ("192x320", "256x256"):
        assert f"Used at {size.replace('x', ' × ')}" in changing.show_crop(view, path, size, "wan-tiny")["picture_note"]
    moved = changing.move_crop({}, view, path, None, "192x320", "wan-tiny", event)
    assert "Used at 256 × 256" in moved["picture_note"] and "picture_crop" not in moved
    assert view.crops["picture"].crop == Crop(0.8, 0.5, 1.2)
