"""The pool without its engines: how well 64 workers share a day's jobs, and what the dispatcher costs for each job.

python -m benchmarks.pool simulate        the choice of jobs against list schedules, in simulated time
python -m benchmarks.pool dispatch        milliseconds that the queue itself takes for a job, in a real table of jobs
python -m benchmarks.pool throughput      clips a minute with one worker and with two, on this machine; on four GPUs:
    --workers 1 4 --model i2v-a14b --scheme fp8 --size 832x480 --synthetic

simulate: jobs of six kinds, all there at the start or arriving over time. Their lengths are chosen, not measured with
this app: 8 and 16 s are what LightX2V alone takes for A14B in fp8 on an H100 (README; with our patches 4.1 and 9.3 s),
96 s is six of the latter, the rest and the seconds that a model loads are guesses, so as to mix short and long.
A list schedule gives the next job of a fixed order to the worker that is free first; the best of four orders
(in turn, longest first, shortest first, by model and longest first) is what ours is held against. A job's fair share is
the work that was ahead of it when it came, divided by the workers.
"""

import argparse
import heapq
import itertools
import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from wan_ui.queue.choice import Seat, Turns, Waiting
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Jobs
from wan_ui.queue.line import Line
from wan_ui.queue.local import Place, make_worker
from wan_ui.queue.pipeline import Pipeline
from wan_ui.queue.worker import ENGINE_FACTORY
from wan_ui.reports import bench
from wan_ui.request import Progress, Request, Result, Sampling
from wan_ui.settings import ROOT, Settings, settings

A14B, TI2V, TINY = ("i2v-a14b", "fp8", "auto"), ("ti2v-5b", "bf16", "auto"), ("wan-tiny", "float32", "auto")
LOADS = {A14B: 60.0, TI2V: 25.0, TINY: 0.5, (): 0.0}  # seconds
# model, seconds, share of the jobs: 480x480, 832x480, 720p, six segments of 832x480, one of the 5B, speech alone
KINDS = ((A14B, 8.0, 8), (A14B, 16.0, 6), (A14B, 50.0, 3), (A14B, 96.0, 1), (TI2V, 30.0, 4), ((), 12.0, 2))


@dataclass(frozen=True)
class Run:
    """makespan: seconds until the last job has ended; starts: job -> second; fair: job -> its fair share, seconds."""

    makespan: float
    starts: dict[str, float]
    fair: dict[str, float]


def mixed_jobs(count: int, seed: int, over: float = 0.0) -> tuple[list[Waiting], dict[str, float]]:
    """Jobs of all kinds, each a little longer or shorter than usual, and the seconds at which they arrive."""
    draw = random.Random(seed)
    kinds = draw.choices(KINDS, [share for *_, share in KINDS], k=count)
    jobs = [
        Waiting(f"{number:05d}", model, (), seconds * draw.uniform(0.8, 1.25), LOADS[model])
        for number, (model, seconds, _) in enumerate(kinds)
    ]
    arrivals = sorted(draw.uniform(0.0, over) for _ in jobs)
    return jobs, {job.id: second for job, second in zip(jobs, arrivals, strict=True)}


def simulate(jobs: list[Waiting], arrivals: dict[str, float], workers: int, error: float = 0.0, seed: int = 0) -> Run:
    """Run them with our choice. error: how wrong the estimates are, 0.5: half as much to one and a half times."""
    draw = random.Random(seed)
    took = {job.id: job.seconds * draw.uniform(1 - error, 1 + error) for job in jobs}
    seats, turns, line, coming = [Seat(f"gpu{n}", loaded=A14B) for n in range(workers)], Turns(), [], list(jobs)
    idle, events = set(range(workers)), [(arrivals[job.id], -1) for job in jobs]
    starts, fair, now, end = {}, {}, 0.0, 0.0
    heapq.heapify(events)
    while events:
        now, number = heapq.heappop(events)
        if number >= 0:
            seats[number].free_at = 0.0
            idle.add(number)
        while coming and arrivals[coming[0].id] <= now:
            job = coming.pop(0)
            ahead = sum(seat.left(now) for seat in seats) + sum(waiting.seconds for waiting in line)
            fair[job.id] = ahead / workers
            line.append(job)
        left = False  # whether a worker has left all jobs to others: then it looks again, as a real one does
        for number in sorted(idle) if line else ():
            seat = seats[number]
            if (job := turns.choose(line, seat, seats, now)) is None:
                left = True
                continue
            line.remove(job)
            load = 0.0 if seat.has(job) else job.load
            seat.loaded = job.model or seat.loaded
            seat.free_at, starts[job.id] = now + load + job.seconds, now
            done = now + load + took[job.id]
            end = max(end, done)
            idle.discard(number)
            heapq.heappush(events, (done, number))
            if not line:
                break
        if left and line and (not events or events[0][0] > now + 0.5):
            heapq.heappush(events, (now + 0.5, -1))
    return Run(end, starts, fair)


