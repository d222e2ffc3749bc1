"""Keeping the outputs folder within its quota: the oldest ended jobs go first, never an active one."""

import logging
import shutil
import time
from pathlib import Path

from wan_ui.jobs import ENDED, Jobs
from wan_ui.settings import Settings

log = logging.getLogger(__name__)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prune(clips: Path, jobs: Jobs, settings: Settings) -> list[str]:
    """Delete ended jobs beyond max_outputs_gb or older than max_output_days; the ids that went."""
    total = folder_bytes(clips) if clips.is_dir() else 0
    oldest_allowed = time.time() - settings.max_output_days * 86400 if settings.max_output_days else 0.0
    gone = []
    for job in jobs.in_state(*ENDED):
        too_much = total > settings.max_outputs_gb * 1e9
        if not too_much and job.created >= oldest_allowed:
            break  # oldest first: all the others are younger
        size = folder_bytes(clips / job.id)
        shutil.rmtree(clips / job.id, ignore_errors=True)
        jobs.delete(job.id)
        total -= size
        gone.append(job.id)
    if gone:
        log.info("quota: removed %d old job(s)", len(gone))
    return gone
