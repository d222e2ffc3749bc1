"""Which job a free worker takes, and that none is kept waiting for it."""

import statistics

import pytest

from benchmarks.pool import best_list_schedule, mixed_jobs, simulate, waits
from wan_ui.queue.choice import Seat, Turns, Waiting

A, B = ("a14b", "fp8", "auto"), ("ti2v", "bf16", "auto")


def job(name, model=A, seconds=10.0, load=60.0, loras=()):
    return Waiting(name, model, loras, seconds, load)


def choose(line, me, *others, turns=None, now=100.0):
    chosen = (turns or Turns()).choose(line, me, [me, *others], now)
    return chosen.id if chosen else None


def test_a_job_of_the_loaded_model_is_taken_before_one_that_would_have_to_be_loaded():
    busy = Seat("gpu1", A, (), 110.0)
    assert choose([job("first"), job("second", B)], Seat("gpu0", B), busy) == "second"


def test_then_the_loras_and_then_the_longest():
    style = ("style.safetensors",)
    me, busy = Seat("gpu0", A, style), Seat("gpu1", A, (), 400.0)
    line = [job("first"), job("longest", seconds=90.0), job("styled", seconds=20.0, loras=style)]
    assert choose(line, me, busy) == "styled"
    assert choose(line[:2], me, busy) == "longest"


def test_a_job_is_left_for_a_busy_worker_that_has_its_model_sooner_than_it_is_loaded():
    assert choose([job("first")], Seat("gpu0", B), Seat("gpu1", A, (), 130.0)) is None
    assert choose([job("first")], Seat("gpu0", B), Seat("gpu1", A, (), 190.0)) == "first"
    assert choose([job("first")], Seat("gpu0", B), Seat("gpu1", A, (), 10.0)) == "first", "it is 90 s late already"


def test_a_job_that_has_waited_its_time_is_still_left_for_the_worker_that_has_its_model_if_that_is_soon():
    me, other, turns = Seat("gpu0", B), Seat("gpu1", A, (), 105.0), Turns()
    assert choose([job("first")], me, other, turns=turns) is None
    turns.passed["first"] = turns.allowed["first"]
    assert choose([job("first"), job("second", B)], me, other, turns=turns) == "second"
    assert choose([job("first"), job("second", B)], me, other, turns=turns, now=104.0) == "second"
    other.free_at = 190.0
    assert choose([job("first"), job("second", B)], me, other, turns=turns, now=150.0) == "first", "its time is over"


def test_nothing_known_is_in_turn():
    line = [job(name, seconds=None, load=0.0) for name in "abc"]
    assert choose(line, Seat("gpu0", A), Seat("gpu1", A, (), 200.0)) == "a"


def test_speech_needs_no_model():
    assert choose([job("voice", (), load=0.0), job("clip")], Seat("gpu0")) == "voice"


def test_what_a_worker_can_not_run_is_left_for_one_that_can_unless_there_is_none():
    small, large = Seat("gpu0"), Seat("gpu1", free_at=500.0)
    line, turns = [job("large", load=0.0), job("small", B, load=0.0)], Turns()
    able = lambda seat, waiting: waiting.id == "small" or seat is large  # noqa: E731
    assert turns.choose(line, small, [small, large], 100.0, able).id == "small"
    assert turns.choose(line, small, [small, large], 100.0, lambda seat, waiting: False).id == "large"


def test_a_job_is_passed_over_by_no_more_than_was_ahead_of_it():
    """Jobs of the loaded model keep coming; the one of another model has its turn all the same."""
    me, busy, turns = Seat("gpu0", A), Seat("gpu1", A, (), 100.0), Turns()
    line, taken = [job("other", B)], []
    for number in range(50):
        line.append(job(f"{number}"))
        chosen = turns.choose(line, me, [me, busy], 0.0)
        line.remove(chosen)
        taken.append(chosen.id)
        if chosen.id == "other":
            break
    assert taken[-1] == "other" and 1 < len(taken) < 50, taken


@pytest.mark.parametrize("seed, over", [(3, 0.0), (3, 100.0), (7, 240.0), (2026, 0.0)])
def test_64_workers_are_as_quick_as_the_best_list_schedule_and_fair(seed, over):
    jobs, arrivals = mixed_jobs(400, seed, over)
    best, _ = best_list_schedule(jobs, arrivals, 64)
    run = simulate(jobs, arrivals, 64)
    assert len(run.starts) == 400 and run.makespan <= 1.1 * best
    assert waits(run, arrivals, statistics.mean(waiting.seconds for waiting in jobs)) <= 2
