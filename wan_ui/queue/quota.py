"""Keeping the outputs folder in order: each owner within the quota, and no leftovers.

The oldest ended jobs of an owner go first; the newest clip of each, and jobs that wait or run, never do. Visitors of a
shared address, each of whom is as many owners as they like, have a quota together, which spares jobs that wait or run
alone. Of entries without a clip each owner keeps so many, and all visitors together. Those with a
star do not count for their owner, and stay; with visitors together they count, and go last.
Folders that no job belongs to (strays: a table that was lost, a deletion that was cut short) count against
nobody. Those without a clip are removed; those with one are an owner of their own, the oldest going first.
What was measured of the folder of an ended job holds until something comes into it or goes.
"""

import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from wan_ui import limits
from wan_ui.queue.jobs import ID, Jobs
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

BEGUN = ".begun"  # in a folder whose job is not in the table yet
DAY = 86400.0  # seconds
ABANDONED = 3600.0  # seconds after which it never will be


CACHED = 86_400.0  # seconds for which what was used stays in the cache

# name of an ended job's folder -> when it had changed (nanoseconds), its size, whether it holds a finished MP4
Measured = dict[str, tuple[int, int, bool]]
SETTLED = 2e9  # nanoseconds: a folder that has changed since may change again without another time


@dataclass(frozen=True)
class Outlook:
    """What an owner's clips take, of how much, and which go next. bytes: without those that have a star."""

    bytes: int
    most: float
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """A folder of an ended job or a stray. age: seconds; has_clip: whether it holds a finished MP4."""

    name: str
    age: float
    size: int
    has_clip: bool


def begin(folder: Path) -> None:
    """Make the folder of a job that is about to be stored: it is no stray."""
    part = folder.with_name(f".{folder.name}.part")  # under its own name it is never without the mark
    part.mkdir(parents=True)
    (part / BEGUN).touch()
    part.rename(folder)


def settle(folder: Path) -> None:
    """Its job is in the table now."""
    (folder / BEGUN).unlink(missing_ok=True)


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            total += path.lstat().st_size
    return total


def prune(
    clips: Path,
    jobs: Jobs,
    settings: Settings,
    announce: bool = False,
    measured: Measured | None = None,
    outlooks: dict[str, Outlook] | None = None,
) -> list[str]:
    """Delete what is beyond max_outputs_gb or older than max_output_days (0: no limit), half-written files of
    ended jobs, and strays without a clip; the names of the folders that went. announce: name the strays that stay.
    measured: of the time before; brought up to date. outlooks: of each owner, filled in."""
    measured = {} if measured is None else measured
    # In this order: a folder that has not begun has its row already, or is a stray.
    folders = [path for path in clips.iterdir() if path.is_dir() and not path.is_symlink() and not begun(path)]
    rows = jobs.briefs()
    known, now = {job.id for job in rows}, time.time()
    entries: dict[str, list[_Entry]] = {}
    starred: list[_Entry] = []  # of visitors
    held: dict[str, int] = {}  # bytes of jobs that wait or run
    for job in rows:
        if job.active:
            held[job.owner] = held.get(job.owner, 0) + folder_bytes(clips / job.id)
        else:
            entry = _ended(clips / job.id, now - job.since, measured)
            if not job.star:
                entries.setdefault(job.owner, []).append(entry)
            elif job.owner != "local":
                starred.append(entry)
    strays, gone = [], []
    for path in sorted((path for path in folders if path.name not in known), key=_changed):
        sweep(path)
        stray = _entry(path, now - _changed(path))
        if stray.has_clip or not ID.fullmatch(stray.name.removeprefix(".").removesuffix(".part")):
            strays.append(stray)
        else:
            shutil.rmtree(path, ignore_errors=True)
            gone.append(stray.name)
    if gone:
        log.warning("%d folder(s) in %s belonged to no job and held no clip: removed", len(gone), clips)
    for owner, mine in entries.items():
        newest = next((entry.name for entry in reversed(mine) if entry.has_clip), "")
        gone += _prune_owner(clips, jobs, settings, mine, held.get(owner, 0), newest)
    gone += _prune_owner(clips, jobs, settings, strays, 0, "")
    went = set(gone)
    visitors = sorted(
        (entry for owner, mine in entries.items() if owner != "local" for entry in mine if entry.name not in went),
        key=lambda entry: -entry.age,
    )
    of_visitors = sum(size for owner, size in held.items() if owner != "local")
    visitors += starred  # they go last
    gone += _remove(clips, jobs, _over(visitors, of_visitors, settings.max_visitors_gb, ""))
    for mine, most in (
        *((mine, limits.FAILED_ENTRIES) for mine in entries.values()),
        (visitors, limits.VISITORS_FAILED_ENTRIES),
    ):
        went = set(gone)
        failed = [entry for entry in mine if not entry.has_clip and entry.name not in went]
        gone += _remove(clips, jobs, failed[: max(0, len(failed) - most)])
    if outlooks is not None:
        outlooks.clear()
        for owner, mine in entries.items():
            outlooks[owner] = _outlook([entry for entry in mine if entry.name not in set(gone)], held, owner, settings)
    for name in measured.keys() - (known - set(gone)):
        del measured[name]
    left = [stray for stray in strays if stray.name not in gone]
    if left and announce:
        names, size = ", ".join(stray.name for stray in left), sum(stray.size for stray in left) / 1e6
        log.warning("%d folder(s) in %s belong to no job (%.1f MB): %s", len(left), clips, size, names)
    return gone


