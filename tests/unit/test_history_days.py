"""The days under which the history shows clips: where the browser is."""

from datetime import UTC, datetime

import pytest

from wan_ui.ui import history


class Noon(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 3, 1, 12, 0, tzinfo=UTC).astimezone(tz)


@pytest.mark.parametrize(
    ("then", "zone", "words"),
    [
        ((2026, 3, 1, 0, 0), 0, "Today"),
        ((2026, 2, 28, 23, 59), 0, "Yesterday"),
        ((2026, 2, 28, 23, 59), 60, "Today"),  # an hour further east it was past midnight
        ((2026, 3, 1, 0, 30), -60, "Yesterday"),
        ((2026, 2, 27, 12, 0), 0, "27 Feb"),
        ((2025, 12, 31, 12, 0), 0, "31 Dec 2025"),
        ((2026, 3, 4, 12, 0), 0, "4 Mar"),  # the clock was set back
    ],
)
def test_a_day_is_named_where_the_browser_is(monkeypatch, then, zone, words):
    monkeypatch.setattr(history, "datetime", Noon)
    assert history.day(datetime(*then, tzinfo=UTC).timestamp(), zone) == words


def test_a_damaged_time_has_a_day_and_a_forged_zone_none():
    assert history.day(1e30, 0) == "Once"
    assert [history.read_zone({"zone": zone}) for zone in (330, -570.0, 1e9, True, "1", None)] == [
        330,
        -570,
        None,
        None,
        None,
        None,
    ]
    assert history.read_zone(None) is None
