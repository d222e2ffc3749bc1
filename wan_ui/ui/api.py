"""The public endpoints, for gradio_client and other programs: `generate`, which waits; `submit`, `after`, `status`,
`cancel`, `result` and `list`, which do not, and are the tools of MCP as well; and `pose`, which shows what drives.

Unlike the page `generate` waits for its job, without a thread of its own: however many wait, the page answers. The
job itself does not depend on the caller: it is a row in the queue like any other and goes on if the caller leaves.
The same six for programs that speak plain HTTP are in rest.py.
"""

import asyncio
import inspect
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio_client import handle_file
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.performance import preview
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.tasks import FORM, PERFORMANCE
from wan_ui.ui import api_jobs, seams
from wan_ui.ui.api_values import AFTER, AFTER_WORDS, PARAMETERS, SIGNATURE, WORDS, signature
from wan_ui.ui.examples import load_examples
from wan_ui.ui.refusals import failed
from wan_ui.ui.security import EXAMPLES, uploaded
from wan_ui.ui.session import asker, for_visitor, is_local

RUNNING, WAITING = 0.3, 1.0  # seconds between looks at a job
DESCRIPTION = (
    "Make a clip from a picture, a prompt or both, and wait for it. Empty texts and null choose the default, seed -1 "
    "draws a random one; loras: one FILE:STRENGTH:TARGET a line; audio: a voice that the face speaks, or with S2V one "
    "that drives the picture; audio_start, audio_end: the seconds of it that are spoken; pose_video: what its body "
    "follows; end_image: the picture that the clip ends at; task: "
    "i2v, flf2v, t2v, s2v or animate, else what fits the model and what is given; guidance: A or A,B for the two "
    "experts; negative: null is the official text, an empty one none; draft: quicker and less exact, where the GPU has"
    " the means; segments: what happens next, one prompt a line; clip, or the id of its job: goes on instead of a "
    "picture; performance or pose_video, with face_video and mask_video: the character moves so (Animate; overlap: "
    "frames that its segments share); without_picture: the file does not carry the picture; clips: so many at once, up"
    " to 8, with seeds of their own. Answers with the video and its settings: job, seed, model, seconds per stage and "
    "more; of several clips with the first, and all of them in its settings under clips."
)

POSE = (
    "What Animate reads of a performance, before minutes are spent: some of its frames, below them their skeleton and "
    "face, and what was found in words."
)

SUBMIT = (
    "Put a clip in the queue and answer at once with its job: id, state, how many are ahead. The values are those of "
    "generate. On a shared address the answer has a token, by which the caller's jobs are known from then on."
)
CHANGE = (
    "Change a finished clip: a part of it, more frames, larger, slower, a loop, other files. Answers at once with the "
    "job, as submit does; the original stays. What was made beside the MP4 comes with result, in its settings."
)
STATUS = "How a job is: queued, running, done, failed, cancelled or interrupted; its step, the seconds left, its error."
CANCEL = "Stop a job: at once where it waits, at its next step where it runs. Answers with its status."
RESULT = "The clip of a job that is done, and its settings: seed, model, seconds per stage and more."
LIST = "The caller's jobs, newest first."
TOKEN = inspect.Parameter("token", inspect.Parameter.POSITIONAL_OR_KEYWORD, default="")
TOKEN_WORDS = "on a shared address: what submit has answered with; at this machine nothing"


