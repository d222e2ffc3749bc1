"""What must hold when a soak is over: of the jobs, of their files, of the processes."""

import contextlib
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.soak_app import App, Sample, Watch, until
from benchmarks.soak_faults import Faults
from benchmarks.soak_users import World
from wan_ui.media import muxer
from wan_ui.queue.check import check
from wan_ui.queue.jobs import ENDED, Job, Jobs

GROWTH = 1.10  # of memory since the warm-up
WARM = 10  # jobs after which the page is warm
CLIPS = 20  # in each half of the run, with fewer nothing is said of the workers' memory
LIKE = 0.6  # correlation of a clip's first frame with its picture


@dataclass(frozen=True)
class Check:
    """holds: None where too little was seen to say."""

    name: str
    holds: bool | None
    words: str


def verdict(app: App, world: World, watch: Watch, faults: Faults, judge: bool) -> list[Check]:
    """judge: also what a short run is too short for, memory, file handles and the log; else it is only shown."""
    jobs = Jobs(app.outputs / "wan_ui.sqlite")
    rows = jobs.all()
    return [
        *of_jobs(rows, world, watch),
        *of_files(app, rows, world),
        *of_eyes(rows, world),
        of_waits(rows),
        *of_processes(watch.samples, judge),
        *of_the_app(app, faults, judge),
    ]


def listed(words: list[str], of: int | str) -> str:
    """The first few of what is wrong; else of how many it holds."""
    return f"{len(words)}: " + "; ".join(words[:5]) if words else f"{of}"


def of_jobs(rows: list[Job], world: World, watch: Watch) -> list[Check]:
    states, times = {job.id: job.state for job in rows}, Counter(job.id for job in rows)
    accepted = {*world.asked, *watch.states, *states, *(job for jobs in world.shown.values() for job in jobs)}
    wrong = [f"{job} is there {times[job]} times" for job in accepted if times[job] != 1]
    wrong += [f"{job} is {state}" for job, state in states.items() if state not in ENDED]
    for job, seen in watch.states.items():
        ends = [state for state in seen if state in ENDED]
        if len(ends) != 1:
            wrong.append(f"{job} was {', '.join(seen)}")
    wrong += [
        f"{job} was said to be {asked.state}, it is {states.get(job)}"
        for job, asked in world.asked.items()
        if asked.state in ENDED and asked.state != states.get(job)
    ]
    bugs = [f"{job.id}: {job.error}" for job in rows if "Unexpected" in job.error]
    silent = [f"{job.id} is {job.state}" for job in rows if job.state in ("failed", "interrupted") and not job.error]
    return [
        Check("every accepted job is in exactly one final state", not wrong, listed(wrong, len(accepted))),
        Check("what has failed says why, and not by an unexpected error", not bugs + silent, listed(bugs + silent, "")),
    ]


def of_files(app: App, rows: list[Job], world: World) -> list[Check]:
    done, wrong = [job for job in rows if job.state == "done"], []
    for job in done:
        asked, made = world.asked.get(job.id), job.request.made_with
        if asked is None or made is None:
            continue
        loras = [f"{one.file}:{one.strength:g}:{one.target}" for one in made.loras]
        ours = (asked.prompt, asked.seed, asked.steps, asked.frames, asked.loras)
        if (made.prompt, made.seed, made.steps, job.request.frames, loras) != ours:
            wrong.append(f"{job.id} was made of {made}, asked for was {asked}")
    found = check(app.outputs)  # every clip is decoded, and what it carries is held against its entry
    files = ("leftover", "no-entry")
    wrong += [f"{one.place} {one.words}" for one in found if one.kind not in files]
    unlike = {job.id: likeness(app.outputs / "clips" / job.id, job) for job in done}
    others = [f"{job} is like its picture by {value:.2f}" for job, value in unlike.items() if value < LIKE]
    strays = [f"{one.place} {one.words}" for one in found if one.kind in files]
    left = [
        path.name for path in sorted(app.temporary.iterdir()) if not path.name.startswith("torchinductor_")
    ]  # torch's
    strays += [f"{name} in the folder for temporary files" for name in left]
    least = min(unlike.values(), default=0.0)
    return [
        Check(
            "every finished clip plays and carries its own request", bool(done) and not wrong, listed(wrong, len(done))
        ),
        Check(
            "every clip begins with its own picture", not others, listed(others, f"correlation {least:.2f} at least")
        ),
        Check("no file without a job", not strays, listed(strays, "")),
    ]


def likeness(folder: Path, job: Job) -> float:
    """Correlation of the first frame with the picture that the job has kept, both small and grey."""
    picture = folder / Path(job.request.inputs.get("image", "input.png")).name
    frames, _ = muxer.read_frames(folder / job.result.clip)
    small = [
        np.asarray(image.convert("L").resize((24, 24))) for image in (Image.fromarray(frames[0]), Image.open(picture))
    ]
    return float(np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1])


