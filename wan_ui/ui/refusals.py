"""What the page shows of an error: a refusal as it is, of anything unexpected a sentence; the log has the rest."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from wan_ui.errors import UserError
from wan_ui.queue.pipeline import PIPELINE
from wan_ui.ui import form
from wan_ui.ui.markup import Markup, text
from wan_ui.ui.session import for_visitor

log = logging.getLogger(__name__)

Given = ParamSpec("Given")
Answered = TypeVar("Answered")


def guard(handler: Callable[Given, Answered]) -> Callable[Given, Answered]:
    """A refusal is shown as it is. An unexpected error keeps its traceback in the log; the page shows one."""

    @functools.wraps(handler)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Answered:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise failed(handler.__name__, error) from None

    return guarded


def failed(name: str, error: Exception) -> gr.Error:
    """What the page shows of an error that a handler did not expect."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, UserError):  # the job table is locked, or the like
        return refusal(error)
    log.error("%s failed", name, exc_info=error)
    return gr.Error("That did not work because of an error in Wan UI; its log says more.", print_exception=False)


def refusal(error: UserError) -> gr.Error:
    return gr.Error(text(for_visitor(str(error), PIPELINE.settings)), print_exception=False)


def complaint(error: UserError) -> Markup:
    """For a place of its own in the page."""
    return form.note(for_visitor(str(error), PIPELINE.settings))
