"""Whether the job table and the files of the outputs folder agree: what is missing, damaged, left over or unlike.

Nothing is changed here; wan_ui.queue.repair mends what is found. An app may be at work meanwhile: what waits or runs is
left out, and so is a folder that has just been made.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from wan_ui import stored
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.queue import quota
from wan_ui.queue.backup import TABLE
from wan_ui.queue.jobs import ID, Job, Jobs, TableError
from wan_ui.queue.schema import NewerTable
from wan_ui.tasks import FILES

FIRST = ("prompt", "model", "scheme", "width", "height", "frames", "steps", "seed")  # every version has written them
OURS = ("clip.mp4", "silent.mp4", "poster.jpg", *FILES.values())  # what a job's folder may hold, named or not


class Kind(NamedTuple):
    """title: what was found, after its number; repair: what can be done, "" for nothing."""

    title: str
    repair: str


# In the order in which they are repaired: what comes first may make or settle what comes after.
KINDS = {
    "table": Kind("the job table is damaged or missing", "move it aside and begin a new one, from the clips' settings"),
    "nameless": Kind("entries without a right id", "move them aside"),
    "unread": Kind("entries that are not read in full", ""),
    "no-entry": Kind("folders with a clip that no entry names", "make entries from the settings in the clips"),
    "no-clip": Kind("entries whose clip is missing", "move them aside, with what is left of their files"),
    "no-input": Kind("jobs in line whose files are missing", "let them fail, with the reason"),
    "lost-input": Kind("entries whose picture, voice or video is missing", "let them forget it; the clips stay"),
    "damaged": Kind("clips that are damaged", "move the files aside; the entries say so"),
    "silent": Kind("clips before speech that are damaged or missing", "move them aside; the clips stay"),
    "size": Kind("clips of another length or size than their entries say", "let the entries say what the clips are"),
    "metadata": Kind("clips whose settings are missing or not those of their entries", "write them again"),
    "poster": Kind("preview pictures that are damaged or missing", "make them again"),
    "leftover": Kind("files that belong to nothing", "move them aside"),
}


@dataclass(frozen=True)
class Finding:
    """kind: of KINDS; place: a job's id, its number in the table where it has none, or a path in the outputs folder."""

    kind: str
    place: str
    words: str


def check(outputs: Path, quick: bool = False, report: Callable[[str], None] = lambda words: None) -> list[Finding]:
    """All that is wrong, in the order of KINDS. quick: clips are not decoded.

    Raises UserError when there is nothing to look at, or the table is of a newer version.
    """
    clips = outputs / "clips"
    if not (outputs / TABLE).is_file() and not clips.is_dir():
        raise UserError(f"outputs: there are no jobs in {outputs}; set WAN_UI_OUTPUTS to the folder of the app")
    if not (outputs / TABLE).is_file():
        return [Finding("table", TABLE, "is not there")]
    # In this order: a folder that has not begun has its row already, or is a stray.
    places = sorted(path for path in clips.iterdir() if not quota.begun(path)) if clips.is_dir() else []
    try:
        with closing(Jobs(outputs / TABLE)) as jobs:
            if words := jobs.trouble():
                return [Finding("table", TABLE, words)]
            found = list(_rows(jobs, clips, quick, report))
            known = {job.id: job.active for job in jobs.briefs()}
            for path in places:
                found += _place(path, known)
    except NewerTable:
        raise
    except TableError as error:
        return [Finding("table", TABLE, str(error))]
    return sorted(found, key=lambda one: (list(KINDS).index(one.kind), one.place))


def _rows(jobs: Jobs, clips: Path, quick: bool, report: Callable[[str], None]) -> Iterator[Finding]:
    for number, row in jobs.nameless().items():
        yield Finding("nameless", str(number), f"its id is {row['id']!r}")
    names = [brief.id for brief in jobs.briefs()]
    for count, job_id in enumerate(names, start=1):
        report(f"job {count} of {len(names)}")
        found = list(_row(jobs.get(job_id), clips, quick))
        if found and jobs.get(job_id) is not None:  # else it was deleted while it was looked at
            yield from found


