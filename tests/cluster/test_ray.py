"""Jobs on two nodes of a real Ray cluster, with the scripted engine: the clip, a cancel, and what is killed."""

import hashlib
import importlib.util
import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from tests.cluster.ray_nodes import Nodes, folder_of
from tests.queue.test_worker_faults import FACTORY, until
from tests.scripted_engine import go_on
from wan_ui.cluster.cluster import Cluster
from wan_ui.cluster.versions import RAY_MISSING, versions
from wan_ui.queue.draft import Draft
from wan_ui.queue.pipeline import Pipeline

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason=RAY_MISSING)
LEASE = 8.0  # seconds; a frozen node is given up after them


@contextmanager
def page(settings):
    """A page's queue without workers of its own."""
    pipeline = Pipeline().open(settings, engine_factory=FACTORY)
    cluster = Cluster(settings, pipeline.pool, FACTORY, LEASE)
    cluster.start()
    try:
        yield pipeline, cluster
    finally:
        pipeline.close()
        cluster.close()


def latents_of(seed: int) -> str:
    """What the scripted engine makes on any machine."""
    latents = np.random.default_rng(seed).standard_normal((16, 2, 8, 8), np.float32)
    return hashlib.sha256(latents.tobytes()).hexdigest()


def test_jobs_of_two_nodes_end_once_and_right_whatever_is_killed(scripted_settings, picture):
    settings = replace(scripted_settings, gpus="none")
    nodes = Nodes(settings)
    try:
        first = nodes.add("one")
        nodes.add("old", **{"version.Wan-UI": "0.0.9"})
        with page(replace(settings, ray=nodes.address)) as (pipeline, cluster):
            walk(pipeline, cluster, nodes, first, settings, picture)
    finally:
        nodes.close()


def walk(pipeline, cluster, nodes, first, settings, picture):
    def submit(prompt, **fields):
        return pipeline.submit(Draft({"image": str(picture), "prompt": prompt}, **fields))

    def holds(job, worker=None):
        """It runs (there) and has said that it is in the step in which it holds."""

        def there():
            row = pipeline.job(job)
            where = (row.state, row.progress.stage, row.progress.step)
            return where == ("running", "denoise", 2) and worker in (None, row.worker)

        until(there)
        return pipeline.job(job).worker

    def there(*names):
        until(lambda: sorted(name for name, one in cluster.workers.items() if one.alive()) == sorted(names))
        until(lambda: sorted(pipeline.pool.runners) == sorted(names))

    until(lambda: cluster.refused)
    assert list(cluster.refused.values()) == [f"Wan UI 0.0.9 there, {versions()['Wan UI']} here"]
    assert any("old" in words and "0.0.9" in words for words in pipeline.pool.troubles)
    there("one/0")
    nodes.add("two")  # joins later, and gets jobs

    # Two at once, one on each; the clip is that of one machine.
    jobs = [submit("denoise:2=hold", seed=5), submit("denoise:2=hold", seed=6)]
    assert {holds(job) for job in jobs} == {"one/0", "two/0"}
    go_on([folder_of(settings, "one/0"), folder_of(settings, "two/0")])
    for seed, job in zip((5, 6), map(pipeline.wait, jobs), strict=True):
        assert (job.state, job.error, job.result.latents_sha256) == ("done", "", latents_of(seed))
        assert pipeline.clip(job).stat().st_size > 500 and pipeline.poster(job).is_file()

    # A cancel is heard within the step.
    job = submit("denoise:2=hold")
    holds(job)
    pipeline.cancel(job)
    assert pipeline.wait(job).state == "cancelled"

    # The child's death is the job's.
    ended = pipeline.wait(submit("denoise:3=kill"))
    assert ended.state == "failed" and "SIGKILL" in ended.error and "denoise step 3/4" in ended.error
    assert f"(on {ended.worker})" in ended.error

    # An actor's is not: the job goes back in line once, and is done elsewhere.
    job = submit("denoise:2=hold", seed=7)
    lost = holds(job)
    os.kill(cluster.workers[lost].pid, signal.SIGKILL)
    until(lambda: pipeline.job(job).lost)
    assert f"{lost} at " in pipeline.job(job).lost and "during denoise step 2/4" in pipeline.job(job).lost
    again = holds(job)  # and it fails with the second
    os.kill(cluster.workers[again].pid, signal.SIGKILL)
    ended = pipeline.wait(job)
    assert ended.state == "failed" and ended.error.count("was lost during denoise step 2/4") == 2
    there("one/0", "two/0")

    # A node that is frozen for longer than a lease is given up; what it makes afterwards is nobody's.
    jobs = [submit("denoise:2=hold", seed=8), submit("denoise:2=hold", seed=9)]
    mine = {holds(job): job for job in jobs}["one/0"]
    first.kill_raylet()  # and with it the node's actor
    until(lambda: pipeline.job(mine).lost)
    there("two/0")
    until(lambda: (folder_of(settings, "two/0") / "input.png").exists())
    go_on([folder_of(settings, "two/0")])
    holds(mine, "two/0")
    go_on([folder_of(settings, "two/0")])
    for seed, job in zip((8, 9), map(pipeline.wait, jobs), strict=True):
        assert (job.state, job.result.latents_sha256) == ("done", latents_of(seed))

    # The dispatcher dies in the middle of a job: another goes on.
    job = submit("denoise:2=hold", seed=10)
    holds(job, "two/0")
    cluster.dispatcher.kill()
    until(lambda: pipeline.job(job).lost)
    holds(job, "two/0")
    go_on([folder_of(settings, "two/0")])
    assert (pipeline.wait(job).state, pipeline.job(job).result.latents_sha256) == ("done", latents_of(10))
