"""The transformer's blocks through torch.compile: norms, modulation, rope, GELU and the quantisation fused.

All blocks of both experts run the same code on tensors of the same shapes, so one compilation serves
them all: about half a minute for the first size, paid when the model is loaded, and a few seconds when
a clip of another size comes first (the kernels are cached on disk). Upstream's own `use_compile` wraps
every block for itself, compiles at the first clip, and turns to kernels for any size, which are slower,
as soon as a second size is seen.

What cannot be compiled is run as it is: a failure is logged, shown among the engine's choices, and costs
the clip nothing.
"""

import logging
from collections.abc import Callable

import torch

from wan_ui.engines.lightx2v_seams import put

log = logging.getLogger(__name__)


class CompiledBlocks:
    """Takes the place of infer_block on the given transformers (upstream's WanTransformerInfer).

    announce  called before a compilation with the number of tokens, so that the wait can be shown
    reason    why nothing is compiled any more; "" while all is well
    """

    def __init__(self, transformers: list, announce: Callable[[int], None], backend: str = "inductor"):
        self.announce, self.reason = announce, ""
        self.seen: set[tuple] = set()
        # Every size, and a LoRA put on or off, is a variant; torch gives up on a function after 8.
        torch._dynamo.config.recompile_limit = 64
        self.compiled = torch.compile(run_block, dynamic=False, backend=backend)
        for transformer in transformers:
            put(transformer, "infer_block", self._runner(transformer))

    def _runner(self, transformer):
        def infer_block(block, hidden, inputs):
            if self.reason:
                return run_block(transformer, block, hidden, inputs)
            put(transformer, "block_idx", 0)  # no dense attention looks at it, and each value would be compiled anew
            key = (tuple(hidden.shape), tuple(inputs.embed0.shape), getattr(transformer, "lora_variant", ()))
            if key in self.seen:
                return self.compiled(transformer, block, hidden, inputs)
            self.announce(len(hidden))
            before = hidden.clone()  # blocks write into their input
            try:
                hidden = self.compiled(transformer, block, hidden, inputs)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                log.warning("the transformer is not compiled: %s", self.reason, exc_info=True)
                return run_block(transformer, block, before, inputs)
            self.seen.add(key)
            return hidden

        return infer_block


def run_block(transformer, block, hidden, inputs):
    return type(transformer).infer_block(transformer, block, hidden, inputs)
