"""How a clip is sampled, where there is a choice: Fast, More motion or Full, and folded, guidance and solver."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from wan_ui.catalog import Model, Scheme
from wan_ui.recipes import CACHES, FEWEST_CACHED, GUIDANCE, MOTIONS, SHIFT, SOLVERS, Recipe
from wan_ui.ui.answers import Answer
from wan_ui.ui.markup import Markup

HIGH, LOW, ONLY = "Guidance, first expert", "Guidance, second expert", "Guidance"


@dataclass(frozen=True)
class RecipePart:
    """motion_note: cost and effect of the motion; recipe_part: what is folded"""

    motion: gr.Radio
    motion_note: gr.HTML
    recipe_part: gr.Accordion
    negative: gr.Textbox
    guidance: gr.Number
    guidance_low: gr.Number
    shift: gr.Number
    solver: gr.Radio
    cache: gr.Radio

    def parts(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def build_recipe_part(model: Model, scheme: Scheme) -> RecipePart:
    motion = model.motions(scheme)[0]
    recipe = model.recipe(scheme, motion)
    shown, values = offered(motion, recipe), defaults(motion, recipe)
    box = gr.Radio(
        label="Motion",
        choices=_motions(model, scheme),
        value=motion,
        visible=len(model.motions(scheme)) > 1,
        elem_id="motion",
        elem_classes="w-segments",
    )
    note = gr.HTML(motion_html(model, scheme, motion), elem_id="motion-note", apply_default_css=False)
    with gr.Accordion("Guidance, solver and speed", open=False, visible=bool(shown), elem_id="recipe") as part:
        negative = gr.Textbox(
            label="Negative prompt",
            info="What the clip is pushed away from. The official text, in Chinese, names gaudy colours, overexposure, "
            "blur, subtitles, stillness, deformed hands and faces",
            value=values["negative"],
            lines=2,
            max_lines=6,
            elem_id="negative",
        )
        with gr.Row(elem_classes="w-pair"):
            guidance = _number("guidance", values, shown, GUIDANCE, _guidance_label(recipe))
            guidance_low = _number("guidance_low", values, shown, GUIDANCE, LOW)
        gr.HTML(
            Markup(
                '<p class="w-quiet">The higher the guidance, the closer to the prompt and the harder the picture; 1 is '
                "none, and half the time. The first expert makes movement and shapes, the second the details.</p>"
            ),
            apply_default_css=False,
        )
        shift = _number("shift", values, shown, SHIFT, "Shift (higher: more of the steps for movement and shapes)")
        solver = gr.Radio(
            label="Solver",
            choices=[(title, name) for name, title in SOLVERS.items()],
            value=values["solver"],
            visible="solver" in shown,
            elem_id="solver",
            elem_classes="w-segments",
        )
        cache = gr.Radio(
            label="Step cache",
            info=f"Steps that hardly change anything are not computed: quicker, and a slightly other clip; from "
            f"{FEWEST_CACHED} steps on",
            choices=_caches(recipe),
            value="off",
            visible="cache" in shown,
            elem_id="cache",
            elem_classes="w-segments",
        )
    return RecipePart(box, note, part, negative, guidance, guidance_low, shift, solver, cache)


def recipe_updates(model: Model, scheme: Scheme, motion: str, values: Mapping[str, Any]) -> Answer:
    """What this motion offers, with these values."""
    recipe = model.recipe(scheme, motion)
    shown = offered(motion, recipe)
    return {
        "motion": gr.update(choices=_motions(model, scheme), value=motion, visible=len(model.motions(scheme)) > 1),
        "motion_note": motion_html(model, scheme, motion),
        "recipe_part": gr.update(visible=bool(shown)),
        "negative": gr.update(value=values["negative"]),
        "guidance": gr.update(value=values["guidance"], label=_guidance_label(recipe)),
        "guidance_low": gr.update(value=values["guidance_low"], visible="guidance_low" in shown),
        "shift": gr.update(value=values["shift"], visible="shift" in shown),
        "solver": gr.update(value=values["solver"], visible="solver" in shown),
        "cache": gr.update(choices=_caches(recipe), value=values["cache"], visible="cache" in shown),
    }


def offered(motion: str, recipe: Recipe) -> tuple[str, ...]:
    """Fields that change something; without any, what the form holds of them is not sent."""
    if motion == "more":
        return ("negative", "guidance")
    if recipe.fixed:
        return ()
    low = ("guidance_low",) if len(recipe.guidance) > 1 else ()
    return ("negative", "guidance", *low, "shift", "solver", *(("cache",) if recipe.caches else ()))


def defaults(motion: str, recipe: Recipe) -> dict[str, Any]:
    """Values of all fields of this part, those that are not shown too."""
    return {
        "motion": motion,
        "negative": recipe.negative,
        "guidance": recipe.guidance[0],
        "guidance_low": recipe.guidance[-1],
        "shift": recipe.shift,
        "solver": recipe.solver if recipe.solver in SOLVERS else "euler",  # the others are no choice, and not sent
        "cache": "off",
    }


def to_send(held: Mapping[str, Any], motion: str, recipe: Recipe) -> dict[str, Any]:
    """For a Draft: what the form holds of the fields that are offered."""
    shown = offered(motion, recipe)
    sent: dict[str, Any] = {
        name: held[name] for name in ("negative", "shift", "solver", "cache") if name in shown and name in held
    }
    scales = [held.get(name) for name in ("guidance", "guidance_low") if name in shown]
    if scales and None not in scales:
        sent["guidance"] = tuple(scales)
    if not any(isinstance(scale, int | float) and scale > 1 for scale in scales):
        sent.pop("negative", None)  # it would change nothing
    return {"motion": motion, **{name: value for name, value in sent.items() if value is not None}}


def words(held: Mapping[str, Any], motion: str, recipe: Recipe) -> list[str]:
    """Parts of the line above Generate."""
    shown = offered(motion, recipe)
    values = defaults(motion, recipe) | {name: held[name] for name in shown if held.get(name) is not None}
    scales = dict.fromkeys(values[name] for name in ("guidance", "guidance_low") if name in shown)
    said = ["guidance " + ", ".join(f"{scale:g}" for scale in scales)] if scales else []
    said += [SOLVERS.get(values["solver"], values["solver"])] if "solver" in shown else []
    said += [f"shift {values['shift']:g}"] if "shift" in shown and values["shift"] != recipe.shift else []
    return said + ([CACHES.get(values["cache"], "")] if values["cache"] != "off" and "cache" in shown else [])


def motion_html(model: Model, scheme: Scheme, motion: str) -> Markup:
    """Beside the choice: what it costs and what it does; why there is none, where other weights have one."""
    words = MOTIONS[motion].words
    if len(model.motions(scheme)) > 1:
        return Markup('<p class="w-quiet">{}.</p>').format(words[:1].upper() + words[1:])
    others = [other.title for other in model.schemes.values() if len(model.motions(other)) > 1]
    if not others:
        return Markup()
    return Markup(
        '<p class="w-quiet">These weights are distilled: few steps, small movements. Weights of the base model with '
        "the distill LoRA ({} …) leave the choice of More motion and Full.</p>"
    ).format(others[0])


def _number(name: str, values: Mapping[str, Any], shown: tuple[str, ...], limits: tuple[float, float], label: str):
    return gr.Number(
        label=label,
        value=values[name],
        minimum=limits[0],
        maximum=limits[1],
        step=0.5,
        visible=name in shown or name == "guidance",
        min_width=150,
        elem_id=name.replace("_", "-"),
    )


def _guidance_label(recipe: Recipe) -> str:
    return ONLY if len(recipe.guidance) == 1 else HIGH


def _motions(model: Model, scheme: Scheme) -> list[tuple[str, str]]:
    return [(MOTIONS[name].title, name) for name in model.motions(scheme)]


def _caches(recipe: Recipe) -> list[tuple[str, str]]:
    return [(CACHES[name], name) for name in recipe.caches or ("off",)]
