"""What the page's form keeps over a reload, and when a complaint is over."""

from wan_ui.catalog import load_catalog
from wan_ui.pipeline import PIPELINE
from wan_ui.settings import Settings
from wan_ui.ui import form

KEPT = {"size": "256x256", "frames": 17, "steps": 2, "fps": 16, "seed": 7, "model": "wan-tiny", "picture": "/gone.png"}


def test_what_comes_back_from_the_browser_is_kept_again():
    """A page that is reloaded again before it has told its form must not lose it."""
    view = {"form": form.kept_again(KEPT, "/uploads/a.png", ""), "model": "wan-tiny", "scheme": "bf16"}
    assert form.to_keep(view) == {**KEPT, "picture": "/uploads/a.png", "scheme": "bf16"}
    damaged = form.kept_again({"size": [], "frames": "x", "steps": 1e300, "seed": None, "voice": 5}, "", "")
    assert set(damaged.values()) == {None} and tuple(damaged) == form.FIELDS


def test_a_full_queue_is_no_complaint_any_more_when_there_is_room(monkeypatch):
    model = load_catalog(Settings().catalog)["wan-tiny"]
    complaint = {"place": "message", "field": "queue", "words": "20 jobs are waiting already", "turn": 1, "value": None}
    view = {"complaint": complaint, "loras": [], "model": "wan-tiny", "scheme": "bf16"}
    monkeypatch.setattr(PIPELINE, "settings", Settings(), raising=False)
    for room in (False, True):
        monkeypatch.setattr(PIPELINE, "has_room", lambda owner, room=room: room)
        form.forget_what_is_mended(view, model, "local")
        assert (view["complaint"] is None) == room
