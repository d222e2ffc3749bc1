"""A copy of the outputs folder's jobs and clips while the app runs, and the way back.

A backup is laid out as the outputs folder is: clips/JOB/FILE, and the job table, which also lists every file with its
size and checksum. The table comes last, by one rename: a folder without it is no backup yet, and one that is brought up
to date is the backup of the time before until then. So nothing is half: files are only added before, those that have
changed wait beside their old ones, and what is gone is removed after.

Uploads that wait, the cache and half-written files are left out. A job that runs is copied as one that runs, with its
inputs: it is interrupted once the backup is restored.
"""

import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from wan_ui import __version__, locks, system
from wan_ui.errors import UserError
from wan_ui.place import COMMAND
from wan_ui.queue.jobs import ID, Job, Jobs, TableError

TABLE = "wan_ui.sqlite"
LOCK, APP_LOCK = ".backup.lock", ".lock"
UNFINISHED = "NOT-FINISHED.txt"
WORDS = "A backup of Wan UI is being written here, or was cut short. Run the same command again to finish it.\n"
SET_ASIDE = "set-aside"  # in the outputs folder: what was moved out of the way, in a folder for each time
LISTED = """
CREATE TABLE backup_files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, sha256 TEXT NOT NULL
);
CREATE TABLE backup_made (at REAL NOT NULL, wan_ui TEXT NOT NULL);
"""
CHUNK = 1 << 20
Report = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """As the backup's table lists it. path: clips/JOB/NAME; changed: nanoseconds since the epoch."""

    path: str
    size: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Done:
    """jobs, files: that are in the backup, or were restored; copied: bytes that were written for it; bad: files of a
    backup that are missing or damaged, and in which way."""

    jobs: int
    files: int
    copied: int
    bad: tuple[str, ...] = ()


class _Unreadable(Exception):
    """A file that was to be copied; says why."""


def backup(outputs: Path, target: Path, report: Report = lambda words: None) -> Done:
    """Copy the jobs and clips of `outputs` into `target`, a new or empty folder or an earlier backup.

    Raises UserError; a backup that was there stays whole.
    """
    if not (outputs / TABLE).is_file():
        raise UserError(f"outputs: there is no job table in {outputs}; set WAN_UI_OUTPUTS to the folder of the app")
    _check_apart(outputs, target)
    with _said(target), _held(target):
        writer = _Writer(outputs, target, _known(target))
        jobs = Jobs(outputs / TABLE)
        (target / UNFINISHED).write_text(WORDS, encoding="utf-8")
        ended = [job.id for job in jobs.briefs() if not job.active]
        for number, job_id in enumerate(ended, start=1):  # most of the bytes, so that little is left after the table
            report(f"job {number} of {len(ended)}")
            writer.copy(job_id)
        part = target / f".{TABLE}.part"
        part.unlink(missing_ok=True)
        jobs.copy_to(part)
        with closing(Jobs(part)) as copied:
            rows = copied.all()
        for job in rows:
            writer.copy(job.id, _inputs(job))
        left = {job.id for job in jobs.briefs()}
        gone = [job.id for job in rows if job.id not in left]  # deleted since: its files were going while others came
        jobs.close()
        listed = writer.listed({job.id for job in rows} - set(gone))
        count = _seal(part, listed, gone)
        os.replace(part, target / TABLE)
        system.flush(target)
        _settle(target, listed)
        (target / UNFINISHED).unlink()
    return Done(count, len(listed), writer.bytes)


def restore(source: Path, outputs: Path, aside: bool = False, report: Report = lambda words: None) -> Done:
    """Copy a backup into an outputs folder without jobs of its own; every file is held against its checksum.

    aside  jobs that are there are moved into a folder of their own first

    Raises UserError; until the end `outputs` has no job table.
    """
    listed = _listed(source / TABLE)
    if listed is None:
        words = "a backup that was not finished" if (source / UNFINISHED).exists() else "no backup"
        raise UserError(f"{source}: {words} is there; `{COMMAND} backup {source}` makes one")
    _check_apart(source, outputs)
    with _said(outputs):
        outputs.mkdir(parents=True, exist_ok=True)
        lock = locks.take(outputs / APP_LOCK)
        if lock is None:
            raise UserError(f"outputs: a Wan UI is using {outputs}; stop it first")
        with lock:
            _make_room(outputs, aside)
            _check_disk(outputs, sum(file.size for file in listed))
            bad = []
            for number, file in enumerate(listed, start=1):
                report(f"file {number} of {len(listed)}")
                if words := _take_back(source, outputs, file):
                    bad.append(f"{file.path}: {words}")
            part = outputs / f".{TABLE}.part"
            part.unlink(missing_ok=True)
            with closing(_read_only(source / TABLE)) as db, closing(sqlite3.connect(part)) as copied:
                db.backup(copied)
                copied.executescript("DROP TABLE backup_files; DROP TABLE backup_made;")
                count: int = copied.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
            system.flush(part)
            os.replace(part, outputs / TABLE)
            system.flush(outputs)
    return Done(count, len(listed) - len(bad), sum(file.size for file in listed), tuple(bad))


