"""What the page's form keeps over a reload, and when a complaint is over."""

from wan_ui.catalog import load_catalog
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.settings import ROOT, Settings
from wan_ui.ui import form
from wan_ui.ui.handlers import changing
from wan_ui.ui.view import Complaint, View

KEPT = {"size": "256x256", "frames": 17, "steps": 2, "fps": 16, "seed": 7, "model": "wan-tiny", "picture": "/gone.png"}


def test_what_comes_back_from_the_browser_is_kept_again():
    """A page that is reloaded again before it has told its form must not lose it."""
    view = View(form=form.kept_again(KEPT, "/uploads/a.png", ""), model="wan-tiny", scheme="bf16")
    assert form.to_keep(view) == {**KEPT, "picture": "/uploads/a.png", "scheme": "bf16"}
    damaged = form.kept_again({"size": [], "frames": "x", "steps": 1e300, "seed": None, "voice": 5}, "", "")
    assert set(damaged.values()) == {None} and tuple(damaged) == form.FIELDS


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
    monkeypatch.setattr(changing, "uploaded", lambda value: value["path"])
    bad, view = tmp_path / "bad.png", View()
    bad.write_bytes(b"not a picture")
    answer = changing.show_crop(view, {"path": str(bad)}, "auto", "wan-tiny")
    assert "bad.png is not a picture" in answer["picture_note"] and answer["picture"] is None
    for _ in range(3):
        assert changing.show_crop(view, None, "auto", "wan-tiny") == {"crop": ""}
    good = {"path": str(ROOT / "assets" / "examples" / "cat.jpg")}
    assert "Used at" in changing.show_crop(view, good, "auto", "wan-tiny")["picture_note"]
    assert changing.show_crop(view, None, "auto", "wan-tiny") == {"crop": "", "picture_note": ""}
