"""Words and addresses shared by the parts of the page that are drawn as HTML.

What draws gives `Markup`; what a person typed is a `str`, and is escaped when it is put into markup.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import markupsafe

from wan_ui.catalog import Model
from wan_ui.queue.jobs import Job
from wan_ui.request import UNKNOWN, Request
from wan_ui.tasks import TASKS
from wan_ui.valid_text import valid_text


class Markup(markupsafe.Markup):
    """HTML. Whatever else is put into it, by `format`, `join` or `+`, is escaped and made valid text.

    So nothing has to be remembered for a name or a prompt: `Markup("<b>{}</b>").format(name)`. Markup by itself are
    only the texts of these sources, which tests/unit/test_markup.py holds them to; gr.HTML takes nothing else.
    """

    @classmethod
    def escape(cls, s: Any, /) -> Self:
        return super().escape(s if hasattr(s, "__html__") else valid_text(str(s)))


STATE_WORDS = {
    "queued": "Waiting",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "interrupted": "Interrupted",
}


CLIPS = "clips/"  # stands for the folder of all jobs, which is nobody's business
SPEAKS = Markup('<span class="w-state speaks">speaks</span>')  # on a tile
DRAFT = Markup('<span class="w-state draft">draft</span>')


def text(value: object) -> Markup:
    """Where a person's words stand alone."""
    return Markup.escape(value)


def wide_table(label: str, heads: Iterable[str], rows: Markup) -> Markup:
    """A table that scrolls sideways by itself, with the keyboard too. rows: of the body."""
    columns = Markup().join(Markup('<th scope="col">{}</th>').format(head) for head in heads)
    return Markup(
        '<div class="w-wide" tabindex="0" role="region" aria-label="{label}"><table class="w-table"><thead><tr>'
        "{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    ).format(label=label, columns=columns, rows=rows)


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


def marked_title(request: Request) -> Markup:
    """The same as a text on the page: a prompt is not translated, what stands in its place is."""
    words = title(request)
    untitled = words == TASKS[request.task].untitled
    return Markup("{}").format(words) if untitled else Markup('<span translate="no">{}</span>').format(words)


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
