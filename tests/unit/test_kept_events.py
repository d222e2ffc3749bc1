"""A stream that is broken off takes no event with it."""

import asyncio
from types import SimpleNamespace

import gradio as gr
from gradio.queueing import EventQueue

from wan_ui.ui.kept_events import keep_events


def test_of_a_page_whose_stream_is_broken_off_nothing_is_dropped():
    queue = gr.Blocks()._queue
    keep_events(queue)
    lane = queue.event_queue_per_concurrency_id["lane"] = EventQueue("lane", 1)
    lane.queue.append(press := SimpleNamespace(session_hash="page", _id="press", concurrency_id="lane"))

    async def broken_off(session: str) -> None:
        """What Gradio does then."""
        del queue.pending_messages_per_session[session]
        await queue.clean_events(session_hash=session)

    async def run() -> None:
        untold, told = asyncio.Queue(), asyncio.Queue()
        queue.pending_messages_per_session.update(page=untold, other=told)
        queue.pending_event_ids_session.update(page={"press"}, other=set())
        await broken_off("page")
        assert lane.queue == [press] and queue.pending_messages_per_session["page"] is untold
        assert queue.pending_event_ids_session["page"] == {"press"}
        await broken_off("other")  # of which nothing is under way
        assert "other" not in queue.pending_messages_per_session
        await queue.clean_events(event_id="press")  # what is cancelled is dropped as ever
        assert not lane.queue

    asyncio.run(run())