def build_api(waiting: int, address: str) -> None:
    """`waiting`: how many calls may wait for their jobs at once. address: of the page, for the drawer's example."""
    with gr.Row(visible=False):
        inputs = _form(address)
        outputs = [gr.Video(label="video"), gr.JSON(label="settings")]
        gr.Button().click(
            generate,
            list(inputs.values()),
            outputs,
            api_name="generate",
            api_description=DESCRIPTION,
            preprocess=False,
            concurrency_limit=waiting,
        )
        performed = gr.Video(None, label=PERFORMANCE.name)
        seams.replace_on(performed, "example_payload", lambda: None)
        gr.Button().click(
            pose,
            [performed],
            [gr.Image(label="picture", format="png"), gr.Textbox(label="words")],
            api_name="pose",
            api_description=POSE,
            preprocess=False,
            concurrency_limit=1,
        )
        job, limit, token = gr.Textbox(label="job"), gr.Number(50, label="limit"), gr.Textbox("", label="token")
        record = gr.JSON(label="status")
        changing = _change_form()
        for function, name, words, given, answered in (
            (submit, "submit", SUBMIT, [*inputs.values(), token], record),
            (after, "after", CHANGE, [*changing, token], record),
            (status, "status", STATUS, [job, token], record),
            (cancel, "cancel", CANCEL, [job, token], record),
            (result, "result", RESULT, [job, token], outputs),
            (list_jobs, "list", LIST, [limit, token], gr.JSON(label="jobs")),
        ):
            # Not by Gradio's queue: they never wait, and tools of MCP then know who asks.
            gr.Button().click(
                function, given, answered, api_name=name, api_description=words, preprocess=False, queue=False
            )


def _form(address: str) -> dict[str, Any]:
    """A component for each of PARAMETERS, with examples that can be sent."""
    kinds = {entry.name: entry.kind for entry in FORM}
    inputs = {name: _component(name, kinds.get(name, ""), PARAMETERS[name]) for name in PARAMETERS}
    shown = load_examples()
    # Gradio's own examples are addresses, which are refused here; ours are files that it serves itself.
    for name in kinds:
        found = next((example.inputs[name] for example in shown if name in example.inputs), None)
        seams.replace_on(inputs[name], "example_payload", lambda given=found: _as_sent(given, address))
    return inputs


def _change_form() -> list[Any]:
    """A component for each of AFTER."""
    kinds = {"clip": "video", "sound": "audio", "join": "list"}
    inputs = {name: _component(name, kinds.get(name, ""), AFTER[name]) for name in AFTER}
    for name in kinds:
        seams.replace_on(inputs[name], "example_payload", lambda: None)
    return list(inputs.values())


def _described(values: dict[str, str]) -> str:
    """A docstring as Gradio reads it."""
    return "Args:\n" + "\n".join(f"    {name}: {words}" for name, words in values.items())


def _component(name: str, kind: str, default: Any) -> Any:
    match kind:
        case "picture":
            return gr.Image(type="filepath", image_mode=None, label=name)
        case "audio":
            return gr.Audio(None, type="filepath", label=name)
        case "video":
            return gr.Video(None, label=name)
        case "list":
            return gr.JSON(None, label=name)
    if default is inspect.Parameter.empty or name == "negative":
        return gr.Textbox(label=name)
    if isinstance(default, bool):
        return gr.Checkbox(default, label=name)
    return gr.Textbox(default, label=name) if isinstance(default, str) else gr.Number(default, label=name)


def _as_sent(given: str | Path | None, address: str) -> Any:
    return handle_file(f"{address}gradio_api/file={EXAMPLES}{given.name}") if isinstance(given, Path) else given


async def generate(*sent: Any) -> tuple[str, dict[str, Any]]:
    """`sent` as SIGNATURE says, by position."""
    owner = "local" if is_local(PIPELINE.settings) else f"api-{secrets.token_hex(16)}"
    try:
        given = _given(sent)
        draft, clips = api_jobs.draft_of(given), api_jobs.clips_of(given)
        job_ids = await asyncio.to_thread(PIPELINE.submit_all, [draft], owner, clips, asker(PIPELINE.settings))
        jobs = [await _ended(job_id, owner) for job_id in job_ids]
    except UserError as error:
        raise gr.Error(for_visitor(str(error), PIPELINE.settings), print_exception=False) from None
    except Exception as error:
        raise failed("generate", error) from None
    made = [job for job in jobs if job.state == "done" and PIPELINE.clip(job) is not None]
    if not made:
        raise gr.Error(_why_none(jobs[0]), print_exception=False)
    settings = api_jobs.settings_of(made[0])
    if len(jobs) > 1:
        settings["clips"] = [_of_several(job) for job in jobs]
    return str(PIPELINE.clip(made[0])), settings


