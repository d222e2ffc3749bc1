"""Answers by name become Gradio's lists."""

import gradio as gr
import pytest

from wan_ui.ui.answers import connect, in_order

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
