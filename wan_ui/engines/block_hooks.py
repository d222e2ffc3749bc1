"""Around the blocks of a diffusers transformer while a `with` lasts: a step cache, or someone who looks on."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from wan_ui.engines.base import OnBlock
from wan_ui.engines.step_cache import StepCache


@contextlib.contextmanager
def sparing(model: Any, cache: StepCache, half: int) -> Iterator[None]:
    """Let `cache` decide whether the blocks run."""
    blocks = model.blocks
    seen: list[torch.Tensor] = []

    class Spared(torch.nn.Module):
        def forward(self, tokens, *rest):
            def run():
                hidden = tokens
                for block in blocks:
                    hidden = block(hidden, *rest)
                return hidden

            return cache.around(half, tokens, seen[-1], run)

    hook = model.condition_embedder.time_embedder.register_forward_hook(lambda _module, _args, out: seen.append(out))
    model.blocks = torch.nn.ModuleList([Spared()])
    try:
        yield
    finally:
        model.blocks = blocks
        hook.remove()


@contextlib.contextmanager
def hooked(blocks, on_block: OnBlock):
    """Show `on_block` what enters the first block (-1) and what leaves each (0, 1 ...); see base.Stages.predict."""

    def entering(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        replacement = on_block(-1, hidden[0])
        if replacement is None:
            return None
        replacement = replacement[None].to(hidden)
        return ((replacement, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": replacement})

    def leaving(index):
        def hook(_module, _args, output):
            replacement = on_block(index, output[0])
            return None if replacement is None else replacement[None].to(output)

        return hook

    handles = [blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    handles += [block.register_forward_hook(leaving(index)) for index, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
