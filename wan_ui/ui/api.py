"""The public endpoints, for gradio_client, curl, and other programs: `generate`, and `pose`, which shows what drives.

Unlike the page `generate` waits for its job, without a thread of its own: however many wait, the page answers. The
job itself does not depend on the caller: it is a row in the queue like any other and goes on if the caller leaves.
"""

import asyncio
import inspect
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio_client import handle_file
from PIL import Image

from wan_ui.errors import UserError
from wan_ui.loras.choice import read_spec
from wan_ui.performance import preview
from wan_ui.queue.draft import Draft
from wan_ui.queue.jobs import Job
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import LoraSpec
from wan_ui.tasks import FORM, PERFORMANCE
from wan_ui.ui import seams
from wan_ui.ui.api_values import PARAMETERS, SAMPLING, SIGNATURE
from wan_ui.ui.examples import load_examples
from wan_ui.ui.refusals import failed
from wan_ui.ui.security import EXAMPLES, uploaded
from wan_ui.ui.session import asker, for_visitor, is_local
from wan_ui.ui.values import as_text

RUNNING, WAITING = 0.3, 1.0  # seconds between looks at a job
DESCRIPTION = (
    "Make a clip from a picture, a prompt or both, and wait for it. Empty texts and null choose the default, seed -1 "
    "draws a random one; loras: one FILE:STRENGTH:TARGET a line; audio: a voice that the face speaks, or with S2V one "
    "that drives the picture; pose_video: what its body follows; end_image: the picture that the clip ends at; task: "
    "i2v, flf2v, t2v, s2v or animate, else what fits the model and what is given; guidance: A or A,B for the two "
    "experts; negative: null is the official text, an empty one none; draft: quicker and less exact, where the GPU has "
    "the means; segments: what happens next, one prompt a line; clip, or the id of its job: goes on instead of a "
    "picture; performance or pose_video, with face_video and mask_video: the character moves so (Animate; overlap: "
    "frames that its segments share); clips: so many at once, up to 8, with seeds of their own. Answers with the video "
    "and its settings: job, seed, model, seconds per stage and more; of several clips with the first, and all of them "
    "in its settings under clips."
)

POSE = (
    "What Animate reads of a performance, before minutes are spent: some of its frames, below them their skeleton and "
    "face, and what was found in words."
)


def build_api(waiting: int, address: str) -> None:
    """`waiting`: how many calls may wait for their jobs at once. address: of the page, for the drawer's example."""
    kinds = {entry.name: entry.kind for entry in FORM}
    with gr.Row(visible=False):
        inputs = {name: _component(name, kinds.get(name, "")) for name in PARAMETERS}
        outputs = [gr.Video(label="video"), gr.JSON(label="settings")]
        shown = load_examples()
        # Gradio's own examples are addresses, which are refused here; ours are files that it serves itself.
        for name in kinds:
            found = next((example.inputs[name] for example in shown if name in example.inputs), None)
            seams.replace_on(inputs[name], "example_payload", lambda given=found: _as_sent(given, address))
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


def _component(name: str, kind: str) -> Any:
    match kind:
        case "picture":
            return gr.Image(type="filepath", image_mode=None, label=name)
        case "audio":
            return gr.Audio(None, type="filepath", label=name)
        case "video":
            return gr.Video(None, label=name)
    default = PARAMETERS[name]
    if default is inspect.Parameter.empty or name == "negative":
        return gr.Textbox(label=name)
    if isinstance(default, bool):
        return gr.Checkbox(default, label=name)
    return gr.Textbox(default, label=name) if isinstance(default, str) else gr.Number(default, label=name)


def _as_sent(given: str | Path | None, address: str) -> Any:
    return handle_file(f"{address}gradio_api/file={EXAMPLES}{given.name}") if isinstance(given, Path) else given


async def generate(*sent: Any) -> tuple[str, dict[str, Any]]:
    """`sent` as SIGNATURE says, by position."""
    call = SIGNATURE.bind(*sent)
    call.apply_defaults()
    given = call.arguments
    owner = "local" if is_local(PIPELINE.settings) else f"api-{secrets.token_hex(16)}"
    try:
        draft = Draft(
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
            job=as_text(given["job"], "job"),
        )
        clips = 1 if given["clips"] is None else given["clips"]
        job_ids = await asyncio.to_thread(PIPELINE.submit_all, [draft], owner, clips, asker(PIPELINE.settings))
        jobs = [await _ended(job_id, owner) for job_id in job_ids]
    except UserError as error:
        raise gr.Error(for_visitor(str(error), PIPELINE.settings), print_exception=False) from None
    except Exception as error:
        raise failed("generate", error) from None
    made = [job for job in jobs if job.state == "done" and PIPELINE.clip(job) is not None]
    if not made:
        raise gr.Error(_why_none(jobs[0]), print_exception=False)
    settings = _settings(made[0])
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


def _settings(job: Job) -> dict[str, Any]:
    warning = {"warning": job.error} if job.error else {}  # the clip is there, but it does not speak
    return {"job": job.id, "worker": job.worker, **job.request.public(), **job.result.public(), **warning}


def _of_several(job: Job) -> dict[str, Any]:
    """video: its file, which clients of Gradio fetch with the answer; or why there is none."""
    clip = PIPELINE.clip(job) if job.state == "done" else None
    if clip is None:
        return {"job": job.id, "seed": job.request.seed, "error": _why_none(job)}
    return {**_settings(job), "video": FileData(path=str(clip), orig_name=clip.name).model_dump()}


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


def _loras(lines) -> tuple[LoraSpec, ...]:
    try:
        return tuple(read_spec(line.strip()) for line in as_text(lines, "loras").splitlines() if line.strip())
    except ValueError as error:
        raise UserError(f"loras: {error}", field="loras") from None