def list_schedule(order: list[Waiting], arrivals: dict[str, float], workers: int) -> float:
    """Its makespan: each job of the order goes to the worker that can begin it first, one that has its model if two
    are free at once."""
    free = [(0.0, number, A14B) for number in range(workers)]
    end = 0.0
    for job in order:
        at = max(min(free)[0], arrivals[job.id])
        ready = [one for one in free if one[0] <= at]
        one = next((one for one in ready if one[2] == job.model or not job.model), ready[0])
        free.remove(one)
        done = at + (0.0 if one[2] == job.model or not job.model else job.load) + job.seconds
        free.append((done, one[1], job.model or one[2]))
        end = max(end, done)
    return end


def best_list_schedule(jobs: list[Waiting], arrivals: dict[str, float], workers: int) -> tuple[float, str]:
    """With all jobs known beforehand, though none begins before it arrives."""
    orders = {
        "in turn": lambda job: 0,
        "longest first": lambda job: -job.seconds,
        "shortest first": lambda job: job.seconds,
        "by model, longest first": lambda job: (job.model, -job.seconds),
    }
    return min((list_schedule(sorted(jobs, key=key), arrivals, workers), name) for name, key in orders.items())


def waits(run: Run, arrivals: dict[str, float], least: float) -> float:
    """The longest wait in fair shares; a share under `least` seconds counts as that."""
    return max((run.starts[job] - arrivals[job]) / max(run.fair[job], least) for job in run.starts)


def main_simulate(args: argparse.Namespace) -> None:
    print(f"{args.workers} workers, {args.jobs} jobs; all at once (0) or arriving over so many seconds")
    print("seed  over  best list schedule               ours      ratio  longest wait / fair share")
    for seed in range(args.seeds):
        for over in (0.0, 200.0, 600.0):
            jobs, arrivals = mixed_jobs(args.jobs, seed, over)
            best, name = best_list_schedule(jobs, arrivals, args.workers)
            run = simulate(jobs, arrivals, args.workers, args.error, seed)
            longest = waits(run, arrivals, statistics.mean(job.seconds for job in jobs))
            print(
                f"{seed:4}  {over:4.0f}  {best:7.1f} s, {name:24} {run.makespan:7.1f} s  {run.makespan / best:.3f}"
                f"  {longest:.2f}"
            )


