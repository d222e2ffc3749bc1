"""Mending what wan_ui.queue.check has found, one kind at a time. Nothing is deleted: files and entries that have to go
are moved into a folder of outputs/set-aside, the entries as lines of entries.jsonl.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from wan_ui import __version__, locks, stored
from wan_ui.errors import UserError
from wan_ui.media import muxer
from wan_ui.queue.backup import APP_LOCK, TABLE, new_aside
from wan_ui.queue.check import Finding
from wan_ui.queue.jobs import Job, Jobs
from wan_ui.request import Result
from wan_ui.tasks import FILES


@contextmanager
def alone(outputs: Path) -> Iterator[None]:
    """Nobody else works in the folder meanwhile. Raises UserError while an app or a command does."""
    try:
        lock = locks.take(outputs / APP_LOCK)
    except OSError as error:
        raise UserError(f"outputs: {outputs} cannot be locked ({error})") from None
    if lock is None:
        raise UserError(f"outputs: a Wan UI is using {outputs}; stop it before anything is repaired")
    with lock:
        yield


@dataclass
class Aside:
    """Where things go that have to go: a folder that is made for the first of them. root: the outputs folder."""

    root: Path
    folder: Path | None = None

    def take(self, path: Path) -> str:
        """Move a file or folder there, under the name that it had in the outputs folder; where it is now."""
        self.folder = self.folder or new_aside(self.root)
        target = self.folder / path.relative_to(self.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        return str(target)

    def keep(self, entry: dict[str, object]) -> None:
        """An entry of the table, as it was stored."""
        self.folder = self.folder or new_aside(self.root)
        with open(self.folder / "entries.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, default=repr) + "\n")


def repair(outputs: Path, finding: Finding, aside: Aside) -> str:
    """Mend it; what was done, "" when it could not be. The caller is `alone`."""
    clips = outputs / "clips"
    if finding.kind == "table":
        return _new_table(outputs, aside)
    if finding.kind == "leftover":
        return f"moved to {aside.take(outputs / finding.place)}"
    with closing(Jobs(outputs / TABLE)) as jobs:
        if finding.kind == "nameless":
            aside.keep(jobs.nameless()[int(finding.place)])
            jobs.take_out(int(finding.place))
            return f"written to {aside.folder}/entries.jsonl"
        folder = clips / finding.place
        if finding.kind == "no-entry":
            return _new_entry(jobs, folder, aside)
        job = jobs.get(finding.place)
        if job is None:
            return ""
        match finding.kind:
            case "no-clip":
                return _put_aside(jobs, job, folder, aside)
            case "no-input":
                jobs.finish(job.id, "failed", error=f"It was not run: {finding.words}. Generate it again.")
                return "failed, and says why"
            case "lost-input":
                inputs = job.request.inputs
                left = {name: path for name, path in inputs.items() if (folder / Path(path).name).is_file()}
                jobs.put(replace(job, request=replace(job.request, inputs=left)))
                return "forgotten"
            case "damaged":
                where = aside.take(folder / job.result.clip)
                error = "The clip was damaged and has been moved aside. Generate it again."
                jobs.put(replace(job, state="failed", error=error))
                return f"moved to {where}"
            case "silent":
                if (folder / job.result.silent).is_file():
                    aside.take(folder / job.result.silent)
                jobs.put(replace(job, result=replace(job.result, silent="")))
                return "the entry names its clip alone"
            case "size":
                frames, width, height = muxer.examine(folder / job.result.clip)
                request = replace(job.request, width=width, height=height)
                jobs.put(replace(job, request=request, result=replace(job.result, frames=frames)))
                _write_settings(folder, replace(job, request=request), aside)
                return f"the entry says {width}x{height}, {frames} frames"
            case "metadata":
                _write_settings(folder, job, aside)
                return "written"
            case "poster":
                shown, _ = muxer.read_frames(folder / job.result.clip, (job.result.frames or 1) // 2 + 1)
                if (folder / job.result.poster).exists():
                    aside.take(folder / job.result.poster)
                Image.fromarray(shown[-1]).save(folder / job.result.poster, quality=88)
                return "made"
    return ""


def _new_table(outputs: Path, aside: Aside) -> str:
    where = [aside.take(path) for path in sorted(outputs.glob(f"{TABLE}*"))]
    Jobs(outputs / TABLE).close()
    return f"a new one is there; the old one is {where[0]}" if where else "a new one is there"


def _write_settings(folder: Path, job: Job, aside: Aside) -> None:
    """Those of the entry into its clip; those that were there are kept."""
    clip = folder / job.result.clip
    with contextlib.suppress(UserError):
        aside.keep({"id": job.id, "settings of the clip": muxer.read_metadata(clip)})
    muxer.write_metadata(clip, {**job.request.public(), "facts": job.result.facts, "wan_ui": __version__})


def _put_aside(jobs: Jobs, job: Job, folder: Path, aside: Aside) -> str:
    for number, row in jobs.rows(job.id).items():
        aside.keep(row)
        jobs.take_out(number)
    if folder.is_dir():
        aside.take(folder)
    return f"moved to {aside.folder}"


def _new_entry(jobs: Jobs, folder: Path, aside: Aside) -> str:
    """From the settings in its clip; a folder whose clip has none, or is damaged, is moved aside."""
    clip = next((folder / name for name in ("clip.mp4", "silent.mp4") if (folder / name).is_file()), None)
    try:
        if clip is None:
            raise UserError("there is neither clip.mp4 nor silent.mp4 in it")
        frames, *_ = muxer.examine(clip)
        values = muxer.read_metadata(clip)
    except UserError as error:
        return f"moved to {aside.take(folder)}: {error.words}"
    request, _ = stored.read_request(json.dumps(values))
    known = {name: value for name, value in request.other.items() if name not in ("facts", "wan_ui")}
    inputs = {name: str(path) for name, file in FILES.items() for path in sorted(folder.glob(f"{file}*"))[:1]}
    facts, fps = stored.read_result(json.dumps({"facts": values.get("facts", {})}))[0].facts, request.made_with
    poster = "poster.jpg" if (folder / "poster.jpg").is_file() else ""
    silent = "silent.mp4" if (folder / "silent.mp4").is_file() and clip.name != "silent.mp4" else ""
    result = Result(
        clip=clip.name,
        poster=poster or "poster.jpg",
        silent=silent,
        frames=frames,
        fps=float(fps.fps) if fps and fps.fps else None,
        engine_ran=facts.get("engine", "").partition(" ")[0],
        facts=facts,
    )
    made = _made(folder)
    jobs.put(
        Job(
            id=folder.name,
            owner="local",
            state="done",
            request=replace(request, inputs=inputs, other=known),
            created=made,
            finished=made,
            result=result,
        )
    )
    return "an entry is there, of the person at this machine"


def _made(folder: Path) -> float:
    """When: as its name says, else as its files do."""
    if re.match(r"\d{8}-\d{6}-", folder.name):
        try:
            return time.mktime(time.strptime(folder.name[:15], "%Y%m%d-%H%M%S"))
        except (ValueError, OverflowError):
            pass
    return folder.stat().st_mtime
