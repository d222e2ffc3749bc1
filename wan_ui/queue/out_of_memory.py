"""A job that did not fit into memory: what is given back, and what would fit, in words."""

import gc
import logging
import traceback

from wan_ui.catalog import Model, find_model
from wan_ui.files import found
from wan_ui.machine import memory
from wan_ui.queue.messages import Generate
from wan_ui.request import Request
from wan_ui.settings import Settings

log = logging.getLogger(__name__)


def refusal(error: Exception, message: object, settings: Settings) -> str:
    """Words for the person whose job this is; "" where the error is another. What the job held is let go."""
    where = memory.ran_out(error)
    if not where:
        return ""
    log.error("out of memory", exc_info=error)
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None
    gc.collect()
    memory.give_back()
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if not isinstance(message, Generate):
        return f"The {where} ran out of memory ({said})."
    request = message.request
    model = find_model(found.models(settings), request.sampling.model)
    shape = f"{request.width}x{request.height}, {request.frames} frames"
    return f"The {where} ran out of memory at {shape} ({said}). {_smaller(model, request)}"


def _smaller(model: Model, request: Request) -> str:
    pixels = request.width * request.height
    sizes = sorted((size for size in model.sizes if size[0] * size[1] < pixels), key=lambda size: size[0] * size[1])
    ways = [f"the size {sizes[-1][0]}x{sizes[-1][1]}"] if sizes else []
    fewer = [count for count in model.frames if count < request.frames]
    ways += [f"{max(fewer)} frames"] if fewer else []
    return (
        f"Choose {' or '.join(ways)}." if ways else "Free memory, or choose another model: this is its smallest clip."
    )
