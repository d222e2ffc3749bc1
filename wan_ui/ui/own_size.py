"""A size of one's own: typed, brought onto the model's grid, and what it costs beside the sizes that are offered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from wan_ui.catalog import Model, Scheme
from wan_ui.queue import estimate
from wan_ui.queue.jobs import Job
from wan_ui.request import Request, Sampling
from wan_ui.tasks import TASKS
from wan_ui.ui.markup import Markup, seconds

SCRIPT = """
const inputs = [...element.querySelectorAll('input')];
const send = () => {
  window.wanUi.changes();
  trigger('EVENT', Object.fromEntries(inputs.map(({ dataset, value }) => [dataset.name, value])));
};
element.querySelector('button').addEventListener('click', send);
element.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  send();
});
"""
PART = Markup("""
<details class="w-own-size"><summary>Own size</summary><div class="w-own-row">
<input data-name="width" type="number" inputmode="numeric" min="16" max="4096" aria-label="Width in pixels"
placeholder="Width">
<span aria-hidden="true">×</span>
<input data-name="height" type="number" inputmode="numeric" min="16" max="4096" aria-label="Height in pixels"
placeholder="Height">
<button type="button" class="w-button">Use this size</button></div></details>
""")


def script(event: str) -> str:
    """For numbers that are typed and sent by their button or Enter: an event of that name, with what each holds."""
    return SCRIPT.replace("EVENT", event)


@dataclass(frozen=True)
class OwnSize:
    part: gr.HTML
    note: gr.HTML


def build_own_size() -> OwnSize:
    part = gr.HTML(PART, elem_id="own-size", js_on_load=script("own_size"), apply_default_css=False)
    return OwnSize(part, gr.HTML("", elem_id="own-size-note", apply_default_css=False))


def words(
    wanted: tuple[int, int], size: tuple[int, int], model: Model, scheme: Scheme, held: dict[str, Any], jobs: list[Job]
) -> str:
    """What became of what was typed, and what it costs: by the last clip of this model here, else beside its sizes."""
    width, height = size
    grid, least, most = model.family.grid, model.least_side, model.most_pixels
    said = f"{width} × {height}"
    if size != wanted:
        limits = f"at least {least} a side and at most {most:,} pixels in all"
        said += f" is the nearest to {wanted[0]} × {wanted[1]}: steps of {grid} pixels, {limits}"
    frames = int(held.get("frames") or model.default_frames)
    took = _seconds(size, frames, model, scheme, held, jobs)
    usual = model.sizes[0]
    times = width * height / (usual[0] * usual[1])
    said += f". About {seconds(took)} by your last clip" if took else ""
    said += f"; {times:.2g} times the pixels of {usual[0]} × {usual[1]}"
    return f"{said}. The model was made for the sizes above: others may look worse."


def _seconds(
    size: tuple[int, int], frames: int, model: Model, scheme: Scheme, held: dict[str, Any], jobs: Sequence[Job]
) -> float:
    """Of a clip with these settings; 0 where none like it was made here."""
    steps, motion = held.get("steps"), held.get("motion")
    guidance = tuple(value for name in ("guidance", "guidance_low") if isinstance(value := held.get(name), int | float))
    made = Sampling("", model.name, scheme.name, "auto", int(steps or model.default_steps), 0, guidance=guidance)
    made = replace(made, motion=motion or "", cache=held.get("cache") or "", draft=held.get("draft") is True)
    task = next(TASKS[name] for name in model.tasks)
    expected = estimate.reference(list(jobs), Request(task.name, {}, *size, frames, made))
    return sum(value for stage, value in expected.items() if stage != "load")
