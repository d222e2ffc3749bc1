"""How a person hears that a clip is done: two boxes, folded, that done.js reads and remembers in the browser.

They are there from the first clip on, or where one was ticked before: until then there is nothing to hear.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import gradio as gr

from wan_ui.queue.jobs import Job
from wan_ui.ui.markup import Markup, title

KEPT = 20  # ends that are sent again and again: the browser may miss answers, and knows by their numbers what is new
BOXES = Markup("""<details hidden class="w-heard"><summary>Tell me when it is done</summary><div>
<label><input type="checkbox" data-heard="notify"> Notification, while you look elsewhere</label>
<label><input type="checkbox" data-heard="sound"> A soft sound</label>
<p class="w-quiet" role="status"></p></div></details>""")


@dataclass(frozen=True)
class Ended:
    """A job that has ended while the page was open. number: it is the page's how-many-eth."""

    number: int
    job: str
    state: str
    words: str


def build_heard() -> gr.HTML:
    return gr.HTML(BOXES, elem_id="heard", js_on_load="window.wanUiDone.show();", apply_default_css=False)


def with_end(ended: Sequence[Ended], job: Job) -> list[Ended]:
    """The ends with that of `job`, which says nothing where its owner has cancelled it."""
    if job.state == "cancelled":
        return list(ended)
    number = ended[-1].number + 1 if ended else 1
    return [*ended, Ended(number, job.id, job.state, title(job.request)[:200])][-KEPT:]


def to_send(ended: Sequence[Ended]) -> list[dict[str, object]]:
    return [asdict(end) for end in ended]
