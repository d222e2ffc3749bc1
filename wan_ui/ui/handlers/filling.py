"""The form is filled in: with a model, what it offers, and settings as far as it offers them.

What is filled in here and in choosing.py are the only updates for model and scheme, and their events are answered one
after the other (`form` in wan_ui/ui/page.py), so that the last to arrive is the last done.
"""

from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from wan_ui.catalog import Model, load_catalog
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form, inputs, lora_picker, models_panel
from wan_ui.ui.answers import Answer
from wan_ui.ui.view import View


def fill(
    view: View,
    name: str,
    scheme: str = "",
    *,
    size: str = "auto",
    frames: int = 0,
    steps: int = 0,
    fps: int = 0,
    draft: bool = False,
    prompt: str | None = None,
) -> Answer:
    """The form has this model now, with these settings as far as it offers them."""
    model, schemes = load_catalog(PIPELINE.settings.catalog)[name], models_panel.usable(PIPELINE.settings)[name]
    size = size if size in [f"{width}x{height}" for width, height in model.sizes] else inputs.default_size(model)
    frames = frames if frames in model.frames else 0
    steps = steps if model.steps[0] <= steps <= model.steps[1] else 0
    fps = fps if fps in model.rates else 0
    frames, steps, fps = frames or model.default_frames, steps or model.default_steps, fps or model.fps
    answer = inputs.model_updates(model, schemes, scheme, size=size, frames=frames, steps=steps, fps=fps)
    view.scheme = inputs.scheme_choices(model, schemes, scheme)["value"] or ""
    values: dict[str, Any] = {"size": size, "frames": frames, "steps": steps, "fps": fps, "draft": draft}
    answer["draft"] = draft
    if prompt is not None:
        answer["prompt"] = gr.update(info=model.hint or None, value=prompt)
        values["prompt"] = prompt
    form.fill(view, **values)
    return {"model": name, **answer, "lora_choices": lora_choices(view, model), "filled": view.fills}


def fill_fields(view: View, *, seed: int, **files: str | None) -> Answer:
    """The form has this seed now, and of picture and voice what is named: a file, or None for none."""
    cached = {name: path and save_file_to_cache(path, get_upload_folder()) for name, path in files.items()}
    form.fill(view, seed=seed, **cached)
    return {"seed": seed, **cached, "filled": view.fills}


def choose(view: View, name: str, scheme: str = "") -> Answer:
    """As `fill`, for a choice: with the model that is there already its other settings stay."""
    if name != view.model:
        return fill(view, name, scheme)
    model, schemes = load_catalog(PIPELINE.settings.catalog)[name], models_panel.usable(PIPELINE.settings)[name]
    boxes = inputs.scheme_choices(model, schemes, scheme)
    view.scheme = boxes["value"] or ""
    return {"model": name, "scheme": gr.update(**boxes)}


def lora_choices(view: View, model: Model) -> dict:
    """Update for the list that LoRAs are added from; the form now has this model."""
    view.model = model.name
    return gr.update(choices=lora_picker.choices(model, PIPELINE.settings), value=None)


def offered(values: dict) -> dict[str, Any]:
    """Size, frames, steps, fps and draft of a stored form or request, which may hold anything; `fill` takes what it
    may."""
    whole = {name: values[name] for name in ("frames", "steps", "fps") if is_whole(values.get(name))}
    return {"size": str(values.get("size")), "draft": values.get("draft") is True, **whole}


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
