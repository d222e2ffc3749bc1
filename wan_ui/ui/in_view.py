"""What goes to page.js with every answer that draws something.

Its number: answers may overtake each other, and what an older one brings late is not what the page should show. page.js
sees by the numbers that one came late or is missing, tells the timer's next look (`heard`), and gets all parts again.

And what comes into view, which an action made or which says what is wrong: the server names the part, page.js scrolls
to it. And for done.js how many jobs are being made or wait, and those that have ended (done_part.py).
"""

import json
from collections.abc import Sequence

import gradio as gr

from wan_ui.ui.done_part import Ended, to_send
from wan_ui.ui.markup import Markup

SCRIPT = """
watch('value', () => {
  const order = element.querySelector('i');
  if (!order) return;
  window.wanUi.arrived(order.dataset);
  window.wanUi.show(order.dataset);
  window.wanUiDone.news(order.dataset);
});
"""


def build_in_view() -> gr.HTML:
    return gr.HTML("", elem_id="in-view", js_on_load=SCRIPT, apply_default_css=False)


def order(answer: int, whole: bool, show: tuple[int, str, bool], active: int, ended: Sequence[Ended]) -> Markup:
    """answer: its number; whole: it has all parts; show: a number that grows, the part's name in page.js, and whether
    it only asks (see `View.bring`)."""
    number, part, gentle = show
    flags = (" data-whole" if whole else "") + (" data-gentle" if gentle else "")
    news = Markup('data-active="{active}" data-ended="{ended}"').format(active=active, ended=json.dumps(to_send(ended)))
    return Markup('<i data-answer="{answer}" data-number="{number}" data-part="{part}" {news}{flags}></i>').format(
        answer=answer, number=number, part=part, news=news, flags=flags
    )
