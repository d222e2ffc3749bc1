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
        job_id = pipeline.submit(draft)
        request = submitted(pipeline, job_id).request
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
        try:
            job = follow(pipeline, job_id, quiet=quiet and not watched())
        except KeyboardInterrupt:
            pipeline.cancel(job_id)  # an app stops it within a step; here `close` does, at once
            raise
        clip = pipeline.made(job)
        if job.result.file and out.suffix.lower() != ".mp4":
            clip = clip.with_name(job.result.file)
        # Beside the destination first: nothing half-written is ever visible under its name.
        part = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(clip, part)
            os.replace(part, out)
        except OSError as error:
            raise UserError(f"--out: {out} could not be written ({error}); the clip is kept as job {job_id}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    finally:
        pipeline.close()
    return job


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
