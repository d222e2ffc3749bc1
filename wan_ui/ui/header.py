"""The title, the switch between English and Chinese (words.js), and the list of keys that "?" opens."""

import gradio as gr

from wan_ui.ui.markup import Markup

KEYS = (
    ("Ctrl + Enter", "Generate"),
    ("Ctrl + V", "paste a picture, a video or a voice"),
    ("Alt + ↑, Alt + ↓", "move a waiting clip, on its line in the queue"),
    ("←, →", "one frame back or on, in Compare"),
    ("Tab, Shift + Tab", "from one control to the next, and back"),
    ("Esc", "close a list"),
    ("?", "show these keys"),
)
SCRIPT = """
const list = element.querySelector('dialog');
element.querySelector('[data-keys]').addEventListener('click', () => list.showModal());
list.addEventListener('click', (event) => {
  if (event.target === list || event.target.closest('[data-close]')) list.close();
});
document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
  if (event.key !== '?' || typing || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  if (list.open) list.close();
  else list.showModal();
});
"""


def build_header() -> gr.HTML:
    return gr.HTML(_header(), js_on_load=SCRIPT, apply_default_css=False)


def _header() -> Markup:
    keys = Markup().join(
        Markup("<div><dt><kbd>{key}</kbd></dt><dd>{words}</dd></div>").format(key=key, words=words)
        for key, words in KEYS
    )
    return Markup(
        '<header class="w-header"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="9"/>'
        '<path d="M7 19c3-7 5-7 7.500-1s4.500 6 10.500-6"/></svg><h1>Wan UI</h1>'
        "<p>a picture and a sentence become a clip</p>"
        '<button type="button" class="w-language" data-language translate="no">'
        '<span lang="zh-CN">中文</span><span lang="en">English</span></button>'
        '<button type="button" class="w-help" data-keys aria-label="Keyboard shortcuts">?</button></header>'
        '<dialog class="w-shortcuts" aria-labelledby="shortcuts-title"><h2 id="shortcuts-title">Keyboard shortcuts</h2>'
        '<dl>{}</dl><button type="button" class="w-button" data-close>Close</button></dialog>'
    ).format(keys)
