"""The owner's webhook: every job that ends is told to an address of theirs, once or, after a crash, once more.

Ends are noted in the job table's own file, by the same commit that ends the job (a trigger, whichever process ends it),
and the note goes when the message was taken: what ends while the other side is away, or just before the app is stopped,
is told later. So a message may come twice, never with another `Idempotency-Key` than the first time (the job's id), and
not at all only after `PAUSES` are used up, or where the other side refuses it for good. None of it touches the job.
"""

import logging
import sqlite3
import threading
import time
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from wan_ui.addresses import link_to
from wan_ui.queue.checked_post import AddressRefused, checked_addresses, post_json, shown
from wan_ui.queue.jobs import ENDED, Job, Jobs, TableError
from wan_ui.scrub import clean
from wan_ui.settings import Settings

log = logging.getLogger(__name__)

LOOK = 0.5  # seconds between looks at whether a job has ended
PAUSES = (5.0, 30.0, 120.0, 600.0)  # seconds between attempts
PASSING = (408, 425, 429)  # answers in the 400s after which another attempt makes sense
CLOSING = 4.0  # seconds for what has just ended when the app is stopped; else it is told after the next start

STATES = ", ".join(f"'{state}'" for state in ENDED)
NOTING = f"""
CREATE TABLE IF NOT EXISTS untold (job TEXT PRIMARY KEY);
CREATE TRIGGER IF NOT EXISTS jobs_ended AFTER UPDATE OF state ON jobs
WHEN OLD.state IN ('queued', 'running') AND NEW.state IN ({STATES})
BEGIN INSERT OR IGNORE INTO untold VALUES (NEW.id); END;
"""
NO_NOTING = "DROP TRIGGER IF EXISTS jobs_ended; DROP TABLE IF EXISTS untold;"


def note_ends(jobs: Jobs, on: bool) -> None:
    """From now on ends are noted, or not any more, and what was noted is forgotten. Raises TableError."""
    with jobs.connect() as db:
        for statement in _statements(NOTING if on else NO_NOTING):
            db.execute(statement)


def _statements(text: str) -> list[str]:
    """`executescript` would commit what others have begun."""
    found, rest = [], ""
    for part in text.split(";"):
        rest += part + ";"
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def untold(jobs: Jobs) -> list[str]:
    """Ids of the jobs that have ended and were not told of, in the order of their ends. Raises TableError."""
    with jobs.connect() as db:
        return [str(row["job"]) for row in db.execute("SELECT job FROM untold ORDER BY rowid").fetchall()]


def forget(jobs: Jobs, job_id: str) -> None:
    with jobs.connect() as db:
        db.execute("DELETE FROM untold WHERE job = ?", (job_id,))


def message(job: Job, settings: Settings) -> dict[str, Any]:
    """What is sent. Times are seconds since the epoch; error: "" where there was none, without this machine's paths."""
    return {
        "id": job.id,
        "state": job.state,
        "task": job.request.task,
        "prompt": job.request.made_with.prompt if job.request.made_with else "",
        "error": clean(job.error, settings),
        "link": link_to(job.id, settings),
        "created": job.created,
        "finished": job.finished,
    }


class Webhook:
    """A thread of its own: a slow receiver keeps nobody waiting."""

    def __init__(self, jobs: Jobs, settings: Settings):
        self.jobs, self.settings = jobs, settings
        self._tries: dict[str, tuple[int, float]] = {}  # job -> attempts, and when the next may be made
        self._stopping = threading.Event()
        self._said = ""  # the last trouble with the table
        self._thread = threading.Thread(target=self._keep, name="wan-ui-webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """What has ended and was never tried is, once; the rest is told after the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(CLOSING)

    def _keep(self) -> None:
        parts = urlsplit(self.settings.webhook)
        try:
            checked_addresses(parts.hostname or "", parts.port or 443, bool(self.settings.webhook_private))
        except AddressRefused as error:
            log.error("webhook: %s", error.words)
        except OSError as error:
            log.warning("webhook: %s cannot be found now (%s)", shown(self.settings.webhook), error)
        while not self._stopping.wait(LOOK):
            self._tell_all()
        self._tell_all(new_only=True)

    def _tell_all(self, new_only: bool = False) -> None:
        try:
            for job_id in untold(self.jobs):
                tried, when = self._tries.get(job_id, (0, 0.0))
                if (tried and new_only) or time.monotonic() < when:
                    continue
                if self._stopping.is_set() and not new_only:
                    return
                job = self.jobs.get(job_id)
                if job is None or self._tell(job, tried):
                    forget(self.jobs, job_id)
                    self._tries.pop(job_id, None)
            self._said = ""
        except TableError as error:
            if str(error) != self._said:
                self._said = str(error)
                log.error("webhook: %s; trying again", error)
        except Exception:
            log.exception("webhook: what has ended was not told")
            self._stopping.wait(PAUSES[0])

    def _tell(self, job: Job, tried: int) -> bool:
        """Whether there is nothing more to do for this job: it was taken, or never will be."""
        try:
            url, private = self.settings.webhook, bool(self.settings.webhook_private)
            status = post_json(url, message(job, self.settings), job.id, private)
            if 200 <= status < 300:
                return True
            final, reason = 300 <= status < 500 and status not in PASSING, f"HTTP {status}"
            if 300 <= status < 400:
                reason += ", a redirect, which is not followed"
        except AddressRefused as error:
            final, reason = True, error.words
        except (OSError, HTTPException) as error:
            final, reason = False, str(error) or type(error).__name__
        where = shown(self.settings.webhook)
        if final or tried >= len(PAUSES):
            log.error("webhook: %s was not told of %s, and will not be: %s", where, job.id, reason)
            return True
        pause = PAUSES[tried]
        self._tries[job.id] = (tried + 1, time.monotonic() + pause)
        log.warning("webhook: %s was not told of %s (%s); once more in %g s", where, job.id, reason, pause)
        return False
