"""The form is filled in: with a model, what it offers, and settings as far as it offers them.

What is filled in here and in choosing.py are the only updates for model and scheme, and their events are answered one
after the other (`form` in wan_ui/ui/page.py), so that the last to arrive is the last done.
"""

import contextlib
from typing import Any

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from wan_ui.catalog import Model, parse_size
from wan_ui.errors import UserError
from wan_ui.files import found
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.recipes import GUIDANCE, SHIFT, SOLVERS, Recipe
from wan_ui.speaking import PART
from wan_ui.ui import form, inputs, lora_picker, models_panel, offload_part, performance, recipe_part
from wan_ui.ui.answers import Answer
from wan_ui.ui.view import View


def fill(
    view: View,
    name: str,
    scheme: str = "",
    *,
    size: str = "auto",
    frames: int = 0,
    fps: int = 0,
    draft: bool = False,
    overlap: int = 0,
    offload: str = "auto",
    prompt: str | None = None,
    **recipe: Any,
) -> Answer:
    """The form has this model now, with these settings as far as it offers them."""
    model, schemes = found.models(PIPELINE.settings)[name], models_panel.usable(PIPELINE.settings)[name]
    size = size if _is_size(size, model) else inputs.default_size(model)
    frames = frames if frames in model.frames else 0
    fps = fps if fps in model.rates else 0
    frames, fps = frames or model.default_frames, fps or model.fps
    answer = inputs.model_updates(model, schemes, scheme, size=size, frames=frames, fps=fps)
    view.scheme = inputs.scheme_choices(model, schemes, scheme)["value"] or ""
    seams = performance.overlap_offers(model, overlap)
    values: dict[str, Any] = {"size": size, "frames": frames, "fps": fps, "draft": draft, "overlap": seams["value"]}
    answer |= {"draft": draft, "overlap": gr.update(**seams), **_fill_offload(view, model, offload)}
    if prompt is not None:
        answer["prompt"] = gr.update(info=model.hint or None, value=prompt)
        values["prompt"] = prompt
    form.fill(view, **values)
    answer |= {"model": name, "lora_choices": lora_choices(view, model)}
    return {**answer, **fill_recipe(view, model, **recipe)}


def _fill_offload(view: View, model: Model, wished: str) -> Answer:
    """The form has this way to keep the weights now, as far as these weights can be kept so."""
    ways = offload_part.offers(model, form.scheme_of(view, model), PIPELINE.settings, wished)
    form.fill(view, offload=ways["value"])
    return {"offload": gr.update(**ways)}


def fill_recipe(view: View, model: Model, motion: str = "", steps: int = 0, **wished: Any) -> Answer:
    """The form has this motion now, the usual one if these weights do not offer it; with these values as far as it
    offers them."""
    scheme = form.scheme_of(view, model)
    motion = motion if motion in model.motions(scheme) else model.motions(scheme)[0]
    recipe = model.recipe(scheme, motion)
    fewest, most = recipe.steps
    steps = steps if fewest <= steps <= most else recipe.default_steps
    values = recipe_part.defaults(motion, recipe)
    for name in recipe_part.offered(motion, recipe):
        if name in wished and good(name, wished[name], recipe):
            values[name] = wished[name]
    form.fill(view, steps=steps, **values)
    updates = recipe_part.recipe_updates(model, scheme, motion, values)
    return {"steps": gr.update(minimum=fewest, maximum=most, value=steps), **updates, "filled": view.fills}


def good(name: str, value: Any, recipe: Recipe) -> bool:
    """Whether a stored value may be taken over."""
    match name:
        case "guidance" | "guidance_low" | "shift":
            smallest, largest = SHIFT if name == "shift" else GUIDANCE
            return isinstance(value, int | float) and not isinstance(value, bool) and smallest <= value <= largest
        case "solver":
            return isinstance(value, str) and value in SOLVERS
        case "cache":
            return value in recipe.caches
    return isinstance(value, str)


def fill_fields(view: View, *, seed: int | None = None, segments: str | None = None, **files: str | None) -> Answer:
    """The form has these now, if they are named: seed, prompts of segments, of the files a path, or None for none."""
    cached = {name: path and save_file_to_cache(path, get_upload_folder()) for name, path in files.items()}
    values: dict[str, Any] = {} if seed is None else {"seed": seed}
    values |= cached if segments is None else {"segments": segments, **cached}
    if "voice" in files:  # a job's own copy of a sound is the part that was spoken
        values |= dict.fromkeys(PART)
    form.fill(view, **values)
    return {**values, "filled": view.fills}


def choose(view: View, name: str, scheme: str = "") -> Answer:
    """As `fill`, for a choice: with the model that is there already its other settings stay."""
    if name != view.model:
        return fill(view, name, scheme)
    model, schemes = found.models(PIPELINE.settings)[name], models_panel.usable(PIPELINE.settings)[name]
    boxes = inputs.scheme_choices(model, schemes, scheme)
    before, motions = form.recipe_of(view, model), model.motions(form.scheme_of(view, model))
    view.scheme = boxes["value"] or ""
    ways = _fill_offload(view, model, view.form.get("offload") or "auto")
    answer = {"model": name, "scheme": gr.update(**boxes), **ways}
    weights = form.scheme_of(view, model)
    motion, recipe = form.recipe_of(view, model)
    if (motion, recipe) != before:  # other weights, other ways to sample them
        return answer | fill_recipe(view, model)
    if model.motions(weights) == motions:
        return answer
    held = {key: value for key, value in view.form.items() if value is not None}
    steps = held.get("steps", recipe.default_steps)
    return answer | fill_recipe(
        view, model, motion, steps, **{key: held[key] for key in form.RECIPE[1:] if key in held}
    )


def lora_choices(view: View, model: Model) -> dict:
    """Update for the list that LoRAs are added from; the form now has this model."""
    view.model = model.name
    return gr.update(choices=lora_picker.choices(model, PIPELINE.settings), value=None)


def offered(values: dict) -> dict[str, Any]:
    """Size, frames, steps and so on of a stored form or request, which may hold anything; `fill` takes what it may."""
    whole = {name: values[name] for name in ("frames", "steps", "fps", "overlap") if is_whole(values.get(name))}
    recipe = {name: values[name] for name in form.RECIPE if values.get(name) is not None}
    scales = recipe.get("guidance")
    if isinstance(scales, list | tuple):  # of a request; a form has them one by one
        recipe |= {"guidance": scales[0], "guidance_low": scales[-1]} if scales else {"guidance": None}
    if not recipe.get("negative") and isinstance(scales, list | tuple):
        recipe.pop("negative", None)  # without guidance none is stored
    words = {"size": str(values.get("size")), "offload": str(values.get("offload") or "auto")}
    return {**words, "draft": values.get("draft") is True, **whole, **recipe}


def _is_size(text: str, model: Model) -> bool:
    with contextlib.suppress(UserError):
        return model.takes_size(parse_size(text))
    return False


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
