"""A place for a picture: Gradio's field, which stays the drop target, with the crop drawn over it, and its note."""

import io
from dataclasses import dataclass

import gradio as gr

from wan_ui.catalog import Model, parse_size
from wan_ui.media.images import crop_box, open_image, show_crop
from wan_ui.ui.markup import data_url


@dataclass(frozen=True)
class Picture:
    part: gr.Column
    image: gr.Image
    crop: gr.HTML
    note: gr.HTML


def build_picture(name: str, label: str, placeholder: str, height: int, visible: bool) -> Picture:
    """name: of the part of the form, see wan_ui.tasks.Input. height: in pixels."""
    with gr.Column(elem_id=f"{name}-part", visible=visible) as part:
        image = gr.Image(
            label=label,
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=[],
            height=height,
            placeholder=placeholder,
            elem_id=name,
        )
        crop = gr.HTML("", elem_id=f"{name}-crop", apply_default_css=False)
    note = gr.HTML("", elem_id=f"{name}-note", apply_default_css=False)
    return Picture(part, image, crop, note)


def crop_preview(path: str, size: str, model: Model, first: str, field: str) -> tuple[str, str]:
    """The picture with its crop marked, and a line about it. Raises UserError, which names `field`.

    first  the picture whose shape the clip has where `size` is "auto"
    """
    image = open_image(path, field)
    shape = image.size if first == path else open_image(first).size
    width, height = model.closest_size(*shape) if size == "auto" else parse_size(size)
    left, top, right, bottom = crop_box(image.size, (width, height))
    kept = (right - left) * (bottom - top) / (image.width * image.height)
    stored = io.BytesIO()
    show_crop(image, width, height, longest=720).save(stored, "JPEG", quality=85)
    source = data_url(stored.getvalue(), "image/jpeg")
    cropped = "; the dimmed edges are cut off" if kept < 0.99 else ""
    return f'<img src="{source}" alt="Your picture with the part that is used">', (
        f'<p class="w-quiet">Used at {width} × {height}{cropped}.</p>'
    )
