"""What a load builds when the weights are there: dequantised weights, fused blocks, graphs, compiled blocks.

Each is built by a step on nothing, so that the first clip need not wait for it. `engine` is the LightX2VEngine.
"""

from typing import Any

import torch

from wan_ui.engines.lightx2v_compile import CompiledBlocks
from wan_ui.engines.lora import LoraSet
from wan_ui.families import TIME_STRIDE
from wan_ui.request import Progress, Report

GRAPH_ERROR = 1e-3  # relative, between a step as a CUDA graph and the same kernels one by one


def dequantise(engine: Any, e4m3: bool, merge: bool) -> dict[str, str]:
    """Give GGUF weights their numbers, the model's own LoRAs in them if `merge`; for the facts what these matched."""
    from wan_ui.engines.lightx2v_dequantised import dequantise_once

    loras: LoraSet = engine.loras
    matched = loras.own
    if not merge:
        loras.clear()  # they are attached to what the layers were
    merged = dequantise_once(engine.transformers, engine.dtype, loras, e4m3=e4m3)
    if merged:
        loras.forget_fixed()
    engine.set_loras([])
    return {"distill LoRA": f"{matched}, merged into the dequantised weights"} if merged else {}


def fuse(engine: Any, graphs: bool) -> list[Any]:
    """Put the fused blocks in, and run them once on a small clip: their kernels are built at the first call.

    With `graphs` the GraphedBlocks, which are still to be compared.
    """
    from wan_ui.engines.lightx2v_blocks import FusedBlocks

    fused = FusedBlocks([part.transformer_infer for part in engine.transformers])
    width, height = engine.loaded.sizes[0]
    predict_nothing(engine, width, height, 1 + TIME_STRIDE)
    if not graphs:
        return []
    from wan_ui.engines.lightx2v_graphs import GraphedBlocks

    return [GraphedBlocks(part.transformer_infer, fused) for part in engine.transformers]


def compare_graphs(engine: Any, width: int, height: int, frames: int) -> None:
    """Hold a step that is played against the same one without; graphs are left if they are not alike.

    Captured with one clip's inputs, compared with another's: all that differs between clips must be copied.
    """
    config, family = engine.runner.config, engine.loaded.family
    engine.set_size(width, height, frames)
    for expert, graph in enumerate(engine.graphs):
        steps = []
        for number, off in ((0, False), (1, False), (1, True)):
            generator = torch.Generator().manual_seed(number)
            latents = torch.randn(family.vae.latents(width, height, frames), generator=generator)
            condition = torch.randn(family.condition_shape(width, height, frames), generator=generator)
            prompt = torch.randn(config["text_len"], config.get("text_dim", 4096), generator=generator)
            graph.off = off
            with torch.no_grad():
                steps.append(engine.predict(latents, 0.9 - 0.2 * number, expert, prompt, condition))
        graph.off = False
        error = ((steps[1] - steps[2]).norm() / steps[2].norm()).item()
        if not graph.reason and not error < GRAPH_ERROR:
            graph.reason = f"a step that is played differs by {error:.2g} from one that is not"
        if graph.reason:
            graph.forget()
    engine.recover()


def compile_blocks(engine: Any, report: Report) -> CompiledBlocks:
    """Compile for the default size, by one step on nothing, so that the first clip need not."""
    model, (width, height) = engine.loaded, engine.loaded.sizes[0]
    report(Progress("load", 4, 4, f"compiling for {width}x{height}, once"))
    compiled = CompiledBlocks([part.transformer_infer for part in engine.transformers], engine.announce)
    predict_nothing(engine, width, height, model.default_frames)
    return compiled


def predict_nothing(engine: Any, width: int, height: int, frames: int) -> None:
    """One step on zeros: whatever is built at the first call is built now."""
    config, family = engine.runner.config, engine.loaded.family
    engine.set_size(width, height, frames)
    latents = torch.zeros(family.vae.latents(width, height, frames))
    condition = torch.zeros(family.condition_shape(width, height, frames))
    prompt = torch.zeros(config["text_len"], config.get("text_dim", 4096))
    with torch.no_grad():  # as in a job: what is compiled in inference mode does not fit it
        engine.predict(latents, 1.0, 0, prompt, condition)
    engine.recover()
