"""What happens around a step of the LightX2V engine: progress, the halves of guidance, the step cache, the model's own
LoRA. `engine` is the LightX2VEngine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from wan_ui.engines import preview
from wan_ui.engines.lightx2v_seams import put, put_back
from wan_ui.request import Progress
from wan_ui.settings import settings


def entering(engine: Any, index: int) -> None:
    """Called before every step, which may be where the job is stopped."""
    scheduler = engine.runner.scheduler
    step = scheduler.steps[index]
    words = engine.loaded.family.experts[step.expert].title
    if attach_fixed(engine, step.distilled) and not step.distilled:
        words += " without the distill LoRA"
    look = "" if scheduler.straight is None else preview.animate(scheduler.straight[None], engine.colours)
    engine.entered = Progress("denoise", index + 1, scheduler.infer_steps, words, look)
    engine.report(engine.entered)
    engine.runner.set_config({"enable_cfg": step.guidance > 1})
    put(scheduler, "sample_guide_scale", step.guidance)
    if engine.cache is not None:
        engine.cache.enter(index)


@contextmanager
def watching_passes(engine: Any, guided: bool) -> Iterator[None]:
    """Between the halves of guidance a job can be cancelled; a step cache decides whether the blocks run."""
    infers = [part.transformer_infer for part in engine.transformers] if guided or engine.cache is not None else []
    for infer in infers:
        put(infer, "infer_main_blocks", _main_blocks(engine, infer.infer_main_blocks))
    try:
        yield
    finally:
        for infer in infers:
            put_back(infer, "infer_main_blocks")
        engine.runner.set_config({"enable_cfg": False})
        attach_fixed(engine, True)


def _main_blocks(engine: Any, own: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(blocks: Any, inputs: Any) -> torch.Tensor:
        half = 0 if engine.runner.scheduler.infer_condition else 1
        if half and engine.entered is not None:
            engine.report(replace(engine.entered, detail=f"{engine.entered.detail}, negative prompt"))
        if engine.cache is None:
            return own(blocks, inputs)
        cached: torch.Tensor = engine.cache.around(half, inputs.x, inputs.embed, lambda: own(blocks, inputs))
        return cached

    return run


def attach_fixed(engine: Any, on: bool) -> bool:
    """See LoraSet.attach_fixed."""
    if engine.loras is None or engine.loras.with_fixed == on:
        return engine.loras is not None and bool(engine.loras.has_fixed)
    try:
        return bool(engine.loras.attach_fixed(on, settings()))
    finally:
        engine.changed_loras()
