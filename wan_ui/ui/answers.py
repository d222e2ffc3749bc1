"""Handlers answer with {name of a part: its update}; Gradio wants a list in the order of an event's outputs."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from gradio.events import Dependency

from wan_ui.ui.markup import Markup

Answer = dict[str, Any]  # name of a part of the page -> the update of its component, or its value


class Options(TypedDict, total=False):
    """How an event is answered, as Gradio's listeners take it."""

    api_visibility: Literal["public", "private", "undocumented"]
    preprocess: bool
    show_progress: Literal["full", "minimal", "hidden"]
    show_progress_on: list[Component]
    trigger_mode: Literal["once", "multiple", "always_last"] | None
    concurrency_limit: int | None
    concurrency_id: str


def in_order(answer: Answer, parts: Collection[str]) -> list[Any]:
    """The updates in the order of `parts`; what is not named stays as it is. Raises KeyError for an unknown name."""
    if unknown := [name for name in answer if name not in parts]:
        raise KeyError(f"the answer names {', '.join(unknown)}; the event's outputs are {', '.join(parts)}")
    return [answer.get(name, gr.skip()) for name in parts]


def check_drawn(part: Block, update: Any) -> None:
    """What becomes HTML in the page is Markup: raises TypeError for a text that was never escaped."""
    value = update.get("value") if isinstance(update, dict) else update
    if isinstance(part, gr.HTML) and value and isinstance(value, str) and not isinstance(value, Markup):
        raise TypeError(f"{part.elem_id or 'a gr.HTML'} is drawn with Markup, and not with {value[:80]!r}")


def connect(
    listen: Callable[..., Dependency],
    handler: Callable[..., Answer],
    inputs: Sequence[Component],
    parts: Mapping[str, Block],
    js: str | None = None,
    **options: Unpack[Options],
) -> Dependency:
    """Let `handler` answer the event.

    listen  a component's listener, as `button.click`
    parts   the outputs by name
    js      a function of the inputs in the browser, which gives what is sent

    Where the browser waits for the last answer ("always_last") Gradio 6.31 remembers that something has changed
    meanwhile, and then repeats the whole event: every handler of it, each of which finds others busy and has the
    event repeated in turn. Two changes in one moment were a hundred requests a second, for minutes. A handler that
    comes after the event, by itself, is repeated alone.
    """
    if options.get("trigger_mode") == "always_last":
        listen = listen(None, js="() => {}", api_visibility="private", show_progress="hidden").then

    @functools.wraps(handler)  # Gradio looks at what a handler takes
    def listed(*args: Any, **kwargs: Any) -> Any:
        answer = handler(*args, **kwargs)
        updates = in_order(answer, parts)
        for name, update in answer.items():
            check_drawn(parts[name], update)
        return updates if len(updates) != 1 else updates[0]

    return listen(listed, list(inputs), list(parts.values()), js=js, **options)


def afterwards(answered: Dependency, js: str, **options: Unpack[Options]) -> None:
    """Run a function in the browser when an event has been answered, or refused: what comes by `then` alone is not run
    by Gradio 6.31 after a refusal."""
    for come in (answered.then, answered.failure):
        come(None, js=js, **options)


def on(listeners: Sequence[Callable[..., Dependency]]) -> Callable[..., Dependency]:
    """One listener for any of these events."""
    return functools.partial(gr.on, listeners)