async def _ended(job_id: str, owner: str) -> Job:
    while True:
        job = await asyncio.to_thread(PIPELINE.look, job_id, owner)
        if job is not None and not job.active:
            return job
        await asyncio.sleep(RUNNING if job is not None and job.state == "running" else WAITING)


def _why_none(job: Job) -> str:
    if job.state != "done":
        return job.error or f"the job was {job.state}"
    return "The clip was made, but its file is not there any more."


def _of_several(job: Job) -> dict[str, Any]:
    """video: its file, which clients of Gradio fetch with the answer; or why there is none."""
    clip = PIPELINE.clip(job) if job.state == "done" else None
    if clip is None:
        return {"job": job.id, "seed": job.request.seed, "error": _why_none(job)}
    return {**api_jobs.settings_of(job), "video": FileData(path=str(clip), orig_name=clip.name).model_dump()}


setattr(generate, "__signature__", SIGNATURE)  # noqa: B010 - Gradio names and documents the values by it


def pose(performance) -> tuple[Image.Image, str]:
    """What the page's "Show its pose" does."""
    try:
        if not performance:
            raise UserError(f"{PERFORMANCE.name}: {PERFORMANCE.missing}", field=PERFORMANCE.name)
        return preview.sheet(Path(uploaded(performance, PERFORMANCE.name)), PIPELINE.settings)
    except UserError as error:
        raise gr.Error(for_visitor(str(error), PIPELINE.settings), print_exception=False) from None
    except Exception as error:
        raise failed("pose", error) from None


def _given(sent: tuple[Any, ...]) -> dict[str, Any]:
    """Values by position -> by name."""
    call = SIGNATURE.bind(*sent)
    call.apply_defaults()
    return call.arguments


def _asked(what: Callable[..., Any], *given: Any) -> Any:
    """One of api_jobs, for whoever asks; the token comes last."""
    *values, token = given
    try:
        return what(*values, api_jobs.Caller(token, is_local(PIPELINE.settings), asker(PIPELINE.settings)))
    except UserError as error:
        raise gr.Error(for_visitor(str(error), PIPELINE.settings), print_exception=False) from None
    except Exception as error:
        raise failed(what.__name__, error) from None


def submit(*sent: Any) -> dict[str, Any]:
    *values, token = sent
    return _asked(api_jobs.submit, _given(tuple(values)), token)


def after(*sent: Any) -> dict[str, Any]:
    *values, token = sent
    return _asked(api_jobs.after, dict(zip(AFTER, values, strict=True)), token)


def status(job: Any, token: Any = "") -> dict[str, Any]:
    return _asked(api_jobs.status, job, token)


def cancel(job: Any, token: Any = "") -> dict[str, Any]:
    return _asked(api_jobs.cancel, job, token)


def result(job: Any, token: Any = "") -> tuple[str, dict[str, Any]]:
    clip, settings = _asked(api_jobs.result, job, token)
    if settings.get("file"):
        path = Path(clip).with_name(settings["file"])
        settings = {**settings, "made": FileData(path=str(path), orig_name=path.name).model_dump()}
    return clip, settings


def list_jobs(limit: Any = 50, token: Any = "") -> dict[str, Any]:
    return _asked(api_jobs.listed, limit, token)


# Gradio names the values by the signature, and MCP describes them by the docstring.
setattr(submit, "__signature__", SIGNATURE.replace(parameters=[*SIGNATURE.parameters.values(), TOKEN]))  # noqa: B010
setattr(after, "__signature__", signature({**AFTER, "token": ""}))  # noqa: B010
after.__doc__ = _described({**AFTER_WORDS, "token": TOKEN_WORDS})
submit.__doc__ = _described({**WORDS, "token": TOKEN_WORDS})
list_jobs.__doc__ = _described({"limit": f"how many, to {api_jobs.MOST}", "token": TOKEN_WORDS})
for function in (status, cancel, result):
    function.__doc__ = _described({"job": "its id", "token": TOKEN_WORDS})