# ---------------------------------------------------------------- the folder of a backup


def _known(target: Path) -> dict[str, File]:
    """The files of the backup that is there already. Raises UserError for a folder of something else."""
    there = {path.name for path in target.iterdir()} - {LOCK}
    if TABLE not in there:
        if there and UNFINISHED not in there:
            raise UserError(f"{target} is not empty and holds no backup; name a new folder, or an earlier backup")
        return {}
    if APP_LOCK in there:
        raise UserError(f"{target}: a Wan UI was started on this folder, so it is no backup any more; name another")
    if (target / f"{TABLE}-wal").exists():  # somebody has looked into the table
        with closing(sqlite3.connect(target / TABLE)) as db:
            db.execute("PRAGMA journal_mode = DELETE")
    listed = _listed(target / TABLE)
    if listed is None:
        raise UserError(f"{target} is an outputs folder and no backup; name another folder")
    _settle(target, listed)
    return {file.path: file for file in listed}


def _listed(table: Path) -> list[File] | None:
    """The files of a backup; None when `table` is none of a backup. Raises UserError when it is damaged."""
    if not table.is_file():
        return None
    with _said(table), closing(_read_only(table)) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'backup_made'").fetchone() is None:
            return None
        if (words := db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise UserError(f"{table}: the backup's table is damaged ({words})")
        files = [File(*row) for row in db.execute("SELECT path, size, changed, sha256 FROM backup_files ORDER BY path")]
    for file in files:
        _, job_id, name = [*str(file.path).split("/"), "", ""][:3]
        good = ID.fullmatch(job_id) and name and name[0] != "." and "\0" not in name
        if file.path != f"clips/{job_id}/{name}" or not good:
            raise UserError(f"{table}: the backup lists {file.path!r}, which is no file of a job")
    return files


def _read_only(table: Path) -> sqlite3.Connection:
    """Without a log beside it nobody writes into it: then nothing is made beside it either."""
    logged = table.with_name(f"{table.name}-wal").exists()
    return sqlite3.connect(f"{table.resolve().as_uri()}?{'mode=ro' if logged else 'immutable=1'}", uri=True)


def _seal(part: Path, listed: list[File], gone: list[str]) -> int:
    """Write the list into the copied table, which is whole then and a single file; how many jobs it has."""
    with closing(sqlite3.connect(part, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.executescript(f"BEGIN; DROP TABLE IF EXISTS backup_files; DROP TABLE IF EXISTS backup_made; {LISTED}")
        db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in gone])
        db.executemany("INSERT INTO backup_files VALUES (?, ?, ?, ?)", [astuple(file) for file in listed])
        db.execute("INSERT INTO backup_made VALUES (?, ?)", (time.time(), __version__))
        db.execute("COMMIT")
        if (words := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            raise UserError(f"outputs: the job table is damaged ({words}); `{COMMAND} check` says more")
        count: int = db.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
    system.flush(part)
    return count


def _settle(target: Path, listed: list[File]) -> None:
    """Files as the table lists them: those that waited for it take their place, others go."""
    names = {file.path: file for file in listed}
    for folder in (target / "clips").glob("*"):
        for path in folder.iterdir() if ID.fullmatch(folder.name) and not folder.is_symlink() else ():
            waited = names.get(f"clips/{folder.name}/{path.name[1:].removesuffix('.part')}")
            if path.name.startswith(".") and waited and _sum(path) == waited.sha256:
                os.replace(path, target / waited.path)
            elif f"clips/{folder.name}/{path.name}" not in names:
                path.unlink()
        if ID.fullmatch(folder.name) and not any(folder.iterdir()):
            folder.rmdir()


class _Writer:
    """Copies jobs into a backup; `known` are the files of the one before, `bytes` what was written."""

    def __init__(self, outputs: Path, target: Path, known: dict[str, File]):
        self.outputs, self.target, self.known = outputs, target, known
        self.files: dict[str, File] = {}
        self.bytes = 0

    def copy(self, job_id: str, names: Collection[str] | None = None) -> None:
        """All files of a job, or those alone."""
        folder = self.outputs / "clips" / job_id
        try:
            there = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
        except OSError:
            return  # deleted, now or before
        for path in there:
            if not path.name.startswith(".") and (names is None or path.name in names):
                self._copy(path, f"clips/{job_id}/{path.name}")

    def _copy(self, path: Path, key: str) -> None:
        target = self.target / key
        try:
            now = path.stat()
            for file in (self.files.get(key), self.known.get(key)):
                if file and (file.size, file.changed) == (now.st_size, now.st_mtime_ns) and _there(target, file):
                    self.files[key] = file
                    return
            target.parent.mkdir(parents=True, exist_ok=True)
            part, size, sha256 = _copy(path, target)
        except FileNotFoundError:
            return  # deleted meanwhile
        except _Unreadable as error:
            raise UserError(f"{path} cannot be read ({error}); `{COMMAND} check` says more") from None
        self.bytes += size
        self.files[key] = File(key, size, now.st_mtime_ns, sha256)
        if key not in self.known:
            os.replace(part, target)

    def listed(self, jobs: Collection[str]) -> list[File]:
        """The files of these jobs, by name."""
        return [self.files[key] for key in sorted(self.files) if key.split("/")[1] in jobs]


def _there(target: Path, file: File) -> bool:
    """Whether the copy lies there as it was made, in its place or waiting for the table."""
    for path in (target.with_name(f".{target.name}.part"), target):
        if path.is_file():
            return path.stat().st_size == file.size
    return False


def _inputs(job: Job) -> Collection[str] | None:
    """What of a job's folder is whole while it waits or runs; None: all."""
    return {Path(path).name for path in job.request.inputs.values()} if job.active else None


# ---------------------------------------------------------------- the folder of the app


def _make_room(outputs: Path, aside: bool) -> None:
    """Raises UserError when there are jobs that are not to be moved aside."""
    table = outputs / TABLE
    if not table.exists():
        return
    try:
        with closing(Jobs(table)) as jobs:
            count = f"{len(jobs.briefs())} jobs"
    except TableError:
        count = "a job table that cannot be read"
    if count == "0 jobs":
        table.unlink()
    elif not aside:
        raise UserError(
            f"outputs: {outputs} holds {count} already; --aside moves them into {outputs / SET_ASIDE} first, or name "
            "another folder with WAN_UI_OUTPUTS"
        )
    else:
        folder = new_aside(outputs)
        for name in (TABLE, f"{TABLE}-wal", f"{TABLE}-shm", "clips"):
            if (outputs / name).exists():
                (outputs / name).rename(folder / name)


def new_aside(outputs: Path) -> Path:
    """A new folder for what is moved out of the way."""
    name, count = time.strftime("%Y%m%d-%H%M%S"), 1
    folder = outputs / SET_ASIDE / name
    while folder.exists():
        count += 1
        folder = outputs / SET_ASIDE / f"{name}-{count}"
    folder.mkdir(parents=True)
    return folder


def _take_back(source: Path, outputs: Path, file: File) -> str:
    """Copy one file of a backup; what is wrong with it, "" when it is as it was."""
    target, place = outputs / file.path, source / file.path
    waiting = place.with_name(f".{place.name}.part")  # the backup was cut short between its last two steps
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in (waiting, place) if waiting.exists() else (place,):
        if not path.is_file():
            return "is missing"
        try:
            part, _, sha256 = _copy(path, target)
        except FileNotFoundError:
            return "is missing"
        except _Unreadable as error:
            return f"cannot be read ({error})"
        if sha256 == file.sha256:
            os.replace(part, target)
            return ""
        part.unlink()
    return "is not what was stored (its checksum is another)"


# ---------------------------------------------------------------- both


def _check_apart(outputs: Path, other: Path) -> None:
    one, two = outputs.resolve(), other.resolve()
    if one == two or one.is_relative_to(two) or two.is_relative_to(one):
        raise UserError(f"{other}: a backup lies outside the outputs folder {outputs}; name another folder")


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"disk: {needed / 1e6:.0f} MB are needed in {folder}, {free / 1e6:.0f} MB are free")


def _copy(source: Path, target: Path) -> tuple[Path, int, str]:
    """Copy beside the target: where, bytes, checksum. Raises FileNotFoundError and _Unreadable for the source, OSError
    for the target."""
    part, digest, size = target.with_name(f".{target.name}.part"), hashlib.sha256(), 0
    try:
        file = os.fdopen(os.open(source, os.O_RDONLY | system.NO_FOLLOW | system.BINARY), "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unreadable(error.strerror) from None
    with file, open(part, "wb") as copy:
        while True:
            try:
                chunk = file.read(CHUNK)
            except OSError as error:
                raise _Unreadable(error.strerror) from None
            if not chunk:
                break
            digest.update(chunk)
            size += copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
        times = os.fstat(file.fileno())
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    return part, size, digest.hexdigest()


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _held(target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    lock = locks.take(target / LOCK)
    if lock is None:
        raise UserError(f"{target}: another backup is being written there; wait for it")
    try:
        yield
    finally:
        locks.release(target / LOCK, lock)


@contextmanager
def _said(place: Path) -> Iterator[None]:
    """What the system or SQLite says as a UserError."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{place}: its job table cannot be used ({error})") from None
    except OSError as error:
        raise UserError(f"disk: {error.filename or place}: {error.strerror or error}") from None
