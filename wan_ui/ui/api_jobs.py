"""What programs may do with jobs, whichever door they come through: submit, after, status, cancel, result, list.

Whose jobs they see: at this machine those of the person here, as the page and the command line do. On a shared address
a caller is known by a token, which the first `submit` draws; without it nobody's jobs are told.
"""

import re
import reprlib
import secrets
from dataclasses import dataclass
from typing import Any

from wan_ui.changes import ASKED, MAX_JOINED
from wan_ui.errors import UserError
from wan_ui.loras.choice import read_spec
from wan_ui.queue import estimate
from wan_ui.queue.draft import Draft, whole
from wan_ui.queue.jobs import ID, Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import LoraSpec
from wan_ui.speaking import NAMES, PART
from wan_ui.tasks import CHANGED, FORM, NEXT, SOUND
from wan_ui.ui.api_values import AFTER, PARAMETERS, SAMPLING
from wan_ui.ui.markup import file_url, title
from wan_ui.ui.security import uploaded
from wan_ui.ui.session import TOKEN
from wan_ui.ui.values import as_text

MOST = 500  # jobs in one list


class NoSuchJob(UserError):
    """It never was, it was deleted, or it is somebody else's: which of them is not told."""


class NotDone(UserError):
    """There is no clip, or not yet."""


@dataclass(frozen=True)
class Caller:
    """token: on a shared address. local: the person at this machine. address: as for Pipeline.submit."""

    token: object
    local: bool
    address: str


def _owner(caller: Caller, new: bool = False) -> tuple[str, str]:
    """(owner, token); at this machine there is no token. new: without one it is drawn. Raises UserError."""
    if caller.local:
        return "local", ""
    given = as_text(caller.token, "token")
    if not given and new:
        given = secrets.token_hex(16)
    if not TOKEN.fullmatch(given):  # said so that scrub.py takes no word of it for the token itself
        raise UserError("token: use the one that submit has answered with", field="token")
    return f"api-{given}", given  # the prefix keeps it from ever being another kind of owner


def draft_of(given: dict[str, Any]) -> Draft:
    """The values of a call -> what goes to intake. Raises UserError."""
    return Draft(
        {
            entry.name: uploaded(given[entry.name], entry.name)
            if entry.file
            else as_text(given[entry.name], entry.name)
            for entry in FORM
        },
        task=as_text(given["task"], "task"),
        model=as_text(given["model"], "model"),
        scheme=as_text(given["scheme"], "scheme"),
        size=as_text(given["size"], "size", "auto"),
        frames=given["frames"],
        steps=given["steps"],
        fps=given["fps"],
        draft=given["draft"],
        seed=given["seed"],
        loras=_loras(given["loras"]),
        **{name: given[name] for name in SAMPLING},
        overlap=given["overlap"],
        offload=as_text(given["offload"], "offload"),
        without_picture=given["without_picture"],
        crop=given["crop"],
        end_crop=given["end_crop"],
        seconds=given["seconds"],
        speaking={name: given[name] for name in NAMES},
        job=as_text(given["job"], "job"),
    )


def clips_of(given: dict[str, Any]) -> Any:
    return 1 if given["clips"] is None else given["clips"]


def _loras(lines: object) -> tuple[LoraSpec, ...]:
    try:
        return tuple(read_spec(line.strip()) for line in as_text(lines, "loras").splitlines() if line.strip())
    except ValueError as error:
        raise UserError(f"loras: {error}", field="loras") from None


