"""An owner's past clips: found by words, page by page, deleted with a while to take it back; nobody else's."""

import sqlite3
import time

import pytest

from tests.job_requests import job_request
from wan_ui.queue import library
from wan_ui.queue.jobs import Jobs
from wan_ui.request import Result


@pytest.fixture
def table(tmp_path) -> Jobs:
    table = Jobs(tmp_path / "wan_ui.sqlite")
    loras = [{"file": "styles/Sepia.safetensors", "strength": 1.0, "target": "both"}]
    wishes = {"a": {"prompt": "a Wave at sunset"}, "b": {"prompt": "ÄPFEL fallen"}, "c": {"loras": loras}}
    for name, values in wishes.items():
        table.add(name, "ann", job_request(**values))
        table.claim()
        table.finish(name, "done", result=Result(clip="clip.mp4"))
    table.add("other", "bob", job_request(prompt="a wave"))
    return table


def found(table: Jobs, words: str = "", starred: bool = False, first: int = 0, number: int = 10) -> str:
    jobs, total = library.page(table, "ann", words, starred, first, number)
    return f"{''.join(job.id for job in jobs)} of {total}"


def test_words_of_prompt_model_and_lora_find_an_owners_clips(table):
    assert [found(table, words) for words in ("", "WAVE", "sunset wave", "äpfel", "sepia", "wan-tiny bf16")] == [
        *("cba of 3", "ca of 2", "a of 1", "b of 1", "c of 1", "cba of 3")
    ]
    assert [found(table, words) for words in ("%", "x.png", "'; DROP TABLE jobs")] == [" of 0"] * 3
    table.set_star("b", "ann", True)
    assert found(table, starred=True) == "b of 1"
    assert [found(table, first=first, number=2) for first in (0, 2, 4)] == ["cb of 3", "a of 3", " of 3"]


def test_a_damaged_entry_is_searched_as_far_as_it_goes(table):
    with sqlite3.connect(table.path) as db:
        db.execute("UPDATE jobs SET request = '{' WHERE id = 'a'")
    assert found(table, "wave") == "c of 1" and found(table) == "cba of 3"


def test_what_is_deleted_can_be_taken_back_for_a_while_by_its_owner(table, monkeypatch):
    assert library.remove(table, ["a", "b", "other", "no such"], "ann") == ["a", "b"]
    assert found(table) == "c of 1" and [job.id for job in table.of_owner("ann")] == ["c"]
    assert library.take_back(table, ["a"], "bob") == [] and library.overdue(table) == []
    assert library.take_back(table, ["a", "c"], "ann") == ["a"] and found(table) == "ca of 2"
    later = time.time() + 2 * library.UNDO
    monkeypatch.setattr(library.time, "time", lambda: later)
    assert library.overdue(table) == ["b"]


def test_what_waits_is_not_deleted(table):
    assert library.remove(table, ["other"], "bob") == []
