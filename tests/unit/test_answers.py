"""Answers by name become Gradio's lists."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from wan_ui.ui.answers import connect, in_order
from wan_ui.ui.security import CheckedBlocks

PARTS = ("card", "seed", "view")


def test_what_is_not_named_stays_as_it_is():
    assert in_order({"view": 3, "card": None}, PARTS) == [None, gr.skip(), 3]


def test_a_name_that_the_event_does_not_answer_for_fails_and_is_said():
    with pytest.raises(KeyError, match="the answer names sead; the event's outputs are card, seed, view"):
        in_order({"sead": 1}, PARTS)


def test_an_event_is_answered_in_the_order_of_its_own_outputs():
    with gr.Blocks() as page:
        button, first, second = gr.Button(), gr.Textbox(), gr.Textbox()
        connect(button.click, lambda value: {"second": value}, [first], {"first": first, "second": second})
        connect(button.click, lambda value: {"second": value}, [first], {"second": second})
    many, one = page.fns.values()
    assert many.outputs == [first, second] and many.fn("x") == [gr.skip(), "x"]
    assert one.fn("x") == "x"


@pytest.mark.parametrize(
    "given, drawn",
    [
        ([gr.skip(), "x", gr.skip(), gr.update(visible=False)], [gr.skip(), "x", None, gr.update(visible=False)]),
        ([gr.skip(), gr.skip(), 5, gr.skip()], [gr.skip(), gr.skip(), None, gr.skip()]),
        ([gr.skip()] * 4, [gr.skip(), gr.skip(), None, gr.skip()]),
    ],
)
def test_what_is_skipped_is_not_made_anew(given, drawn):
    with CheckedBlocks() as page:
        parts = [gr.HTML(), gr.Textbox(), gr.State(1), gr.Textbox()]
        gr.Button().click(lambda: None, None, parts)
    state, function = SessionState(page), next(iter(page.fns.values()))
    with ThreadPoolExecutor(1) as thread:  # a browser's test may have left a loop here
        answer = thread.submit(asyncio.run, page.postprocess_data(function, list(given), state)).result()
    assert answer == drawn
    assert [state[part._id] is part for part in parts[:2]] == [True, True]
    assert state[parts[2]._id] == (5 if 5 in given else 1)