def of_eyes(rows: list[Job], world: World) -> list[Check]:
    """By whom each job was seen; the users themselves have looked at prompts, seeds and clips."""
    owners = {job.id: job.owner for job in rows}
    wrong = list(world.seen)
    for user, jobs in world.shown.items():
        mine = {owners[job] for job in jobs if job in owners}
        if len(mine) > 1:
            wrong.append(f"the page of {user} has shown jobs of {len(mine)} owners")
    programs: dict[str, set[str]] = {}
    for job, asked in world.asked.items():
        programs.setdefault(owners.get(job, ""), set()).add(asked.user)
    wrong += [f"{users} share an owner" for owner, users in programs.items() if owner and len(users) > 1]
    looked = sum(
        world.counts[name] for name in ("clips looked at", "histories looked at", "looks at another's job, refused")
    )
    return [
        Check("nobody saw another's result", bool(looked) and not wrong, listed(wrong, f"{looked} looks")),
        Check("every answer was one to expect", not world.wrong, listed(world.wrong, "")),
    ]


def of_waits(rows: list[Job]) -> Check:
    """In turns, one job of each person: the share of one's n-th job is n of each person who was there. Counted in jobs
    that have begun meanwhile, not in seconds."""
    waits = {}
    for job in rows:
        if job.started is None:
            continue
        meanwhile = [
            one for one in rows if one.id != job.id and one.started and job.created < one.started < job.started
        ]
        there = [one for one in rows if one.created < job.started and (one.finished or job.started) > job.created]
        own = sum(one.owner == job.owner and one.created <= job.created for one in there)
        waits[job.id] = len(meanwhile) / (own * len({one.owner for one in there}))
    wrong = [f"{job} waited {share:.1f} fair shares" for job, share in waits.items() if share > 2]
    most = max(waits.values(), default=0.0)
    return Check(
        "nobody waited more than twice their fair share",
        bool(waits) and not wrong,
        listed(wrong, f"{most:.2f} at most"),
    )


def of_processes(samples: list[Sample], judge: bool) -> list[Check]:
    """The page that lived longest: a fifth of its life after its warm-up, and the last fifth. Workers are killed all
    the time, and a voice makes one larger: the most that any took while the first half of the clips was made, and the
    second."""
    lives: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        lives.setdefault((sample.kind, sample.pid), []).append(sample)
    page = max((life for (kind, _), life in lives.items() if kind == "page"), key=len, default=[])
    page = [one for one in page if one.ended >= page[0].ended + WARM]
    fifth = len(page) // 5
    warm = [one for (kind, _), life in lives.items() if kind == "worker" for one in life if one.done > life[0].done]
    half = max((one.done for one in warm), default=0) / 2
    halves = [[one for one in warm if (one.done > half) == later] for later in (False, True)]
    return [
        *compared("page", page[:fifth], page[-fifth:], statistics.median, judge and fifth >= 10),
        *compared("workers", *halves, max, judge and half >= CLIPS),
    ]


def compared(
    name: str, first: list[Sample], last: list[Sample], value: Callable[[list[int]], float], judge: bool
) -> list[Check]:
    if not first or not last:
        return [Check(f"memory and file handles of the {name}", None, "too short to say")]
    before, after = (value([one.bytes for one in part]) / 1e6 for part in (first, last))
    opened, open_still = (max(one.handles for one in part) for part in (first, last))
    grown, more = after > GROWTH * before, open_still > GROWTH * opened + 5
    words = f"{before:.0f} MB after the warm-up, {after:.0f} at the end", f"{opened} at most, {open_still} at the end"
    return [
        Check(f"memory of the {name} has grown by a tenth at most", not grown if judge else None, words[0]),
        Check(f"file handles of the {name} are flat", not more if judge else None, words[1]),
    ]


def of_the_app(app: App, faults: Faults, judge: bool) -> list[Check]:
    with contextlib.suppress(TimeoutError):
        until(lambda: not app.all_processes(), "they end", 60)  # an ffmpeg of a killed worker sees it late
    left = [f"{one.pid} {' '.join(one.cmdline())[:80]}" for one in app.all_processes()]
    idle = faults.unrecovered
    lines = app.words().splitlines()
    # Of a picture that cannot be decoded there is one for who looks into the log.
    begins = [at for at, line in enumerate(lines) if line.startswith("Traceback") and "INFO" not in lines[at - 1]]
    bugs = [next((line for line in lines[at + 1 :] if line[:1] not in (" ", "")), "") for at in begins]
    return [
        Check("clips were made after every fault", not idle, listed(idle, sum(faults.done.values()))),
        Check("no process is left", not left, listed(left, "")),
        Check("no traceback in the app's log", not bugs if judge else None, listed(bugs, "")),
    ]
