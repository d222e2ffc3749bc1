"""The one public endpoint, `generate`: for gradio_client, curl, and other programs.

Unlike the page it waits for its job, without a thread of its own: however many wait, the page answers. The
job itself does not depend on the caller: it is a row in the queue like any other and goes on if the caller leaves.
"""

import asyncio
import secrets

import gradio as gr
from gradio_client import handle_file

from wan_ui.errors import UserError
from wan_ui.loras.choice import read_spec
from wan_ui.queue.intake import Draft
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.request import LoraSpec
from wan_ui.ui import seams
from wan_ui.ui.examples import load_examples
from wan_ui.ui.refusals import failed
from wan_ui.ui.security import EXAMPLES, uploaded
from wan_ui.ui.session import for_visitor, is_local
from wan_ui.ui.values import as_text

RUNNING, WAITING = 0.3, 1.0  # seconds between looks at a job
DESCRIPTION = (
    "Make a clip from a picture and a prompt, and wait for it. Empty texts and null choose the default, seed -1 "
    "draws a random one; loras: one FILE:STRENGTH:TARGET a line; audio: a voice that the face speaks. Answers with "
    "the video and its settings: job, seed, model, seconds per stage and more."
)


def build_api(waiting: int, address: str) -> None:
    """`waiting`: how many calls may wait for their jobs at once. address: of the page, for the drawer's example."""
    with gr.Row(visible=False):
        inputs = [
            gr.Image(type="filepath", image_mode=None, label="image"),
            gr.Textbox(label="prompt"),
            gr.Textbox("", label="model"),
            gr.Textbox("", label="scheme"),
            gr.Textbox("auto", label="size"),
            gr.Number(None, label="frames"),
            gr.Number(None, label="steps"),
            gr.Number(-1, label="seed"),
            gr.Textbox("", label="loras"),
            gr.Audio(None, type="filepath", label="audio"),
            gr.Number(None, label="fps"),
        ]
        outputs = [gr.Video(label="video"), gr.JSON(label="settings")]
        shown = load_examples()
        if shown:  # Gradio's own examples are addresses, which are refused here; ours are files that it serves itself
            place = f"{address}gradio_api/file={EXAMPLES}"
            voice = next((example.audio for example in shown if example.audio), None)
            named = {component.label: component for component in inputs}
            payloads = {
                "image": lambda: handle_file(f"{place}{shown[0].image.name}"),
                "prompt": lambda: shown[0].prompt,
                "audio": lambda: handle_file(f"{place}{voice.name}") if voice else None,
            }
            for name, payload in payloads.items():
                seams.replace_on(named[name], "example_payload", payload)
        gr.Button().click(
            generate,
            inputs,
            outputs,
            api_name="generate",
            api_description=DESCRIPTION,
            preprocess=False,
            concurrency_limit=waiting,
        )


async def generate(
    image, prompt, model="", scheme="", size="auto", frames=None, steps=None, seed=-1, loras="", audio=None, fps=None
):
    owner = "local" if is_local(PIPELINE.settings) else f"api-{secrets.token_hex(16)}"
    try:
        draft = Draft(
            {"image": uploaded(image), "prompt": as_text(prompt, "prompt"), "audio": uploaded(audio, "audio")},
            model=as_text(model, "model"),
            scheme=as_text(scheme, "scheme"),
            size=as_text(size, "size", "auto"),
            frames=frames,
            steps=steps,
            fps=fps,
            seed=seed,
            loras=_loras(loras),
        )
        job_id = await asyncio.to_thread(PIPELINE.submit, draft, owner)
        while True:
            job = await asyncio.to_thread(PIPELINE.look, job_id, owner)
            if job is not None and not job.active:
                break
            await asyncio.sleep(RUNNING if job is not None and job.state == "running" else WAITING)
    except UserError as error:
        raise gr.Error(for_visitor(str(error), PIPELINE.settings), print_exception=False) from None
    except Exception as error:
        raise failed("generate", error) from None
    if job.state != "done":
        raise gr.Error(job.error or f"the job was {job.state}", print_exception=False)
    if PIPELINE.clip(job) is None:
        raise gr.Error("The clip was made, but its file is not there any more.", print_exception=False)
    warning = {"warning": job.error} if job.error else {}  # the clip is there, but it does not speak
    return str(PIPELINE.clip(job)), {"job": job.id, **job.request.public(), **job.result.public(), **warning}


def _loras(lines) -> tuple[LoraSpec, ...]:
    try:
        return tuple(read_spec(line.strip()) for line in as_text(lines, "loras").splitlines() if line.strip())
    except ValueError as error:
        raise UserError(f"loras: {error}", field="loras") from None