def submit(given: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """given: values of PARAMETERS by name; what is left out is chosen. Answers with the first job's status, the ids of
    all, and on a shared address with the caller's token. Raises UserError."""
    values = _completed(given, PARAMETERS)
    owner, token = _owner(caller, new=True)
    job_ids = PIPELINE.submit_all([draft_of(values)], owner, clips_of(values), caller.address)
    record = {**_record(_find(job_ids[0], owner), owner), "jobs": job_ids}
    return {**record, "token": token} if token else record


def after(given: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """given: values of AFTER by name. A finished clip is changed by a job of its own; answers as `submit`."""
    values = _completed(given, AFTER)
    owner, token = _owner(caller, new=True)
    job_id = PIPELINE.submit(change_of(values), owner, caller.address)
    record = {**_record(_find(job_id, owner), owner), "jobs": [job_id]}
    return {**record, "token": token} if token else record


def change_of(given: dict[str, Any]) -> Draft:
    """The values of a call of `after` -> what goes to intake. Raises UserError."""
    following = given["join"] or []
    if not isinstance(following, list) or len(following) > MAX_JOINED:
        raise UserError(f"join: expected a list of at most {MAX_JOINED} clips", field="join")
    jobs, files = {}, {}
    for entry, sent in zip(NEXT, following, strict=False):
        if isinstance(sent, str):
            jobs[entry.name] = as_text(sent, "join")
        else:
            files[entry.name] = uploaded(sent, "join")
    files |= {CHANGED.name: uploaded(given["clip"], "clip"), SOUND.name: uploaded(given["sound"], "sound")}
    if not files[CHANGED.name] and not given["job"]:
        raise UserError("job: say which clip is to be changed: a job's id, or a file as clip", field="job")
    if given["frames"] not in (None, "", "2x", "4x"):  # "times" in wan_ui.changes
        raise UserError(f"frames: {reprlib.repr(given['frames'])}: expected 2x or 4x", field="frames")
    return Draft(
        {name: path for name, path in files.items() if path},
        task="after-work",
        job=as_text(given["job"], "job"),
        jobs=jobs,
        changes={"times": given["frames"]} | {name: given[name] for name in ASKED if name in given},
        speaking={name: given[name] for name in PART},
    )


def _completed(given: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in known:
            words = f"{name[:80]!r} is not a value of a job; known are {', '.join(known)}"
            raise UserError(words, field=name[:80])
    return {**known, **given}


def status(job: object, caller: Caller) -> dict[str, Any]:
    owner, _ = _owner(caller)
    return _record(_find(job, owner), owner)


def cancel(job: object, caller: Caller) -> dict[str, Any]:
    """Its status then: a job that runs stops at its next step."""
    owner, _ = _owner(caller)
    found = _find(job, owner)
    PIPELINE.cancel(found.id, owner)
    return _record(_find(found.id, owner), owner)


def result(job: object, caller: Caller) -> tuple[str, dict[str, Any]]:
    """(the clip's path, its settings). Raises NotDone saying why there is none."""
    owner, _ = _owner(caller)
    found = _find(job, owner)
    if found.active:
        raise NotDone(f"job: {found.id} is {found.state}; its clip is not made yet", field="job")
    return clip_of(found), settings_of(found)


def listed(limit: object, caller: Caller) -> dict[str, Any]:
    """The caller's jobs, newest first."""
    owner, _ = _owner(caller)
    most = whole("limit", limit)
    if not 1 <= most <= MOST:
        raise UserError(f"limit: {most} is not between 1 and {MOST}", field="limit")
    return {"jobs": [_record(job, owner) for job in PIPELINE.history(owner, most)]}


def clip_of(job: Job) -> str:
    try:
        return str(PIPELINE.made(job))
    except UserError as error:
        raise NotDone(str(error), field="job") from None


def file_of(job: object, caller: Caller) -> str:
    """The path of what was made beside the clip. Raises NotDone."""
    owner, _ = _owner(caller)
    found = _find(job, owner)
    if (path := PIPELINE.file(found)) is None:
        raise NotDone(f"job: {found.id} has made no file beside its clip", field="job")
    return str(path)


def settings_of(job: Job) -> dict[str, Any]:
    warning = {"warning": job.error} if job.error else {}  # the clip is there, but it does not speak
    return {"job": job.id, "worker": job.worker, **job.request.public(), **job.result.public(), **warning}


def _find(job: object, owner: str) -> Job:
    name = as_text(job, "job")
    found = PIPELINE.job(name, owner) if re.fullmatch(ID, name) else None
    if found is None:
        raise NoSuchJob(f"job: there is no job {name[:100]!r} of yours", field="job")
    return found


def _record(job: Job, owner: str) -> dict[str, Any]:
    """A job in a few values: for programs, so that each is there in every state."""
    left = None
    if job.state == "running":
        left = estimate.eta(job, estimate.reference(PIPELINE.history(owner), job.request))
    made = job.request.made_with
    clip = PIPELINE.clip(job) if job.state == "done" else None
    return {
        "job": job.id,
        "state": job.state,
        "ahead": PIPELINE.position(job),
        "stage": job.progress.stage if job.state == "running" else "",
        "step": job.progress.step if job.state == "running" else 0,
        "steps": job.progress.total if job.state == "running" else 0,
        "seconds_left": None if left is None else round(left, 1),
        "error": job.error,
        "prompt": title(job.request),
        "model": made.model if made else "",
        "seed": made.seed if made else None,
        "created": job.created,
        "finished": job.finished,
        "clip": f"{PIPELINE.settings.root_path.rstrip('/')}/{file_url(clip)}" if clip else "",
    }
