"""One step of one expert by itself, its blocks shown: what wan_ui.engines.base.Stages asks of the LightX2V engine."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from wan_ui.engines.base import OnBlock
from wan_ui.engines.lightx2v_seams import put, put_back
from wan_ui.engines.lightx2v_upstream import device_name


def step(
    engine: Any,
    latents: torch.Tensor,
    sigma: float,
    expert: int,
    prompt: torch.Tensor,
    condition: torch.Tensor,
    on_block: OnBlock | None = None,
) -> torch.Tensor:
    """See base.Stages.predict. engine: a LightX2VEngine"""
    scheduler, model = engine.runner.scheduler, engine.runner.model
    if not engine.loaded.family.single:
        put(model, "boundary_step_index", 1)  # step 0 is the first expert's, step 1 the other's
    condition = condition.to(device_name(), engine.dtype)
    inputs: dict[str, dict[str, Any]] = {
        "text_encoder_output": {"context": prompt[None].to(device_name(), engine.dtype)},
        "image_encoder_output": {"vae_encoder_out": condition, "clip_encoder_out": None},
    }
    scheduler.at(latents, sigma, expert, condition)
    if engine.loaded.family.condition == "first frame":
        inputs["image_encoder_output"]["vae_encoder_out"] = None  # pasted into the latents instead
    try:
        with shown(engine.transformers[expert].transformer_infer, on_block) if on_block else nullcontext():
            model.infer(inputs)
        velocity: torch.Tensor = scheduler.noise_pred.float()
        return velocity
    finally:
        scheduler.clear()
        if engine.offload != "none":
            engine.recover()


@contextmanager
def shown(infer: Any, on_block: OnBlock) -> Iterator[None]:
    """Show `on_block` what enters the first block (-1) and what leaves each; see base.Stages.predict."""
    run_block = infer.run_block

    def run(index: int, block: Any, hidden: torch.Tensor, *rest: Any) -> torch.Tensor:
        if index == 0:
            hidden = instead(hidden, on_block(-1, hidden))
        hidden = run_block(index, block, hidden, *rest)
        return instead(hidden, on_block(index, hidden))

    put(infer, "run_block", run)
    try:
        yield
    finally:
        put_back(infer, "run_block")


def instead(hidden: torch.Tensor, replacement: torch.Tensor | None) -> torch.Tensor:
    return hidden if replacement is None else replacement.to(hidden)
