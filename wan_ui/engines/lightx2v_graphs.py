"""The blocks of a short step as one CUDA graph: launched at once, not kernel by kernel.

Where a step is short (the 5B model at 480x480: 30 blocks in 0.1 s), Python needs a good part of that time to ask for
some six hundred kernels. A graph is captured once for a size and played with new inputs, which are copied to where the
captured kernels read. It holds addresses: of the weights, of a LoRA's factors, of the work's own memory. So it is
dropped when LoRAs change, and one of another size takes its place; what is shown block by block, and larger clips, run
as always.

What is played must give what the same step gives without: the engine compares the two at load, on inputs that are not
those of the capture, and leaves it if they differ.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from wan_ui.engines.lightx2v_blocks import FusedBlocks
from wan_ui.engines.lightx2v_config import SHORT
from wan_ui.engines.lightx2v_seams import put

log = logging.getLogger(__name__)

Run = Callable[[], torch.Tensor]


def capture(run: Run) -> tuple[Callable[[], None], torch.Tensor]:
    """What plays `run` again, and where its result is then. It has run before, so that every kernel is there."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph.replay, result


@dataclass(slots=True)
class Captured:
    """One graph, and where its kernels read."""

    key: tuple
    x: torch.Tensor
    embed0: torch.Tensor
    context: torch.Tensor
    turns: torch.Tensor
    play: Callable[[], None]
    result: torch.Tensor


class GraphedBlocks:
    """Takes the place of infer_func on one transformer (upstream's WanTransformerInfer) whose blocks are fused.

    reason  why nothing is captured any more; "" while all is well
    """

    def __init__(self, transformer: Any, fused: FusedBlocks, capture: Callable = capture):
        self.transformer, self.fused, self.capture = transformer, fused, capture
        self.eager, self.reason = transformer.infer_func, ""
        self.captured: Captured | None = None
        self.off = False  # to compare
        put(transformer, "infer_func", self.run)

    def forget(self) -> None:
        """What was captured reads tensors that are going to change."""
        self.captured = None

    def run(self, blocks: Any, x: torch.Tensor, inputs: Any) -> torch.Tensor:
        shown = "run_block" in vars(self.transformer)
        if self.off or self.reason or shown or x.numel() > SHORT:
            return self.eager(blocks, x, inputs)
        drafts = "apply" in vars(blocks[len(blocks) // 2].compute_phases[0].self_attn_1)
        key = (x.shape, inputs.embed0.shape, inputs.context.shape, x.dtype, drafts)
        if self.captured is None or self.captured.key != key:
            self.captured = None  # its memory is free for the next one
            before = x.clone()
            try:
                # Stages are examined in inference mode, and its tensors cannot be written outside of it.
                with torch.inference_mode(False), torch.no_grad():
                    self.captured = self._capture(key, blocks, x, inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                log.warning("the step is not captured: %s", self.reason, exc_info=True)
                return self.eager(blocks, before, inputs)
        found = self.captured
        found.x.copy_(x)
        found.embed0.copy_(inputs.embed0)
        found.context.copy_(inputs.context)
        found.turns.copy_(self.fused.pairs(self.transformer.cos_sin))
        found.play()
        return found.result.clone()  # a step cache may keep it while the next step is played

    def _capture(self, key: tuple, blocks: Any, x: torch.Tensor, inputs: Any) -> Captured:
        own = copy.copy(inputs)
        own.embed0, own.context = inputs.embed0.clone(), inputs.context.clone()
        start, turns, cos_sin = x.clone(), self.fused.pairs(self.transformer.cos_sin), self.transformer.cos_sin
        self.fused.turns = cos_sin, turns  # what blocks read while they are captured
        self.eager(blocks, x.clone(), own)  # kernels are built and workspaces made at a first run
        play, result = self.capture(lambda: self.eager(blocks, start, own))
        self.fused.turns = None  # the graph's own from now on
        return Captured(key, start, own.embed0, own.context, turns, play, result)
