"""What was encoded of prompts and pictures is kept, by content: the next job with the same ones need not wait for it.

A job finds here too what was prepared while the form was filled in.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import torch

from wan_ui.engines.base import READY
from wan_ui.files.tokenizer import clean

Prompt = TypeVar("Prompt")

PROMPTS = 32  # 1 MB each at full size
IMAGES = 8  # 2 MB each at 480x480x81


def image_key(pictures: Sequence[np.ndarray], frames: int) -> tuple:
    """What encoded pictures are kept under."""
    return (*(hashlib.sha256(pixels.tobytes()).digest() for pixels in pictures), pictures[0].shape, frames)


class Encoded(Generic[Prompt]):
    """The newest are kept.

    ready  stage -> READY, for what the job that runs found and nobody had asked for before
    """

    def __init__(self) -> None:
        self.prompts: OrderedDict[str, Prompt] = OrderedDict()
        self.images: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self.ready: dict[str, str] = {}
        self._prepared: set[str | tuple] = set()  # keys of what no job has asked for yet

    def begin(self) -> None:
        """A job begins."""
        self.ready = {}

    def prompt(self, prompt: str, encode: Callable[[], Prompt]) -> Prompt:
        key = clean(prompt)
        if key not in self.prompts:
            self.prompts[key] = encode()
            _shorten(self.prompts, PROMPTS)
        self.prompts.move_to_end(key)
        self._found("text", key)
        return self.prompts[key]

    def image(self, key: tuple, encode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """key: see image_key."""
        if key not in self.images:
            self.images[key] = encode()
            _shorten(self.images, IMAGES)
        self.images.move_to_end(key)
        self._found("image", key)
        return self.images[key]

    def _found(self, stage: str, key: str | tuple) -> None:
        if key in self._prepared:
            self._prepared.discard(key)
            self.ready[stage] = READY

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """What is encoded meanwhile no job has asked for."""
        before, known = self._prepared.copy(), self._keys()
        try:
            yield
        finally:
            self._prepared = before | (self._keys() - known)

    def _keys(self) -> set[str | tuple]:
        return {*self.prompts.keys(), *self.images.keys()}

    def clear(self) -> None:
        for kept in (self.prompts, self.images, self._prepared):
            kept.clear()


def _shorten(kept: OrderedDict, most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
