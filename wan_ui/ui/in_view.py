"""What an action made, or what it says is wrong, comes into view: the server names the part, page.js scrolls to it."""

import gradio as gr

SCRIPT = """
watch('value', () => {
  const order = element.querySelector('i');
  if (order) window.wanUi.show(order.dataset);
});
"""


def build_in_view() -> gr.HTML:
    return gr.HTML("", elem_id="in-view", js_on_load=SCRIPT, apply_default_css=False)


def order(show: tuple[int, str, bool]) -> str:
    """show: a number that grows, the part's name in page.js, and whether it only asks (see `View.bring`)."""
    number, part, gentle = show
    return f'<i data-number="{number}" data-part="{part}"{" data-gentle" if gentle else ""}></i>' if part else ""
