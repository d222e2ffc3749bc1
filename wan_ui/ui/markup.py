"""Words and addresses shared by the parts of the page that are drawn as HTML.

Everything a person typed passes through `text` before it is put into markup.
"""

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from wan_ui.catalog import Model
from wan_ui.queue.jobs import Job
from wan_ui.request import UNKNOWN, Request
from wan_ui.tasks import TASKS
from wan_ui.valid_text import valid_text

STATE_WORDS = {
    "queued": "Waiting",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "interrupted": "Interrupted",
}


CLIPS = "clips/"  # stands for the folder of all jobs, which is nobody's business
SPEAKS = '<span class="w-state speaks">speaks</span>'  # on a tile
DRAFT = '<span class="w-state draft">draft</span>'


def text(value) -> str:
    return html.escape(valid_text(str(value)), quote=True)


def wide_table(label: str, heads: Iterable[str], rows: str) -> str:
    """A table that scrolls sideways by itself, with the keyboard too. heads: plain words; rows: markup of the body."""
    columns = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    return (
        f'<div class="w-wide" tabindex="0" role="region" aria-label="{text(label)}"><table class="w-table"><thead><tr>'
        f"{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def data_url(content: bytes, kind: str) -> str:
    """A file in the page itself: its folder then needs not be served."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def file_url(path: Path) -> str:
    """Address of a file in a job's folder, relative so that it also holds behind a proxy; see guard.Guard."""
    inside = path.parts[len(path.parts) - path.parts[::-1].index("clips") :]
    return f"gradio_api/file={CLIPS}{quote('/'.join(inside))}"


def seconds(value: float) -> str:
    """12.3 s, 2 min 5 s, 1 h 4 min"""
    if value < 10:
        return f"{value:.1f} s"
    if value < 60:
        return f"{value:.0f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def model_name(catalog: dict[str, Model], name: str, scheme: str) -> str:
    """ "Wan-Tiny, bf16": short enough for one line. Names of models that have left the catalog stay readable."""
    model = catalog.get(name)
    if model is None:
        return f"{name}, {scheme}"
    return f"{model.short_title}, {model.schemes[scheme].title if scheme in model.schemes else scheme}"


def title(request: Request) -> str:
    """What a clip is called: its prompts; there is none of a video from elsewhere, nor of a damaged entry."""
    made = request.made_with or UNKNOWN
    prompts = [made.prompt, *(segment.prompt for segment in made.segments)]
    return " | ".join(filter(None, prompts)) or TASKS[request.task].untitled


def spent(job: Job) -> float:
    return sum(job.result.seconds.values())


def speaks(job: Job) -> bool:
    """Whether its clip has become one that speaks."""
    return job.state == "done" and "audio" in job.request.inputs and not job.error


def problem(job: Job) -> str:
    """Why there is no clip, in words; "" when there is nothing to say."""
    if job.state == "cancelled":
        return "Cancelled before it was finished."
    if job.state in ("failed", "interrupted"):
        return job.error or "It ended without saying why; the log of the app may know."
    return job.error  # of a clip that is there but has not become what was asked for