def _row(job: Job | None, clips: Path, quick: bool) -> Iterator[Finding]:
    if job is None or job.state == "running":
        return
    folder = clips / job.id
    if job.unread:
        yield Finding("unread", job.id, job.unread)
    lost = [name for name, path in job.request.inputs.items() if not (folder / Path(path).name).is_file()]
    if lost and job.state == "queued":
        yield Finding("no-input", job.id, f"it waits in line, but its {_list(lost)} is gone")
    if job.state == "queued":
        return
    if job.state == "done":
        if lost:
            yield Finding("lost-input", job.id, f"its {_list(lost)} is gone")
        yield from _clip(job, folder, quick)


def _clip(job: Job, folder: Path, quick: bool) -> Iterator[Finding]:
    clip = folder / job.result.clip
    if not clip.is_file():
        yield Finding("no-clip", job.id, f"{job.result.clip} is not there")
        return
    try:
        frames, *size = muxer.examine(clip, quick)
    except UserError as error:
        yield Finding("damaged", job.id, error.words)
        return
    if unlike := differences(job, frames, size):
        yield Finding("size", job.id, unlike)
    if words := _metadata(job, clip):
        yield Finding("metadata", job.id, words)
    if words := _poster(folder / job.result.poster):
        yield Finding("poster", job.id, f"{job.result.poster} {words}")
    silent = job.result.silent
    if silent == "silent.mp4" or (silent and not (folder / silent).is_file()):  # else it is as somebody gave it
        try:
            if silent != clip.name:
                muxer.examine(folder / silent, quick)
        except UserError as error:
            yield Finding("silent", job.id, error.words)


def differences(job: Job, frames: int, size: list[int]) -> str:
    """Of a clip and its entry, in words; "" for none."""
    made, asked = f"{size[0]}x{size[1]}", f"{job.request.width}x{job.request.height}"
    words = [f"{made} where {asked} was made"] if made != asked and job.request.width else []
    said = job.result.frames
    words += [f"{frames} frames where {said} were made"] if said is not None and said != frames else []
    return ", ".join(words)


def _metadata(job: Job, clip: Path) -> str:
    try:
        values = muxer.read_metadata(clip)
    except UserError as error:
        return error.words
    read, _ = stored.read_request(json.dumps(values))
    theirs, ours = read.public(), job.request.public()
    wrong = [name for name in ours if (name in values or name in FIRST) and theirs.get(name) != ours[name]]
    return f"{_list(wrong)} {'is' if len(wrong) == 1 else 'are'} not as in the entry" if wrong else ""


def _poster(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        return "is not there"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot be read ({error})"
    return ""


def _place(path: Path, known: dict[str, bool]) -> Iterator[Finding]:
    """What lies in the folder of clips. known: id of an entry -> whether it waits or runs"""
    name = f"clips/{path.name}"
    if path.is_symlink() or not path.is_dir():
        yield Finding("leftover", name, "lies beside the jobs' folders")
    elif path.name not in known:
        if ID.fullmatch(path.name) and any(path.glob("*.mp4")):
            yield Finding("no-entry", path.name, "has a clip and no entry")
        else:
            yield Finding("leftover", name, "belongs to no job and holds no clip")
    elif not known[path.name]:
        for inner in sorted(path.iterdir()):
            if inner.is_symlink() or inner.is_dir() or not _belongs(inner.name):
                yield Finding("leftover", f"{name}/{inner.name}", "is no file of this job")


def _belongs(name: str) -> bool:
    """Whether it may lie in a job's folder: its inputs may have a suffix of their own."""
    stems = {Path(known).stem for known in OURS}
    return name in OURS or (not name.startswith(".") and (Path(name).stem in stems or name.endswith("-frames.npz")))


def _list(names: list[str]) -> str:
    return ", ".join(names)
