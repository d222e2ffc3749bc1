"""A job that did not fit into memory: what is given back, and what ran out, in words. What would fit instead is found
where the other jobs are known: wan_ui.queue.memory_fit."""

import gc
import logging
import traceback

from wan_ui.machine import memory
from wan_ui.queue.messages import Generate

log = logging.getLogger(__name__)


def refusal(error: Exception, message: object) -> tuple[str, str]:
    """Words for the person whose job this is, and whose memory ran out, GPU or machine; ("", "") where the error is
    another. What the job held is let go."""
    where = memory.ran_out(error)
    if not where:
        return "", ""
    log.error("out of memory", exc_info=error)
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None
    gc.collect()
    memory.give_back()
    said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if not isinstance(message, Generate):
        return f"The {where} ran out of memory ({said}).", where
    shape = f"{message.request.width}x{message.request.height}, {message.request.frames} frames"
    return f"The {where} ran out of memory at {shape} ({said}).", where
