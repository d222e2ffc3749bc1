"""What the soak holds against the table and the samples: each check can fail (benchmarks/soak_verdict.py)."""

from types import SimpleNamespace

from benchmarks.soak_app import Sample
from benchmarks.soak_verdict import of_jobs, of_processes, of_waits
from tests.job_requests import job_request
from wan_ui.queue.jobs import Job


def job(name: str, owner: str, created: float, started: float, state: str = "done") -> Job:
    return Job(name, owner, state, job_request(prompt="x"), created, started, started + 1)


def test_waits_are_counted_in_turns():
    shared = [
        job(f"{owner}{n}", owner, n / 10, 1 + 2 * n + place) for n in range(4) for place, owner in enumerate("ab")
    ]
    assert of_waits(shared).holds
    passed_over = [job("late", "c", 0.05, 30), *(job(f"a{n}", "a", 1 + n, 2 + n) for n in range(9))]
    assert of_waits(passed_over).holds is False


def test_a_job_ends_once_and_is_what_its_user_was_told():
    rows = [job("one", "a", 1, 2), job("two", "a", 1, 3)]
    world = SimpleNamespace(asked={"one": SimpleNamespace(state="done")}, shown={"a page": {"two"}})
    right = {"one": ["queued", "running", "done"], "two": ["running", "done"]}
    assert of_jobs(rows, world, SimpleNamespace(states=right))[0].holds
    for changed in ({"one": ["done", "failed"]}, {"gone": ["queued"]}, {"two": ["running"]}):
        assert not of_jobs(rows, world, SimpleNamespace(states=right | changed))[0].holds
    world.asked["one"].state = "cancelled"
    assert not of_jobs(rows, world, SimpleNamespace(states=right))[0].holds


def test_memory_is_compared_with_that_after_the_warm_up():
    def checks(growth: float, judge: bool = True) -> list:
        page = [Sample("page", 1, t, round(2e8 + growth * t), 40, t, t) for t in range(300)]
        workers = [Sample("worker", 2 + t // 50, t, round(5e8 + growth * t), 11, t, t) for t in range(300)]
        return [check.holds for check in of_processes([*page, *workers], judge)]

    assert checks(0) == [True] * 4 and checks(1e6) == [False, True, False, True]
    assert checks(1e6, judge=False) == [None] * 4
