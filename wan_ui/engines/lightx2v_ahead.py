"""GGUF weights that get their numbers a block ahead of their use, on a stream of their own.

Where both experts do not fit with two bytes a number, upstream makes every weight anew at every use, and the GPU's
multipliers wait for it: 0.3 s of a step of A14B. Here two buffers of one block take turns: while a block multiplies
with one of them, the next block's weights are made in the other. They are the very numbers that upstream makes.

The streams wait for each other: the maker until the block before last is done with the buffer, the block until its own
weights are made. On a device without streams one comes after the other.
"""

from typing import Any

import torch


class Ahead:
    """The linear layers of the blocks of GGUF transformers; see `begin` and `weight`.

    dtype  of the weights in the buffers
    """

    def __init__(self, transformers: list, dtype: torch.dtype, device: str):
        from lightx2v.common.ops.mm.mm_weight import MMWeightGGUFTemplate

        self.dtype, self.layers, self.after = dtype, {}, {}
        for transformer in transformers:
            blocks = list(transformer.transformer_weights.blocks)
            for block, following in zip(blocks, [*blocks[1:], blocks[0]], strict=True):
                self.after[id(block)] = following
                self.layers[id(block)] = [
                    layer
                    for phase in block.compute_phases
                    for layer in phase._modules.values()
                    if isinstance(layer, MMWeightGGUFTemplate)
                ]
        self.stream = torch.cuda.Stream() if device == "cuda" else None
        self.slots: list[list[torch.Tensor]] = [[], []]  # a block's weights each; made when they are first needed
        self.made: list[Any] = [None, None]  # the block whose weights a slot has, and the events of their making
        self.events: list[Any] = [None, None]
        self.now: dict[int, torch.Tensor] = {}

    def begin(self, block: Any) -> None:
        """This block comes now: its weights are there, and the next one's are begun."""
        slot = next((number for number in (0, 1) if self.made[number] is block), None)
        if slot is None:
            slot = 0
            self._make(block, slot)
        if self.events[slot] is not None:
            torch.cuda.current_stream().wait_event(self.events[slot])
        self.now = {id(layer): weight for layer, weight in zip(self.layers[id(block)], self.slots[slot], strict=True)}
        following = self.after[id(block)]
        if self.made[1 - slot] is not following:
            self._make(following, 1 - slot)

    def weight(self, layer: Any) -> torch.Tensor | None:
        """Of a layer of the block that has begun, (out, in); None if it is none of these layers."""
        return self.now.get(id(layer))

    def forget(self) -> None:
        """Free the buffers."""
        self.slots, self.made, self.now = [[], []], [None, None], {}

    def _make(self, block: Any, slot: int) -> None:
        layers, self.made[slot] = self.layers[id(block)], block
        if self.stream is None:
            self._fill(slot, layers)
            return
        self._make_buffers(slot, layers)  # on the stream that will read them
        # What was asked for up to now may still read the buffer.
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self._fill(slot, layers)
            self.events[slot] = self.stream.record_event()

    def _fill(self, slot: int, layers: list) -> None:
        self._make_buffers(slot, layers)
        for buffer, layer in zip(self.slots[slot], layers, strict=True):
            buffer.copy_(self._numbers(layer))

    def _make_buffers(self, slot: int, layers: list) -> None:
        if not self.slots[slot]:
            with torch.inference_mode(False):  # a job writes into them outside inference mode, the doctor inside it
                self.slots[slot] = [torch.empty_like(self._numbers(layer)) for layer in layers]

    def _numbers(self, layer: Any) -> torch.Tensor:
        numbers: torch.Tensor = layer.get_weight(layer.weight, self.dtype)
        return numbers
