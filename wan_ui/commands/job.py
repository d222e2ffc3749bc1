"""What the commands that make one file share: submit a job, follow its progress, copy its clip out."""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from wan_ui.changes import FILES
from wan_ui.commands.progress import Lines, watched
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.loras import lora_warnings
from wan_ui.machine.preflight import check_folders
from wan_ui.queue import estimate, roster, successor
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE, Pipeline
from wan_ui.queue.worker import describe
from wan_ui.settings import settings
from wan_ui.tasks import BEFORE


def run_job(draft: Draft, out: Path, quiet: bool) -> Job:
    """Make a clip and put it at `out`; the ended job. Raises UserError when there is no clip.

    quiet  no progress unless a person looks on
    """
    return run_jobs(draft, out, quiet)[0]


def names_of(out: Path, clips: int) -> list[Path]:
    """Where the clips go: clip.mp4, or clip-1.mp4, clip-2.mp4 ... of several."""
    return [out] if clips == 1 else [out.with_name(f"{out.stem}-{n}{out.suffix}") for n in range(1, clips + 1)]


def run_jobs(draft: Draft, out: Path, quiet: bool, clips: int = 1) -> list[Job]:
    """As `run_job`, of several clips with seeds of their own: see `names_of`."""
    kinds = [".mp4", *(suffix for suffix, _ in FILES.values() if draft.changes)]
    if out.suffix.lower() not in kinds:
        raise UserError(f"--out: {out} must end in {', '.join(kinds)}")
    if not out.parent.is_dir():
        raise UserError(f"--out: the folder {out.parent} does not exist")
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise UserError(f"--out: the folder {out.parent} cannot be written ({error.strerror})") from None
    check_folders(settings())
    pipeline = PIPELINE.open(settings(), client_ok=True, warm=False)
    try:
        job_ids = pipeline.submit_all([draft], clips=clips)
        request = submitted(pipeline, job_ids[0]).request
        if made := request.made_with:
            asked = draft.model or settings().model
            if BEFORE.name in request.inputs and made.model != asked:
                catalog = found.models(settings())
                other = successor.words(catalog[asked], catalog[made.model])
                print(f"model: {other}, with {made.scheme}", file=sys.stderr)
            for number, said in enumerate((made.first, *made.segments), start=1):
                if said.understood:
                    which = f" {number}" if made.segments else ""
                    print(f"prompt{which}: {said.understood}", file=sys.stderr)
            for words in lora_warnings(made.loras, settings()):
                print(f"LoRA: {words}", file=sys.stderr)
        ended, failed = [], []
        for job_id, name in zip(job_ids, names_of(out, clips), strict=True):
            try:
                ended.append(follow(pipeline, job_id, quiet=quiet and not watched()))
                _put(pipeline, ended[-1], name)
            except UserError as error:  # the others are made all the same
                failed.append(f"{name.name}: {error}" if clips > 1 else str(error))
            except KeyboardInterrupt:
                for mine in job_ids:
                    pipeline.cancel(mine)  # an app stops it within a step; here `close` does, at once
                raise
    finally:
        pipeline.close()
    if failed:
        raise UserError("; ".join(failed))
    return ended


def _put(pipeline: Pipeline, job: Job, out: Path) -> None:
    clip = pipeline.made(job)
    if job.result.file and out.suffix.lower() != ".mp4":
        clip = clip.with_name(job.result.file)
    # Beside the destination first: nothing half-written is ever visible under its name.
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(clip, part)
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"--out: {out} could not be written ({error}); the clip is kept as job {job.id}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def submitted(pipeline: Pipeline, job_id: str) -> Job:
    """Raises UserError when it is gone: an app with the same outputs can delete it."""
    job = pipeline.job(job_id)
    if job is None:
        raise UserError(f"job {job_id} was deleted before it began")
    return job


def follow(pipeline: Pipeline, job_id: str, quiet: bool) -> Job:
    """Wait for a job and tell how far it is; not when `quiet`."""
    expected = estimate.reference(pipeline.history(), submitted(pipeline, job_id).request)
    bar = tqdm(total=100, disable=quiet or not watched(), bar_format="{desc} |{bar}| {n:3.0f}%{postfix}", leave=False)
    lines = Lines()

    several = len(roster.read(pipeline.settings.outputs)) > 1

    def show(job: Job) -> None:
        left = estimate.eta(job, expected)
        words = describe(job.progress) if job.state == "running" else job.state
        if several and job.worker:
            words = f"{job.worker}: {words}"
        time_left = f"about {left:.0f} s left" if left is not None else ""
        if not bar.disable:
            bar.n = 100 * estimate.fraction(job, expected)
            bar.set_description_str(words, refresh=False)
            bar.set_postfix_str(time_left, refresh=False)
            bar.refresh()
        elif not quiet and job.active:
            stage = job.progress.stage if job.state == "running" else job.state
            lines.tell(stage, ", ".join(filter(None, [words, time_left])))

    try:
        return pipeline.wait(job_id, on_change=show)
    finally:
        bar.close()