def _outlook(mine: list[_Entry], held: dict[str, int], owner: str, settings: Settings) -> Outlook:
    """With one more clip as large as they are, or a day later."""
    clips = [entry.size for entry in mine if entry.has_clip]
    newest = next((entry.name for entry in reversed(mine) if entry.has_clip), "")
    usual = sum(clips) // max(1, len(clips))
    leaving = [entry.name for entry in _over(mine, held.get(owner, 0) + usual, settings.max_outputs_gb, newest)]
    oldest = settings.max_output_days * 86400 or float("inf")
    leaving += [entry.name for entry in mine if entry.age + DAY > oldest and entry.name not in leaving]
    return Outlook(sum(entry.size for entry in mine), settings.max_outputs_gb * 1e9, tuple(leaving))


def _prune_owner(
    clips: Path, jobs: Jobs, settings: Settings, entries: list[_Entry], held: int, newest: str
) -> list[str]:
    """`entries`: oldest first; `newest`: the one that the quota leaves alone."""
    oldest = settings.max_output_days * 86400 or float("inf")
    old = [entry for entry in entries if entry.age > oldest]
    kept = [entry for entry in entries if entry.age <= oldest]
    return _remove(clips, jobs, [*old, *_over(kept, held, settings.max_outputs_gb, newest)])


def _over(entries: list[_Entry], held: int, most_gb: float, newest: str) -> list[_Entry]:
    """Those that go for the others to be within the quota."""
    total, over = held + sum(entry.size for entry in entries), []
    for entry in entries:
        if most_gb and total > most_gb * 1e9 and entry.name != newest:
            total -= entry.size
            over.append(entry)
    return over


def _remove(clips: Path, jobs: Jobs, entries: list[_Entry]) -> list[str]:
    for entry in entries:
        jobs.delete(entry.name)
        shutil.rmtree(clips / entry.name, ignore_errors=True)
    if entries:
        log.info("quota: removed %d old job(s)", len(entries))
    return [entry.name for entry in entries]


def prune_cache(folder: Path, most_gb: float) -> list[str]:
    """Delete what was longest unused in the folder of derived files beyond `most_gb` (0: no limit), but nothing of the
    last day; the names of what went. What is missing is made again."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()] if most_gb else []
    except OSError:
        return []
    sizes = {path: folder_bytes(path) for path in found}
    total, gone, now = sum(sizes.values()), [], time.time()
    for path in sorted(found, key=_changed):
        if total > most_gb * 1e9 and now - _changed(path) > CACHED:
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]
            gone.append(path.name)
    if gone:
        log.info("cache: removed %s", ", ".join(gone))
    return gone


def _ended(folder: Path, age: float, measured: Measured) -> _Entry:
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:  # deleted
        measured.pop(folder.name, None)
        return _Entry(folder.name, age, 0, False)
    known = measured.get(folder.name)
    if known is None or known[0] != changed:
        sweep(folder)
        entry = _entry(folder, age)
        measured.pop(folder.name, None)
        if time.time_ns() - changed > SETTLED:
            measured[folder.name] = changed, entry.size, entry.has_clip
        return entry
    return _Entry(folder.name, age, *known[1:])


def _entry(folder: Path, age: float) -> _Entry:
    return _Entry(folder.name, age, folder_bytes(folder), any(folder.glob("*.mp4")))


def sweep(folder: Path) -> None:
    """Remove what a writer that was killed has left half-written."""
    for path in folder.glob(".*.part*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def begun(folder: Path) -> bool:
    named = folder.name.startswith(".") and folder.name.endswith(".part")  # see `begin`
    return (named or (folder / BEGUN).exists()) and abs(time.time() - _changed(folder)) < ABANDONED
