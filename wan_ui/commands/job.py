"""What the commands that make one file share: submit a job, follow it behind a bar, copy its clip out."""

import os
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from wan_ui import progress
from wan_ui.errors import UserError
from wan_ui.intake import Draft
from wan_ui.jobs import Job
from wan_ui.pipeline import PIPELINE
from wan_ui.settings import settings
from wan_ui.speech_intake import SpeechDraft
from wan_ui.worker import describe


def run_job(draft: Draft | SpeechDraft, out: Path, quiet: bool) -> Job:
    """Make a clip and put it at `out`; the ended job. Raises UserError when there is no clip.

    quiet  no bar unless a person looks on
    """
    if out.suffix.lower() != ".mp4":
        raise UserError(f"--out: {out} must end in .mp4")
    if not out.parent.is_dir():
        raise UserError(f"--out: the folder {out.parent} does not exist")
    pipeline = PIPELINE.open(settings(), client_ok=True, warm=False)
    try:
        job_id = pipeline.submit(draft)
        if understood := pipeline.job(job_id).request.understood:
            print(f"prompt: {understood}", file=sys.stderr)
        try:
            job = follow(pipeline, job_id, quiet=quiet and not sys.stderr.isatty())
        except KeyboardInterrupt:
            pipeline.cancel(job_id)
            pipeline.wait(job_id)
            raise
        if job.state != "done":
            raise UserError(job.error or f"the job was {job.state}")
        # Beside the destination first: nothing half-written is ever visible under its name.
        part = out.with_name(f".{out.name}.part")
        shutil.copyfile(pipeline.clip(job), part)
        os.replace(part, out)
    finally:
        pipeline.close()
    return job


def follow(pipeline, job_id: str, quiet: bool) -> Job:
    """Wait for a job behind a progress bar."""
    expected = progress.reference(pipeline.history(), pipeline.job(job_id).request)
    bar = tqdm(total=100, disable=quiet, bar_format="{desc} |{bar}| {n:3.0f}%{postfix}", leave=False)

    def show(job) -> None:
        left = progress.eta(job, expected)
        bar.n = 100 * progress.fraction(job, expected)
        bar.set_description_str(describe(job.progress) if job.state == "running" else job.state, refresh=False)
        bar.set_postfix_str(f"about {left:.0f} s left" if left is not None else "", refresh=False)
        bar.refresh()

    try:
        return pipeline.wait(job_id, on_change=show)
    finally:
        bar.close()
