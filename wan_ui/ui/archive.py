"""Several clips in one ZIP, made beside the uploads: its address cannot be guessed, and a day later it is gone."""

import secrets
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_upload_folder

from wan_ui.errors import UserError
from wan_ui.limits import MIN_FREE_MB
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui.markup import Markup
from wan_ui.ui.result import file_name

NAME = "wan-clips.zip"


def link_html(jobs: Sequence[Job]) -> Markup:
    """A link to a new file with the clips of these jobs. Raises UserError when there are none, or the disk is full."""
    clips = [(job, clip) for job in jobs if (clip := PIPELINE.clip(job)) is not None]
    if not clips:
        raise UserError("clips: choose some that are finished", field="clips")
    size, uploads = sum(clip.stat().st_size for _, clip in clips), Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(uploads).free < size + MIN_FREE_MB * 1e6:
        raise UserError(f"disk: there is no room for a copy of {size / 1e6:.0f} MB; choose fewer", field="clips")
    path = uploads / secrets.token_hex(32) / NAME  # a folder as of an upload: see uploads.py
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for job, clip in clips:
            packed.write(clip, f"{job.id[:15]}-{job.id[-4:]}-{file_name(job)}")
    address = f"gradio_api/file={quote(str(path))}"
    words = f"{len(clips)} {'clip' if len(clips) == 1 else 'clips'}, {size / 1e6:.1f} MB"
    return Markup('<a class="w-button" href="{address}" download="{name}">Download the ZIP: {words}</a>').format(
        address=address, name=NAME, words=words
    )
