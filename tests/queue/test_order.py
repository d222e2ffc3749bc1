"""An owner's own waiting jobs: moved, paused, changed in place; nobody else's turn is touched."""

import sqlite3
import time

import pytest

from tests.job_requests import job_request
from wan_ui.queue import order
from wan_ui.queue.jobs import Jobs

REQUEST = job_request()


@pytest.fixture
def table(tmp_path) -> Jobs:
    """Ann has a, b, c, Bob has x, y: they take turns."""
    table = Jobs(tmp_path / "wan_ui.sqlite")
    for name in ("a", "x", "b", "y", "c"):
        table.add(name, "bob" if name in "xy" else "local", REQUEST)
    return table


def test_a_move_changes_only_the_order_among_ones_own(table):
    assert table.line() == ["a", "x", "b", "y", "c"]
    order.move(table, "c", "local", 0)
    assert table.line() == ["c", "x", "a", "y", "b"] and order.waiting(table, "local") == ["c", "a", "b"]
    order.move(table, "c", "local", 99)
    assert table.line() == ["a", "x", "b", "y", "c"]
    order.move(table, "x", "local", 0)  # another's
    order.move(table, "no such", "local", 0)
    assert table.line() == ["a", "x", "b", "y", "c"]
    table.add("d", "local", REQUEST)
    assert order.waiting(table, "local") == ["a", "b", "c", "d"]


def test_the_order_and_a_pause_outlive_the_app(table):
    order.move(table, "b", "local", 0)
    order.pause(table, "local", True)
    again = Jobs(table.path)
    assert again.line() == ["x", "y"] and order.waiting(again, "local") == ["b", "a", "c"]
    again.add("d", "local", REQUEST)
    assert again.line() == ["x", "y"]  # what is added meanwhile waits as well
    again.add_all({"e": REQUEST}, "local", paused=False)  # but not what a command asks for
    assert again.line() == ["e", "x", "y"]
    order.pause(again, "local", False)
    assert again.line() == ["b", "x", "a", "y", "c", "d", "e"]


def test_what_a_visitor_has_paused_runs_after_an_hour(table):
    order.pause(table, "bob", True)
    assert table.line() == ["a", "b", "c"]
    with sqlite3.connect(table.path) as db:
        db.execute("UPDATE jobs SET held = ? WHERE owner = 'bob'", (time.time() - order.HELD - 1,))
    assert table.line() == ["a", "x", "b", "y", "c"]


def test_a_waiting_job_is_changed_where_it_stands_and_by_its_owner_alone(table):
    other = job_request(prompt="another")
    assert not order.put_in_place(table, "b", "bob", "new", other)
    assert order.put_in_place(table, "b", "local", "new", other)
    assert table.line() == ["a", "x", "new", "y", "c"] and table.get("new").request == other
    assert table.claim().id == "a" and not order.put_in_place(table, "a", "local", "late", other)
    assert table.get("b") is None and table.get("late") is None
