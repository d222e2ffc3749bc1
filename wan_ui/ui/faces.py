"""Several faces, numbered on a preview: the one that is clicked speaks. The number itself is a field of the form."""

import base64
import io

import gradio as gr
import numpy as np
from PIL import Image

from wan_ui.lipsync.faces import Face
from wan_ui.ui.markup import Markup

WIDEST = 640  # pixels of the preview
SCRIPT = """
const field = () => document.querySelector('#face-number input');
const follow = () => {
  for (const face of element.querySelectorAll('[data-face]')) {
    face.setAttribute('aria-pressed', face.dataset.face === field()?.value);
  }
};
element.addEventListener('click', ({ target }) => {
  const face = target.closest('[data-face]');
  if (!face || !field()) return;
  field().value = face.dataset.face === field().value ? 0 : face.dataset.face; // again: the largest
  field().dispatchEvent(new Event('input', { bubbles: true }));
  field().dispatchEvent(new Event('blur'));
  follow();
});
window.wanUi.followFace = follow;
watch('value', follow);
"""


def build_faces() -> tuple[gr.HTML, gr.Number]:
    """The preview, and the number."""
    shown = gr.HTML("", elem_id="voice-faces", js_on_load=SCRIPT, apply_default_css=False)
    return shown, gr.Number(0, precision=0, label="Face", elem_id="face-number", container=False)


def faces_html(image: np.ndarray, faces: list[Face], what: str) -> Markup:
    """image: (H, W, 3) uint8 RGB; faces: from left to right; what: is shown. "" where there is no choice."""
    if len(faces) < 2:
        return Markup()
    height, width = image.shape[:2]
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((WIDEST, WIDEST))
    picture.save(buffer, "JPEG", quality=82)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    buttons = Markup().join(_button(number, face, width, height) for number, face in enumerate(faces, start=1))
    words = f"{len(faces)} faces: click the one that speaks. Without a click the largest does."
    return Markup(
        '<figure class="w-faces"><div class="w-faces-picture" role="group" aria-label="{what}: who speaks">'
        '<img src="{source}" alt="{what}">{buttons}</div>'
        '<figcaption class="w-quiet">{words}</figcaption></figure>'
    ).format(what=what, source=source, buttons=buttons, words=words)


def _button(number: int, face: Face, width: int, height: int) -> Markup:
    left, top, right, bottom = np.clip(np.array(face.box) / (width, height, width, height), 0, 1) * 100
    place = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
    return Markup(
        '<button type="button" class="w-face" data-face="{number}" aria-pressed="false" style="{place}" '
        'aria-label="Face {number}"><b>{number}</b></button>'
    ).format(number=number, place=place)