def main_dispatch(args: argparse.Namespace) -> None:
    """Claim, six steps that are marked and asked for a cancel, the end: all that a job costs beside its engine. Then
    tidying, as after every job; the app does it in a thread of its own, and once for the jobs that end meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        clips = outputs / "clips"
        clips.mkdir()
        values = Settings(outputs=outputs, cache=outputs / "cache")
        jobs = Jobs(outputs / "wan_ui.sqlite")
        sampling = Sampling("calm", "wan-tiny", "float32", "auto", 4, 0)
        request = Request("image-to-video", {}, 256, 256, 33, sampling)
        done = Result(clip="clip.mp4", frames=33, fps=16, seconds={"text": 0.1, "denoise": 2.0, "decode": 1.0})
        line = Line(jobs, clips, values, None)
        for number in range(args.workers):
            name = f"cpu{number}"
            worker = make_worker(Place(name), values, "wan_ui.engines.create:create_engine")
            line.sit(name, worker).loaded = ("wan-tiny", "float32", "auto")

        def files(job_id: str) -> None:
            (clips / job_id).mkdir()
            for name in ("clip.mp4", "poster.jpg", "input.png"):
                (clips / job_id / name).write_bytes(bytes(1000))

        for number in range(args.history):
            files(f"old{number:06}")
            jobs.add(f"old{number:06}", "local", request)
            jobs.take(f"old{number:06}")
            jobs.finish(f"old{number:06}", "done", result=done)
        for number in range(args.jobs):
            files(f"job{number:06}")
            jobs.add(f"job{number:06}", f"visitor {number % 7}", request)
        line.collect()
        walls: list[list[float]] = []
        cpus: list[list[float]] = []
        for number in range(args.jobs):
            name = f"cpu{number % args.workers}"
            wall, cpu = [time.perf_counter()], [time.thread_time()]

            def lap(wall: list[float] = wall, cpu: list[float] = cpu) -> None:
                wall.append(time.perf_counter())
                cpu.append(time.thread_time())

            job = line.claim(name)
            assert job is not None
            lap()
            for step in range(1, 7):
                jobs.mark(job.id, Progress("denoise", step, 6))
                jobs.cancelled(job.id)
            lap()
            line.finish(job, "done", "", done)
            line.seats[name].free_at = 0.0
            lap()
            line.collect()
            lap()
            for clock, laps in ((walls, wall), (cpus, cpu)):
                clock.append([1000 * (after - before) for before, after in itertools.pairwise(laps)])
    print(f"{args.workers} workers, {args.jobs} waiting, {args.history} in the history; ms, median of the jobs")
    for clock, laps in (("wall", walls), ("cpu", cpus)):
        each = {
            part: round(statistics.median(values), 2)
            for part, values in zip(("claim", "steps", "end", "tidy"), zip(*laps, strict=True), strict=True)
        }
        job_alone, with_tidy = [sum(lap[:3]) for lap in laps], [sum(lap) for lap in laps]
        sums = {"job": job_alone, "job_and_tidy": with_tidy}
        medians = {name: round(statistics.median(values), 2) for name, values in sums.items()}
        print(json.dumps({"clock": clock, **medians, "p95": round(quantile(with_tidy), 2), **each}))


def quantile(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def main_throughput(args: argparse.Namespace) -> None:
    """Clips with a loaded model, a picture each, from the first that is claimed until the last has ended. Each worker
    makes one beforehand that is not counted. The last line is JSON."""
    paces: dict[int, float] = {}
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            values = replace(
                settings(),
                outputs=Path(folder),
                model=args.model,
                scheme=args.scheme,
                workers=workers,
                gpus="all",
                max_queue=1000,
            )
            draft, factory = Draft({"image": args.picture, "prompt": "calm"}, size=args.size), ENGINE_FACTORY
            if args.synthetic:
                values, draft = bench.lay_out(values, draft, folder, small=bench.at_toy_size(values, draft))
                factory = "wan_ui.qa.synthetic:create_engine"
            pipeline = Pipeline().open(values, engine_factory=factory)
            try:
                while any(runner.model.state != "ready" for runner in pipeline.pool.runners.values()):
                    time.sleep(0.1)
                drafts = [
                    replace(draft, seed=n, inputs=draft.inputs | {"image": bench.shifted(args.picture, n, folder)})
                    for n in range(workers * (1 + args.clips))
                ]
                make(pipeline, drafts[:workers])
                took = make(pipeline, drafts[workers:])
            finally:
                pipeline.close()
        paces[workers] = 60 * workers * args.clips / took
        print(f"{workers} worker(s): {workers * args.clips} clips in {took:.1f} s, {paces[workers]:.2f} a minute")
    least = min(paces)
    gain = {workers: round(pace / paces[least], 2) for workers, pace in paces.items()}
    print(json.dumps({"clips_a_minute": {n: round(pace, 2) for n, pace in paces.items()}, "gain": gain}))


def make(pipeline: Pipeline, drafts: list[Draft]) -> float:
    """Seconds. Ends the program if a job fails."""
    started = time.monotonic()
    for job in [pipeline.wait(job_id) for job_id in [pipeline.submit(draft) for draft in drafts]]:
        if job.state != "done":
            raise SystemExit(f"a job {job.state}: {job.error}")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(required=True)
    mode = modes.add_parser("simulate")
    mode.add_argument("--workers", type=int, default=64)
    mode.add_argument("--jobs", type=int, default=1000)
    mode.add_argument("--seeds", type=int, default=5)
    mode.add_argument("--error", type=float, default=0.0, help="how wrong the estimates are: 0.4 is 60 to 140%%")
    mode.set_defaults(run=main_simulate)
    mode = modes.add_parser("dispatch")
    mode.add_argument("--workers", type=int, default=8)
    mode.add_argument("--jobs", type=int, default=100)
    mode.add_argument("--history", type=int, default=200)
    mode.set_defaults(run=main_dispatch)
    mode = modes.add_parser("throughput")
    mode.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    mode.add_argument("--clips", type=int, default=4, help="of each worker")
    mode.add_argument("--picture", default=str(ROOT / "assets" / "examples" / "cat.jpg"), metavar="FILE")
    mode.add_argument("--model", default="wan-tiny")
    mode.add_argument("--scheme", default="")
    mode.add_argument("--size", default="", metavar="WxH")
    mode.add_argument("--synthetic", action="store_true", help="random weights of full size, drawn on each GPU")
    mode.set_defaults(run=main_throughput)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
