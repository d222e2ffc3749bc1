"""Wan UI on Hugging Face's ZeroGPU: `tools/space.py --zerogpu` makes the Space's folder, with this as its app.py.

There a GPU is lent to the calls of a decorated function, each in a fork of this process. So this process imports torch,
unlike the page's of any other host, and the engine: what is imported here need not be imported while the GPU is lent.
It computes nothing itself: after that no fork could.
"""

import logging
import sys
from collections.abc import Iterator

import spaces  # isort: skip - before torch, of which it puts its own beginnings in place
import torch  # noqa: F401

import wan_ui.engines.create  # noqa: F401
from wan_ui.app import serve
from wan_ui.errors import UserError
from wan_ui.machine.preflight import say_anything
from wan_ui.queue import lent
from wan_ui.settings import settings


@spaces.GPU(duration=lent.duration)
def lend(letter: bytes, seconds: int, settings_json: str, engine_factory: str) -> Iterator[bytes]:
    yield from lent.answers(letter, settings_json, engine_factory)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    say_anything()
    try:
        serve(settings(), lend=lend)
    except UserError as error:
        sys.exit(f"error: {error}")
