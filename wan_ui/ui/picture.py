"""A place for a picture: Gradio's field, which stays the drop target, with the crop over it, and its note."""

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import gradio as gr
import numpy as np

from wan_ui.catalog import Model, parse_size
from wan_ui.crop import MIDDLE, MOST_ZOOM, Crop, read_crop
from wan_ui.errors import UserError
from wan_ui.lipsync.faces import LibFaceDetector
from wan_ui.media.images import open_image
from wan_ui.tasks import FORM
from wan_ui.ui.markup import Markup, data_url

PARTS = tuple(entry.part for entry in FORM if entry.kind == "picture")
SHOWN = 720  # pixels of the longer side of the picture that the page draws
KEPT = 0.99  # of a picture: less, and something of it is cut off
ENLARGED = 1.5  # times that a crop has to be enlarged before it is said
SCRIPT = (Path(__file__).parent / "crop.js").read_text(encoding="utf-8")
HOW = "Arrow keys move it, plus and minus change its size, 0 puts it back."
TOOLS = Markup().join(
    Markup('<button type="button" data-crop="{act}" aria-label="{label}" title="{label}">{sign}</button>').format(
        act=act, label=label, sign=sign
    )
    for act, label, sign in (
        ("out", "Use more of the picture", "−"),
        ("in", "Use less of the picture", "+"),
        ("back", "Put the crop back", "↺"),
    )
)


@dataclass(frozen=True)
class Picture:
    part: gr.Column
    image: gr.Image
    crop: gr.HTML
    note: gr.HTML


@dataclass(frozen=True)
class Cropped:
    """What the page knows of the crop of one of its pictures. own: a person has moved it."""

    path: str
    crop: Crop
    own: bool = False


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
        crop = gr.HTML("", elem_id=f"{name}-crop", js_on_load=SCRIPT, apply_default_css=False)
    note = gr.HTML("", elem_id=f"{name}-note", apply_default_css=False)
    return Picture(part, image, crop, note)


def target(shape: tuple[int, int], size: str, model: Model) -> tuple[int, int]:
    """Width and height of the clip of a picture of this shape. Raises UserError."""
    return model.closest_size(*shape) if size == "auto" else parse_size(size)


def first_crop(path: str, size: str, model: Model) -> Crop:
    """Where the crop begins: on the largest face, where something is cut off. Raises UserError."""
    image = open_image(path)
    wanted = target(image.size, size, model)
    if _kept(image.size, wanted, MIDDLE) >= KEPT:
        return MIDDLE
    centre = _face(path, Path(path).stat().st_mtime_ns)
    return Crop(*centre) if centre else MIDDLE


@lru_cache(maxsize=32)
def _face(path: str, changed: int) -> tuple[float, float] | None:
    """The centre of the largest face, as parts of width and height."""
    image = open_image(path)
    faces = LibFaceDetector().detect(np.asarray(image))
    if not faces:
        return None
    left, top, right, bottom = faces[0].box
    middle = ((left + right) / 2 / image.width, (top + bottom) / 2 / image.height)
    x, y = (round(min(max(value, 0.0), 1.0), 4) for value in middle)
    return x, y


def crop_html(path: str, size: str, model: Model, first: str, field: str, crop: Crop) -> tuple[Markup, Markup]:
    """The picture with its crop, and a line about it. Raises UserError, which names `field`.

    first  the picture whose shape the clip has where `size` is "auto"
    """
    image = open_image(path, field)
    width, height = target(image.size if first == path else open_image(first).size, size, model)
    view, stored = image.copy(), io.BytesIO()
    view.thumbnail((SHOWN, SHOWN))
    view.save(stored, "JPEG", quality=85)
    numbers = ",".join(f"{value:g}" for value in crop.numbers())
    box = Markup(
        '<div class="w-crop" data-now="{numbers}" data-shape="{width},{height}" data-most="{most:g}">'
        '<img src="{picture}" alt="Your picture with the part that is used">'
        '<div class="w-crop-box" tabindex="0" role="application" aria-roledescription="crop" '
        'aria-label="Part of the picture that is used. {how}"></div>'
        '<div class="w-crop-tools">{tools}</div><span class="w-unseen" role="status"></span></div>'
    ).format(
        numbers=numbers,
        width=width,
        height=height,
        most=MOST_ZOOM,
        picture=data_url(stored.getvalue(), "image/jpeg"),
        how=HOW,
        tools=TOOLS,
    )
    return box, note_html(image.size, (width, height), crop)


def note_html(shape: tuple[int, int], wanted: tuple[int, int], crop: Crop) -> Markup:
    """What becomes of a picture of this shape."""
    width, height = wanted
    left, _, right, _ = crop.box(shape, wanted)
    cut = _kept(shape, wanted, crop) < KEPT
    words = "; the dimmed edges are cut off (drag the bright part)" if cut else ""
    larger = width / (right - left)
    words += f"; that part is enlarged {larger:.1f} times" if larger >= ENLARGED and crop.zoom > 1 else ""
    return Markup('<p class="w-quiet">Used at {width} × {height}{words}.</p>').format(
        width=width, height=height, words=words
    )


def _kept(shape: tuple[int, int], wanted: tuple[int, int], crop: Crop) -> float:
    left, top, right, bottom = crop.box(shape, wanted)
    return (right - left) * (bottom - top) / (shape[0] * shape[1])


def of_form(known: Mapping[str, Cropped], paths: Mapping[str, str], size: str, model: Model) -> dict[str, Cropped]:
    """The crops of the pictures that are in the form now, by their parts: those that a person has moved, else where
    they begin; that of the last picture is as that of the first."""
    crops: dict[str, Cropped] = {}
    for part, path in paths.items():
        before, first = known.get(part), crops.get("picture")
        if before is not None and before.path == path and before.own:
            crops[part] = before
        elif part != "picture" and first is not None:
            crops[part] = Cropped(path, first.crop)
        else:
            try:
                crops[part] = Cropped(path, first_crop(path, size, model))
            except UserError:  # said beside the picture, and when it is sent
                crops[part] = Cropped(path, MIDDLE)
    return crops


def to_keep(crops: Mapping[str, Cropped]) -> dict[str, list[float]]:
    """For the browser's storage; see form.to_keep."""
    return {part: entry.crop.numbers() for part, entry in crops.items() if entry.own}


def from_kept(kept: object, paths: Mapping[str, str]) -> dict[str, Cropped]:
    """paths: of the pictures that have come back."""
    crops = {}
    for part, numbers in (kept if isinstance(kept, dict) else {}).items():
        with contextlib.suppress(UserError):
            if part in paths:
                crops[part] = Cropped(paths[part], read_crop(numbers, part), own=True)
    return crops
